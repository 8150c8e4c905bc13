// The least-squares fit.
#include "plan/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "plan/plan.h"
#include "plan/words.h"

namespace nautile::plan {
namespace {

struct Knob {
  const char* name;
  double Tuning::*field;
  double low, high;
  bool decode, prefill;  // the kinds of point it changes
  bool host;             // of CPU and hybrid machines; otherwise of devices
};
constexpr Knob kKnobs[] = {
    {"fixed_us", &Tuning::fixed_us, 1, 20000, true, false, false},
    {"bandwidth_use", &Tuning::bandwidth_use, 0.02, 1, true, false, false},
    {"decode_compute_use", &Tuning::decode_compute_use, 0.002, 1, true, false, false},
    {"prefill_compute_use", &Tuning::prefill_compute_use, 0.002, 1, false, true, false},
    {"host_fixed_us", &Tuning::host_fixed_us, 1, 20000, true, false, true},
    {"host_bandwidth_use", &Tuning::host_bandwidth_use, 0.02, 1, true, false, true},
    {"host_compute_use", &Tuning::host_compute_use, 0.002, 1, true, true, true},
};

// The file's other constants, kept by tuning_json but not fitted.
constexpr std::pair<const char*, double Tuning::*> kFields[] = {{"fixed_us", &Tuning::fixed_us},
                                                                {"bandwidth_use", &Tuning::bandwidth_use},
                                                                {"decode_compute_use", &Tuning::decode_compute_use},
                                                                {"prefill_compute_use", &Tuning::prefill_compute_use},
                                                                {"host_fixed_us", &Tuning::host_fixed_us},
                                                                {"host_bandwidth_use", &Tuning::host_bandwidth_use},
                                                                {"host_compute_use", &Tuning::host_compute_use},
                                                                {"acceptance", &Tuning::acceptance}};

double predict(const Load& load, const Machine& machine, const CalibrationPoint& point, const Tuning& tuning) {
  Load at = load;
  at.context = point.context;
  if (point.prefill) {
    return prefill_rate(at, machine, point.context, tuning) *
           (machine.placement == Placement::kDevices ? machine.devices : 1);
  }
  return operating_point(at, machine, point.layout, point.batch, point.draft, tuning).user_tps *
         static_cast<double>(point.batch);
}

}  // namespace

Result<Calibration> calibrate(const PlanData& data, std::string_view text, const std::string& where) {
  NAUTILE_ASSIGN(const Json root, parse_json(text, where));
  if (!root.is_object()) return Status(Code::kInvalidArgument, "the file must hold an object", where);
  NAUTILE_ASSIGN(const std::string schema, json_string(root, "schema", where));
  if (schema != "planner-calibration/1") {
    return Status(Code::kUnsupported,
                  fmt::format("\"schema\" is \"{}\", this program reads \"planner-calibration/1\"", schema), where);
  }
  Calibration fit;
  NAUTILE_ASSIGN(fit.model, json_string(root, "model", where));
  NAUTILE_ASSIGN(fit.hardware, json_string(root, "hw", where));
  fit.format = root.contains("format") ? "" : "official";
  fit.kv = root.contains("kv") ? "" : "fp8";
  if (fit.format.empty()) {
    NAUTILE_ASSIGN(fit.format, json_string(root, "format", where));
  }
  if (fit.kv.empty()) {
    NAUTILE_ASSIGN(fit.kv, json_string(root, "kv", where));
  }
  Request request;
  request.hardware = fit.hardware;
  NAUTILE_ASSIGN(const ModelEntry* entry, data.model(fit.model));
  NAUTILE_ASSIGN(const Machine machine, parse_machine(data, request));
  const Arithmetic model = count(entry->config);
  Load load;
  load.model = &model;
  NAUTILE_ASSIGN(load.format, weight_format(fit.format));
  NAUTILE_ASSIGN(load.kv, kv_format(fit.kv));
  if (!root.contains("points") || !root["points"].is_array() || root["points"].empty()) {
    return Status(Code::kInvalidArgument, "\"points\" must be a list of measurements", where);
  }
  bool any_decode = false, any_prefill = false;
  for (size_t i = 0; i < root["points"].size(); ++i) {
    const Json& item = root["points"][i];
    const std::string place = fmt::format("{}.points[{}]", where, i);
    CalibrationPoint point;
    NAUTILE_ASSIGN(const std::string kind, json_string(item, "kind", place));
    if (kind != "decode" && kind != "prefill") {
      return Status(Code::kInvalidArgument, fmt::format("\"kind\" must be decode or prefill, but is \"{}\"", kind),
                    place);
    }
    point.prefill = kind == "prefill";
    NAUTILE_ASSIGN(point.context, json_int(item, "context", place));
    NAUTILE_ASSIGN(point.measured, json_number(item, "tok_s", place));
    if (point.context < 1 || point.context > model.config.max_positions) {
      return Status(Code::kInvalidArgument,
                    fmt::format("\"context\" {} is outside 1 to {}", point.context, model.config.max_positions), place);
    }
    if (!(point.measured > 0)) return Status(Code::kInvalidArgument, "\"tok_s\" must be above zero", place);
    if (!point.prefill) {
      NAUTILE_ASSIGN(point.batch, json_int(item, "batch", place));
      if (point.batch < 1) return Status(Code::kInvalidArgument, "\"batch\" must be 1 or more", place);
      if (item.contains("draft")) {
        NAUTILE_ASSIGN(const int64_t draft, json_int(item, "draft", place));
        if (draft < 0 || draft > 16) return Status(Code::kInvalidArgument, "\"draft\" must be 0 to 16", place);
        point.draft = static_cast<int>(draft);
      }
      if (item.contains("layout")) {
        NAUTILE_ASSIGN(const std::string layout, json_string(item, "layout", place));
        if (layout != "tp" && layout != "dep")
          return Status(Code::kInvalidArgument, fmt::format("\"layout\" must be tp or dep, but is \"{}\"", layout),
                        place);
        point.layout = layout == "tp" ? Layout::kTp : Layout::kDep;
      }
    }
    (point.prefill ? any_prefill : any_decode) = true;
    fit.points.push_back(point);
  }
  fit.before = fit.after = default_tuning(data, machine);
  auto error = [&](const Tuning& tuning) {
    double sum = 0;
    for (const CalibrationPoint& point : fit.points) {
      const double ln = std::log(predict(load, machine, point, tuning) / point.measured);
      sum += ln * ln;
    }
    return sum / static_cast<double>(fit.points.size());
  };
  // Constants that some point feels, by the strength of their effect; no more of them than points.
  std::vector<std::pair<double, const Knob*>> felt;
  for (const Knob& knob : kKnobs) {
    if (!((knob.decode && any_decode) || (knob.prefill && any_prefill))) continue;
    double effect = 0;
    for (const CalibrationPoint& point : fit.points) {
      Tuning other = fit.before;
      other.*knob.field *= 1.1;
      const double change = std::log(predict(load, machine, point, other) / predict(load, machine, point, fit.before));
      effect += change * change;
    }
    if (effect > 1e-8) felt.emplace_back(effect, &knob);
  }
  std::sort(felt.begin(), felt.end(), [](auto& a, auto& b) { return a.first > b.first; });
  if (felt.size() > fit.points.size()) felt.resize(fit.points.size());
  // Coordinate descent on the logarithms, the step halved when nothing improves.
  double best = error(fit.after);
  for (double step = 0.5; step > 1e-4; step /= 2) {
    bool better = true;
    for (int round = 0; better && round < 200; ++round) {
      better = false;
      for (const auto& [effect, knob] : felt) {
        for (double direction : {step, -step}) {
          Tuning other = fit.after;
          other.*knob->field = std::clamp(other.*knob->field * std::exp(direction), knob->low, knob->high);
          const double now = error(other);
          if (now < best - 1e-15) {
            best = now;
            fit.after = other;
            better = true;
          }
        }
      }
    }
  }
  for (const auto& [effect, knob] : felt) fit.fitted.emplace_back(knob->name);
  for (CalibrationPoint& point : fit.points) {
    point.before = predict(load, machine, point, fit.before);
    point.after = predict(load, machine, point, fit.after);
  }
  fit.rms_before = std::sqrt(error(fit.before));
  fit.rms_after = std::sqrt(best);
  return fit;
}

std::string calibration_text(const Calibration& fit) {
  std::string out =
      fmt::format("calibration of {} on {} ({} points, least squares on logarithms)\n\n  {:<22} {:>10} {:>10}\n",
                  fit.model, fit.hardware, fit.points.size(), "constant", "before", "after");
  for (const auto& [name, field] : kFields) {
    const bool moved = std::find(fit.fitted.begin(), fit.fitted.end(), name) != fit.fitted.end();
    if (moved) out += fmt::format("  {:<22} {:>10.4g} {:>10.4g}\n", name, fit.before.*field, fit.after.*field);
  }
  out += fmt::format("\n  {:<8} {:>9} {:>6} {:>2} {:>10} {:>10} {:>10} {:>6}\n", "kind", "context", "batch", "n",
                     "measured", "before", "after", "ratio");
  for (const CalibrationPoint& p : fit.points) {
    out += fmt::format("  {:<8} {:>9} {:>6} {:>2} {:>10} {:>10} {:>10} {:>6.2f}\n", p.prefill ? "prefill" : "decode",
                       with_commas(p.context), p.batch, p.draft, short_number(p.measured), short_number(p.before),
                       short_number(p.after), p.after / p.measured);
  }
  out += fmt::format("\n  rms ln error {:.3f} before, {:.3f} after\n", fit.rms_before, fit.rms_after);
  if (fit.points.size() <= fit.fitted.size())
    out +=
        "  as many constants as points: the fit is exact by construction and says nothing about other loads; measure "
        "more\n";
  return out;
}

Json tuning_json(const Tuning& tuning, const std::string& where_from) {
  Json out = {{"schema", "planner-tuning/1"}, {"from", where_from}};
  for (const auto& [name, field] : kFields) out[name] = tuning.*field;
  return out;
}

Result<Tuning> parse_tuning(std::string_view text, const std::string& where, Tuning base) {
  NAUTILE_ASSIGN(const Json root, parse_json(text, where));
  NAUTILE_ASSIGN(const std::string schema, json_string(root, "schema", where));
  if (schema != "planner-tuning/1") {
    return Status(Code::kUnsupported,
                  fmt::format("\"schema\" is \"{}\", this program reads \"planner-tuning/1\"", schema), where,
                  "plan calibrate --save writes such a file");
  }
  for (const auto& [name, field] : kFields) {
    NAUTILE_ASSIGN(base.*field, json_number(root, name, where));
    if (!(base.*field > 0))
      return Status(Code::kInvalidArgument, fmt::format("\"{}\" must be above zero", name), where);
  }
  return base;
}

}  // namespace nautile::plan
