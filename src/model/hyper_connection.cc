// Statistics, Sinkhorn and stream sums, all in float.
#include "model/hyper_connection.h"

#include <cmath>

namespace nautile {

// mixes_[t] = (v fn^T) / sqrt(mean(v^2) + eps) over the flattened streams v of each token.
void HyperConnections::mixes(Step& step, const WeightView& fn, const float* streams, size_t tokens) {
  float* m = mixes_.floats(tokens * fn.rows);
  linear_(step, fn, streams, fn.cols, tokens, m, fn.rows, Rounding::kNone);
  const float eps = static_cast<float>(step.config.norm_eps);
  step.pool.for_range(tokens, 1, [&](int, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const float* v = streams + t * fn.cols;
      const float rho = 1 / std::sqrt(step.kernels.dot(v, v, fn.cols) / static_cast<float>(fn.cols) + eps);
      for (size_t i = 0; i < fn.rows; ++i) m[t * fn.rows + i] *= rho;
    }
  });
}

void HyperConnections::collapse(Step& step, const HyperConnection& hc, const float* streams, float* u,
                                std::vector<Mixing>& mixing) {
  const size_t tokens = step.count(), m = static_cast<size_t>(step.config.hc_mult), width = hc.fn.cols / m;
  mixes(step, hc.fn, streams, tokens);
  const float* raw = mixes_.floats(0);
  mixing.resize(tokens);
  const Elements& elements = step.kernels.elements;
  step.pool.for_range(tokens, 1, [&](int, size_t begin, size_t end) {
    elements.mixing({raw + begin * hc.fn.rows, end - begin, m, hc.scale, hc.base.data(), step.config.hc_sinkhorn_iters,
                     static_cast<float>(step.config.hc_eps), mixing[begin].pre, mixing[begin].post, mixing[begin].comb,
                     sizeof(Mixing) / sizeof(float)});
    for (size_t t = begin; t < end; ++t) {
      elements.collapse(mixing[t].pre, m, streams + t * hc.fn.cols, width, u + t * width);
      if (step.policy.round_bf16) elements.round_bf16(u + t * width, width);
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
  mixes(step, head.fn, streams, tokens);
  const float* raw = mixes_.floats(0);
  step.pool.for_range(tokens, 1, [&](int, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
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
