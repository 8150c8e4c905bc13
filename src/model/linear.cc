// Matrix products split over rows, norms split over tokens.
#include "model/linear.h"

#include <algorithm>

namespace nautile {
namespace {

// An item of work reads about so many bytes of weights, unless that would be more than a tenth of a worker's share.
constexpr size_t kItemBytes = 128 << 10;
constexpr size_t kTokenBlock = 64;
// Up to so many tokens the caller narrows the input by itself: waking the others would take longer.
constexpr size_t kFewTokens = 4;

// Rows an item: whole tiles, or a multiple of what the kernels for rows take at once.
size_t rows_an_item(const WeightView& weight, size_t rows, size_t tokens, size_t threads) {
  const size_t unit = weight.layout == WeightLayout::kTiles ? kTileRows : tokens <= kFewTokens ? 4 : 12;
  const size_t wanted = std::min(kItemBytes / weight.row_bytes(), rows / (10 * threads));
  return std::max<size_t>(1, wanted / unit) * unit;
}

}  // namespace

void Linear::operator()(Step& step, const WeightView& weight, const float* x, size_t x_stride, size_t tokens, float* y,
                        size_t y_stride, Rounding rounding, size_t row_begin, size_t row_end) {
  if (tokens == 0) return;
  row_end = std::min(row_end, weight.rows);
  const bool official = rounding == Rounding::kOfficial;
  const ActivationFormat format = activation_format(step, weight);
  x_.resize(std::max(x_.size(), tokens));
  y_.resize(std::max(y_.size(), tokens));
  for (size_t t = 0; t < tokens; ++t) y_[t] = y + t * y_stride;
  if (format == ActivationFormat::kF32 && weight.layout == WeightLayout::kRows &&
      !(official && quantises_input(step, weight))) {
    for (size_t t = 0; t < tokens; ++t) x_[t] = reinterpret_cast<const std::byte*>(x + t * x_stride);
  } else {
    inputs_.shape(step, weight, tokens);
    step.pool.for_range(tokens, kFewTokens, [&](int, size_t begin, size_t end) {
      for (size_t t = begin; t < end; ++t) inputs_.write(step, t, x + t * x_stride, official);
    });
    for (size_t t = 0; t < tokens; ++t) x_[t] = inputs_.row(t);
  }
  const bool round = rounding != Rounding::kNone && step.policy.round_bf16;
  const size_t threads = static_cast<size_t>(step.pool.threads());
  const size_t rows = rows_an_item(weight, row_end - row_begin, tokens, threads);
  // Items stand on the grid of whole tiles, whatever the range.
  const size_t first = row_begin / rows, row_items = (row_end + rows - 1) / rows - first;
  // A matrix of few rows is cut by tokens as well.
  const size_t block = row_items < 4 * threads && tokens >= 2 * kTokenBlock ? kTokenBlock : tokens;
  const size_t blocks = (tokens + block - 1) / block;
  step.pool.for_items(row_items * blocks, [&](int, size_t item) {
    const size_t begin = std::max(row_begin, (first + item % row_items) * rows);
    const size_t end = std::min(row_end, (first + item % row_items + 1) * rows);
    const size_t token = item / row_items * block, count = std::min(block, tokens - token);
    step.kernels.matmul({weight, format, x_.data() + token, y_.data() + token, 0, count, begin, end});
    if (!round) return;
    for (size_t t = token; t < token + count; ++t) step.kernels.elements.round_bf16(y_[t] + begin, end - begin);
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
