// The performance model reproduces the figures it was described with, and behaves: more bandwidth is never slower.
#include "plan/speed.h"

#include <doctest/doctest.h>

#include "plan/validate.h"

using namespace nautile;
using namespace nautile::plan;

namespace {
const PlanData& data() {
  static const PlanData kData = load_data().value();
  return kData;
}
struct Setup {
  Arithmetic model;
  Machine machine;
  Load load;
  Tuning tuning;
};
Setup setup(const char* model, const char* hw, int devices, int64_t context) {
  Setup s;
  static const Arithmetic kPro = count(data().model("v4-pro").value()->config);
  static const Arithmetic kFlash = count(data().model("v4-flash").value()->config);
  s.model = std::string_view(model) == "v4-pro" ? kPro : kFlash;
  s.machine.device = *data().device(hw).value();
  s.machine.devices = devices;
  s.tuning = default_tuning(data(), s.machine);
  s.load.context = context;
  return s;
}
double user(Setup s, Layout layout, int64_t batch, int draft) {
  s.load.model = &s.model;
  return operating_point(s.load, s.machine, layout, batch, draft, s.tuning).user_tps;
}
}  // namespace

TEST_CASE("the described points are reproduced") {
  CHECK(user(setup("v4-pro", "b200-sxm", 8, 4096), Layout::kTp, 1, 3) == doctest::Approx(211).epsilon(0.01));
  CHECK(user(setup("v4-pro", "b200-sxm", 8, 900000), Layout::kTp, 1, 3) == doctest::Approx(208).epsilon(0.01));
  CHECK(user(setup("v4-flash", "h200-sxm", 4, 4096), Layout::kTp, 1, 3) == doctest::Approx(276).epsilon(0.01));
  CHECK(user(setup("v4-flash", "h200-sxm", 4, 900000), Layout::kTp, 1, 3) == doctest::Approx(266).epsilon(0.01));
  CHECK(user(setup("v4-flash", "rtx-pro-6000-blackwell", 4, 4096), Layout::kTp, 1, 0) ==
        doctest::Approx(108).epsilon(0.01));
  CHECK(user(setup("v4-flash", "rtx-pro-6000-blackwell", 2, 4096), Layout::kTp, 1, 2) ==
        doctest::Approx(139).epsilon(0.01));
  CHECK(user(setup("v4-flash", "dgx-spark-gb10", 2, 4096), Layout::kTp, 1, 0) == doctest::Approx(28).epsilon(0.02));
  Setup gb300 = setup("v4-pro", "gb300-nvl4-tray", 4, 32768);
  gb300.load.model = &gb300.model;
  CHECK(prefill_rate(gb300.load, gb300.machine, 30000, gb300.tuning) == doctest::Approx(13813).epsilon(0.005));
  const Operating point = operating_point(gb300.load, gb300.machine, Layout::kDep, 182, 3, gb300.tuning);
  CHECK(point.device_tps == doctest::Approx(1822).epsilon(0.002));
  CHECK(point.user_tps == doctest::Approx(40).epsilon(0.001));
  CHECK(user(setup("v4-pro", "gb200-nvl72", 8, 4096), Layout::kTp, 1, 3) == doctest::Approx(212).epsilon(0.01));
}

TEST_CASE("minimum devices of the specification, one sequence of a million tokens") {
  auto least = [](const char* model, const char* hw) {
    for (int g = 1; g < 64; ++g) {
      Setup s = setup(model, hw, g, 1048576);
      s.load.model = &s.model;
      if (residence(s.load, s.machine, Layout::kTp).fits) return g;
    }
    return 0;
  };
  CHECK(least("v4-pro", "h200-sxm") == 8);
  CHECK(least("v4-pro", "b200-sxm") == 6);
  CHECK(least("v4-pro", "gb300-nvl72") == 4);
  CHECK(least("v4-pro", "mi355x") == 4);
  CHECK(least("v4-pro", "rtx-pro-6000-blackwell") == 12);
  CHECK(least("v4-flash", "h100-sxm") == 3);
  CHECK(least("v4-flash", "h200-sxm") == 2);
  CHECK(least("v4-flash", "b200-sxm") == 2);
  CHECK(least("v4-flash", "mi355x") == 1);
  CHECK(least("v4-flash", "dgx-spark-gb10") == 2);
}

TEST_CASE("better hardware is never slower, longer context never faster") {
  for (const Hardware& hw : data().hardware) {
    for (const char* model : {"v4-pro", "v4-flash"}) {
      Setup s = setup(model, hw.id.c_str(), 8, 32768);
      if (hw.device_class == DeviceClass::kCpu) s.machine.placement = Placement::kCpu;
      const double base = user(s, Layout::kTp, 8, 0);
      Setup wider = s;
      wider.machine.device.bandwidth_tbs *= 1.5;
      CHECK(user(wider, Layout::kTp, 8, 0) > base);
      Setup deeper = s;
      deeper.load.context = 1048576;
      CHECK(user(deeper, Layout::kTp, 8, 0) < base);
      Setup slower = s;
      slower.tuning.stack_factor = 2;
      CHECK(user(slower, Layout::kTp, 8, 0) == doctest::Approx(base / 2));
    }
  }
}

