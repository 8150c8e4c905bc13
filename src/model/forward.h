// Forward: DeepSeek-V4's forward pass over a batch of tokens of any sequences, prefill chunks and decode steps alike.
//
// Same tokens: a token's logits depend on its sequence's tokens, the weights, the kernels and the policy alone; not on
// the batch, the chunking, or the number of threads (design section 4).
// Thread-safety: one caller at a time; several Forwards may share Weights. A step allocates nothing once its buffers have
// grown to its size, but for blocks of the states.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "model/attention.h"
#include "model/hyper_connection.h"
#include "model/moe.h"
#include "model/weights.h"

namespace nautile {

// The next tokens of one sequence.
struct BatchItem {
  SequenceState* state = nullptr;
  std::span<const int32_t> tokens;
  size_t logits = 1;  // rows wanted under Logits::kEach: of its last so many tokens
};

enum class Logits {
  kNone,
  kLast,  // of each item's last token: [items, vocab]
  kEach,  // of each item's last BatchItem::logits tokens, item after item: [sum of logits, vocab]
  kAll,   // of every token: [tokens, vocab]
};

// What one forward leaves behind; valid until the next call.
struct ForwardOutput {
  std::span<const float> logits;
  // The residual streams after the last layer, before the head: [tokens, M, D], BF16 values under the reference policy.
  std::span<const float> streams;
};

class Forward {
 public:
  Forward(const Weights& weights, Numerics numerics, const Kernels& kernels, ThreadPool& pool);

  // A state that fits this model and policy.
  const std::shared_ptr<const CacheLayout>& layout() const { return layout_; }

  // Routed experts whose weights have been read since construction: what a step costs beyond the dense part.
  uint64_t experts_read() const { return moe_.experts_read(); }

  // Where the time of the steps went since it was last reset.
  OpClock& clock() { return clock_; }

  // Runs the batch and advances the states. kInvalidArgument: no item, an empty one, a token outside the vocabulary, more
  // logits than tokens, a state of another model or named twice. kResourceExhausted: a sequence would pass max_positions.
  // After an error nothing has changed.
  Result<ForwardOutput> operator()(std::span<const BatchItem> batch, Logits wanted);

  // The MTP block (spec model.md 9.1): each item's tokens are the ones that FOLLOW the streams' tokens; streams come
  // from a ForwardOutput (main model, or this function when drafting further): [tokens, M, D]. Advances draft_length.
  // Errors as above, and kUnsupported when the checkpoint has no MTP block.
  Result<ForwardOutput> draft(std::span<const BatchItem> batch, std::span<const float> streams, Logits wanted);

 private:
  Status make_runs(std::span<const BatchItem> batch, bool draft);
  Step make_step();
  void embed(Step& step, float* out);
  void layer(Step& step, size_t index, const Layer& layer, float* streams);
  std::span<const float> head(Step& step, const HyperHead& head, const std::vector<float>& norm, const float* streams,
                              std::span<const BatchItem> batch, Logits wanted);

  const Weights& weights_;
  Policy policy_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  std::shared_ptr<const CacheLayout> layout_;
  std::vector<float> window_frequencies_, compress_frequencies_;

  HyperConnections hyper_;
  AttentionLayer attention_;
  MoeLayer moe_;
  Linear linear_;
  std::vector<Mixing> mixing_;
  std::vector<TokenRun> runs_;
  std::vector<int32_t> tokens_;
  std::vector<int64_t> positions_;
  RopeTable window_rope_, compress_rope_;
  OpClock clock_;
  Buffer streams_, drafted_, u_, x_, y_, embedded_, projected_, gathered_, logits_;
};

}  // namespace nautile
