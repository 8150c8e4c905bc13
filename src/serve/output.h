// From tokens to what a client sees: runs beside the engine, steers it, and hands finished pieces to the connection.
//
// One Output a generation, shared by the engine's guide and the request's owner. It composes the output parser, stop
// strings, the thinking budget, the grammar of the answer (constraints, tool calls) and masks of what must never be
// drawn. Thread-safety: allowed() and accept() on the engine's thread; take(), finish() and the counts from the
// owner's; a mutex lies between. Source: spec api.md 6.4, 9, 11.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nautile/engine.h"
#include "text/grammar.h"
#include "text/output_parser.h"
#include "text/stop.h"

namespace nautile::serve {

// What one generation's output is to be like.
struct OutputPlan {
  const Tokenizer* tokenizer = nullptr;
  ChatTokens tokens{};
  bool chat = true;  // false: raw text, no reasoning and no calls
  OutputStart start = OutputStart::kContent;
  std::vector<Tool> tools;
  bool parallel_calls = true;
  std::shared_ptr<const Grammar> grammar;  // of the answer behind any reasoning; may be null
  bool must_answer = false;                // the turn may not end inside the reasoning
  std::vector<std::string> stop;
  bool include_stop = false, stop_in_reasoning = false;
  std::vector<TokenId> stop_ids;
  int64_t min_tokens = 0;
  bool ignore_eos = false, skip_special = true;
  std::optional<int64_t> thinking_budget;
  std::vector<TokenId> allowed_ids;
  std::vector<std::vector<TokenId>> bad_words;
  bool track_tokens = false;  // pieces name the tokens they hold, for logprobs
};

// A part of the answer. `after` tokens had been accepted when it became certain.
struct Piece {
  OutputEvent::Kind kind = OutputEvent::kContent;
  int call = -1;
  std::string text;
  std::vector<uint32_t> tokens{};  // indices of tokens whose text begins here
  uint32_t after = 0;
};

// How it ended, in a client's terms.
struct OutputSummary {
  FinishReason finish = FinishReason::kStop;
  std::string stop_string;         // that matched
  std::optional<TokenId> stop_id;  // of stop_token_ids that came
  int64_t reasoning_tokens = 0;
  bool reasoning_unclosed = false, incomplete_call = false, budget_hit = false;
  bool whole = false;  // a finished turn of chat, of which nothing was cut away
};

class Output {
 public:
  explicit Output(OutputPlan plan);  // plan.stop has been checked

  // For the engine.
  std::span<const uint32_t> allowed();
  bool accept(TokenId id);

  // For the owner: the pieces of the first `tokens` tokens.
  void take(uint32_t tokens, std::vector<Piece>& out);
  // Once, when the engine has ended: the last pieces, and the summary.
  OutputSummary finish(EndReason end, std::vector<Piece>& out);
  int64_t reasoning_tokens() const;
  bool in_reasoning() const;

  std::unique_ptr<TokenGuide> guide(std::shared_ptr<Output> self);

 private:
  // Tokens whose text waits to be sent, by channel.
  struct Waiting {
    std::deque<std::pair<uint32_t, size_t>> tokens;  // index, and where its text begins
    size_t fed = 0, sent = 0;                        // bytes
    bool begun = false;
  };
  bool accept_chat(TokenId id);
  bool accept_raw(TokenId id);
  void content(std::string text);
  void put(OutputEvent::Kind kind, int call, std::string text);
  void wait_for(Waiting& waiting, std::string_view bytes);
  bool is_end(TokenId id) const;
  void single(TokenId id);                 // only this token may come
  std::span<const uint32_t> by_grammar();  // what the grammar allows of base_
  bool over_budget() const;

  OutputPlan plan_;
  OutputParser parser_;
  StopMatcher stop_;
  Utf8Gate raw_, thought_;
  std::vector<uint32_t> base_;     // bit mask of what may ever come; empty: all
  std::vector<uint32_t> scratch_;  // what allowed() hands out when it differs from base_
  std::vector<TokenId> recent_;    // the last tokens, for bad words
  size_t longest_bad_word_ = 0;
  std::optional<GrammarMatcher> matcher_;
  std::vector<uint32_t> thinking_;  // mask while reasoning; empty: base_

  mutable std::mutex mutex_;
  std::deque<Piece> pieces_;
  Waiting waiting_[2];  // reasoning, content
  uint32_t accepted_ = 0;
  int64_t reasoning_tokens_ = 0;
  int calls_begun_ = 0;
  bool stopped_ = false, budget_hit_ = false;
  std::optional<TokenId> stop_id_;
};

// Bits for `vocabulary` tokens, all set.
std::vector<uint32_t> all_tokens(size_t vocabulary);
inline void forbid(std::vector<uint32_t>& mask, TokenId id) {
  if (id >= 0 && static_cast<size_t>(id) / 32 < mask.size()) mask[id / 32] &= ~(1u << (id % 32));
}

}  // namespace nautile::serve
