// How many tokens to draft in the next step: as many as make tokens come fastest by what has been measured, and none
// when drafting would not pay.
//
// A step that verifies k drafts for each of B sequences yields on average 1 + a_1 + a_1 a_2 + ... tokens a sequence
// (a_i: share of i-th drafts accepted, where those before were) and takes the time of B * (1 + k) tokens and k drafts.
// Times are measured per (B, k); what has not been measured is estimated from the bytes that so many tokens read.
// Depths that lose are tried again from time to time, ever more rarely, since texts change. Decisions here never change
// a token, only when it comes. Thread-safety: one thread. No allocation after construction. Source: spec planner.md 6.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace nautile {

// A share of drafts that stood, as a moving average.
struct Acceptance {
  static constexpr int kPriorDrafts = 4, kMemoryDrafts = 60;
  double share = 0.6;
  int seen = 0;
  void saw(bool accepted) {
    seen = std::min(seen + 1, kMemoryDrafts);
    share += ((accepted ? 1.0 : 0.0) - share) / (kPriorDrafts + seen);
  }
};

class DraftPolicy {
 public:
  // step_cost(tokens) and draft_cost(tokens): relative cost by bytes of a forward pass and of one pass of the draft
  // module. max_batch: sequences.
  DraftPolicy(int max_depth, int max_batch, const std::function<double(int tokens)>& step_cost,
              const std::function<double(int tokens)>& draft_cost);

  // Depth for a step of these sequences (their acceptance), at most `limit`.
  int depth(const std::vector<const Acceptance*>& sequences, int limit);

  // A step with `depth` drafts for each of `batch` sequences took so long, drafting included.
  void took(int batch, int depth, double seconds);
  // Of a draft at `place` (0 is the first), given that those before it stood. `sequence`: its own first drafts, so that
  // a text that drafts badly does not pay for one that does well.
  void saw(Acceptance& sequence, int place, bool accepted);
  // Tokens a second that the policy expects of a depth.
  double expected_rate(const std::vector<const Acceptance*>& sequences, int depth) const;

  static constexpr double kMargin = 1.03;  // a depth must win by this much over none
  static constexpr int kTrialSteps = 4, kFirstPause = 256, kLongestPause = 8192;

 private:
  double seconds(int batch, int depth) const;
  size_t cell(int batch, int depth) const {
    return static_cast<size_t>(batch - 1) * static_cast<size_t>(max_depth_ + 1) + static_cast<size_t>(depth);
  }
  double estimate(int batch, int depth) const { return step_cost_[batch * (depth + 1)] + depth * draft_cost_[batch]; }

  const int max_depth_, max_batch_;
  std::vector<double> step_cost_, draft_cost_;  // by tokens
  std::vector<double> measured_;                // seconds by cell, 0: not yet
  std::vector<Acceptance> by_place_;            // over all sequences
  int64_t step_ = 0, next_trial_ = kTrialSteps * 4, trial_until_ = 0, pause_ = kFirstPause;
  int trial_depth_ = 0;
};

}  // namespace nautile
