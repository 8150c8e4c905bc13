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
  int ratio = 0;                              // 0 window, 4 CSA, 128 HCA
  int experts = 0;                            // routed experts that were in memory; a token uses the shape's own number
  int64_t context = 0;                        // depth of the decode steps
  double decode_seconds = 0;                  // one token, median
  int64_t decode_bytes = 0;                   // weights and cache read for it, as stored
  int64_t prefill_tokens = 0;                 // of one chunk
  double prefill_seconds = 0;                 // the chunk, median
  double fast_seconds = 0, slow_seconds = 0;  // decode: the 10th and the 90th of 100 steps; 0: not known
  int64_t decode_operations = 0;              // of one token; 1 multiply-add = 2
  double read_gbs = 0;                        // read rate of the same seconds; 0: the machine's
};

struct Measurements {
  std::string cpu, date;
  int threads = 0;
  double read_gbs = 0, read_low_gbs = 0, read_high_gbs = 0;
  int streams = 0;
  bool fetched = false;  // whether their lines were asked for early
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
  // By the shares of bandwidth and peak that the measured layers of another shape reached; 0: none was measured.
  double decode_tps_shares = 0, prefill_tps_shares = 0;
  int layers = 0;            // of this model
  int64_t decode_bytes = 0;  // that it reads a token, head included, at the depth asked for
  bool from_disk = false;    // the experts that do not fit are read from the disk
};

// How well a layer's decode time was foretold, without having been looked at.
struct Foretold {
  double ratio = 0;    // measured over bytes / read rate of the same seconds
  double seconds = 0;  // bytes / (read rate * cpu_bandwidth_use) + half the arithmetic + cpu_fixed_us_per_layer
  double error = 0;    // seconds over measured, less 1
  double error_other_kinds = 0;  // the worst of: another kind's ratio taken for this one; 0: no other kind
};
// `bf16_tflops` and the constants as in predict_probe(); one entry a layer.
std::vector<Foretold> foretell_layers(const PlanData& data, const Measurements& measured);

struct Probe {
  Measurements measured;
  std::vector<ProbedModel> models;
  std::vector<Foretold> foretold;  // layer by layer
  // The largest error of all in size, by the constant and by another kind's share.
  double worst_constant = 0, worst_other_kinds = 0;
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
