// nautile plan probe: measures this machine and says what V4 would do on it.
#include <fmt/format.h>

#include <chrono>

#include "plan.h"
#include "plan/probe.h"
#include "plan/words.h"
#include "plan_layer.h"
#include "sys/file.h"
#include "sys/machine.h"
#include "sys/probe.h"

namespace nautile {
namespace {

// Enough experts to be far above any cache (640 MB of V4-Flash), few enough to be made within seconds.
constexpr int kExperts = 48;

struct ProbeFlags {
  PlanFlags common;
  std::string model = "v4-flash", disk, save, isa = "auto", context = "8k";
  double layer_memory_gb = 0;
  int threads = 0;
  bool json = false, no_layer = false;
};

constexpr double kBesideSeconds = 1;  // of reading before and after each layer

// Far above any cache, and leaves room for others.
size_t buffer_bytes(const MemoryFound& memory) {
  return std::min<size_t>(size_t{2} << 30, memory.available_bytes / 4);
}

std::string today() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return plan::date_text(std::chrono::duration_cast<std::chrono::hours>(now).count() / 24);
}

Status measure_layers(const ProbeFlags& flags, const plan::ModelEntry& entry, const MemoryFound& memory,
                      ThreadPool& pool, plan::Measurements& found) {
  if (flags.no_layer) {
    found.layer_problem = "--no-layer";
    return {};
  }
  LayerBudget budget;
  budget.isa = flags.isa;
  budget.memory_bytes =
      flags.layer_memory_gb > 0 ? static_cast<size_t>(flags.layer_memory_gb * 1e9) : memory.available_bytes / 3;
  if (flags.layer_memory_gb == 0) budget.experts = kExperts;
  std::string_view shape_name = entry.id;
  if (shape_name.starts_with("deepseek-")) shape_name.remove_prefix(9);
  NAUTILE_ASSIGN(const ModelConfig shape, shape_config(shape_name));
  bool has[3] = {};
  for (int ratio : shape.compress_ratios) has[ratio == 0 ? 0 : ratio == 4 ? 1 : 2] = true;
  // The machine's pace changes by the minute: each layer stands between two readings of the bandwidth.
  double before = 0;
  for (int kind = 0; kind < 3; ++kind) {
    if (!has[kind]) continue;
    if (before == 0) {
      NAUTILE_ASSIGN(const BandwidthProbe first, probe_read_bandwidth(pool, buffer_bytes(memory), kBesideSeconds));
      before = first.gbs;
    }
    const auto layer = measure_layer(shape, kind == 0 ? 0 : kind == 1 ? 4 : 128, budget, pool);
    if (!layer.ok()) {
      // Too little memory is an answer about this machine; anything else is a failure of the probe.
      if (layer.status().code() != Code::kResourceExhausted) return layer.status();
      found.layer_problem = layer.status().what();
      found.layers.clear();
      return {};
    }
    NAUTILE_ASSIGN(const BandwidthProbe after, probe_read_bandwidth(pool, buffer_bytes(memory), kBesideSeconds));
    found.layers.push_back(layer.value());
    found.layers.back().read_gbs = (before + after.gbs) / 2;
    before = after.gbs;
  }
  found.layer_model = entry.id;
  return {};
}

int probe(const ProbeFlags& flags) {
  const auto data = flags.common.load();
  if (!data.ok()) return fail_plan(data.status());
  const auto entry = data.value().model(flags.model);
  if (!entry.ok()) return fail_plan(entry.status());
  const auto context = plan::parse_tokens(flags.context, "--ctx");
  if (!context.ok()) return fail_plan(context.status());
  if (context.value() < 1 || context.value() > entry.value()->config.max_positions) {
    return fail_plan({Code::kInvalidArgument,
                      fmt::format("{} tokens is outside 1 to {}", context.value(), entry.value()->config.max_positions),
                      "--ctx"});
  }
  if (flags.threads < 0 || flags.threads > 1024)
    return fail_plan({Code::kInvalidArgument, fmt::format("{} threads", flags.threads), "--threads",
                      "give 1 to 1024, or 0 for one a core"});
  ThreadPool pool(flags.threads == 0 ? usable_cores() : flags.threads);
  const MemoryFound memory = probe_memory();
  plan::Measurements found;
  found.cpu = cpu_name();
  found.date = today();
  found.threads = pool.threads();
  found.memory_bytes = static_cast<int64_t>(memory.total_bytes);
  const auto bandwidth = probe_read_bandwidth(pool, buffer_bytes(memory), 4);
  if (!bandwidth.ok()) return fail_plan(bandwidth.status());
  found.read_gbs = bandwidth.value().gbs;
  found.read_low_gbs = bandwidth.value().low_gbs;
  found.read_high_gbs = bandwidth.value().high_gbs;
  found.streams = bandwidth.value().streams;
  found.fetched = bandwidth.value().fetched;
  const std::vector<PeakRow> peaks = probe_peak(pool, 0.5);
  for (const PeakRow& row : peaks) found.units.emplace_back(row.name, row.tflops);
  // Without the matrix unit, of which the engine reaches a smaller share than of the others.
  found.bf16_tflops = peaks_of(peaks, "avx512").float_tflops;
  if (!flags.disk.empty()) {
    const auto disk = probe_disk(flags.disk, 5);
    if (!disk.ok()) return fail_plan(disk.status());
    found.disk_gbs = disk.value().gbs;
    found.disk_direct = disk.value().direct;
  }
  if (Status layers = measure_layers(flags, *entry.value(), memory, pool, found); !layers.ok())
    return fail_plan(layers);
  if (!flags.save.empty()) {
    if (Status written = real_files()->write(flags.save, plan::probe_hardware(found).dump(1) + "\n"); !written.ok())
      return fail_plan(written);
  }
  const plan::Probe result = plan::predict_probe(data.value(), found, context.value());
  if (flags.json) {
    print_json(plan::probe_json(result));
  } else {
    fmt::print("{}", plan::probe_text(result));
  }
  return kExitDone;
}

}  // namespace

void add_plan_probe(CLI::App& plan_verb, Run& run) {
  auto flags = std::make_shared<ProbeFlags>();
  auto* verb = plan_verb.add_subcommand("probe",
                                        "example: nautile plan probe --model v4-flash\nMeasure this machine within a "
                                        "minute and say what V4 would do on it.");
  flags->common.add_data(*verb);
  verb->add_option("--model", flags->model, "the shape whose layers are run: v4-flash or v4-pro");
  verb->add_option("--ctx", flags->context, "context of the predictions: 8k, 1m");
  verb->add_option("--disk", flags->disk, "also read this file, to measure its disk");
  verb->add_option("--threads", flags->threads, "0: one a core");
  verb->add_option("--isa", flags->isa, "kernels to run the layer with");
  verb->add_option("--layer-memory-gb", flags->layer_memory_gb,
                   "memory a layer may take (default: what 48 experts take, or a third of what is free)")
      ->check(CLI::NonNegativeNumber);
  verb->add_flag("--no-layer", flags->no_layer, "measure memory and units only");
  verb->add_option("--save", flags->save, "write this machine here, for --hw-file");
  verb->add_flag("--json", flags->json, "print JSON, schema planner/1");
  verb->callback([flags, &run] { run = [flags] { return probe(*flags); }; });
}

}  // namespace nautile
