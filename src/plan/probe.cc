// Predictions from measurements.
#include "plan/probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "plan/words.h"

namespace nautile::plan {
namespace {

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

}  // namespace

Probe predict_probe(const PlanData& data, const Measurements& measured, int64_t context) {
  Probe probe;
  probe.measured = measured;
  for (const MeasuredLayer& layer : measured.layers) {
    probe.layer_ratio.push_back(layer.decode_seconds /
                                (static_cast<double>(layer.decode_bytes) / (measured.read_gbs * 1e9)));
  }
  if (!probe.layer_ratio.empty()) {
    const auto [low, high] = std::minmax_element(probe.layer_ratio.begin(), probe.layer_ratio.end());
    probe.layer_spread = *high / *low;
    if (*high > 1.25) {
      probe.warnings.push_back(
          fmt::format("a layer takes up to {:.1f} times what its bytes take at the read bandwidth: the kernels (or "
                      "whoever else uses this machine), not the memory, set the pace",
                      *high));
    }
  }
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
    if (entry.id == measured.layer_model && !measured.layers.empty()) {
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
  out += fmt::format("  read bandwidth        {:.1f} GB/s (median; {:.1f} to {:.1f}), {} streams a thread\n",
                     m.read_gbs, m.read_low_gbs, m.read_high_gbs, m.streams);
  for (const auto& [name, tflops] : m.units)
    out += fmt::format("  {:<21} {:.3f} T{}OP/s\n", name, tflops, name.starts_with("int") ? "" : "FL");
  out += fmt::format("  memory                {}\n", both_units(m.memory_bytes));
  if (m.disk_gbs > 0)
    out += fmt::format("  disk read             {:.2f} GB/s{}\n", m.disk_gbs,
                       m.disk_direct ? " (past the page cache)" : "");
  if (!m.layers.empty()) {
    out += fmt::format(
        "\none layer of {} a kind, synthetic weights\n  {:<8} {:>8} {:>8} {:>10} {:>11} {:>11} {:>7} {:>13}\n",
        m.layer_model, "kind", "experts", "depth", "bytes", "at memory", "measured", "ratio", "prefill tok/s");
    for (size_t i = 0; i < m.layers.size(); ++i) {
      const MeasuredLayer& l = m.layers[i];
      out +=
          fmt::format("  {:<8} {:>8} {:>8} {:>7.1f} MB {:>8.2f} ms {:>8.2f} ms {:>7.2f} {:>13}\n", kind_name(l.ratio),
                      l.experts, with_commas(l.context), static_cast<double>(l.decode_bytes) / 1e6,
                      static_cast<double>(l.decode_bytes) / m.read_gbs / 1e6, 1e3 * l.decode_seconds,
                      probe.layer_ratio[i], short_number(static_cast<double>(l.prefill_tokens) / l.prefill_seconds));
    }
    out += "  ratio: measured over the time that the bytes take at the read bandwidth above\n";
    out += fmt::format("  spread of the kinds: {:.2f}, so one kind's speed foretells another's within {:.0f}%\n",
                       probe.layer_spread, 100 * (probe.layer_spread - 1));
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
    const char* would = model.fit.fits || model.from_disk ? "" : ", if it had the memory";
    if (model.decode_tps_layers > 0) {
      out += fmt::format("    decode   {} tok/s{} (every layer as measured, the head by its bytes)\n",
                         short_number(model.decode_tps_layers), would);
      if (model.prefill_tps_layers > 0)
        out += fmt::format("    prefill  {} tok/s{} (every layer as measured)\n",
                           short_number(model.prefill_tps_layers), would);
    }
    out += fmt::format("    {}  {} tok/s{} (bandwidth and the published share of it alone)\n",
                       model.decode_tps_layers > 0 ? "cross-check: decode" : "decode ",
                       short_number(model.decode_tps_bandwidth), would);
    out += fmt::format("    {}  {} tok/s{} (peak and the published share of it alone)\n",
                       model.prefill_tps_layers > 0 ? "cross-check: prefill" : "prefill",
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
                      {"at_bandwidth_ms", static_cast<double>(l.decode_bytes) / m.read_gbs / 1e6},
                      {"ratio", probe.layer_ratio[i]},
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
                      {"decode_tok_s_bandwidth", model.decode_tps_bandwidth},
                      {"prefill_tok_s_peak", model.prefill_tps_peak}});
  }
  return {{"schema", "planner/1"},
          {"cpu", m.cpu},
          {"threads", m.threads},
          {"date", m.date},
          {"read_gbs",
           {{"median", m.read_gbs}, {"low", m.read_low_gbs}, {"high", m.read_high_gbs}, {"streams", m.streams}}},
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
