// Predictions from measurements.
#include "plan/probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "plan/words.h"

namespace nautile::plan {
namespace {

double layer_read(const Measurements& measured, const MeasuredLayer& layer) {
  return layer.read_gbs > 0 ? layer.read_gbs : measured.read_gbs;
}

const char* kind_name(int ratio) {
  return ratio == 0 ? "window" : ratio == 4 ? "CSA" : "HCA";
}

Machine machine_of(const Measurements& measured) {
  Machine machine;
  machine.placement = Placement::kCpu;
  machine.measured = true;
  Hardware& hw = machine.device;
  hw.id = "this machine";
  hw.device_class = DeviceClass::kCpu;
  hw.memory_gb = static_cast<double>(measured.memory_bytes) / 1e9;
  hw.bandwidth_tbs = measured.read_gbs / 1000;
  hw.bf16_tflops = measured.bf16_tflops;
  return machine;
}

// Seconds for all layers, each kind by its own measurement; 0 when a kind of the model was not measured.
template <class Time>
double all_layers(const Arithmetic& model, const std::vector<MeasuredLayer>& layers, Time time) {
  double sum = 0;
  for (const auto& [ratio, count] :
       {std::pair{0, model.swa_layers}, std::pair{4, model.csa_layers}, std::pair{128, model.hca_layers}}) {
    if (count == 0) continue;
    const MeasuredLayer* found = nullptr;
    for (const MeasuredLayer& layer : layers) {
      if (layer.ratio == ratio) found = &layer;
    }
    if (found == nullptr) return 0;
    sum += count * time(*found);
  }
  return sum;
}

constexpr double kSlowLayer = 1.5;  // above it the memory is not what sets the pace

// Weights and cache of the layers that one token reads.
double token_bytes(const Arithmetic& model, int64_t context) {
  const double experts = static_cast<double>(routed_bytes(model, WeightFormat::kOfficial));
  return experts / model.config.routed_experts * model.config.experts_per_token +
         static_cast<double>(dense_bytes_read(model, WeightFormat::kOfficial) - model.head_bytes +
                             kv_read_bytes(model, context, KvFormat::kFp8Fp4));
}

double one_layer_bytes(ModelConfig config, int ratio, int64_t context) {
  config.layers = 1;
  config.compress_ratios = {ratio};
  config.hash_layers = 0;
  config.mtp_layers = 0;
  config.dspark = {};
  return token_bytes(count(config), context);
}

// Products with weights for one token of a prompt, without the head.
double prompt_operations(const Arithmetic& model) {
  return 2.0 * static_cast<double>(model.gemm_expert + model.gemm_fp8 + model.gemm_bf16 - model.head_params);
}

}  // namespace

std::vector<Foretold> foretell_layers(const PlanData& data, const Measurements& measured) {
  std::vector<Foretold> all;
  for (const MeasuredLayer& layer : measured.layers) {
    const double read = (layer.read_gbs > 0 ? layer.read_gbs : measured.read_gbs) * 1e9;
    const double bytes = static_cast<double>(layer.decode_bytes);
    Foretold one;
    one.ratio = layer.decode_seconds / (bytes / read);
    const double arithmetic =
        static_cast<double>(layer.decode_operations) / (measured.bf16_tflops * 1e12 * data.constant("cpu_prefill_use"));
    one.seconds = std::max(bytes / (read * data.constant("cpu_bandwidth_use")), arithmetic) +
                  data.constant("cpu_fixed_us_per_layer") * 1e-6;
    one.error = one.seconds / layer.decode_seconds - 1;
    all.push_back(one);
  }
  for (size_t i = 0; i < all.size(); ++i) {
    for (size_t j = 0; j < all.size(); ++j) {
      const double error = all[j].ratio / all[i].ratio - 1;
      if (i != j && std::fabs(error) > std::fabs(all[i].error_other_kinds)) all[i].error_other_kinds = error;
    }
  }
  return all;
}

Probe predict_probe(const PlanData& data, const Measurements& measured, int64_t context) {
  Probe probe;
  probe.measured = measured;
  probe.foretold = foretell_layers(data, measured);
  if (!probe.foretold.empty()) {
    double low = probe.foretold[0].ratio, high = low;
    for (const Foretold& one : probe.foretold) {
      low = std::min(low, one.ratio);
      high = std::max(high, one.ratio);
      probe.worst_constant = std::max(probe.worst_constant, std::fabs(one.error));
      probe.worst_other_kinds = std::max(probe.worst_other_kinds, std::fabs(one.error_other_kinds));
    }
    probe.layer_spread = high / low;
    if (high > kSlowLayer) {
      probe.warnings.push_back(
          fmt::format("a layer takes up to {:.1f} times what its bytes take at the read bandwidth: the kernels (or "
                      "whoever else uses this machine), not the memory, set the pace",
                      high));
    }
  }
  const ModelEntry* shape = nullptr;
  for (const ModelEntry& entry : data.models) {
    if (entry.id == measured.layer_model && !measured.layers.empty()) shape = &entry;
  }
  const Arithmetic shape_model = shape != nullptr ? count(shape->config) : Arithmetic{};
  for (const ModelEntry& entry : data.models) {
    const Arithmetic model = count(entry.config);
    Machine machine = machine_of(measured);
    machine.usable_fraction = data.usable_fraction;
    machine.reserve_bytes = data.reserve_gb * 1e9;
    Load load;
    load.model = &model;
    load.context = context;
    ProbedModel result;
    result.id = entry.id;
    result.fit = fit_of(load, machine);
    // More sockets of this very machine is nothing a person can buy; memory and formats are.
    std::erase_if(result.fit.changes, [](const std::string& change) {
      return change.find("sockets of this machine") != std::string::npos;
    });
    if (!result.fit.fits && measured.disk_gbs > 0) {
      machine.ssd_read_gbs = measured.disk_gbs;
      result.from_disk = residence(load, machine, Layout::kTp).fits;
      if (!result.from_disk) machine.ssd_read_gbs = 0;
    }
    const Tuning tuning = default_tuning(data, machine);
    const Operating point = operating_point(load, machine, Layout::kTp, 1, 0, tuning);
    result.decode_tps_bandwidth = point.user_tps;
    result.prefill_tps_peak = prefill_rate(load, machine, 4096, tuning);
    result.layers = model.config.layers;
    result.decode_bytes = static_cast<int64_t>(token_bytes(model, context)) + model.head_bytes;
    if (shape != nullptr && &entry != shape) {
      // Other dimensions, the same kernels: the share of the read rate by kind of layer, that of the peak as a whole.
      double step = static_cast<double>(model.head_bytes) / (measured.read_gbs * 1e9);
      bool all = true;
      for (int layer = 0; layer < model.config.layers; ++layer) {
        const int ratio = model.config.compress_ratios[static_cast<size_t>(layer)];
        const Foretold* found = nullptr;
        for (size_t i = 0; i < measured.layers.size(); ++i) {
          if (measured.layers[i].ratio == ratio) found = &probe.foretold[i];
        }
        // A kind that the measured shape lacks has no share: V4-Pro's layers do not speak for V4-Flash's window-only
        // ones.
        if (found == nullptr) {
          all = false;
          break;
        }
        step += one_layer_bytes(entry.config, ratio, context) / (measured.read_gbs * 1e9) * found->ratio;
      }
      if (all) result.decode_tps_shares = 1 / (step + point.step.storage);
      const double token = all_layers(shape_model, measured.layers, [](const MeasuredLayer& l) {
        return l.prefill_seconds / static_cast<double>(l.prefill_tokens);
      });
      if (token > 0 && !result.from_disk)
        result.prefill_tps_shares = 1 / (token * prompt_operations(model) / prompt_operations(shape_model));
    }
    if (&entry == shape) {
      const double head = static_cast<double>(model.head_bytes) / (measured.read_gbs * 1e9);
      const double step = all_layers(model, measured.layers, [](const MeasuredLayer& l) { return l.decode_seconds; });
      const double token = all_layers(model, measured.layers, [](const MeasuredLayer& l) {
        return l.prefill_seconds / static_cast<double>(l.prefill_tokens);
      });
      // Experts on disk are read on top of the layer's own time.
      if (step > 0) result.decode_tps_layers = 1 / (step + head + point.step.storage);
      if (token > 0 && !result.from_disk) result.prefill_tps_layers = 1 / token;
    }
    probe.models.push_back(result);
  }
  if (measured.read_low_gbs < 0.75 * measured.read_gbs) {
    probe.warnings.push_back(
        fmt::format("the slowest pass of the bandwidth test read {:.1f} GB/s, the median {:.1f}: the machine is shared "
                    "or busy, so the figures move as much",
                    measured.read_low_gbs, measured.read_gbs));
  }
  if (measured.disk_gbs > 0 && !measured.disk_direct)
    probe.warnings.push_back("the disk was read through the page cache: its figure may be the memory's");
  if (measured.layers.empty())
    probe.warnings.push_back("no layer was measured (" + measured.layer_problem +
                             "): every speed below is from bandwidth and peak alone");
  return probe;
}

Json probe_hardware(const Measurements& m) {
  return {{"id", "this-machine"},
          {"class", "cpu"},
          {"memory_gb", static_cast<double>(m.memory_bytes) / 1e9},
          {"mem_bw_tbs", m.read_gbs / 1000},
          {"dense_tflops", {{"bf16", m.bf16_tflops}}},
          {"source", "nautile plan probe on " + m.cpu},
          {"source_date", m.date},
          {"mark", "measured"}};
}

std::string probe_text(const Probe& probe) {
  const Measurements& m = probe.measured;
  std::string out = fmt::format("nautile plan probe: {}, {} threads, {}\n\nmeasured\n", m.cpu, m.threads, m.date);
  out += fmt::format("  read bandwidth        {:.1f} GB/s ({:.1f} to {:.1f}), {} streams a thread{}\n",
                     m.read_gbs, m.read_low_gbs, m.read_high_gbs, m.streams,
                     m.fetched ? ", fetched early" : "");
  for (const auto& [name, tflops] : m.units)
    out += fmt::format("  {:<21} {:.3f} T{}OP/s\n", name, tflops, name.starts_with("int") ? "" : "FL");
  out += fmt::format("  memory                {}\n", both_units(m.memory_bytes));
  if (m.disk_gbs > 0)
    out += fmt::format("  disk read             {:.2f} GB/s{}\n", m.disk_gbs,
                       m.disk_direct ? " (past the page cache)" : "");
  if (!m.layers.empty()) {
    out += fmt::format(
        "\none layer of {} a kind, synthetic weights, one token a step\n"
        "  {:<7} {:>7} {:>6} {:>9} {:>6} {:>8} {:>20} {:>6} {:>15} {:>11} {:>8}\n",
        m.layer_model, "kind", "experts", "depth", "bytes", "GB/s", "at that", "measured (10% - 90%)", "ratio",
        "foretold", "other kinds", "prefill");
    for (size_t i = 0; i < m.layers.size(); ++i) {
      const MeasuredLayer& l = m.layers[i];
      out += fmt::format(
          "  {:<7} {:>7} {:>6} {:>6.1f} MB {:>6.1f} {:>5.2f} ms {:>20} {:>6.2f} {:>15} {:>10.0f}% {:>8}\n",
          kind_name(l.ratio), l.experts, with_commas(l.context), static_cast<double>(l.decode_bytes) / 1e6,
          layer_read(m, l), static_cast<double>(l.decode_bytes) / layer_read(m, l) / 1e6,
          fmt::format("{:.2f} ms ({:.2f} - {:.2f})", 1e3 * l.decode_seconds, 1e3 * l.fast_seconds,
                      1e3 * l.slow_seconds),
          probe.foretold[i].ratio,
          fmt::format("{:.2f} ms ({:+.0f}%)", 1e3 * probe.foretold[i].seconds, 100 * probe.foretold[i].error),
          100 * probe.foretold[i].error_other_kinds,
          short_number(static_cast<double>(l.prefill_tokens) / l.prefill_seconds));
    }
    out +=
        "  GB/s: read bandwidth of the same seconds; ratio: measured over the bytes at it; prefill: tokens/s of the "
        "layer\n";
    out += "  foretold: the bytes at the shipped share of GB/s (cpu_bandwidth_use), the layer unseen: ";
    out += fmt::format("{:.0f}% off at worst\n", 100 * probe.worst_constant);
    out += fmt::format("  other kinds: the bytes at another kind's share: {:.0f}% off at worst\n",
                       100 * probe.worst_other_kinds);
  }
  out += "\nthe whole model here: extrapolated, never run\n";
  for (const ProbedModel& model : probe.models) {
    out += fmt::format("  {}\n", model.id);
    if (model.fit.fits) {
      out += fmt::format("    fits: {} of {} usable\n", both_units(model.fit.weights_bytes),
                         both_units(static_cast<int64_t>(model.fit.usable)));
    } else {
      out += fmt::format("    does not fit: {} of weights, {} usable{}\n", both_units(model.fit.weights_bytes),
                         both_units(static_cast<int64_t>(std::max(0.0, model.fit.usable))),
                         model.from_disk ? "; experts that do not fit would be read from the disk" : "");
      for (const std::string& change : model.fit.changes) out += "      would fit: " + change + "\n";
    }
    out +=
        fmt::format("    reads {} a token in {} layers and the head\n", both_units(model.decode_bytes), model.layers);
    const char* would = model.fit.fits || model.from_disk ? "" : ", if it had the memory";
    if (model.decode_tps_layers > 0) {
      out += fmt::format("    decode   {} tok/s{} ({} layers run for {}, the head by its bytes)\n",
                         short_number(model.decode_tps_layers), would, m.layers.size(), model.layers);
      if (model.prefill_tps_layers > 0)
        out += fmt::format("    prefill  {} tok/s{} (every layer as measured)\n",
                           short_number(model.prefill_tps_layers), would);
    }
    if (model.decode_tps_shares > 0)
      out += fmt::format("    decode   {} tok/s{} (its bytes at the shares that {}'s layers reached)\n",
                         short_number(model.decode_tps_shares), would, m.layer_model);
    if (model.prefill_tps_shares > 0)
      out += fmt::format("    prefill  {} tok/s{} (its operations at the rate of {}'s layers)\n",
                         short_number(model.prefill_tps_shares), would, m.layer_model);
    out += fmt::format("    {}  {} tok/s{} (bandwidth and the shipped share of it alone)\n",
                       model.decode_tps_layers > 0 || model.decode_tps_shares > 0 ? "cross-check: decode" : "decode ",
                       short_number(model.decode_tps_bandwidth), would);
    out +=
        fmt::format("    {}  {} tok/s{} (peak and the shipped share of it alone)\n",
                    model.prefill_tps_layers > 0 || model.prefill_tps_shares > 0 ? "cross-check: prefill" : "prefill",
                    short_number(model.prefill_tps_peak), would);
  }
  for (const std::string& warning : probe.warnings) out += "warning: " + warning + "\n";
  return out;
}

Json probe_json(const Probe& probe) {
  const Measurements& m = probe.measured;
  Json layers = Json::array(), models = Json::array(), units = Json::array();
  for (size_t i = 0; i < m.layers.size(); ++i) {
    const MeasuredLayer& l = m.layers[i];
    layers.push_back({{"kind", kind_name(l.ratio)},
                      {"experts", l.experts},
                      {"context", l.context},
                      {"bytes", l.decode_bytes},
                      {"decode_ms", 1e3 * l.decode_seconds},
                      {"decode_ms_10_90", {1e3 * l.fast_seconds, 1e3 * l.slow_seconds}},
                      {"read_gbs", layer_read(m, l)},
                      {"at_bandwidth_ms", static_cast<double>(l.decode_bytes) / layer_read(m, l) / 1e6},
                      {"ratio", probe.foretold[i].ratio},
                      {"foretold_ms", 1e3 * probe.foretold[i].seconds},
                      {"foretold_error", probe.foretold[i].error},
                      {"error_from_other_kinds", probe.foretold[i].error_other_kinds},
                      {"prefill_tok_s", static_cast<double>(l.prefill_tokens) / l.prefill_seconds}});
  }
  for (const auto& [name, tflops] : m.units) units.push_back({{"unit", name}, {"tera_operations", tflops}});
  auto or_null = [](double value) { return value > 0 ? Json(value) : Json(); };
  for (const ProbedModel& model : probe.models) {
    models.push_back({{"model", model.id},
                      {"fits", model.fit.fits},
                      {"weights_bytes", model.fit.weights_bytes},
                      {"usable_bytes", static_cast<int64_t>(model.fit.usable)},
                      {"changes_that_fit", model.fit.changes},
                      {"experts_from_disk", model.from_disk},
                      {"extrapolated", true},
                      {"decode_tok_s_layers", or_null(model.decode_tps_layers)},
                      {"prefill_tok_s_layers", or_null(model.prefill_tps_layers)},
                      {"layers", model.layers},
                      {"decode_bytes_a_token", model.decode_bytes},
                      {"decode_tok_s_shares", or_null(model.decode_tps_shares)},
                      {"prefill_tok_s_shares", or_null(model.prefill_tps_shares)},
                      {"decode_tok_s_bandwidth", model.decode_tps_bandwidth},
                      {"prefill_tok_s_peak", model.prefill_tps_peak}});
  }
  return {{"schema", "planner/1"},
          {"cpu", m.cpu},
          {"threads", m.threads},
          {"date", m.date},
          {"read_gbs",
           {{"average", m.read_gbs}, {"low", m.read_low_gbs}, {"high", m.read_high_gbs}, {"streams", m.streams}, {"fetched", m.fetched}}},
          {"units", units},
          {"memory_bytes", m.memory_bytes},
          {"disk_gbs", or_null(m.disk_gbs)},
          {"layer_model", m.layer_model.empty() ? Json() : Json(m.layer_model)},
          {"layers", layers},
          {"layer_spread", or_null(probe.layer_spread)},
          {"models", models},
          {"warnings", probe.warnings}};
}

}  // namespace nautile::plan
