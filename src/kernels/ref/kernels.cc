// The operations written so that they are obviously right: one element at a time, in order, in float.
#include "kernels/ref/kernels.h"

#include "kernels/ref/attention.h"
#include "kernels/ref/elements.h"

#include <cstring>

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

}  // namespace

const Kernels& kernels() {
  static const Kernels table = {"ref", matmul, attend, index_scores, dot, axpy, top_k, elements()};
  return table;
}

}  // namespace nautile::ref
