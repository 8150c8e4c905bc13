// The two operations that every part is made of: matrix products over all tokens of a step, and RMSNorm.
//
// Both split their work over outputs or tokens only, so results do not depend on the number of threads, nor on which
// products share a call. Thread-safety: one caller at a time, as AttentionLayer; rms_norm() as the step's pool.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/activations.h"

namespace nautile {

// What a product's input and output are rounded to under the reference policy.
enum class Rounding {
  kOfficial,  // activations FP8 into FP8 and FP4 matrices, result BF16
  kOutput,    // activations as they are, result BF16
  kNone,      // float in, float out
};

// y[t][r] = W[r] x[t] for rows r in [row_begin, row_end), all of them unless said. x rows are x_stride floats apart, y
// rows y_stride.
struct Product {
  const WeightView& weight;
  const float* x;
  size_t x_stride;
  float* y;
  size_t y_stride;
  Rounding rounding;
  size_t row_begin = 0, row_end = SIZE_MAX;
};

class Linear {
 public:
  // All products for t in [0, tokens), as one phase; none may need another's outputs. Those with the same x share its
  // narrowing, where their weights take the same format.
  void operator()(Step& step, std::span<const Product> products, size_t tokens);
  void operator()(Step& step, const WeightView& weight, const float* x, size_t x_stride, size_t tokens, float* y,
                  size_t y_stride, Rounding rounding) {
    const Product one{weight, x, x_stride, y, y_stride, rounding};
    (*this)(step, {&one, 1}, tokens);
  }

 private:
  // Rows of x as the weights of some products take them.
  struct Input {
    Activations rows;
    const Product* product = nullptr;  // the first of them
    bool official = false, as_it_is = false;
    std::vector<const std::byte*> at;  // [tokens]
  };
  struct Work {
    size_t input = 0;
    size_t rows = 0;        // an item
    std::vector<float*> y;  // [tokens]
  };
  // How a node's rows of a product are cut: item = block of tokens * row_items + block of rows.
  struct Part {
    size_t begin = 0, end = 0;  // rows
    size_t row_items = 0, tokens = 0;
    size_t first_item = 0, last_item = 0;  // among the node's
  };
  size_t input_of(const Step& step, std::span<const Product> products, size_t index, size_t tokens);

  std::vector<Input> inputs_;
  size_t input_count_ = 0;
  std::vector<Work> works_;
  std::vector<Part> parts_;     // [nodes, products]
  std::vector<size_t> counts_;  // [nodes]: items
};

// out[t] = weight * x[t] / sqrt(mean(x[t]^2) + norm_eps), rows of `width`; out may be x. BF16 under the reference
// policy.
void rms_norm(Step& step, const float* x, size_t width, const std::vector<float>& weight, float* out, size_t tokens);

}  // namespace nautile
