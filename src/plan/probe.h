// From measurements of a machine to what V4 would do on it.
//
// The measuring is elsewhere (sys/probe.h for memory and units, the verb for a layer); here is the arithmetic.
// Thread-safety: values and pure functions.
#pragma once

#include <string>
#include <vector>

#include "plan/plan.h"

namespace nautile::plan {

// One layer of a shape, run with synthetic weights through the engine's kernels.
struct MeasuredLayer {
  int ratio = 0;               // 0 window, 4 CSA, 128 HCA
  int experts = 0;             // routed experts that were in memory; a token uses the shape's own number
  int64_t context = 0;         // depth of the decode steps
  double decode_seconds = 0;   // one token, median
  int64_t decode_bytes = 0;    // weights and cache read for it, as stored
  int64_t prefill_tokens = 0;  // of one chunk
  double prefill_seconds = 0;  // the chunk, median
};

struct Measurements {
  std::string cpu, date;
  int threads = 0;
  double read_gbs = 0, read_low_gbs = 0, read_high_gbs = 0;
  int streams = 0;
  double bf16_tflops = 0;  // the best unit that multiplies weights: BF16, else fp32
  std::vector<std::pair<std::string, double>> units;
  int64_t memory_bytes = 0;
  double disk_gbs = 0;  // 0: not measured
  bool disk_direct = false;
  std::string layer_model;  // the shape that was measured; empty: no layer was
  std::vector<MeasuredLayer> layers;
  std::string layer_problem;  // why no layer was measured
};

struct ProbedModel {
  std::string id;
  Fit fit;
  double decode_tps_bandwidth = 0;  // by bandwidth and the model's constants
  double decode_tps_layers = 0;     // by the measured layers of this shape; 0: not measured
  double prefill_tps_peak = 0;      // by peak and the model's constants
  double prefill_tps_layers = 0;
  bool from_disk = false;  // the experts that do not fit are read from the disk
};

struct Probe {
  Measurements measured;
  std::vector<ProbedModel> models;
  // Measured layer time over bytes / read bandwidth, layer by layer: 1.00 is the memory's own speed.
  std::vector<double> layer_ratio;
  // Largest over smallest ratio of the kinds: 1.25 means that one kind's speed foretells another's within 25%.
  double layer_spread = 0;
  std::vector<std::string> warnings;
};

// Predictions for every V4 of the data.
Probe predict_probe(const PlanData& data, const Measurements& measured, int64_t context);
// The machine as hardware for --hw-file.
Json probe_hardware(const Measurements& measured);
std::string probe_text(const Probe& probe);
Json probe_json(const Probe& probe);

}  // namespace nautile::plan
