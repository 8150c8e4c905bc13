// The validation table.
#include "plan/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "plan/words.h"

namespace nautile::plan {
namespace {

constexpr int64_t kUnstatedContext = 4096;
constexpr int64_t kShortContext = 2048;

std::vector<int> drafts_of(const std::string& speculation) {
  if (speculation == "off" || speculation == "off?") return {0};
  if (speculation == "mtp") return {2, 3};
  if (speculation == "mtp3" || speculation == "eagle") return {3};
  return {0, 1, 2, 3};
}

WeightFormat format_of(const std::string& quant) {
  if (quant == "q2") return WeightFormat::kIq2;
  if (quant == "q4") return WeightFormat::kQ4;
  if (quant == "FP8") return WeightFormat::kFp8;
  return WeightFormat::kOfficial;
}

class Predictor {
 public:
  Predictor(const PlanData& data, const PublishedRow& row, std::map<std::string, Arithmetic>& counted)
      : data_(data), row_(row), counted_(counted) {}

  ValidatedRow run() {
    ValidatedRow result;
    result.row = &row_;
    auto model = data_.model(row_.model);
    auto device = data_.device(row_.hardware);
    if (!model.ok() || !device.ok()) return refuse(result, "machine unknown");
    auto known = counted_.find(row_.model);
    if (known == counted_.end()) known = counted_.emplace(row_.model, count((*model)->config)).first;
    load_.model = &known->second;
    load_.format = format_of(row_.quant);
    result.factor = factor();
    std::vector<int> groups = {row_.devices};
    if (row_.devices == 0) {
      groups.clear();
      for (int g : {4, 8, 16}) {
        if (g <= (*device)->domain) groups.push_back(g);
      }
    }
    for (int g : groups) {
      machine_ = Machine{};
      machine_.device = **device;
      machine_.devices = g;
      machine_.usable_fraction = data_.usable_fraction;
      machine_.reserve_bytes = data_.reserve_gb * 1e9;
      tuning_ = default_tuning(data_, machine_);
      if (row_.stack == "ds4") {
        tuning_.fixed_us = data_.constant("single_device_fixed_us");
        tuning_.decode_compute_use = data_.constant("single_device_compute_use");
      } else {
        tuning_.fixed_us = data_.constant("fixed_us_per_layer");
        tuning_.decode_compute_use = data_.constant("decode_compute_use");
      }
      predict(result);
    }
    if (result.predicted == 0 && result.why.empty()) result.why = "does not fit as published";
    if (result.predicted > 0) {
      result.why.clear();
      result.predicted /= result.factor;
      result.ratio = result.predicted / row_.value;
    }
    return result;
  }

 private:
  static ValidatedRow refuse(ValidatedRow row, const char* why) {
    row.why = why;
    return row;
  }

  double factor() const {
    const bool spoken_for = std::any_of(data_.published.begin(), data_.published.end(), [&](const PublishedRow& other) {
      return other.sample == Sample::kIn && other.stack == row_.stack;
    });
    return data_.constant(spoken_for ? "stack_tuned" : "stack_unknown");
  }

  void take(ValidatedRow& result, double value, const Operating& point) {
    if (value <= result.predicted) return;
    result.predicted = value;
    result.devices = machine_.devices;
    result.draft = point.draft;
    result.layout = point.layout;
  }

