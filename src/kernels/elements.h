// The operations of a step that are no matrix products: norms, rotation, roundings, SwiGLU, pooling, hyper-connections.
//
// The contract is that of ops.h. Element by element they do the same float operations in every version but where a
// comment gives a bound: sums over a row (norms, pooling) and e^x.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nautile {

// out[i] = softmax over c of gate[c][i], times kv[c][i]: one softmax a channel. count >= 1.
struct PoolArgs {
  const float* const* kv = nullptr;    // [count] rows of `width`
  const float* const* gate = nullptr;  // [count] rows of `width`
  size_t count = 0, width = 0;
  float* out = nullptr;  // [width]
};

// The coefficients of m residual streams for a few tokens, from the 2m + m * m raw mixes of each: sigmoids, a softmax a
// row of comb, then Sinkhorn (spec model.md 3.3, steps 3 and 4).
struct MixingArgs {
  const float* raw = nullptr;  // [tokens, 2m + m * m]
  size_t tokens = 0, m = 0;    // m <= kMaxStreams
  const float* scale = nullptr;  // [3]
  const float* base = nullptr;   // [2m + m * m]
  int iterations = 0;
  float eps = 0;
  // Of token t at t * stride floats.
  float *pre = nullptr, *post = nullptr, *comb = nullptr;  // [m], [m], [m, m]
  size_t stride = 0;
};
inline constexpr size_t kMaxStreams = 8;

// The highest of a vocabulary's logits; the first among equals.
struct Peak {
  float value = 0;
  size_t index = 0;
};

struct Elements {
  // out = weight * (x / sqrt(mean(x^2) + eps)); weight null: 1. out may be x.
  void (*rms_norm)(const float* x, const float* weight, size_t count, float eps, float* out) = nullptr;
  // Turns adjacent pairs by their angles, in place; `inverse` turns back. values: [2 * pairs]; cos, sin: [pairs]
  void (*rotate)(float* values, const float* cos, const float* sin, size_t pairs, bool inverse) = nullptr;
  void (*round_bf16)(float* values, size_t count) = nullptr;
  // As in tensor/quantise.h.
  void (*fp8_encode)(const float* values, size_t count, size_t group, uint8_t* codes, uint8_t* scales) = nullptr;
  void (*fp8_quantise)(float* values, size_t count, size_t group) = nullptr;
  void (*fp4_encode)(const float* values, size_t count, uint8_t* codes, uint8_t* scales) = nullptr;
  void (*fp4_quantise)(float* values, size_t count) = nullptr;
  void (*hadamard)(float* values, size_t count) = nullptr;
  // out[i] = weight * silu(min(gate[i], limit)) * clamp(up[i], -limit, limit); e^x within 2 units in the last place.
  void (*swiglu)(const float* gate, const float* up, size_t count, float limit, float weight, float* out) = nullptr;
  // x[i] = sqrt(log(1 + e^x[i])), in place: within 2e-6 of its size while e^x[i] is a normal number, 4e-23 below; NaN stays.
  void (*route_scores)(float* x, size_t count) = nullptr;
  void (*pool)(const PoolArgs&) = nullptr;
  void (*mixing)(const MixingArgs&) = nullptr;
  // out[i] = sum_j factors[j] * x[j][i]. factors: [m]; x: [m, width]; out: [width]
  void (*collapse)(const float* factors, size_t m, const float* x, size_t width, float* out) = nullptr;
  // x[k][i] = post[k] * y[i] + sum_j comb[j][k] * x[j][i], in place. post: [m]; comb: [m, m]; y: [width]; x: [m, width]
  void (*expand)(const float* post, const float* comb, size_t m, const float* y, size_t width, float* x) = nullptr;
  // out[i] = x[i] where bit i of `allowed` is set (32 to a word, lowest first; null: all), else -infinity. The peak of out:
  // -infinity at 0 if nothing is left; NaN if any x, allowed or not, is NaN or +infinity. count < 2^31; out may be x.
  Peak (*masked)(const float* x, const uint32_t* allowed, size_t count, float* out) = nullptr;
  // out[i] = e^((x[i] - highest) * factor), e^x within 2 units in the last place; x[i] <= highest, -infinity gives 0. The
  // sum of out. out may be x.
  float (*exponentials)(const float* x, size_t count, float highest, float factor, float* out) = nullptr;
};

}  // namespace nautile