TEST_CASE("a hybrid lies between the host alone and the device alone; a disk only slows") {
  Setup cpu = setup("v4-flash", "epyc-9005-1s", 1, 32768);
  cpu.machine.placement = Placement::kCpu;
  Setup hybrid = setup("v4-flash", "rtx-5090", 1, 32768);
  hybrid.machine.placement = Placement::kHybrid;
  hybrid.machine.host = *data().device("epyc-9005-1s").value();
  const double alone = user(cpu, Layout::kTp, 1, 0), both = user(hybrid, Layout::kTp, 1, 0);
  CHECK(both > alone);
  CHECK(both < user(setup("v4-flash", "rtx-pro-6000-blackwell", 2, 32768), Layout::kTp, 1, 0));
  Setup streamed = cpu;
  streamed.machine.device.memory_gb = 64;
  streamed.machine.ssd_read_gbs = 12;
  const double slow = user(streamed, Layout::kTp, 1, 0);
  CHECK(slow < alone);
  streamed.machine.ssd_read_gbs = 6;
  CHECK(user(streamed, Layout::kTp, 1, 0) < slow);
}

TEST_CASE("a CPU hides the shorter of reading and computing; a short prompt reads as much as a long one") {
  Setup s = setup("v4-flash", "epyc-9005-1s", 1, 32768);
  s.machine.placement = Placement::kCpu;
  s.machine.device.bf16_tflops = 1000;  // nothing but bytes counts
  const double base = user(s, Layout::kTp, 1, 0);
  Setup stronger = s;
  stronger.machine.device.bf16_tflops = 10000;
  CHECK(user(stronger, Layout::kTp, 1, 0) == doctest::Approx(base));
  Setup weaker = s;
  weaker.machine.device.bf16_tflops = 0.01;  // nothing but operations
  Setup wider = weaker;
  wider.machine.device.bandwidth_tbs *= 10;
  CHECK(user(wider, Layout::kTp, 1, 0) == doctest::Approx(user(weaker, Layout::kTp, 1, 0)));
  s.load.model = &s.model;
  CHECK(prefill_rate(s.load, s.machine, 512, s.tuning) > 2 * prefill_rate(s.load, s.machine, 128, s.tuning));
}

TEST_CASE("in a hybrid, caches push experts to the host and cost speed") {
  Setup s = setup("v4-flash", "rtx-5090", 1, 32768);
  s.load.model = &s.model;
  s.machine.placement = Placement::kHybrid;
  s.machine.host = *data().device("epyc-9005-1s").value();
  const int64_t most = max_sequences(s.load, s.machine, Layout::kTp);
  CHECK(most > 10);
  // All experts on the host and all caches on the device is the most there can be.
  const double rest = static_cast<double>(weight_bytes(s.model, WeightFormat::kOfficial) -
                                          routed_bytes(s.model, WeightFormat::kOfficial));
  const double cache =
      static_cast<double>(kv_bytes(s.model, 32768, KvFormat::kFp8Fp4) + compressor_state_bytes(s.model));
  CHECK(most == static_cast<int64_t>((usable_bytes(s.machine, s.machine.device) - rest) / cache));
  s.machine.host->memory_gb = 100;  // cannot take 147 GB of experts
  CHECK(max_sequences(s.load, s.machine, Layout::kTp) == 0);
}

TEST_CASE("the Pareto front holds every point that nothing beats") {
  Setup s = setup("v4-pro", "gb300-nvl4-tray", 4, 32768);
  s.load.model = &s.model;
  const auto all = sweep(s.load, s.machine, s.tuning, {});
  const auto front = pareto(all);
  REQUIRE(front.size() > 5);
  for (size_t i = 1; i < front.size(); ++i) {
    CHECK(front[i].user_tps > front[i - 1].user_tps);
    CHECK(front[i].device_tps < front[i - 1].device_tps);
  }
  for (const Operating& point : all) {
    const bool beaten_or_on = std::any_of(front.begin(), front.end(), [&](const Operating& f) {
      return f.user_tps >= point.user_tps && f.device_tps >= point.device_tps;
    });
    CHECK(beaten_or_on);
  }
}

TEST_CASE("validation keeps the two samples apart and scores both") {
  const Validation v = validate(data());
  CHECK(v.in_sample.rows == 35);
  CHECK(v.held_out.rows + v.in_sample.rows + v.not_predicted == static_cast<int>(data().published.size()));
  CHECK(v.in_sample.rms_ln < 0.60);
}