  void predict(ValidatedRow& result) {
    const int64_t isl = row_.isl > 0                               ? row_.isl
                        : row_.quant == "q2" || row_.quant == "q4" ? kShortContext
                                                                   : kUnstatedContext;
    const int64_t osl = row_.osl;
    load_.context = isl + osl / 2;
    SearchLimits limits;
    limits.drafts = drafts_of(row_.speculation);
    const double prompt_rate = prefill_rate(load_, machine_, isl, tuning_);  // a device
    if (row_.metric == "prefill_tok_s") {
      Operating none;
      take(result, prompt_rate * machine_.devices, none);
      return;
    }
    if (row_.metric == "tok_s_gpu") {
      result.why = "metric and lengths not stated";
      return;
    }
    const double input = static_cast<double>(isl), output = static_cast<double>(osl);
    for (Layout layout : {Layout::kTp, Layout::kDep}) {
      if (layout == Layout::kDep && machine_.devices == 1) continue;
      for (int draft : limits.drafts) {
        const bool per_gpu = row_.metric == "total_tok_s_gpu" || row_.metric == "usd_per_mtok_total";
        if (!per_gpu) {
          const int64_t streams = std::max(1, row_.streams);
          // It was run, so it fitted: the reserve of the planner's own rule is not held against it.
          const Operating point = operating_point(load_, machine_, layout, streams, draft, tuning_);
          double rate = point.user_tps * static_cast<double>(streams);
          if (row_.metric == "output_tok_s") {
            // Prefill and decode share the devices: every stream waits while another's prompt runs.
            const double seconds =
                output / point.user_tps + static_cast<double>(streams) * input / (prompt_rate * machine_.devices);
            rate = static_cast<double>(streams) * output / seconds * (1 - data_.constant("aggregated_interference"));
          }
          take(result, rate, point);
          continue;
        }
        for (int64_t batch = 1; batch <= max_sequences(load_, machine_, layout); batch += 1 + batch / 64) {
          const Operating point = operating_point(load_, machine_, layout, batch, draft, tuning_);
          if (row_.interactivity > 0 && point.user_tps < row_.interactivity) break;
          take(result, (input + output) / (input / prompt_rate + output / point.device_tps), point);
        }
      }
    }
  }

