// Fits the model's constants to a machine's own measurements: least squares on the logarithms of the rates.
//
// The file (schema planner-calibration/1):
//   {"schema": "planner-calibration/1", "model": "v4-flash", "hw": "b200-sxm:8", "format": "official", "kv": "fp8",
//    "points": [{"kind": "decode", "context": 8192, "batch": 32, "draft": 0, "layout": "tp", "tok_s": 1200},
//               {"kind": "prefill", "context": 8192, "tok_s": 52000}]}
// decode tok_s is of all sequences together, prefill tok_s of the whole machine.
// Thread-safety: values and pure functions.
#pragma once

#include <string>
#include <vector>

#include "plan/speed.h"

namespace nautile::plan {

struct CalibrationPoint {
  bool prefill = false;
  int64_t context = 0, batch = 1;
  int draft = 0;
  Layout layout = Layout::kTp;
  double measured = 0, before = 0, after = 0;  // tokens per second: measured, predicted before and after the fit
};

struct Calibration {
  std::string model, hardware, format, kv;
  Tuning before, after;
  std::vector<CalibrationPoint> points;
  double rms_before = 0, rms_after = 0;  // of ln(predicted / measured)
  std::vector<std::string> fitted;       // names of the constants that the points determine
};

// kCorrupt for what is not JSON, kUnsupported for another schema, kInvalidArgument naming the field.
Result<Calibration> calibrate(const PlanData& data, std::string_view text, const std::string& where);
std::string calibration_text(const Calibration& calibration);

// The constants as a file for --calibrate (schema planner-tuning/1), and back, with errors as above. Each that calibrate()
// may fit must be there and above zero; the others stay `base`'s.
Json tuning_json(const Tuning& tuning, const std::string& where_from);
Result<Tuning> parse_tuning(std::string_view text, const std::string& where, Tuning base);

}  // namespace nautile::plan
