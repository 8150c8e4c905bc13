// ChatSession: conversations with one model, one reply at a time. The engine's prefix cache sees to it that each reply
// pays only for what is new.
//
// Thread-safety: one caller at a time; `cancelled` may be answered from another thread's flag. Several sessions may
// share an engine.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/loaded_model.h"
#include "nautile/engine.h"
#include "nautile/sampling.h"
#include "text/chat.h"
#include "text/output_parser.h"

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
  int64_t drafted_tokens = 0, accepted_tokens = 0;  // by speculation
  double prefill_seconds = 0, decode_seconds = 0;
  RequestRecord record;  // all that the engine knows of it

  double prefill_rate() const {
    return prefill_seconds > 0 ? static_cast<double>(prompt_tokens - cached_tokens) / prefill_seconds : 0;
  }
  double decode_rate() const { return decode_seconds > 0 ? static_cast<double>(output_tokens) / decode_seconds : 0; }
};

// What happens while a reply is made; any may be empty.
struct ReplyHooks {
  std::function<void(const OutputEvent&)> event;
  std::function<void(int64_t done, int64_t total)> prefill;  // tokens
  std::function<bool()> cancelled;                           // asked every few milliseconds
};

class ChatSession {
 public:
  // Both must outlive the session.
  ChatSession(const LoadedModel& model, Engine& engine) : model_(model), engine_(engine) {}

  // Encodes the conversation and answers it, with hooks on this thread. Errors of encode(), ChatTokens::find(),
  // StopMatcher::make() and Engine::submit(), or what the generation failed with; a cancelled one is a Reply.
  Result<Reply> reply(const Conversation& conversation, const ReplyOptions& options, const ReplyHooks& hooks);

 private:
  const LoadedModel& model_;
  Engine& engine_;
};

}  // namespace nautile
