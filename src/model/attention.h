// The attention sub-layer: queries, window keys, compressed entries, the indexer's choice, one softmax over all of them
// (spec model.md sections 4 to 7).
//
// Thread-safety: one caller at a time: it keeps the memory that a step works in, and spreads the work over step.pool.
#pragma once

#include "model/linear.h"
#include "model/pooling.h"
#include "model/select.h"
#include "model/weights.h"

namespace nautile {

class AttentionLayer {
 public:
  explicit AttentionLayer(const ModelConfig& config);

  // y[t] = attention of layer `layer` of the cache over x[t]; writes the layer's rows into the sequences' states.
  // x, y: [tokens, D]
  void operator()(Step& step, size_t layer, int ratio, const Attention& weights, const float* x, float* y);

 private:
  // A worker's rows of the query at hand: [window + entries], the window's part filled from its end.
  struct RowList {
    std::vector<const std::byte*> rows;
    size_t entries = 0;  // entries 0, 1, ... of the run at hand that stand there already
  };

  // Tokens of the step whose queries and outputs stand in memory together.
  struct Part {
    size_t first, count;
  };
  static constexpr size_t kPartTokens = 512;

  void project(Step& step, int ratio, const Attention& weights, const float* x);
  void queries(Step& step, const Attention& weights, Part part);
  void window_keys(Step& step, int ratio, const Attention& weights);
  void compress(Step& step, size_t layer, int ratio, const Attention& weights);
  void index_queries(Step& step, const Indexer& indexer);
  void attend(Step& step, size_t layer, int ratio, const Attention& weights, Part part);
  std::span<const std::byte* const> attended_rows(Step& step, const TokenRun& run, size_t layer, int ratio, size_t t,
                                                  RowList& list);
  void turn(const Step& step, int ratio, size_t t, float* q, size_t heads) const;
  void turn_back(const Step& step, int ratio, size_t t, float* o, size_t heads) const;
  void output(Step& step, const Attention& weights, Part part, float* y);

  // A finished entry: norm, rotation at its first token, then stored as a cache row or an index key.
  void store_entry(Step& step, const Compressor& compressor, int64_t position, float* values, std::byte* row) const;
  void store_key(Step& step, const Compressor& compressor, int64_t position, float* values, std::byte* row) const;

  std::vector<float> compress_frequencies_;
  Linear linear_;
  std::vector<Product> products_;  // of the phase at hand
  WindowRows entries_, keys_;
  EntryChoice choice_;
  Buffer qr_, kv_, index_q_, index_w_, scratch_, pooled_;
  Buffer q_, out_, low_;  // of the part at hand
  std::vector<std::byte> step_rows_;  // this step's window rows: [tokens, kv row]
  std::vector<RowList> rows_;  // by worker
};

}  // namespace nautile
