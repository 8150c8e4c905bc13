// The whole plan: golden reports for the worked example and for each decision rule, bad input, calibration, the probe.
//
// A golden file is rewritten when NAUTILE_UPDATE_GOLDEN is set for this test; look at the difference before committing.
#include "plan/plan.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "plan/calibrate.h"
#include "plan/probe.h"
#include "plan/validate.h"
#include "plan/words.h"

using namespace nautile;
using namespace nautile::plan;

namespace {
const PlanData& data() {
  static const PlanData kData = load_data().value();
  return kData;
}
int64_t day(const char* text) {
  return parse_date(text, "test").value();
}

Request example() {
  Request r;
  r.model = "v4-pro";
  r.hardware = "gb300-nvl4-tray:4";
  r.min_tps = 40;
  r.rate = 6;
  r.users = 500;
  r.today = day("2026-11-24");
  return r;
}

void golden(const char* name, const Request& request, const std::set<std::string>& rules, const char* choice) {
  CAPTURE(name);
  auto made = make_plan(data(), request);
  REQUIRE_MESSAGE(made.ok(), made.status().message());
  const Plan& plan = made.value();
  REQUIRE(plan.verdict.has_value());
  const std::set<std::string> fired(plan.verdict->rules_fired.begin(), plan.verdict->rules_fired.end());
  CHECK(fired == rules);
  CHECK(plan.verdict->choice == choice);
  const std::string path = std::string(NAUTILE_SOURCE_DIR) + "/tests/golden/plan/" + name + ".txt";
  const std::string text = plan_text(plan, false);
  if (std::getenv("NAUTILE_UPDATE_GOLDEN") != nullptr) std::ofstream(path) << text;
  std::ifstream file(path);
  std::stringstream wanted;
  wanted << file.rdbuf();
  CHECK(text == wanted.str());
}
}  // namespace

TEST_CASE("golden: the worked example") {
  golden("worked_example", example(), {"u_expected"}, "pilot");
  const Plan plan = make_plan(data(), example()).value();
  REQUIRE(plan.chosen);
  CHECK(plan.chosen->layout == Layout::kDep);
  CHECK(plan.chosen->draft == 3);
  CHECK(plan.chosen->device_tps == doctest::Approx(1822).epsilon(0.01));
  CHECK(plan.verdict->cost.device_seconds == doctest::Approx(2.082).epsilon(0.005));
  CHECK(plan.verdict->cost.capacity_per_hour == doctest::Approx(6915).epsilon(0.005));
  CHECK(plan.verdict->cost.hosted_request == doctest::Approx(0.01192).epsilon(0.002));
  CHECK(plan.verdict->cost.break_even_use == doctest::Approx(0.29).epsilon(0.02));
}

TEST_CASE("the report's own flip, given back as a flag, flips the verdict") {
  Request r = example();
  r.users = 700;  // self-host
  const Plan plan = make_plan(data(), r).value();
  CHECK(plan.verdict->choice == "self-host");
  Request slow = r;
  slow.stack_factor = 3.4;  // the specification's: break-even at full use
  const Plan slower = make_plan(data(), slow).value();
  CHECK(slower.verdict->cost.break_even_use == doctest::Approx(1).epsilon(0.02));
  Request flipped = r;
  const Flip& flip = plan.verdict->flip;
  if (flip.input == "usd_per_device_hour")
    flipped.rate = flip.to;
  else if (flip.input == "requests_per_hour")
    flipped.requests_per_hour = flip.to;
  else if (flip.input == "multiplier")
    flipped.multiplier = flip.to;
  else if (flip.input == "stack_factor")
    flipped.stack_factor = flip.to;
  else if (flip.input == "hosted_price_scale") {
    const HostedRate& rate = plan.price->rate;
    flipped.hosted_price = HostedRate{rate.hit * flip.to, rate.miss * flip.to, rate.output * flip.to};
  }
  CHECK(make_plan(data(), flipped).value().verdict->choice != "self-host");
}

TEST_CASE("golden: residency on a new stack") {
  Request r = example();
  r.hardware = "mi355x:8";
  r.rate = 2.1;
  r.stack_factor = 2.5;
  r.residency = true;
  r.experimental = true;
  golden("residency_experimental", r, {"residency_required", "experimental_stack"}, "self-host");
}

TEST_CASE("golden: air-gapped CPU server with nobody to run it, price of last summer") {
  Request r = example();
  r.model = "v4-flash";
  r.hardware = "epyc-9005-1s:1";
  r.memory_gb = 384;
  r.rate = 0.6;
  r.min_tps = 0;
  r.users = 5;
  r.mode = "non-think";
  r.air_gapped = true;
  r.engineers = 0.25;
  r.today = day("2027-03-15");
  golden("air_gapped_cpu", r, {"air_gapped", "no_ops", "price_stale", "hosted_model_mismatch"}, "self-host");
}

