// mHC: the M residual streams, collapsed before each sub-layer and mixed after it (spec model.md section 3).
//
// Thread-safety: one caller at a time, as AttentionLayer.
#pragma once

#include "model/linear.h"
#include "model/weights.h"

namespace nautile {

// The coefficients of one token, M = hc_mult <= kMaxStreams (kernels/elements.h).
struct Mixing {
  float pre[kMaxStreams];
  float post[kMaxStreams];
  float comb[kMaxStreams * kMaxStreams];  // comb[j * M + k]: from old stream j to new stream k
};

class HyperConnections {
 public:
  // u[t] = sum_j pre_j X_j. X: [tokens, M, D], u: [tokens, D]
  void collapse(Step& step, const HyperConnection& hc, const float* streams, float* u, std::vector<Mixing>& mixing);
  // X'_k = post_k y + sum_j comb[j][k] X_j, in place. y: [tokens, D]
  void expand(Step& step, const std::vector<Mixing>& mixing, const float* y, float* streams);
  // x[t] = sum_j pre_j X_j with the head's own coefficients. streams: [tokens, M, D] -> x: [tokens, D]
  void collapse_head(Step& step, const HyperHead& head, const float* streams, size_t tokens, float* x);

 private:
  float* mixes(Step& step, const WeightView& fn, const float* streams, size_t tokens);
  void normalise(const Step& step, const WeightView& fn, const float* v, float* mixes) const;
  Linear linear_;
  Buffer mixes_;
};

}  // namespace nautile
