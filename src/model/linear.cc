// Matrix products split over rows, norms split over tokens.
#include "model/linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/quantise.h"

namespace nautile {
namespace {

constexpr size_t kRowGrain = 8;
constexpr size_t kActivationGroup = 128;

}  // namespace

void Linear::operator()(Step& step, const WeightView& weight, const float* x, size_t x_stride, size_t tokens, float* y,
                        size_t y_stride, Rounding rounding, size_t row_begin, size_t row_end) {
  if (tokens == 0) return;
  row_end = std::min(row_end, weight.rows);
  const bool low_bit = weight.format == WeightFormat::kFp8 || weight.format == WeightFormat::kFp4;
  if (rounding == Rounding::kOfficial && step.policy.quantise_activations && low_bit) {
    float* q = quantised_.floats(tokens * weight.cols);
    step.pool.for_range(tokens, 1, [&](int, size_t begin, size_t end) {
      for (size_t t = begin; t < end; ++t) {
        std::memcpy(q + t * weight.cols, x + t * x_stride, weight.cols * sizeof(float));
        fp8_quantise(q + t * weight.cols, weight.cols, kActivationGroup);
      }
    });
    x = q;
    x_stride = weight.cols;
  }
  const bool round = rounding != Rounding::kNone && step.policy.round_bf16;
  step.pool.for_range(row_end - row_begin, kRowGrain, [&](int, size_t begin, size_t end) {
    begin += row_begin;
    end += row_begin;
    step.kernels.matmul({weight, x, x_stride, tokens, y, y_stride, begin, end});
    if (!round) return;
    for (size_t t = 0; t < tokens; ++t) round_bf16(y + t * y_stride + begin, end - begin);
  });
}

void rms_norm(Step& step, const float* x, size_t width, const std::vector<float>& weight, float* out, size_t tokens) {
  const float eps = static_cast<float>(step.config.norm_eps);
  step.pool.for_range(tokens, 1, [&](int, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      step.kernels.elements.rms_norm(x + t * width, weight.data(), width, eps, out + t * width);
      if (step.policy.round_bf16) step.kernels.elements.round_bf16(out + t * width, width);
    }
  });
}

}  // namespace nautile
