// Activations: the input rows of matrix products, in the format that a weight takes (kernels/ops.h).
//
// Rows are written once and read by every product with the same input. A row depends on its own values alone.
// Thread-safety: shape() from one thread; then different rows, or columns of one, may be written at the same time.
#pragma once

#include <cstddef>

#include "kernels/tiles.h"
#include "model/step.h"

namespace nautile {

class Activations {
 public:
  // Room for `tokens` rows of inputs of `weight`. Allocates only to grow.
  void shape(const Step& step, const WeightView& weight, size_t tokens);
  // Writes columns [begin, end) of row t from x, which holds them alone; begin a multiple of 32 (of 128 under the
  // reference policy), end too unless it is the last column.
  // `official`: FP8 first, where the policy asks for it and the weight has few bits.
  void write(const Step& step, size_t t, const float* x, size_t begin, size_t end, bool official);
  void write(const Step& step, size_t t, const float* x, bool official) { write(step, t, x, 0, cols_, official); }

  ActivationFormat format() const { return format_; }
  size_t row_bytes() const { return row_bytes_; }  // from a row to the next, whole lines
  const std::byte* row(size_t t) const { return first_ + t * row_bytes_; }

 private:
  Buffer rows_;
  std::byte* first_ = nullptr;  // row 0, at the start of a line
  ActivationFormat format_ = ActivationFormat::kF32;
  bool low_bit_ = false;
  size_t cols_ = 0, padded_ = 0, row_bytes_ = 0;
};

// What `weight` takes under the step's policy.
ActivationFormat activation_format(const Step& step, const WeightView& weight);
// Whether its input is rounded to FP8 first.
bool quantises_input(const Step& step, const WeightView& weight);

}  // namespace nautile
