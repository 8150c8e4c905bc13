// Depth by expected rate.
#include "engine/speculation.h"

#include <algorithm>
#include <cmath>

namespace nautile {

DraftPolicy::DraftPolicy(int max_depth, int max_batch, const std::function<double(int tokens)>& step_cost,
                         const std::function<double(int tokens)>& draft_cost)
    : max_depth_(max_depth), max_batch_(max_batch), by_place_(static_cast<size_t>(max_depth)) {
  for (int n = 0; n <= max_batch * (max_depth + 1); ++n) {
    step_cost_.push_back(step_cost(n));
    draft_cost_.push_back(draft_cost(n));
  }
  measured_.resize(static_cast<size_t>(max_batch) * static_cast<size_t>(max_depth + 1));
}

// Measured, or scaled from the nearest cell that was: the same depth at another batch, else another depth.
double DraftPolicy::seconds(int batch, int depth) const {
  if (measured_[cell(batch, depth)] > 0) return measured_[cell(batch, depth)];
  double best = 0;
  int best_distance = 1 << 30;
  for (int b = 1; b <= max_batch_; ++b) {
    for (int k = 0; k <= max_depth_; ++k) {
      const int distance = std::abs(b - batch) + 4 * std::abs(k - depth);
      if (measured_[cell(b, k)] > 0 && distance < best_distance) {
        best_distance = distance;
        best = measured_[cell(b, k)] * estimate(batch, depth) / estimate(b, k);
      }
    }
  }
  return best > 0 ? best : estimate(batch, depth);
}

double DraftPolicy::expected_rate(const std::vector<const Acceptance*>& sequences, int depth) const {
  double tokens = 0;
  for (const Acceptance* sequence : sequences) {
    double all = 1;
    tokens += 1;
    for (int i = 0; i < depth; ++i) {
      // The sequence's own first place, and how later places compare with the first over all sequences.
      const double first = sequence->seen == 0 ? by_place_[0].share : sequence->share;
      const double later = by_place_[static_cast<size_t>(i)].share / std::max(by_place_[0].share, 0.01);
      all *= i == 0 ? first : std::min(1.0, first * later);
      tokens += all;
    }
  }
  return tokens / seconds(static_cast<int>(sequences.size()), depth);
}

void DraftPolicy::saw(Acceptance& sequence, int place, bool accepted) {
  by_place_[static_cast<size_t>(place)].saw(accepted);
  if (place > 0) return;
  if (sequence.seen == 0) sequence.share = by_place_[0].share;
  sequence.saw(accepted);
}

int DraftPolicy::depth(const std::vector<const Acceptance*>& sequences, int limit) {
  limit = std::min(limit, max_depth_);
  const int batch = static_cast<int>(sequences.size());
  if (limit <= 0 || batch == 0 || batch > max_batch_) return 0;
  ++step_;
  if (step_ < trial_until_) return std::min(trial_depth_, limit);

  int best = 0;
  const double none = expected_rate(sequences, 0);
  double best_rate = none * kMargin;
  for (int k = 1; k <= limit; ++k) {
    const double rate = expected_rate(sequences, k);
    if (rate > best_rate) {
      best = k;
      best_rate = rate;
    }
  }
  if (step_ >= next_trial_) {
    // A neighbour of the best depth, the deeper one in turn with the shallower one.
    const bool deeper = best == 0 || (best < limit && step_ / kTrialSteps % 2 == 0);
    trial_depth_ = std::clamp(deeper ? best + 1 : best - 1, 0, limit);
    trial_until_ = step_ + kTrialSteps;
    pause_ = best == 0 ? std::min<int64_t>(pause_ * 2, kLongestPause) : kFirstPause;
    next_trial_ = trial_until_ + pause_;
    return trial_depth_;
  }
  return best;
}

void DraftPolicy::took(int batch, int depth, double seconds) {
  if (batch < 1 || batch > max_batch_ || depth > max_depth_) return;
  double& cell_seconds = measured_[cell(batch, depth)];
  // One slow step among many (another program, a page fault) must not decide.
  if (cell_seconds > 0) seconds = std::min(seconds, 3 * cell_seconds);
  cell_seconds += (cell_seconds > 0 ? 0.1 : 1.0) * (seconds - cell_seconds);
}

}  // namespace nautile
