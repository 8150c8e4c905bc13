// The operations written so that they are obviously right: one element at a time, in order, in float.
#include "kernels/ref/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/formats.h"

namespace nautile::ref {
namespace {

float dot(const float* x, const float* y, size_t count) {
  float sum = 0;
  for (size_t i = 0; i < count; ++i) sum += x[i] * y[i];
  return sum;
}

void axpy(float a, const float* x, float* y, size_t count) {
  for (size_t i = 0; i < count; ++i) y[i] += a * x[i];
}

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

float weight_at(const WeightView& w, size_t row, size_t col) {
  const std::byte* base = w.data + row * w.row_bytes();
  switch (w.format) {
    case WeightFormat::kF32:
      return load<float>(base + 4 * col);
    case WeightFormat::kBf16:
      return bf16_to_f32(load<uint16_t>(base + 2 * col));
    case WeightFormat::kFp8:
      return e4m3_to_f32(static_cast<uint8_t>(base[col])) *
             e8m0_to_f32(w.scales[row / 128 * ((w.cols + 127) / 128) + col / 128]);
    case WeightFormat::kFp4:
      return e2m1_to_f32(static_cast<uint8_t>(static_cast<uint8_t>(base[col / 2]) >> (4 * (col % 2)))) *
             e8m0_to_f32(w.scales[row * (w.cols / 32) + col / 32]);
  }
  return 0;
}

void matmul(const MatmulArgs& a) {
  for (size_t t = 0; t < a.tokens; ++t) {
    for (size_t row = a.row_begin; row < a.row_end; ++row) {
      float sum = 0;
      for (size_t k = 0; k < a.weight.cols; ++k) sum += load<float>(a.x[t] + 4 * k) * weight_at(a.weight, row, k);
      a.y[t][row - a.y_first] = sum;
    }
  }
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

void attend(const AttendArgs& a) {
  const size_t dim = a.kv.head_dim;
  float* decoded = a.scratch;                     // [block, dim]
  float* weights = decoded + kAttendBlock * dim;  // [block]
  for (size_t h = 0; h < a.heads; ++h) {
    const float* q = a.q + h * dim;
    float* out = a.out + h * dim;
    std::fill(out, out + dim, 0.f);
    float most = a.sink[h], total = 0;
    for (size_t j = 0; a.round_p && j < a.row_count; ++j) {
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
        axpy(a.round_p ? round_bf16(p) : p, decoded + j * dim, out, dim);
      }
      most = block_most;
    }
    total += std::exp(a.sink[h] - most);
    for (size_t i = 0; i < dim; ++i) out[i] /= total;
  }
}

void index_scores(const IndexScoreArgs& a) {
  for (size_t j = 0; j < a.count; ++j) {
    const std::byte* key = a.keys + j * a.layout.row_bytes();
    float score = 0;
    for (size_t h = 0; h < a.heads; ++h) {
      float sum = 0;
      for (size_t i = 0; i < a.layout.dim; ++i) {
        float value;
        if (a.layout.format == KvFormat::kF32) {
          value = load<float>(key + 4 * i);
        } else {
          const uint8_t pair = static_cast<uint8_t>(key[i / 2]);
          value = e2m1_to_f32(static_cast<uint8_t>(pair >> (4 * (i % 2)))) *
                  e8m0_to_f32(static_cast<uint8_t>(key[a.layout.dim / 2 + i / 32]));
        }
        sum += a.q[h * a.layout.dim + i] * value;
      }
      if (a.round_bf16) sum = round_bf16(sum);
      float product = a.weights[h] * std::max(sum, 0.f);
      if (a.round_bf16) product = round_bf16(product);
      score += product;
    }
    a.scores[j] = a.round_bf16 ? round_bf16(score) : score;
  }
}

}  // namespace

const Kernels& kernels() {
  static const Kernels table = {"ref", matmul, attend, index_scores, dot, axpy};
  return table;
}

}  // namespace nautile::ref
