// One element at a time, in order, in float.
#include "kernels/ref/elements.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/formats.h"
#include "tensor/quantise.h"

namespace nautile::ref {
namespace {

void rms_norm(const float* x, const float* weight, size_t count, float eps, float* out) {
  float sum = 0;
  for (size_t i = 0; i < count; ++i) sum += x[i] * x[i];
  const float factor = 1 / std::sqrt(sum / static_cast<float>(count) + eps);
  for (size_t i = 0; i < count; ++i) out[i] = (weight != nullptr ? weight[i] : 1.f) * (x[i] * factor);
}

void rotate(float* values, const float* cos, const float* sin, size_t pairs, bool inverse) {
  for (size_t i = 0; i < pairs; ++i) {
    const float a = values[2 * i], b = values[2 * i + 1], s = inverse ? -sin[i] : sin[i];
    values[2 * i] = a * cos[i] - b * s;
    values[2 * i + 1] = a * s + b * cos[i];
  }
}

void swiglu(const float* gate, const float* up, size_t count, float limit, float weight, float* out) {
  for (size_t i = 0; i < count; ++i) {
    const float g = std::min(gate[i], limit), u = std::clamp(up[i], -limit, limit);
    out[i] = weight * (g / (1 + std::exp(-g)) * u);
  }
}

void route_scores(float* x, size_t count) {
  for (size_t i = 0; i < count; ++i) x[i] = std::sqrt(x[i] > 20 ? x[i] : std::log1p(std::exp(x[i])));
}

void pool(const PoolArgs& a) {
  for (size_t i = 0; i < a.width; ++i) {
    float most = a.gate[0][i];
    for (size_t c = 1; c < a.count; ++c) most = std::max(most, a.gate[c][i]);
    float total = 0, sum = 0;
    for (size_t c = 0; c < a.count; ++c) {
      const float p = std::exp(a.gate[c][i] - most);
      total += p;
      sum += p * a.kv[c][i];
    }
    a.out[i] = sum / total;
  }
}

float sigmoid(float x) {
  return 1 / (1 + std::exp(-x));
}

void mixing_of(const MixingArgs& a, const float* raw, float* pre, float* post, float* c) {
  const size_t m = a.m;
  for (size_t j = 0; j < m; ++j) {
    pre[j] = sigmoid(raw[j] * a.scale[0] + a.base[j]) + a.eps;
    post[j] = 2 * sigmoid(raw[m + j] * a.scale[1] + a.base[m + j]);
  }
  for (size_t i = 0; i < m * m; ++i) c[i] = raw[2 * m + i] * a.scale[2] + a.base[2 * m + i];
  for (size_t j = 0; j < m; ++j) {
    const float most = *std::max_element(c + j * m, c + (j + 1) * m);
    float sum = 0;
    for (size_t k = 0; k < m; ++k) sum += c[j * m + k] = std::exp(c[j * m + k] - most);
    for (size_t k = 0; k < m; ++k) c[j * m + k] = c[j * m + k] / sum + a.eps;
  }
  auto columns = [&] {
    for (size_t k = 0; k < m; ++k) {
      float sum = 0;
      for (size_t j = 0; j < m; ++j) sum += c[j * m + k];
      for (size_t j = 0; j < m; ++j) c[j * m + k] /= sum + a.eps;
    }
  };
  columns();
  for (int i = 1; i < a.iterations; ++i) {
    for (size_t j = 0; j < m; ++j) {
      float sum = 0;
      for (size_t k = 0; k < m; ++k) sum += c[j * m + k];
      for (size_t k = 0; k < m; ++k) c[j * m + k] /= sum + a.eps;
    }
    columns();
  }
}

void mixing(const MixingArgs& a) {
  for (size_t t = 0; t < a.tokens; ++t) {
    mixing_of(a, a.raw + t * (2 * a.m + a.m * a.m), a.pre + t * a.stride, a.post + t * a.stride, a.comb + t * a.stride);
  }
}

void collapse(const float* factors, size_t m, const float* x, size_t width, float* out) {
  for (size_t i = 0; i < width; ++i) {
    out[i] = factors[0] * x[i];
    for (size_t j = 1; j < m; ++j) out[i] += factors[j] * x[j * width + i];
  }
}

void expand(const float* post, const float* comb, size_t m, const float* y, size_t width, float* x) {
  float old[kMaxStreams];
  for (size_t i = 0; i < width; ++i) {
    for (size_t j = 0; j < m; ++j) old[j] = x[j * width + i];
    for (size_t k = 0; k < m; ++k) {
      float sum = post[k] * y[i];
      for (size_t j = 0; j < m; ++j) sum += comb[j * m + k] * old[j];
      x[k * width + i] = sum;
    }
  }
}

Peak masked(const float* x, const uint32_t* allowed, size_t count, float* out) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  Peak peak{-kInfinity, 0};
  bool broken = false;
  for (size_t i = 0; i < count; ++i) {
    broken |= !(x[i] < kInfinity);
    out[i] = allowed == nullptr || (allowed[i / 32] >> (i % 32) & 1) != 0 ? x[i] : -kInfinity;
    if (out[i] > peak.value) peak = {out[i], i};
  }
  return broken ? Peak{std::numeric_limits<float>::quiet_NaN(), 0} : peak;
}

float exponentials(const float* x, size_t count, float highest, float factor, float* out) {
  float sum = 0;
  for (size_t i = 0; i < count; ++i) sum += out[i] = std::exp((x[i] - highest) * factor);
  return sum;
}

}  // namespace

const Elements& elements() {
  static constexpr Elements kElements = {rms_norm,    rotate,
                                         nautile::round_bf16, nautile::fp8_encode,
                                         nautile::fp8_quantise, nautile::fp4_encode,
                                         nautile::fp4_quantise, nautile::hadamard,
                                         swiglu,      route_scores,
                                         pool,        mixing,
                                         collapse,    expand,
                                         masked,      exponentials};
  return kElements;
}

}  // namespace nautile::ref
