// Scores in blocks of queries or, when queries are few, of keys; then an exact top-k a query.
#include "model/select.h"

#include <algorithm>

#include "model/pooling.h"

namespace nautile {
namespace {

// Queries that share the unpacking of a key: their operands and a tile of keys fill the first-level cache.
constexpr size_t kQueryBlock = 8;
constexpr size_t kKeyGrain = 2 * kKeyTile;

}  // namespace

void EntryChoice::choose(const Step& step, size_t t, const float* scores, Work& work) {
  const size_t visible = static_cast<size_t>(visible_entries(step.positions[t], 4));
  const size_t scratch = top_k_scratch(visible, topk_);
  if (work.top_k.size() < scratch) work.top_k.resize(scratch);
  step.kernels.top_k({scores, visible, topk_, chosen_.data() + t * topk_, work.top_k.data()});
  counts_[t] = topk_;
}

void EntryChoice::operator()(Step& step, size_t layer, const float* q, const float* weights, size_t heads, size_t dim) {
  topk_ = static_cast<size_t>(step.config.index_topk);
  const size_t threads = static_cast<size_t>(step.pool.threads());
  work_.resize(std::max(work_.size(), threads));
  chosen_.resize(std::max(chosen_.size(), step.count() * topk_));
  counts_.assign(std::max(counts_.size(), step.count()), 0);
  auto visible = [&](size_t t) { return static_cast<size_t>(visible_entries(step.positions[t], 4)); };
  queries_.clear();
  for (const TokenRun& run : step.runs) {
    for (size_t t = run.first, end = run.first + run.count; t < end;) {
      const size_t count = std::min(kQueryBlock, end - t);
      if (visible(t + count - 1) > topk_) queries_.push_back({&run, t, count});
      t += count;
    }
  }
  // Scores of keys [begin, end) for `count` queries from token t, into rows of `stride`.
  auto score = [&](const TokenRun& run, size_t t, size_t count, size_t begin, size_t end, float* scores, size_t stride,
                   Work& work) {
    const CacheLayout& layout = run.state->layout();
    const size_t block_keys = layout.layer(layer).entries_a_block;
    work.blocks.clear();
    for (size_t key = begin; key < end; key += block_keys) {
      work.blocks.push_back(run.state->key(layer, static_cast<int64_t>(key)));
    }
    step.kernels.index_scores({layout.shape().index, work.blocks.data(), block_keys, end - begin, q + t * heads * dim,
                               weights + t * heads, heads, count, step.policy.round_bf16, scores, stride,
                               work.scratch.floats(index_scratch_floats(heads, dim, count))});
  };
  if (queries_.size() >= threads) {
    step.pool.for_range(queries_.size(), 1, [&](int worker, size_t begin, size_t end) {
      Work& work = work_[static_cast<size_t>(worker)];
      for (size_t i = begin; i < end; ++i) {
        const Queries& block = queries_[i];
        const size_t stride = visible(block.first + block.count - 1);
        float* scores = work.scores.floats(block.count * stride);
        score(*block.run, block.first, block.count, 0, stride, scores, stride, work);
        for (size_t j = 0; j < block.count; ++j) {
          if (visible(block.first + j) > topk_) choose(step, block.first + j, scores + j * stride, work);
        }
      }
    });
    return;
  }
  for (const Queries& block : queries_) {
    for (size_t t = block.first; t < block.first + block.count; ++t) {
      if (visible(t) <= topk_) continue;
      float* scores = scores_.floats(visible(t));
      step.pool.for_range(visible(t), kKeyGrain, [&](int worker, size_t begin, size_t end) {
        score(*block.run, t, 1, begin, end, scores + begin, end - begin, work_[static_cast<size_t>(worker)]);
      });
      choose(step, t, scores, work_[0]);
    }
  }
}

}  // namespace nautile
