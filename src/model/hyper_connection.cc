// Statistics, Sinkhorn and stream sums, all in float.
#include "model/hyper_connection.h"

#include <algorithm>
#include <cmath>

namespace nautile {
namespace {

// Tokens whose streams stay in the second-level cache from their norm to their sum: 512 KB of V4-Flash.
constexpr size_t kTokenBlock = 8;

}  // namespace

// mixes_[t] = v fn^T over the flattened streams v of each token; normalise() makes them (v fn^T) / rms(v).
float* HyperConnections::mixes(Step& step, const WeightView& fn, const float* streams, size_t tokens) {
  float* m = mixes_.floats(tokens * fn.rows);
  linear_(step, fn, streams, fn.cols, tokens, m, fn.rows, Rounding::kNone);
  return m;
}

void HyperConnections::normalise(const Step& step, const WeightView& fn, const float* v, float* mixes) const {
  const float eps = static_cast<float>(step.config.norm_eps);
  const float rho = 1 / std::sqrt(step.kernels.dot(v, v, fn.cols) / static_cast<float>(fn.cols) + eps);
  for (size_t i = 0; i < fn.rows; ++i) mixes[i] *= rho;
}

void HyperConnections::collapse(Step& step, const HyperConnection& hc, const float* streams, float* u,
                                std::vector<Mixing>& mixing) {
  const size_t tokens = step.count(), m = static_cast<size_t>(step.config.hc_mult), width = hc.fn.cols / m;
  float* raw = mixes(step, hc.fn, streams, tokens);
  mixing.resize(tokens);
  const Elements& elements = step.kernels.elements;
  step.pool.for_range(tokens, 1, [&](int, size_t begin, size_t end) {
    for (size_t block = begin; block < end; block += kTokenBlock) {
      const size_t last = std::min(end, block + kTokenBlock);
      for (size_t t = block; t < last; ++t) normalise(step, hc.fn, streams + t * hc.fn.cols, raw + t * hc.fn.rows);
      elements.mixing({raw + block * hc.fn.rows, last - block, m, hc.scale, hc.base.data(),
                       step.config.hc_sinkhorn_iters, static_cast<float>(step.config.hc_eps), mixing[block].pre,
                       mixing[block].post, mixing[block].comb, sizeof(Mixing) / sizeof(float)});
      for (size_t t = block; t < last; ++t) {
        elements.collapse(mixing[t].pre, m, streams + t * hc.fn.cols, width, u + t * width);
        if (step.policy.round_bf16) elements.round_bf16(u + t * width, width);
      }
    }
  });
}

void HyperConnections::expand(Step& step, const std::vector<Mixing>& mixing, const float* y, float* streams) {
  const size_t m = static_cast<size_t>(step.config.hc_mult), width = static_cast<size_t>(step.config.hidden);
  step.pool.for_range(step.count(), 1, [&](int, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      float* x = streams + t * m * width;
      step.kernels.elements.expand(mixing[t].post, mixing[t].comb, m, y + t * width, width, x);
      if (step.policy.round_bf16) step.kernels.elements.round_bf16(x, m * width);
    }
  });
}

void HyperConnections::collapse_head(Step& step, const HyperHead& head, const float* streams, size_t tokens, float* x) {
  const size_t m = static_cast<size_t>(step.config.hc_mult), width = static_cast<size_t>(step.config.hidden);
  float* raw = mixes(step, head.fn, streams, tokens);
  step.pool.for_range(tokens, 1, [&](int, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      normalise(step, head.fn, streams + t * m * width, raw + t * m);
      float pre[kMaxStreams];
      for (size_t j = 0; j < m; ++j) {
        const float z = raw[t * m + j] * head.scale + head.base[j];
        pre[j] = 1 / (1 + std::exp(-z)) + static_cast<float>(step.config.hc_eps);
      }
      step.kernels.elements.collapse(pre, m, streams + t * m * width, width, x + t * width);
      if (step.policy.round_bf16) step.kernels.elements.round_bf16(x + t * width, width);
    }
  });
}

}  // namespace nautile
