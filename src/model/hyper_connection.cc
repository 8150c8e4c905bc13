// Statistics, Sinkhorn and stream sums, all in float.
#include "model/hyper_connection.h"

#include <algorithm>
#include <cmath>

#include "tensor/quantise.h"

namespace nautile {
namespace {

float sigmoid(float x) {
  return 1 / (1 + std::exp(-x));
}

// sum_j factors[j] * streams[j], rows `width` apart.
void weighted_sum(Step& step, const float* factors, size_t streams, const float* x, size_t width, float* out) {
  for (size_t i = 0; i < width; ++i) out[i] = factors[0] * x[i];
  for (size_t j = 1; j < streams; ++j) step.kernels.axpy(factors[j], x + j * width, out, width);
  if (step.policy.round_bf16) round_bf16(out, width);
}

}  // namespace

Mixing make_mixing(const float* mixes, const HyperConnection& hc, size_t m, int iterations, float eps) {
  Mixing out;
  for (size_t j = 0; j < m; ++j) {
    out.pre[j] = sigmoid(mixes[j] * hc.scale[0] + hc.base[j]) + eps;
    out.post[j] = 2 * sigmoid(mixes[m + j] * hc.scale[1] + hc.base[m + j]);
  }
  float* c = out.comb;
  for (size_t i = 0; i < m * m; ++i) c[i] = mixes[2 * m + i] * hc.scale[2] + hc.base[2 * m + i];
  for (size_t j = 0; j < m; ++j) {
    const float most = *std::max_element(c + j * m, c + (j + 1) * m);
    float sum = 0;
    for (size_t k = 0; k < m; ++k) sum += c[j * m + k] = std::exp(c[j * m + k] - most);
    for (size_t k = 0; k < m; ++k) c[j * m + k] = c[j * m + k] / sum + eps;
  }
  auto columns = [&] {
    for (size_t k = 0; k < m; ++k) {
      float sum = 0;
      for (size_t j = 0; j < m; ++j) sum += c[j * m + k];
      for (size_t j = 0; j < m; ++j) c[j * m + k] /= sum + eps;
    }
  };
  columns();
  for (int i = 1; i < iterations; ++i) {
    for (size_t j = 0; j < m; ++j) {
      float sum = 0;
      for (size_t k = 0; k < m; ++k) sum += c[j * m + k];
      for (size_t k = 0; k < m; ++k) c[j * m + k] /= sum + eps;
    }
    columns();
  }
  return out;
}

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
  step.pool.for_range(tokens, 1, [&](int, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      mixing[t] = make_mixing(raw + t * hc.fn.rows, hc, m, step.config.hc_sinkhorn_iters,
                              static_cast<float>(step.config.hc_eps));
      weighted_sum(step, mixing[t].pre, m, streams + t * hc.fn.cols, width, u + t * width);
    }
  });
}

void HyperConnections::expand(Step& step, const std::vector<Mixing>& mixing, const float* y, float* streams) {
  const size_t m = static_cast<size_t>(step.config.hc_mult), width = static_cast<size_t>(step.config.hidden);
  step.pool.for_range(step.count(), 1, [&](int, size_t begin, size_t end) {
    float old[kMaxStreams];
    for (size_t t = begin; t < end; ++t) {
      float* x = streams + t * m * width;
      const Mixing& mix = mixing[t];
      for (size_t i = 0; i < width; ++i) {
        for (size_t j = 0; j < m; ++j) old[j] = x[j * width + i];
        for (size_t k = 0; k < m; ++k) {
          float sum = mix.post[k] * y[t * width + i];
          for (size_t j = 0; j < m; ++j) sum += mix.comb[j * m + k] * old[j];
          x[k * width + i] = sum;
        }
      }
      if (step.policy.round_bf16) round_bf16(x, m * width);
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
        pre[j] = sigmoid(raw[t * m + j] * head.scale + head.base[j]) + static_cast<float>(step.config.hc_eps);
      }
      weighted_sum(step, pre, m, streams + t * m * width, width, x + t * width);
    }
  });
}

}  // namespace nautile
