// The attention sub-layer: queries, window keys, compressed entries, the indexer's choice, one softmax over all of them
// (spec model.md sections 4 to 7).
#pragma once

#include "model/linear.h"
#include "model/pooling.h"
#include "model/weights.h"

namespace nautile {

class AttentionLayer {
 public:
  explicit AttentionLayer(const ModelConfig& config);

  // y[t] = attention of layer `layer` of the cache over x[t]; writes the layer's rows into the sequences' states.
  // x, y: [tokens, D]
  void operator()(Step& step, size_t layer, int ratio, const Attention& weights, const float* x, float* y);

 private:
  void queries(Step& step, int ratio, const Attention& weights, const float* x);
  void window_keys(Step& step, int ratio, const Attention& weights, const float* x);
  void compress(Step& step, size_t layer, int ratio, const Attention& weights, const float* x);
  void index_queries(Step& step, const Indexer& indexer, const float* x);
  void select(Step& step, size_t layer);
  void attend(Step& step, size_t layer, int ratio, const Attention& weights);
  void output(Step& step, const Attention& weights, float* y);

  // A finished entry: norm, rotation at its first token, then stored as a cache row or an index key.
  void store_entry(Step& step, const Compressor& compressor, int64_t position, float* values, std::byte* row) const;
  void store_key(Step& step, const Compressor& compressor, int64_t position, float* values, std::byte* row) const;

  std::vector<float> compress_frequencies_;
  Linear linear_;
  WindowRows entries_, keys_;
  Buffer qr_, q_, kv_, out_, low_, index_q_, index_w_, scratch_, pooled_, scores_;
  std::vector<std::byte> step_rows_;                 // this step's window rows: [tokens, kv row]
  std::vector<std::vector<int32_t>> chosen_;         // CSA: entries of each token, ascending
  std::vector<std::vector<int32_t>> select_work_;    // by worker
  std::vector<std::vector<const std::byte*>> rows_;  // by worker: the rows of the query at hand
};

}  // namespace nautile
