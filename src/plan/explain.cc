// The article's figures, each recomputed: where they hold and where they cannot.
#include <fmt/format.h>

#include <cmath>

#include "plan/plan.h"
#include "plan/words.h"

namespace nautile::plan {

std::string explain_text(const PlanData& data) {
  std::string out =
      "What \"DeepSeek V4 on NVIDIA: Specs, GPU Needs & Cost\" (DecodeTheFuture, June 2026) says, recomputed\n";
  auto say = [&](const char* claim, const std::string& answer) { out += fmt::format("\n* {}\n  {}\n", claim, answer); };
  const auto pro_entry = data.model("v4-pro"), flash_entry = data.model("v4-flash");
  if (!pro_entry.ok() || !flash_entry.ok()) return "the data hold no V4-Pro and V4-Flash to explain\n";
  const Arithmetic pro = count(pro_entry.value()->config), flash = count(flash_entry.value()->config);
  say("V4-Flash 284B / 13B is \"directional\"",
      fmt::format("It is exact: {} parameters, {} active per token. The checkpoint rebuilt from the config has {} "
                  "bytes; the published index says {}.",
                  with_commas(flash.params), with_commas(flash.active),
                  with_commas(weight_bytes(flash, WeightFormat::kOfficial)),
                  with_commas(flash_entry.value()->published_bytes)));
  say("V4-Pro takes about 500 GB in FP8 and 1 TB in BF16",
      fmt::format("It cannot: {} parameters x 1 byte are {} with scales, x 2 bytes {}. The official FP4+FP8 mix is {}. "
                  "500 GB and 1 TB belong to a\n"
                  "  pre-release guess of a 1T model.",
                  with_commas(pro.params_with_draft()), both_units(weight_bytes(pro, WeightFormat::kFp8)),
                  both_units(weight_bytes(pro, WeightFormat::kBf16)),
                  both_units(weight_bytes(pro, WeightFormat::kOfficial))));
  say("NVFP4 is smaller still",
      fmt::format("Smaller than FP8, larger than what ships: MXFP4 has a scale byte per 32 values (17/32 byte each), "
                  "NVFP4 one per 16 (9/16 byte):\n"
                  "  {} routed parameters x (9/16 - 17/32) = {} more; {} against {}.",
                  with_commas(pro.expert_params),
                  both_units(routed_bytes(pro, WeightFormat::kNvfp4) - routed_bytes(pro, WeightFormat::kOfficial)),
                  both_units(weight_bytes(pro, WeightFormat::kNvfp4)),
                  both_units(weight_bytes(pro, WeightFormat::kOfficial))));
  const auto tray = data.device("gb300-nvl4-tray");
  if (tray.ok()) {
    Machine machine;
    machine.device = *tray.value();
    machine.devices = 4;
    Load load;
    load.model = &pro;
    load.context = 1048576;
    const Fit fit = fit_of(load, machine);
    say("4x GB300 is the reference node",
        fmt::format("It {}: {} of weights per GPU of {:g} GB under tensor parallelism; {} left on each for caches; {} "
                    "sequences of a million tokens at once.",
                    fit.fits ? "fits" : "does not fit", both_units(weight_bytes(pro, WeightFormat::kOfficial) / 4),
                    machine.device.memory_gb,
                    both_units(static_cast<int64_t>(std::max(0.0, residence(load, machine, Layout::kTp).device_free))),
                    max_sequences(load, machine, Layout::kTp)));
  }
  std::string single;
  for (const Hardware& hw : data.hardware) {
    Machine machine;
    machine.device = hw;
    machine.placement = hw.device_class == DeviceClass::kCpu ? Placement::kCpu : Placement::kDevices;
    Load load;
    load.model = &flash;
    load.context = 131072;
    for (WeightFormat format : {WeightFormat::kOfficial, WeightFormat::kIq2}) {
      load.format = format;
      if (!residence(load, machine, Layout::kTp).fits) continue;
      single += fmt::format("{}{} ({})", single.empty() ? "" : ", ", hw.id, weight_format_id(format));
      break;
    }
  }
  say("There is no single-card path", fmt::format("True for Pro. V4-Flash at 128K tokens fits one of: {}.", single));
  std::string table = fmt::format(
      "The cache share holds from 128K on, the FLOPs share at a million tokens alone:\n  {:>10} {:>12} {:>12} {:>12} "
      "{:>12}\n",
      "context", "Pro cache", "Flash cache", "Pro FLOPs", "Flash FLOPs");
  for (int64_t tokens : {int64_t{8192}, int64_t{131072}, int64_t{1000000}}) {
    const double cache = static_cast<double>(v32_kv_bytes(data.v32, tokens)),
                 work = static_cast<double>(v32_fp8_operations(data.v32, tokens));
    table += fmt::format("  {:>10} {:>12.3f} {:>12.3f} {:>12.3f} {:>12.3f}\n", with_commas(tokens),
                         static_cast<double>(kv_bytes(pro, tokens, KvFormat::kFp8Fp4)) / cache,
                         static_cast<double>(kv_bytes(flash, tokens, KvFormat::kFp8Fp4)) / cache,
                         static_cast<double>(fp8_operations(pro, tokens).total()) / work,
                         static_cast<double>(fp8_operations(flash, tokens).total()) / work);
  }
  table += fmt::format(
      "  shares of V3.2, FP8-equivalent FLOPs (FP8 and FP4-weight products 1, FP4 index scores 0.5, BF16 work 2); "
      "counted raw, Pro\n"
      "  at a million is {:.3f} and Flash {:.3f}.",
      static_cast<double>(raw_operations(pro, 1000000).total()) /
          static_cast<double>(v32_raw_operations(data.v32, 1000000)),
      static_cast<double>(raw_operations(flash, 1000000).total()) /
          static_cast<double>(v32_raw_operations(data.v32, 1000000)));
  say("KV cache -90%, FLOPs -73%", table);
  std::string prices = "The article names none. DeepSeek's own rows for V4-Pro, USD per Mtok hit / miss / output:";
  bool rerouted = false;
  for (const HostedPrice& row : data.prices) {
    rerouted = rerouted || !row.warning.empty();
    if (row.provider != "deepseek" || row.model.find("v4-pro") == std::string::npos || !row.miss || !row.output)
      continue;
    prices += fmt::format("\n  {} {:>8}: {:g} / {:g} / {:g}", row.valid_from, row.window, row.hit.value_or(*row.miss),
                          *row.miss, *row.output);
  }
  if (rerouted)
    prices +=
        "\n  The hosted name deepseek-v4-flash now answers with another model's weights: compare V4-Flash with another "
        "host's price.";
  say("The price of a hosted endpoint", prices);
  return out;
}

}  // namespace nautile::plan
