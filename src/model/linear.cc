// Matrix products split over rows, norms split over tokens.
#include "model/linear.h"

#include <algorithm>

#include "model/node_rows.h"

namespace nautile {
namespace {

// An item of work reads about so many bytes of weights, unless that would be more than a tenth of a worker's share of
// the call. Long ones read faster; with many tokens they take too long for all workers to end together.
constexpr size_t kLongItem = 512 << 10, kItem = 128 << 10;
constexpr size_t kTokensOfLongItems = 8;
constexpr size_t kTokenBlock = 64;
// Up to so many tokens the caller narrows the input by itself: waking the others would take longer.
constexpr size_t kFewTokens = 4;

// Rows an item: whole tiles, or a multiple of what the kernels for rows take at once. `most`: bytes.
size_t rows_an_item(const WeightView& weight, size_t tokens, size_t most) {
  const size_t unit = weight.layout == WeightLayout::kTiles ? kTileRows : tokens <= kFewTokens ? 4 : 12;
  return std::max<size_t>(1, most / weight.row_bytes() / unit) * unit;
}

}  // namespace

// Finds or makes the input of products[index].
size_t Linear::input_of(const Step& step, std::span<const Product> products, size_t index, size_t tokens) {
  const Product& p = products[index];
  const ActivationFormat format = activation_format(step, p.weight);
  const bool official = p.rounding == Rounding::kOfficial && quantises_input(step, p.weight);
  const bool as_it_is = format == ActivationFormat::kF32 && p.weight.layout == WeightLayout::kRows && !official;
  for (size_t i = 0; i < input_count_; ++i) {
    const Input& in = inputs_[i];
    const WeightView& other = in.product->weight;
    if (in.product->x == p.x && in.product->x_stride == p.x_stride && in.official == official &&
        in.as_it_is == as_it_is && other.cols == p.weight.cols && activation_format(step, other) == format &&
        other.layout == p.weight.layout &&
        padded_cols(other.format, other.cols) == padded_cols(p.weight.format, p.weight.cols)) {
      return i;
    }
  }
  if (inputs_.size() == input_count_) inputs_.emplace_back();
  Input& in = inputs_[input_count_];
  in.product = &p;
  in.official = official;
  in.as_it_is = as_it_is;
  in.at.resize(std::max(in.at.size(), tokens));
  if (as_it_is) {
    for (size_t t = 0; t < tokens; ++t) in.at[t] = reinterpret_cast<const std::byte*>(p.x + t * p.x_stride);
  } else {
    in.rows.shape(step, p.weight, tokens);
    for (size_t t = 0; t < tokens; ++t) in.at[t] = in.rows.row(t);
  }
  return input_count_++;
}

void Linear::operator()(Step& step, std::span<const Product> products, size_t tokens) {
  if (tokens == 0) return;
  const size_t threads = static_cast<size_t>(step.pool.threads());
  const size_t nodes = step.pool.nodes();
  if (works_.size() < products.size()) works_.resize(products.size());
  input_count_ = 0;
  size_t all_bytes = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    const Product& p = products[i];
    Work& work = works_[i];
    work.input = input_of(step, products, i, tokens);
    all_bytes += (std::min(p.row_end, p.weight.rows) - p.row_begin) * p.weight.row_bytes();
    work.y.resize(std::max(work.y.size(), tokens));
    for (size_t t = 0; t < tokens; ++t) work.y[t] = p.y + t * p.y_stride;
  }
  const size_t narrowed = std::all_of(inputs_.begin(), inputs_.begin() + static_cast<std::ptrdiff_t>(input_count_),
                                      [](const Input& in) { return in.as_it_is; })
                              ? 0
                              : input_count_ * tokens;
  step.pool.for_range(narrowed, kFewTokens, [&](int, size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      Input& in = inputs_[i / tokens];
      const size_t t = i % tokens;
      if (!in.as_it_is) in.rows.write(step, t, in.product->x + t * in.product->x_stride, in.official);
    }
  });
  const size_t most = std::min(tokens <= kTokensOfLongItems ? kLongItem : kItem, all_bytes / (10 * threads));
  parts_.resize(nodes * products.size());
  counts_.assign(nodes, 0);
  for (size_t i = 0; i < parts_.size(); ++i) {
    const size_t node = i / products.size();
    const Product& p = products[i % products.size()];
    Work& work = works_[i % products.size()];
    Part& part = parts_[i];
    work.rows = rows_an_item(p.weight, tokens, most);
    const RowRange own = node_rows(step.pool, p.weight.rows, node);
    part.begin = std::max(own.begin, p.row_begin);
    part.end = std::max(part.begin, std::min(own.end, p.row_end));
    // Items stand on the grid of whole tiles, whatever the range.
    part.row_items = part.begin == part.end ? 0 : (part.end + work.rows - 1) / work.rows - part.begin / work.rows;
    // A matrix of few rows is cut by tokens as well.
    part.tokens = part.row_items * nodes < 4 * threads && tokens >= 2 * kTokenBlock ? kTokenBlock : tokens;
    part.first_item = counts_[node];
    counts_[node] += part.row_items * ((tokens + part.tokens - 1) / part.tokens);
    part.last_item = counts_[node];
  }
  step.pool.for_items(counts_, [&](int, size_t node, size_t item) {
    size_t i = 0;
    const Part* parts = parts_.data() + node * products.size();
    while (item >= parts[i].last_item) ++i;
    const Product& p = products[i];
    const Work& work = works_[i];
    const Part& part = parts[i];
    item -= part.first_item;
    const size_t block = part.begin / work.rows + item % part.row_items;
    const size_t begin = std::max(part.begin, block * work.rows), end = std::min(part.end, (block + 1) * work.rows);
    const size_t token = item / part.row_items * part.tokens, count = std::min(part.tokens, tokens - token);
    step.kernels.matmul({on_node(p.weight, node), activation_format(step, p.weight), inputs_[work.input].at.data() + token,
                         work.y.data() + token, 0, count, begin, end});
    if (p.rounding == Rounding::kNone || !step.policy.round_bf16) return;
    for (size_t t = token; t < token + count; ++t) step.kernels.elements.round_bf16(work.y[t] + begin, end - begin);
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
