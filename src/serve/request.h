// The one request inside: what every dialect is translated into.
//
// Thread-safety: values. Source: spec api.md 1.2, 6, 7, 9.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "nautile/sampling.h"
#include "serve/errors.h"
#include "text/chat.h"
#include "text/conversation.h"
#include "text/grammar.h"

namespace nautile::serve {

// The model as serving sees it; immutable once it is there.
struct ServedModel {
  std::string name;                             // canonical: what answers carry
  std::vector<std::string> names;               // what else requests may say
  std::map<std::string, ReasoningMode> legacy;  // names that choose a mode: deepseek-chat, deepseek-reasoner
  const Tokenizer* tokenizer = nullptr;         // outlives this
  std::shared_ptr<const TokenTrie> trie;        // for grammars
  ChatTokens tokens{};
  EncodingProfile profile = EncodingProfile::kPreview;
  ReasoningMode default_mode = ReasoningMode::kThinkHigh;
  int64_t context = 0;
  int64_t max_output = 393216;
  double temperature = 1, top_p = 1;  // defaults of requests
  std::string fingerprint;            // system_fingerprint
  std::string quantization;
  int64_t created = 0;  // Unix seconds
  std::string cache_scope_salt;

  // Knows the name, in any case.
  bool answers_to(const std::string& name) const;
};

// How the answer's text is held to a form.
struct Constraint {
  enum Kind { kNone, kJsonObject, kJsonSchema, kRegex, kChoice, kGrammar } kind = kNone;
  Json schema;                       // kJsonSchema
  std::string text;                  // kRegex, kGrammar
  std::vector<std::string> choices;  // kChoice
  bool strict = true;                // false: keywords of a schema that are not supported are notes, not faults
  std::string field;                 // the request's field, for errors
};

struct Ask {
  Dialect dialect = Dialect::kOpenAi;

  // Chat: a conversation. Completions: texts or ids, already tokens.
  bool chat = true;
  Conversation conversation;
  EncodeOptions encode;
  bool parse_specials = false;                // raw prompts: literals of added tokens count
  std::vector<std::vector<TokenId>> prompts;  // one for a conversation; filled by prepare()
  std::vector<std::string> prompt_texts;      // of raw prompts, for echo
  int64_t truncate_prompt = 0;                // keep the last N tokens; 0: never

  // The answer's shape.
  std::optional<int64_t> thinking_budget;
  bool include_reasoning = true, stream_reasoning = true;
  std::vector<std::string> allowed_tools;  // empty: all that are declared
  bool parallel_calls = true;
  bool legacy_functions = false;
  Constraint constraint;
  std::shared_ptr<const Grammar> grammar;  // of the constraint and the tools; filled by constrain()
  double grammar_s = 0;                    // it took to compile

  // Generation.
  SamplingParams sampling;
  std::optional<int64_t> max_tokens;  // asked for
  int64_t effective_max_tokens = 0;   // after clamping; filled by prepare()
  int64_t min_tokens = 0;
  int n = 1;
  int best_of = 1;
  std::vector<std::string> stop;
  bool include_stop = false, stop_in_reasoning = false;
  std::vector<TokenId> stop_ids;
  bool ignore_eos = false, skip_special = true;
  std::vector<TokenId> allowed_ids;
  std::vector<std::string> bad_words;
  int prompt_logprobs = -1;
  bool logprobs = false;  // asked for; how many of the likeliest is in sampling.top_logprobs
  bool tokens_as_ids = false;

  // Delivery.
  bool stream = false, include_usage = false, continuous_usage = false;
  bool echo = false;
  bool return_token_ids = false, return_prompt_text = false;

  // Of Responses and Messages: what their answers repeat or need.
  Json echo_fields;
  std::vector<std::string> custom_tools;  // Responses: tools whose input is text
  bool want_handle = false;               // Responses: include reasoning.encrypted_content
  bool reasoning_summary = false;
  bool store = false;        // Responses: keep the answer
  std::string stored_input;  // JSON: the items before it, when it is kept
  bool omit_thinking = false;
  bool strict_reasoning_replay = false;

  // Admission.
  std::string user, cache_salt;
  int priority = 0;

  std::vector<std::string> ignored;  // fields without meaning here
  std::string replay = "";           // x-reasoning-replay: exact, client or missing; empty: no tool turn
};

}  // namespace nautile::serve
