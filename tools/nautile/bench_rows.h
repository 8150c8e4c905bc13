// One row of `nautile bench`: a decode or prefill rate beside what bytes and operations allow at its depth.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "model/forward.h"
#include "model/repack.h"
#include "sys/clock.h"
#include "sys/machine.h"
#include "sys/memory.h"
#include "sys/probe.h"

namespace nautile {

// The machine's own ceilings, measured in the same run.
struct Ceilings {
  double read_gbs = 0;     // best of the run
  std::vector<NodeRate> nodes;  // of that best
  double float_tflops = 0; // BF16 or float multiply-adds, the fastest kind that the kernels may use
  double byte_tops = 0;    // int8 dot products, or as above if that is more
};

// What one part of a step must move and compute. A multiply-add is 2 operations.
struct PartCost {
  double bytes = 0;
  double float_ops = 0, byte_ops = 0;  // against the BF16 and the int8 peak
  double bound_s(double read_gbs, const Ceilings& ceilings) const;
};

// What a step must move and compute. Its parts need one another's outputs, so each is held against its own roof and the
// seconds are added: of each the larger of bytes / read rate and operations / peak.
struct StepCost {
  PartCost dense;      // every matrix outside the experts
  PartCost experts;    // routed and shared ones: those run side by side
  PartCost attention;  // cache rows
  PartCost index;      // index keys
  double weight_bytes() const { return dense.bytes + experts.bytes; }
  double bytes() const { return weight_bytes() + attention.bytes + index.bytes; }
  double ops() const { return weight_ops() + attention.float_ops + index.byte_ops; }
  double weight_ops() const { return dense.float_ops + experts.float_ops + experts.byte_ops; }
  double bound_s(double read_gbs, const Ceilings& ceilings) const {
    return dense.bound_s(read_gbs, ceilings) + experts.bound_s(read_gbs, ceilings) +
           attention.bound_s(read_gbs, ceilings) + index.bound_s(read_gbs, ceilings);
  }
};

struct BenchRow {
  std::string what;  // "decode" or "prefill"
  int64_t depth = 0, batch = 0, chunk = 0;
  int threads = 0;
  double tokens_per_s = 0, low = 0, high = 0;  // median of the repeats, slowest, fastest
  double read_gbs = 0;                         // median of those between the repeats
  double percent_of_bound = 0;                 // median over the repeats, each against the read rate around it
  double experts = 0;                          // distinct experts read, a layer and step
  StepCost cost{};                             // of one step
  Ceilings ceilings{};
  std::array<double, kOps> op_seconds{};       // of one step, mean of the repeats
  double percent_stolen = 0;                   // of the processors' time while it was measured, probes with it: the host's
  double percent_taken = 0;                    // of the experts: pages taken by the host, brought back before a repeat; the most
  double peak_bytes = 0, state_bytes = 0;      // most memory of the process while it ran; of it, the sequences' states

  double step_s() const { return static_cast<double>(batch * chunk) / tokens_per_s; }
  double weight_gbs() const { return cost.weight_bytes() / step_s() / 1e9; }
  double tflops() const { return cost.weight_ops() / step_s() / 1e12; }
  double percent_of_roof() const { return read_gbs > 0 ? 100 * weight_gbs() / read_gbs : 0; }  // weights over reading
  double percent_of_peak() const { return ceilings.float_tflops > 0 ? 100 * tflops() / ceilings.float_tflops : 0; }
  double bound_tokens_per_s() const {
    return static_cast<double>(batch * chunk) / cost.bound_s(read_gbs, ceilings);
  }
};

// How the weights came into memory.
struct LoadReport {
  struct Part {
    std::string what;
    double bytes = 0, begin = 0, end = 0;  // seconds_now()
    double seconds() const { return end - begin; }
  };
  double seconds = 0;       // from the command to weights that can be used, making synthetic ones not counted
  std::vector<Part> parts;  // those that had bytes to handle
  double weight_bytes = 0;  // of all tensors
  double peak_bytes = 0;    // most memory of the process meanwhile
  double anonymous_bytes = 0, file_bytes = 0;  // of it, after
  bool mapped = false;      // from a repacked file

  void progress(const LoadProgress& p);
};

// What share of the processors' time the host of a virtual machine has kept since this was made, in percent.
class HostTime {
 public:
  double percent() const {
    const double all = (seconds_now() - began_) * static_cast<double>(cpus_.size());
    return 100 * (stolen_seconds(cpus_) - stolen_) / all;
  }

 private:
  std::vector<int> cpus_ = allowed_cpus();
  double began_ = seconds_now(), stolen_ = stolen_seconds(cpus_);
};

// Experts are read now and then only, so of them the host of a virtual machine takes pages; it gives each back when it is touched,
// at tens to hundreds of MB/s. The read probe's come back in its first pass. So all experts are touched before a clock starts that
// shall measure the engine. Expert `index` of expert_count(), where it lies in memory of the process. Thread-safety: reads only; does not run the pool.
inline size_t expert_count(const Weights& weights) {
  return weights.layers.size() * weights.layers[0].moe.experts.size();
}
TouchedPages touch_expert(const Weights& weights, const ThreadPool& pool, size_t index);

class Bench {
 public:
  Bench(const Weights& weights, const Kernels& kernels, Numerics numerics, ThreadPool& pool, int repeats);

  // `steps` decode steps of `batch` sequences that each have `depth` tokens. Near the end of the context the depth is
  // as much less as the steps need.
  Result<BenchRow> decode(int64_t depth, int64_t batch, int steps);
  // One chunk of `chunk` tokens after `depth` others.
  Result<BenchRow> prefill(int64_t depth, int64_t chunk);

  const Ceilings& ceilings() const { return ceilings_; }

 private:
  Result<double> read_rate();
  void read_peak(double seconds);
  void begin_row();
  void begin_repeat();
  Status end_repeat(double tokens);
  int32_t next_token();
  Result<std::unique_ptr<SequenceState>> state(int64_t depth, uint64_t seed);
  void add_tokens(StepCost& cost, int64_t begin, int64_t end) const;
  void finish(BenchRow& row, double experts, double steps);

  const Weights& weights_;
  WeightCost weight_cost_;
  ThreadPool& pool_;
  int repeats_;
  Forward forward_;
  Ceilings ceilings_;
  ReadProbe reader_;
  std::string_view isa_;
  bool byte_experts_;                // FP4 matrices take int8 activations
  std::vector<double> rates_, reads_;  // of the row at hand: its repeats, and the read rates before and after each
  double repeat_began_ = 0, percent_taken_ = 0;  // likewise
  HostTime host_;                                // likewise
  uint64_t random_ = 1;
};

std::string bench_text(const std::vector<BenchRow>& rows);
std::string bench_csv(const std::vector<BenchRow>& rows);
std::string bench_json(const std::vector<BenchRow>& rows, const std::string& isa, const std::string& numerics, int layers,
                       const Ceilings& ceilings, const LoadReport& load);
std::string load_text(const LoadReport& load, const std::vector<BenchRow>& rows);
// Left, the roofline with every row on it; right, where each row's time goes.
std::string bench_svg(const std::vector<BenchRow>& rows, const std::string& title);

// Every kernel of the chosen instruction set alone, beside its ceiling, as a table.
Result<std::string> bench_kernels(const Weights& weights, const Kernels& kernels, Numerics numerics, ThreadPool& pool);

}  // namespace nautile
