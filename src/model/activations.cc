// Choosing and writing the rows.
#include "model/activations.h"

#include <algorithm>
#include <cstring>

namespace nautile {
namespace {

constexpr size_t kFp8Group = 128;

}  // namespace

ActivationFormat activation_format(const Step& step, const WeightView& weight) {
  if (weight.layout == WeightLayout::kRows) return ActivationFormat::kF32;
  const TileKernels& tiles = *step.kernels.tiles;
  if (weight.format != WeightFormat::kFp4) return tiles.wide;
  return step.policy.fast_experts ? tiles.fp4 : tiles.wide_fp4;
}

bool quantises_input(const Step& step, const WeightView& weight) {
  return step.policy.quantise_activations &&
         (weight.format == WeightFormat::kFp8 || weight.format == WeightFormat::kFp4);
}

void Activations::shape(const Step& step, const WeightView& weight, size_t tokens) {
  format_ = activation_format(step, weight);
  low_bit_ = quantises_input(step, weight);
  cols_ = weight.cols;
  padded_ = weight.layout == WeightLayout::kRows ? cols_ : padded_cols(weight.format, cols_);
  // A line more than a round number: rows a power of two apart would share the sets of a cache.
  row_bytes_ = activation_bytes(format_, padded_) / 64 * 64 + 128;
  first_ = rows_.bytes(tokens * row_bytes_);
}

void Activations::write(const Step& step, size_t t, const float* x, size_t begin, size_t end, bool official) {
  std::byte* row = first_ + t * row_bytes_;
  const bool fp8 = official && low_bit_;
  const size_t piece = fp8 ? kFp8Group : end - begin;
  for (size_t k = begin; k < end; k += piece, x += piece) {
    const size_t count = std::min(piece, end - k);
    float quantised[kFp8Group];
    const float* from = x;
    if (fp8) {
      std::memcpy(quantised, x, count * sizeof(float));
      step.kernels.elements.fp8_quantise(quantised, count, kFp8Group);
      from = quantised;
    }
    if (format_ == ActivationFormat::kF32) {  // rows, without padding
      std::memcpy(row + k * sizeof(float), from, count * sizeof(float));
    } else {
      step.kernels.tiles->narrow({from, k, k + count, cols_, padded_, format_, row});
    }
  }
}

}  // namespace nautile
