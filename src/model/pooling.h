// Pooling: how a compressor turns the tokens of a window into one cache row (spec model.md section 5).
//
// A compressor projects each token to kv and gate rows (gate with its position term added). An entry is, channel by
// channel, the softmax of the gates over its candidates times their kv. With overlap (CSA) the candidates are the low
// halves of the previous window and the high halves of its own.
//
// Thread-safety: one caller at a time, as AttentionLayer; pool() may run on several threads.
#pragma once

#include "model/linear.h"
#include "model/weights.h"

namespace nautile {

// The open-window rows of this step's tokens; older ones come from the sequence's state.
class WindowRows {
 public:
  // Adds the products that make kv and gate rows of x [tokens, D]. `offset`: where this compressor's kv stands in a
  // state row (floats).
  void add_products(const Step& step, const Compressor& compressor, int ratio, const float* x, size_t offset,
                    std::vector<Product>& products);
  // Once they are done: adds the position terms to the gates.
  void add_positions(Step& step, const Compressor& compressor);
  // Entry `index` of run's sequence before its norm, [width].
  void pool(const Kernels& kernels, const TokenRun& run, size_t layer, int64_t index, float* out) const;
  // Keeps the rows that later steps may pool.
  void store(const TokenRun& run, size_t layer) const;

 private:
  const float* row(const TokenRun& run, size_t layer, int64_t position) const;

  Buffer rows_buffer_;
  float* rows_ = nullptr;  // [tokens, 2 * channels_]: kv, gate
  int ratio_ = 0;
  size_t width_ = 0, channels_ = 0, offset_ = 0;
};

// Entries whose last token lies in the run: [first, last).
struct EntryRange {
  int64_t first, last;
};
inline EntryRange new_entries(const TokenRun& run, int ratio) {
  return {run.begin / ratio, run.end() / ratio};
}

// Entries a query at `position` may see.
inline int64_t visible_entries(int64_t position, int ratio) {
  return ratio == 0 ? 0 : (position + 1) / ratio;
}

}  // namespace nautile
