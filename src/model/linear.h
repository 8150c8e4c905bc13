// The two operations that every part is made of: a matrix product over all tokens of a step, and RMSNorm.
//
// Both split their work over outputs or tokens only, so results do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "model/activations.h"

namespace nautile {

// What a product's input and output are rounded to under the reference policy.
enum class Rounding {
  kOfficial,  // activations FP8 into FP8 and FP4 matrices, result BF16
  kOutput,    // activations as they are, result BF16
  kNone,      // float in, float out
};

class Linear {
 public:
  // y[t][r] = W[r] x[t] for t in [0, tokens) and rows r in [row_begin, row_end), all of them unless said. x rows are
  // x_stride floats apart, y rows y_stride.
  void operator()(Step& step, const WeightView& weight, const float* x, size_t x_stride, size_t tokens, float* y,
                  size_t y_stride, Rounding rounding, size_t row_begin = 0, size_t row_end = SIZE_MAX);

 private:
  Activations inputs_;
  std::vector<const std::byte*> x_;  // [tokens]
  std::vector<float*> y_;            // [tokens]
};

// out[t] = weight * x[t] / sqrt(mean(x[t]^2) + norm_eps), rows of `width`; out may be x. BF16 under the reference
// policy.
void rms_norm(Step& step, const float* x, size_t width, const std::vector<float>& weight, float* out, size_t tokens);

}  // namespace nautile
