// Attention, index scores and top-k so that they are obviously right: one element at a time, in order, in float.
#include "kernels/ref/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "tensor/formats.h"

namespace nautile::ref {
namespace {

float dot(const float* x, const float* y, size_t count) {
  float sum = 0;
  for (size_t i = 0; i < count; ++i) sum += x[i] * y[i];
  return sum;
}

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

void decode_row(const KvLayout& kv, const std::byte* row, float* out) {
  if (kv.format == KvFormat::kF32) {
    std::memcpy(out, row, kv.head_dim * sizeof(float));
    return;
  }
  const std::byte* scales = row + kv.nope() + 2 * kv.rope_dim;
  for (size_t i = 0; i < kv.nope(); ++i) {
    out[i] = e4m3_to_f32(static_cast<uint8_t>(row[i])) * e8m0_to_f32(static_cast<uint8_t>(scales[i / 64]));
  }
  for (size_t i = 0; i < kv.rope_dim; ++i) out[kv.nope() + i] = bf16_to_f32(load<uint16_t>(row + kv.nope() + 2 * i));
}

}  // namespace

void attend(const AttendArgs& a) {
  const size_t dim = a.kv.head_dim;
  float* decoded = a.scratch;                     // [block, dim]
  float* weights = decoded + kAttendBlock * dim;  // [block]
  for (size_t h = 0; h < a.heads; ++h) {
    const float* q = a.q + h * dim;
    float* out = a.out + h * dim;
    std::fill(out, out + dim, 0.f);
    float most = a.sink[h], total = 0;
    for (size_t j = 0; a.precision == AttendPrecision::kOfficial && j < a.row_count; ++j) {
      decode_row(a.kv, a.rows[j], decoded);
      most = std::max(most, dot(q, decoded, dim) * a.scale);
    }
    for (size_t begin = 0; begin < a.row_count; begin += kAttendBlock) {
      const size_t count = std::min(kAttendBlock, a.row_count - begin);
      float block_most = most;
      for (size_t j = 0; j < count; ++j) {
        decode_row(a.kv, a.rows[begin + j], decoded + j * dim);
        weights[j] = dot(q, decoded + j * dim, dim) * a.scale;
        block_most = std::max(block_most, weights[j]);
      }
      const float shrink = std::exp(most - block_most);
      total *= shrink;
      for (size_t i = 0; i < dim; ++i) out[i] *= shrink;
      for (size_t j = 0; j < count; ++j) {
        const float p = std::exp(weights[j] - block_most);
        total += p;
        const float factor = a.precision == AttendPrecision::kOfficial ? round_bf16(p) : p;
        for (size_t i = 0; i < dim; ++i) out[i] += factor * decoded[j * dim + i];
      }
      most = block_most;
    }
    total += std::exp(a.sink[h] - most);
    for (size_t i = 0; i < dim; ++i) out[i] /= total;
  }
}

void index_scores(const IndexScoreArgs& a) {
  const size_t dim = a.layout.dim;
  for (size_t t = 0; t < a.tokens; ++t) {
    const float *q = a.q + t * a.heads * dim, *weights = a.weights + t * a.heads;
    for (size_t j = 0; j < a.count; ++j) {
      const std::byte* key = a.blocks[j / a.block_keys] + j % a.block_keys * a.layout.row_bytes();
      float score = 0;
      for (size_t h = 0; h < a.heads; ++h) {
        float sum = 0;
        for (size_t i = 0; i < dim; ++i) {
          float value;
          if (a.layout.format == KvFormat::kF32) {
            value = load<float>(key + 4 * i);
          } else {
            const uint8_t pair = static_cast<uint8_t>(key[i / 2]);
            value = e2m1_to_f32(static_cast<uint8_t>(pair >> (4 * (i % 2)))) *
                    e8m0_to_f32(static_cast<uint8_t>(key[dim / 2 + i / 32]));
          }
          sum += q[h * dim + i] * value;
        }
        if (a.round_bf16) sum = round_bf16(sum);
        float product = weights[h] * std::max(sum, 0.f);
        if (a.round_bf16) product = round_bf16(product);
        score += product;
      }
      a.scores[t * a.stride + j] = a.round_bf16 ? round_bf16(score) : score;
    }
  }
}

void top_k(const TopKArgs& a) {
  int32_t* order = a.scratch;
  std::iota(order, order + a.count, 0);
  auto value = [&](int32_t i) {
    return std::isnan(a.scores[i]) ? -std::numeric_limits<float>::infinity() : a.scores[i];
  };
  std::nth_element(order, order + a.k, order + a.count, [&](int32_t i, int32_t j) {
    return value(i) != value(j) ? value(i) > value(j) : i < j;
  });
  std::copy(order, order + a.k, a.chosen);
  std::sort(a.chosen, a.chosen + a.k);
}

}  // namespace nautile::ref
