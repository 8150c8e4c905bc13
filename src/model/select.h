// The indexer's choice: which compressed entries each CSA query attends (spec model.md 6.4, 6.5).
//
// Thread-safety: one caller at a time, as AttentionLayer; chosen() from any thread until the next call.
#pragma once

#include <span>
#include <vector>

#include "model/step.h"

namespace nautile {

class EntryChoice {
 public:
  // Scores every visible entry of layer `layer` for each query of the step and keeps the best index_topk. Queries that
  // see no more than that take all of them, unscored. q: [tokens, heads, dim], weights: [tokens, heads]
  void operator()(Step& step, size_t layer, const float* q, const float* weights, size_t heads, size_t dim);

  // Entries of token t, ascending. Empty when it attends every entry that it sees.
  std::span<const int32_t> chosen(size_t t) const { return {chosen_.data() + t * topk_, counts_[t]}; }

 private:
  // A worker's own memory.
  struct Work {
    std::vector<const std::byte*> blocks;
    Buffer scratch, scores;
    std::vector<int32_t> top_k;
  };
  // Consecutive tokens of one run that are scored together.
  struct Queries {
    const TokenRun* run;
    size_t first, count;
  };
  void choose(const Step& step, size_t t, const float* scores, Work& work);

  size_t topk_ = 0;
  std::vector<int32_t> chosen_;  // [tokens, topk]
  std::vector<size_t> counts_;   // [tokens]
  std::vector<Queries> queries_;
  std::vector<Work> work_;  // by worker
  Buffer scores_;           // of one token whose keys are split over the workers
};

}  // namespace nautile