TEST_CASE("golden: does not fit") {
  Request r = example();
  r.hardware = "h100-sxm:8";
  r.rate = 2.71;
  r.min_tps = 0;
  golden("does_not_fit", r, {"not_fit"}, "does-not-fit");
}

TEST_CASE("golden: an evaluation, hybrid") {
  Request r = example();
  r.model = "v4-flash";
  r.hardware = "rtx-5090:1+epyc-9005-1s:1";
  r.hosted = "novita";
  r.rate = 0.8;
  r.min_tps = 0;
  r.users = 2;
  golden("eval_hybrid", r, {"eval_or_small", "price_stale"}, "hosted");
}

TEST_CASE("golden: spiky") {
  Request r = example();
  r.hardware = "b200-sxm:8";
  r.rate = 5;
  r.peak_to_mean = 6;
  golden("spiky", r, {"spiky"}, "hosted");
}

TEST_CASE("golden: faster than any host") {
  Request r = example();
  r.hardware = "b200-sxm:8";
  r.rate = 5;
  r.min_tps = 190;
  r.needed_tps = 190;
  golden("latency_override", r, {"latency_override"}, "self-host");
}

TEST_CASE("golden: custom weights streamed from disk") {
  Request r = example();
  r.model = "v4-flash";
  r.hardware = "apple-m3-max-128:1";
  r.ssd = "nvme-gen4";
  r.rate = 0.2;
  r.min_tps = 0;
  r.users = 1;
  r.hosted = "novita";
  r.custom_weights = true;
  golden("custom_weights_disk", r, {"custom_weights", "price_stale"}, "self-host");
}

TEST_CASE("bad input is refused with its flag") {
  auto refuse = [&](auto change) {
    Request r = example();
    change(r);
    const Status s = make_plan(data(), r).status();
    CHECK(s.code() == Code::kInvalidArgument);
    return s.where() + ": " + s.what() + "; " + s.fix();
  };
  CHECK(refuse([](Request& r) { r.hardware = "gb300:0"; }).starts_with("--hw: \"0\" is not a number of devices"));
  CHECK(refuse([](Request& r) { r.hardware = "gb300:four"; }).starts_with("--hw"));
  CHECK(refuse([](Request& r) { r.hardware = "m1355x:4"; }).ends_with("did you mean mi355x?"));
  CHECK(refuse([](Request& r) { r.hardware = "epyc-9005-1s+gb300"; }).find("hybrid") != std::string::npos);
  CHECK(refuse([](Request& r) { r.rate = -1; }).starts_with("--rate: -1"));
  CHECK(refuse([](Request& r) { r.rate = 4380; }).ends_with("per hour that is 6.00"));
  CHECK(refuse([](Request& r) { r.context = 1048577; }).starts_with("--ctx: 1,048,577"));
  CHECK(refuse([](Request& r) { r.context = 0; }).starts_with("--ctx"));
  CHECK(refuse([](Request& r) { r.hit = 85; }).ends_with("did you mean 0.85?"));
  CHECK(refuse([](Request& r) { r.model = "v4-plus"; }).find("v4-pro") != std::string::npos);
  CHECK(refuse([](Request& r) { r.format = "mxfp"; }).find("mxfp4-q8") != std::string::npos);
  CHECK(refuse([](Request& r) { r.kv = "fp9"; }).find("fp8") != std::string::npos);
  CHECK(refuse([](Request& r) { r.mode = "hihg"; }).ends_with("did you mean high?"));
  CHECK(refuse([](Request& r) { r.hosted = "openruter"; }).ends_with("did you mean openrouter?"));
  CHECK(refuse([](Request& r) { r.ssd = "7000"; }).ends_with("did you mean 7?"));
  CHECK(refuse([](Request& r) { r.stack_factor = 0.5; }).starts_with("--stack-factor"));
  CHECK(refuse([](Request& r) { r.input_tokens = 2e6; }).starts_with("--in"));
  CHECK(refuse([](Request& r) { r.rate = std::numeric_limits<double>::quiet_NaN(); }).starts_with("--rate"));
}

