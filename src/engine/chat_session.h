// ChatSession: one conversation with one model. Each reply pays only for the tokens that the last one did not see: the
// state is kept, and where a new prompt leaves the old one, the nearest snapshot before that point is used.
//
// Thread-safety: one caller at a time; `cancelled` may be answered from another thread's flag.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/loaded_model.h"
#include "text/chat.h"
#include "text/output_parser.h"
#include "text/sampler.h"

namespace nautile {

struct ReplyOptions {
  EncodeOptions encode;
  SamplingParams sampling;
  int64_t max_tokens = 0;  // of the reply; 0: what the context leaves
  std::vector<std::string> stop;
};

struct Reply {
  ParsedMessage message;
  std::string stop_string;  // the one that matched, if any
  bool cancelled = false;
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0, reasoning_tokens = 0;
  double prefill_seconds = 0, decode_seconds = 0;

  double prefill_rate() const {
    return prefill_seconds > 0 ? static_cast<double>(prompt_tokens - cached_tokens) / prefill_seconds : 0;
  }
  double decode_rate() const { return decode_seconds > 0 ? static_cast<double>(output_tokens) / decode_seconds : 0; }
};

// What happens while a reply is made; any may be empty.
struct ReplyHooks {
  std::function<void(const OutputEvent&)> event;
  std::function<void(int64_t done, int64_t total)> prefill;  // tokens, after each chunk
  std::function<bool()> cancelled;                           // asked before each chunk and each token
};

class ChatSession {
 public:
  explicit ChatSession(LoadedModel& model);

  // Encodes the conversation and answers it. kInvalidArgument for what cannot be encoded, kResourceExhausted when the
  // prompt leaves no room in the context.
  Result<Reply> reply(const Conversation& conversation, const ReplyOptions& options, const ReplyHooks& hooks);
  // Forgets everything.
  void reset();

 private:
  void start_from(const std::vector<int32_t>& prompt);
  Status prefill(const std::vector<int32_t>& prompt, const ReplyHooks& hooks, Reply& reply,
                 std::span<const float>& logits);

  LoadedModel& model_;
  std::unique_ptr<SequenceState> state_;
  std::vector<int32_t> tokens_;      // in state_
  std::vector<Snapshot> snapshots_;  // of prefixes of tokens_, by length
  Sampler sampler_;
};

}  // namespace nautile
