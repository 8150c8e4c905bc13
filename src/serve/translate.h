// From a dialect's JSON to the one request inside, and from there to token ids.
//
// Everything that can be wrong with a request is found here, before a status line is sent: fields, model, conversation,
// limits, the room in the context. Runs on a worker thread.
// Thread-safety: pure functions; the context's objects are immutable or lock themselves. Source: spec api.md 7 to 13.
#pragma once

#include "serve/fields.h"
#include "serve/replay.h"
#include "serve/request.h"
#include "serve/response_store.h"
#include "text/grammar_cache.h"

namespace nautile::serve {

// What one request may hold. Bytes of a tool, a stop string, an id; of all tools.
struct Limits {
  int max_json_depth = 128;
  size_t messages = 20000, parts = 1000, tools = 128;
  size_t tool_bytes = 64 << 10, tools_bytes = 1 << 20;
  int64_t n = 16, best_of = 20, prompts = 256, logprobs = 20;
  size_t stops = 16, stop_bytes = 256, biases = 1024, words = 256, id_bytes = 512;
  int64_t fim_tokens = 4096;
};

struct TranslateContext {
  const ServedModel& model;
  const Limits& limits;
  ReplayStore* replay = nullptr;  // may be null
  GrammarCache* grammars = nullptr;
  std::string owner;           // the key's name: whose replays and cached prefixes these are
  bool default_model = false;  // a missing model is the served one
  bool may_set_priority = false;
  bool strict = false;  // unknown fields are faults
  bool strict_replay = false;
  bool ignore_hosted_tools = false;
  ResponseStore* responses = nullptr;  // null: none are stored
};

// Each dialect's request read and checked; the error is a 4xx that names the field.
Outcome<Ask> translate_chat(const Json& body, const TranslateContext& context);
Outcome<Ask> translate_completions(const Json& body, const TranslateContext& context);
Outcome<Ask> translate_messages(const Json& body, const TranslateContext& context, bool count_only);
Outcome<Ask> translate_responses(const Json& body, const TranslateContext& context);

// Renders and tokenises, checks the room, clamps max_tokens: fills prompts and effective_max_tokens.
std::optional<ApiError> prepare(Ask& ask, const TranslateContext& context);

// Compiles what the answer is held to: the constraint, and the calls of declared tools. Needs context.grammars.
std::optional<ApiError> constrain(Ask& ask, const TranslateContext& context);

// The prompt is too long for the context, in the dialect's own words.
ApiError context_exceeded(Dialect dialect, int64_t prompt_tokens, int64_t context);

// Shared by the dialects.
// Sets the alias's default mode; a fault for a missing or unknown model.
void read_model(Fields& fields, Ask& ask, const TranslateContext& context, ReasoningMode& fallback);
// Sampling, limits, stops, logprobs: the fields that chat and completions share.
void read_generation(Fields& fields, Ask& ask, const TranslateContext& context);
void read_reasoning_into(Fields& fields, Ask& ask, const TranslateContext& context, ReasoningMode fallback);
// response_format, structured_outputs, guided_*.
void read_constraint(Fields& fields, Ask& ask);
void read_identity(Fields& fields, Ask& ask, const TranslateContext& context);
// Counts and sizes of `messages` and `tools` before anything is built from them.
void check_sizes(const Json& request, const Limits& limits, FieldNotes& notes);
// parse_conversation with its faults as ours, missing reasoning repaired.
void read_conversation(const Json& request, Ask& ask, const TranslateContext& context, FieldNotes& notes);
// A request in OpenAI's form, with the schema that its dialect keeps elsewhere where the prompt shows it.
Json with_format(Json request, const Constraint& constraint);
// The error, or the ask with its notes; strict requests fail on unknown fields.
Outcome<Ask> conclude(Ask ask, FieldNotes& notes, const TranslateContext& context);

}  // namespace nautile::serve
