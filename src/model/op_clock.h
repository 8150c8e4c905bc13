// OpClock: where the time of a step goes, by kind of operation, as the calling thread sees it. Two clock reads an
// operation and layer, so it is always on. Thread-safety: one thread, that of the steps.
#pragma once

#include <array>
#include <cstddef>

#include "sys/clock.h"

namespace nautile {

enum class Op {
  kOther,        // embedding, angles, checks, and what lies between two steps of one Forward
  kStreams,      // hyper-connections with their mixes, and the norms after them
  kProjections,  // the attention's weight matrices, compressors and indexer included
  kQueries,      // rotation and rounding of index queries
  kRows,         // window rows and compressed entries: norm, rotation, pooling, packing
  kScores,       // index scores and top-k
  kAttention,    // norm and rotation of queries, scores, softmax and sum over the attended rows
  kExperts,      // router, routed and shared experts
  kHead,         // final collapse, norm and logits
};
inline constexpr size_t kOps = 9;
inline constexpr std::array<const char*, kOps> kOpNames = {"other",  "streams",   "projections", "queries", "rows",
                                                           "scores", "attention", "experts",     "head"};

class OpClock {
 public:
  // What follows is of kind `op`.
  void enter(Op op) {
    const double now = seconds_now();
    seconds_[static_cast<size_t>(current_)] += now - last_;
    last_ = now;
    current_ = op;
  }
  void reset() {
    seconds_ = {};
    last_ = seconds_now();
  }
  // [kOps], by Op; without what the current one has taken since it was entered.
  const std::array<double, kOps>& seconds() const { return seconds_; }

 private:
  std::array<double, kOps> seconds_{};
  double last_ = seconds_now();
  Op current_ = Op::kOther;
};

}  // namespace nautile
