// Projection, the candidates of an entry, and the open window kept between steps.
#include "model/pooling.h"

#include <algorithm>
#include <cstring>

namespace nautile {
namespace {

constexpr size_t kTokenGrain = 8;  // fewer are not worth a second thread

}  // namespace

void WindowRows::add_products(const Step& step, const Compressor& compressor, int ratio, const float* x, size_t offset,
                              std::vector<Product>& products) {
  ratio_ = ratio;
  width_ = compressor.norm.size();
  channels_ = compressor.wkv.rows;
  offset_ = offset;
  const size_t stride = 2 * channels_, cols = compressor.wkv.cols;
  rows_ = rows_buffer_.floats(step.count() * stride);
  products.push_back({compressor.wkv, x, cols, rows_, stride, Rounding::kNone});
  products.push_back({compressor.wgate, x, cols, rows_ + channels_, stride, Rounding::kNone});
}

void WindowRows::add_positions(Step& step, const Compressor& compressor) {
  const size_t stride = 2 * channels_;
  step.pool.for_range(step.count(), kTokenGrain, [&](int, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const float* ape = compressor.ape.data() + static_cast<size_t>(step.positions[t] % ratio_) * channels_;
      step.kernels.axpy(1.f, ape, rows_ + t * stride + channels_, channels_);
    }
  });
}

const float* WindowRows::row(const TokenRun& run, size_t layer, int64_t position) const {
  if (position >= run.begin) return rows_ + (run.first + static_cast<size_t>(position - run.begin)) * 2 * channels_;
  return run.state->state_row(layer, position) + offset_;
}

void WindowRows::pool(const Kernels& kernels, const TokenRun& run, size_t layer, int64_t index, float* out) const {
  constexpr size_t kMaxCandidates = kBlockTokens;
  const float* kv[kMaxCandidates];
  const float* gate[kMaxCandidates];
  size_t count = 0;
  const bool overlap = channels_ != width_;
  const int64_t begin = index * ratio_;
  for (int64_t p = overlap ? std::max<int64_t>(0, begin - ratio_) : begin; p < begin + ratio_; ++p) {
    const float* r = row(run, layer, p) + (overlap && p >= begin ? width_ : 0);
    kv[count] = r;
    gate[count] = r + channels_;
    ++count;
  }
  kernels.elements.pool({kv, gate, count, width_, out});
}

void WindowRows::store(const TokenRun& run, size_t layer) const {
  const int64_t rows = static_cast<int64_t>(run.state->layout().layer(layer).state_rows);
  for (int64_t p = std::max(run.begin, run.end() - rows); p < run.end(); ++p) {
    std::memcpy(run.state->state_row(layer, p) + offset_, row(run, layer, p), 2 * channels_ * sizeof(float));
  }
}

}  // namespace nautile