TEST_CASE("what does not fit names the smallest change, and the change fits") {
  Request r = example();
  r.hardware = "h100-sxm:8";
  Plan plan = make_plan(data(), r).value();
  CHECK_FALSE(plan.fit.fits);
  REQUIRE_FALSE(plan.fit.changes.empty());
  CHECK(plan.fit.changes.front() == "13 devices of h100-sxm (16 in practice)");
  r.hardware = "h100-sxm:13";
  CHECK(make_plan(data(), r).value().fit.fits);
  r.hardware = "h100-sxm:12";
  CHECK_FALSE(make_plan(data(), r).value().fit.fits);
  // A machine whose weights fit and whose cache does not is told of a shorter context.
  Request flash = example();
  flash.model = "v4-flash";
  flash.hardware = "rtx-pro-6000-blackwell:2";
  flash.context = 1048576;
  plan = make_plan(data(), flash).value();
  CHECK_FALSE(plan.fit.fits);
  CHECK(plan.fit.changes.front().starts_with("context "));
}

TEST_CASE("JSON, SVG and page carry the plan's own numbers") {
  const Plan plan = make_plan(data(), example()).value();
  const Json json = plan_json(plan);
  CHECK(json["schema"] == "planner/1");
  CHECK(json["fit"]["weights_bytes"] == 864'704'792'696);
  CHECK(json["verdict"]["flip"]["input"].is_string());
  CHECK(json["cost"]["break_even_use"].get<double>() == plan.verdict->cost.break_even_use);
  for (const Json& a : json["assumptions"]) {
    CHECK_FALSE(a["source"].get<std::string>().empty());
    CHECK(parse_date(a["date"].get<std::string>(), "date").ok());
  }
  const std::string svg = plan_svg(plan);
  CHECK(svg.starts_with("<svg xmlns"));
  CHECK(svg.find("break-even") != std::string::npos);
  CHECK(svg.find("nan") == std::string::npos);
  CHECK(svg.find("inf,") == std::string::npos);
  const std::string page = plan_html(plan).value();
  CHECK(page.find("http://") == page.find("http://www.w3.org"));  // nothing is fetched
  CHECK(page.find("<!--FIGURES-->") == std::string::npos);
  // A plan that does not fit still has a page and figures.
  Request small = example();
  small.hardware = "h100-sxm:8";
  CHECK(plan_html(make_plan(data(), small).value()).ok());
}

TEST_CASE("calibration finds the constants that made the points") {
  Request r;
  r.hardware = "b200-sxm:8";
  const Machine machine = parse_machine(data(), r).value();
  const Arithmetic model = count(data().model("v4-flash").value()->config);
  Load load;
  load.model = &model;
  Tuning truth = default_tuning(data(), machine);
  truth.fixed_us = 410;
  truth.bandwidth_use = 0.55;
  truth.prefill_compute_use = 0.1;
  Json points = Json::array();
  for (int64_t batch : {1, 8, 64, 256}) {
    load.context = 8192;
    points.push_back({{"kind", "decode"},
                      {"context", 8192},
                      {"batch", batch},
                      {"tok_s", operating_point(load, machine, Layout::kTp, batch, 0, truth).user_tps *
                                    static_cast<double>(batch)}});
  }
  points.push_back({{"kind", "prefill"}, {"context", 8192}, {"tok_s", prefill_rate(load, machine, 8192, truth) * 8}});
  const Json file = {
      {"schema", "planner-calibration/1"}, {"model", "v4-flash"}, {"hw", "b200-sxm:8"}, {"points", points}};
  const Calibration fit = calibrate(data(), file.dump(), "measured.json").value();
  CHECK(fit.rms_before > 0.3);
  CHECK(fit.rms_after < 0.01);
  CHECK(fit.after.fixed_us == doctest::Approx(410).epsilon(0.03));
  CHECK(fit.after.bandwidth_use == doctest::Approx(0.55).epsilon(0.05));
  CHECK(fit.after.prefill_compute_use == doctest::Approx(0.1).epsilon(0.01));
  const Tuning read = parse_tuning(tuning_json(fit.after, "m").dump(), "t", default_tuning(data(), machine)).value();
  CHECK(read.fixed_us == fit.after.fixed_us);
  Json bad = file;
  bad["points"][0]["tok_s"] = 0;
  CHECK(calibrate(data(), bad.dump(), "m").status().where() == "m.points[0]");
  bad["points"] = Json::array();
  CHECK_FALSE(calibrate(data(), bad.dump(), "m").ok());
  CHECK_FALSE(calibrate(data(), "[]", "m").ok());
}

TEST_CASE("a layer is foretold by the constants and by the other kinds, from the read rate beside it") {
  Measurements m;
  m.read_gbs = 80;
  m.bf16_tflops = 1;
  m.layers = {{0, 48, 1000, 0.005, 200'000'000, 256, 0.2}, {4, 48, 1000, 0.006, 240'000'000, 256, 0.2}};
  m.layers[0].read_gbs = 50;  // 4 ms at that rate
  m.layers[0].decode_operations = 760'000'000;
  m.layers[1].read_gbs = 60;  // 4 ms
  m.layers[1].decode_operations = 6'000'000'000;
  const double use = data().constant("cpu_bandwidth_use"), peak = data().constant("cpu_prefill_use");
  const double fixed = data().constant("cpu_fixed_us_per_layer") * 1e-6;
  const auto found = foretell_layers(data(), m);
  REQUIRE(found.size() == 2);
  CHECK(found[0].ratio == doctest::Approx(1.25));
  CHECK(found[1].ratio == doctest::Approx(1.5));
  CHECK(found[0].seconds == doctest::Approx(0.004 / use + fixed));
  CHECK(found[0].error == doctest::Approx(found[0].seconds / 0.005 - 1));
  CHECK(found[1].seconds == doctest::Approx(0.006 / peak + fixed));  // longer than reading
  CHECK(found[0].error_other_kinds == doctest::Approx(0.2));       // 1.5 taken for 1.25
  CHECK(found[1].error_other_kinds == doctest::Approx(-1.0 / 6));  // 1.25 taken for 1.5
  m.layers.resize(1);
  CHECK(foretell_layers(data(), m)[0].error_other_kinds == 0);
}

TEST_CASE("our own layers are foretold by the CPU model within a tenth") {
  const Validation v = validate(data());
  REQUIRE(v.own.size() == 14);
  CHECK(v.own_in_sample.rows == 2);
  CHECK(v.own_held_out.rows == 12);
  CHECK(std::fabs(v.own_in_sample.mean_ln) < 0.05);  // the constants have two digits
  CHECK(v.own_held_out.within_2 == 12);
  CHECK(v.own_within_quarter == 12);
  CHECK(v.own_held_out.rms_ln < 0.1);
}

TEST_CASE("the probe's predictions rest on its layers, and say so when there are none") {
  Measurements m;
  m.cpu = "test CPU";
  m.date = "2026-11-24";
  m.threads = 2;
  m.read_gbs = m.read_low_gbs = m.read_high_gbs = 60;
  m.bf16_tflops = 0.8;
  m.memory_bytes = int64_t{256} << 30;
  m.layer_problem = "--no-layer";
  Probe probe = predict_probe(data(), m, 8192);
  REQUIRE(probe.models.size() == 2);
  CHECK(probe.models[0].decode_tps_layers == 0);
  CHECK(probe_text(probe).find("no layer was measured (--no-layer)") != std::string::npos);
  CHECK_FALSE(probe.models[0].fit.fits);  // Pro
  CHECK(probe.models[1].fit.fits);        // Flash in 256 GiB
  m.layer_model = "deepseek-v4-flash";
  m.layer_problem.clear();
  for (int ratio : {0, 4, 128}) {
    MeasuredLayer layer{ratio, 160, 512, 0.005, 240'000'000, 256, 0.5};
    m.layers.push_back(layer);
  }
  probe = predict_probe(data(), m, 8192);
  const Arithmetic flash = count(data().model("v4-flash").value()->config);
  CHECK(probe.models[1].decode_tps_layers ==
        doctest::Approx(1 / (43 * 0.005 + static_cast<double>(flash.head_bytes) / 60e9)));
  CHECK(probe.models[1].prefill_tps_layers == doctest::Approx(256 / (43 * 0.5)));
  CHECK(probe.foretold[0].ratio == doctest::Approx(0.005 / (240e6 / 60e9)));
  CHECK(probe.models[0].decode_tps_layers == 0);  // Pro's layers were not run
  CHECK(probe.models[0].layers == 61);
  // All kinds at 1.25 times the memory's time: so is Pro, but for its head.
  const Arithmetic pro = count(data().model("v4-pro").value()->config);
  const double pro_seconds = static_cast<double>(probe.models[0].decode_bytes) / 60e9 * 1.25 -
                             0.25 * static_cast<double>(pro.head_bytes) / 60e9;
  CHECK(probe.models[0].decode_tps_shares == doctest::Approx(1 / pro_seconds).epsilon(1e-3));
  CHECK(probe.models[0].prefill_tps_shares > 0.2 * probe.models[1].prefill_tps_layers);
  CHECK(probe.models[0].prefill_tps_shares < 0.4 * probe.models[1].prefill_tps_layers);
  // The measured machine can be planned on.
  const auto own = load_hardware(probe_hardware(m).dump(), "own.json");
  REQUIRE(own.ok());
  Request r = example();
  r.model = "v4-flash";
  r.min_tps = 0;
  r.extra_hardware = own.value();
  r.hardware = "this-machine";
  CHECK(make_plan(data(), r).value().chosen.has_value());
}