  const PlanData& data_;
  const PublishedRow& row_;
  std::map<std::string, Arithmetic>& counted_;
  Machine machine_;
  Load load_;
  Tuning tuning_;
};

void add(ValidationSummary& summary, double ratio) {
  const double ln = std::log(ratio);
  summary.rows += 1;
  summary.within_2 += std::fabs(ln) <= std::log(2.0) + 1e-12;
  summary.rms_ln += ln * ln;
  summary.mean_ln += ln;
}

void close(ValidationSummary& summary);

// Three layers are a model of three layers: the same functions foretell them.
Status add_own(const PlanData& data, Validation& all) {
  if (data.own.rows.empty()) return {};
  NAUTILE_ASSIGN(const ModelEntry* entry, data.model(data.own.model));
  ModelConfig config = entry->config;
  config.layers = static_cast<int>(data.own.ratios.size());
  config.compress_ratios = data.own.ratios;
  config.hash_layers = 0;
  config.dspark = {};
  config.vocab_size = data.own.vocabulary;
  config.mtp_layers = 0;
  const Arithmetic model = count(config);
  for (const OwnRow& row : data.own.rows) {
    Machine machine;
    machine.placement = Placement::kCpu;
    machine.measured = true;
    machine.device.device_class = DeviceClass::kCpu;
    machine.device.memory_gb = 1000;  // it was run, so it fitted
    machine.device.bandwidth_tbs = row.read_gbs / 1000;
    machine.device.bf16_tflops = data.own.bf16_tflops;
    const Tuning tuning = default_tuning(data, machine);
    Load load;
    load.model = &model;
    load.context = std::max<int64_t>(1, row.depth);
    ValidatedOwn result;
    result.row = &row;
    result.predicted = row.prefill ? prefill_rate(load, machine, row.tokens, tuning)
                                   : operating_point(load, machine, Layout::kTp, row.batch, 0, tuning).device_tps;
    result.ratio = result.predicted / row.tok_s;
    add(row.sample == Sample::kIn ? all.own_in_sample : all.own_held_out, result.ratio);
    if (row.sample == Sample::kHeldOut && result.ratio >= 0.75 && result.ratio <= 1.25) all.own_within_quarter += 1;
    all.own.push_back(result);
  }
  close(all.own_in_sample);
  close(all.own_held_out);
  return {};
}

void close(ValidationSummary& summary) {
  if (summary.rows == 0) return;
  summary.rms_ln = std::sqrt(summary.rms_ln / summary.rows);
  summary.mean_ln /= summary.rows;
}

const char* sample_name(Sample sample) {
  switch (sample) {
    case Sample::kIn:
      return "in-sample";
    case Sample::kHeldOut:
      return "held-out";
    case Sample::kNotComparable:
      return "not comparable";
  }
  return "unknown";
}

std::string summary_line(const char* name, const ValidationSummary& s) {
  return fmt::format("{:<34} {:>3} rows, {:>3} within a factor 2 ({:.0f}%), rms ln error {:.2f}, mean {:+.2f}\n", name,
                     s.rows, s.within_2, s.rows ? 100.0 * s.within_2 / s.rows : 0.0, s.rms_ln, s.mean_ln);
}

}  // namespace

Validation validate(const PlanData& data) {
  Validation all;
  std::map<std::string, Arithmetic> counted;
  std::map<std::string, double> first;  // stack -> ratio of its first held-out row
  for (const PublishedRow& row : data.published) {
    ValidatedRow result = Predictor(data, row, counted).run();
    if (row.metric == "usd_per_mtok_total" && result.predicted > 0) {
      auto device = data.device(row.hardware);
      result.predicted = (*device)->owned ? (*device)->owned->hyperscaler * 1e6 / (3600 * result.predicted) : 0;
      result.ratio = result.predicted / row.value;
    }
    if (row.sample == Sample::kNotComparable) result.why = "hosted: machine unknown";
    const bool counts = result.ratio > 0 && row.sample != Sample::kNotComparable;
    all.not_predicted += !counts;
    if (counts) {
      add(row.sample == Sample::kIn ? all.in_sample : all.held_out, result.ratio);
      if (row.sample == Sample::kHeldOut && row.metric != "prefill_tok_s" && row.metric != "usd_per_mtok_total") {
        auto [anchor, fresh] = first.emplace(row.stack, result.ratio);
        if (!fresh) add(all.held_out_calibrated, result.ratio / anchor->second);
      }
    }
    all.rows.push_back(result);
  }
  close(all.in_sample);
  close(all.held_out);
  close(all.held_out_calibrated);
  if (!add_own(data, all).ok()) all.own.clear();  // a model that the data no longer holds
  return all;
}

std::string validation_text(const PlanData& data, const Validation& validation) {
  std::string out = fmt::format("Predicted against published (split written {})\n", data.split_date);
  for (Sample sample : {Sample::kIn, Sample::kHeldOut, Sample::kNotComparable}) {
    out += fmt::format("\n{}\n{:<9} {:<22} {:<10} {:<18} {:>7} {:>7} {:>6} {:>9} {:>9} {:>6}  {}\n",
                       sample_name(sample), "model", "hardware", "stack", "metric", "tok/s/u", "input", "drafts",
                       "published", "predicted", "ratio", "as");
    for (const ValidatedRow& r : validation.rows) {
      const PublishedRow& row = *r.row;
      if (row.sample != sample) continue;
      out += fmt::format("{:<9} {:<22} {:<10} {:<18} {:>7} {:>7} {:>6} {:>9} ", row.model, row.hardware, row.stack,
                         row.metric,
                         row.interactivity > 0 ? short_number(row.interactivity)
                         : row.streams > 0     ? fmt::format("{} str", row.streams)
                                               : "any",
                         row.isl > 0 ? with_commas(row.isl) : "-", row.speculation, short_number(row.value));
      if (r.ratio > 0 && sample != Sample::kNotComparable) {
        out += fmt::format("{:>9} {:>6.2f}  {}x {} n={}{}\n", short_number(r.predicted), r.ratio, r.devices,
                           layout_name(r.layout), r.draft, r.factor != 1 ? fmt::format(" /{:g}", r.factor) : "");
      } else {
        out += fmt::format("{:>9} {:>6}  {}\n", "-", "-", r.why);
      }
    }
  }
  out += "\n" + summary_line("in-sample", validation.in_sample) + summary_line("held-out", validation.held_out) +
         summary_line("held-out, one row a stack known", validation.held_out_calibrated);
  if (!validation.own.empty()) {
    out += "\nour own: three layers on a CPU, each at the read rate beside it (mark M, not published by others)\n";
    out += fmt::format("{:<8} {:>7} {:>6} {:>7} {:>9} {:>9} {:>17} {:>10} {:>6}  {}\n", "kind", "depth", "batch",
                       "tokens", "read GB/s", "measured", "slowest - fastest", "predicted", "ratio", "sample");
    for (const ValidatedOwn& r : validation.own) {
      out += fmt::format("{:<8} {:>7} {:>6} {:>7} {:>9.1f} {:>9.1f} {:>17} {:>10.1f} {:>6.2f}  {}\n",
                         r.row->prefill ? "prefill" : "decode", with_commas(r.row->depth), r.row->batch, r.row->tokens,
                         r.row->read_gbs, r.row->tok_s, fmt::format("{:.1f} - {:.1f}", r.row->slowest, r.row->fastest),
                         r.predicted, r.ratio, sample_name(r.row->sample));
    }
    out += summary_line("our own, held-out", validation.own_held_out);
    out += fmt::format("{:<34} {:>3} of {} within 25%\n\n", "", validation.own_within_quarter,
                       validation.own_held_out.rows);
  }
  out += fmt::format("{} rows are not predicted (no machine, or no workload stated).\n", validation.not_predicted);
  return out;
}

Json validation_json(const Validation& validation) {
  auto summary = [](const ValidationSummary& s) {
    return Json{
        {"rows", s.rows}, {"within_factor_2", s.within_2}, {"rms_ln_error", s.rms_ln}, {"mean_ln_error", s.mean_ln}};
  };
  Json rows = Json::array();
  for (const ValidatedRow& r : validation.rows) {
    Json one = {{"model", r.row->model},
                {"hardware", r.row->hardware},
                {"stack", r.row->stack},
                {"metric", r.row->metric},
                {"sample", sample_name(r.row->sample)},
                {"published", r.row->value},
                {"predicted", nullptr},
                {"ratio", nullptr},
                {"source", r.row->source.text},
                {"date", r.row->source.date},
                {"mark", mark_name(r.row->source.mark)}};
    if (r.ratio > 0 && r.row->sample != Sample::kNotComparable) {
      one["predicted"] = r.predicted;
      one["ratio"] = r.ratio;
      one["stack_factor"] = r.factor;
      one["devices"] = r.devices;
      one["draft"] = r.draft;
      one["layout"] = layout_name(r.layout);
    } else {
      one["why"] = r.why;
    }
    rows.push_back(std::move(one));
  }
  Json own = Json::array();
  for (const ValidatedOwn& r : validation.own) {
    own.push_back({{"kind", r.row->prefill ? "prefill" : "decode"},
                   {"depth", r.row->depth},
                   {"batch", r.row->batch},
                   {"tokens", r.row->tokens},
                   {"sample", sample_name(r.row->sample)},
                   {"measured", r.row->tok_s},
                   {"predicted", r.predicted},
                   {"ratio", r.ratio}});
  }
  return {{"schema", "planner/1"},
          {"rows", rows},
          {"in_sample", summary(validation.in_sample)},
          {"held_out", summary(validation.held_out)},
          {"held_out_one_row_known", summary(validation.held_out_calibrated)},
          {"own_rows", own},
          {"own_held_out", summary(validation.own_held_out)},
          {"own_held_out_within_25_percent", validation.own_within_quarter}};
}

}  // namespace nautile::plan
