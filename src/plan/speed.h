// How fast a model decodes and prefills on a machine: time of one step split into its causes, operating points, Pareto.
//
// Estimates, by the model of spec planner.md section 6, with constants that carry their source (data/constants.json).
// Times are seconds, rates tokens per second. Thread-safety: values and pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "plan/arithmetic.h"
#include "plan/data.h"

namespace nautile::plan {

enum class Layout { kTp, kDep };  // tensor parallel; data-parallel attention with expert parallelism
const char* layout_name(Layout layout);

enum class Placement {
  kDevices,  // everything on the devices' own memory (GPUs, unified-memory machines)
  kCpu,      // everything in host memory, host cores compute
  kHybrid,   // attention, shared experts and cache on one device, routed experts in host memory
};
const char* placement_name(Placement placement);

// The hardware a plan is made for.
struct Machine {
  Placement placement = Placement::kDevices;
  Hardware device;               // of kDevices and kHybrid; the socket of kCpu
  int devices = 1;               // or sockets
  std::optional<Hardware> host;  // kHybrid: whose memory and cores hold the routed experts
  int sockets = 1;
  double ssd_read_gbs = 0;                              // above 0: routed experts that do not fit are read from here
  bool measured = false;                                // bandwidth and peak come from plan probe
  double usable_fraction = 0.9, reserve_bytes = 3.5e9;  // of each memory: what weights and caches may fill
};

struct Tuning {
  double bandwidth_use = 0, decode_compute_use = 0, prefill_compute_use = 0;
  double fixed_us = 0;  // a layer and step
  double acceptance = 0, imbalance = 0, link_use = 0, route_correlation = 0;
  double host_bandwidth_use = 0, host_compute_use = 0, host_fixed_us = 0, host_link_gbs = 0;
  double stack_factor = 1;  // divides every rate
};
// The shipped constants for a machine (unified-memory and CPU machines have their own).
Tuning default_tuning(const PlanData& data, const Machine& machine);

// What runs: the model, its formats and the depth.
struct Load {
  const Arithmetic* model = nullptr;
  WeightFormat format = WeightFormat::kOfficial;
  KvFormat kv = KvFormat::kFp8Fp4;
  int64_t context = 0;
};

struct Step {
  double fixed = 0, memory = 0, compute = 0, communication = 0, storage = 0, draft = 0;  // as they count in total
  double total = 0;
  double tokens_per_sequence = 1;  // accepted a step
  double coverage = 0;             // share of the routed experts touched
  // The largest of fixed, memory, compute, communication, storage.
  const char* bottleneck() const;
};

// One decode step of `batch` sequences with `draft` speculated tokens each.
Step decode_step(const Load& load, const Machine& machine, Layout layout, double batch, int draft,
                 const Tuning& tuning);

// Prompt tokens per second of one device (of the whole machine for kCpu and kHybrid).
double prefill_rate(const Load& load, const Machine& machine, int64_t prompt_tokens, const Tuning& tuning);

// Memory of one device in bytes that weights and cache may fill.
double usable_bytes(const Machine& machine, const Hardware& device);
// Bytes of weights on each device; host memory for the routed experts of kHybrid and kCpu is in host_weights.
struct Residence {
  double device_weights = 0, host_weights = 0, storage_weights = 0;
  double device_free = 0;  // for caches, on each device; negative: does not fit
  double host_free = 0;
  bool fits = false;  // one sequence of the load's context fits
};
Residence residence(const Load& load, const Machine& machine, Layout layout);
// Sequences of the load's context that fit at once; 0 when none.
int64_t max_sequences(const Load& load, const Machine& machine, Layout layout);

struct Operating {
  Layout layout = Layout::kTp;
  int devices = 1, draft = 0;
  int64_t batch = 1;
  Step step;
  double user_tps = 0;    // one sequence's tokens per second
  double device_tps = 0;  // output tokens per second and device
};
Operating operating_point(const Load& load, const Machine& machine, Layout layout, int64_t batch, int draft,
                          const Tuning& tuning);

struct SearchLimits {
  double min_user_tps = 0;
  std::vector<int> drafts = {0, 1, 2, 3};
  int64_t max_batch = 16384;
};
// Every point worth showing that fits: for each layout, draft length and a ladder of batches.
std::vector<Operating> sweep(const Load& load, const Machine& machine, const Tuning& tuning,
                             const SearchLimits& limits);
// Those not beaten on both user_tps and device_tps, by rising user_tps.
std::vector<Operating> pareto(std::vector<Operating> points);
// The fitting point of the highest device_tps with user_tps >= limits.min_user_tps; the fastest for one user if none.
// Empty when nothing fits. Batches are searched one by one.
std::optional<Operating> best_point(const Load& load, const Machine& machine, const Tuning& tuning,
                                    const SearchLimits& limits);

}  // namespace nautile::plan
