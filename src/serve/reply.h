// What has come of a request so far, and the interface of the four dialects that write it down.
//
// Thread-safety: the io thread. Source: spec api.md 7.4, 7.5, 8, 12, 13.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nautile/engine.h"
#include "serve/output.h"
#include "serve/request.h"

namespace nautile::serve {

struct Call {
  std::string id, name, arguments;
  bool complete = false;
};

struct ChoiceState {
  int index = 0;   // in the answer
  int prompt = 0;  // which prompt it answers
  std::string reasoning, content;
  std::vector<Call> calls;
  std::vector<TokenEvent> tokens;                  // when logprobs or ids are asked for
  std::vector<uint32_t> reasoning_at, content_at;  // indices into tokens whose text is in these
  bool done = false;

  // From here on set at the end.
  OutputSummary summary;
  RequestRecord record;
  std::vector<PromptScore> scores;
  const char* finish_reason() const;  // "stop", "length", "tool_calls"
  double mean_logprob() const;
};

struct UsageCount {
  int64_t prompt = 0, cached = 0, completion = 0, reasoning = 0;
};

class ReplyWriter {
 public:
  virtual ~ReplyWriter() = default;
  virtual std::string id() const = 0;  // of the answer
  // What a client may send back in place of the reasoning; empty: nothing of the kind is given out.
  virtual std::string reasoning_handle() const { return {}; }
  // Each of these appends what goes to a stream now. `state` already holds the piece.
  virtual void start(std::string& out) = 0;  // at admission
  virtual void piece(const ChoiceState& state, const Piece& piece, const UsageCount& usage, std::string& out) = 0;
  virtual void end_choice(const ChoiceState& state, const UsageCount& usage, std::string& out) = 0;
  virtual void finish(const std::vector<const ChoiceState*>& choices, const UsageCount& usage, std::string& out) = 0;
  virtual void fail(const ApiError& error, std::string& out) = 0;
  virtual std::string keep_alive() = 0;
  // The finished answer, if the request asks to have it kept; null otherwise. After finish() or body().
  virtual const Json* kept() const { return nullptr; }
  // The whole answer of a request that does not stream.
  virtual Json body(const std::vector<const ChoiceState*>& choices, const UsageCount& usage) = 0;
};

struct ReplyContext {
  const ServedModel& model;
  std::string request_id;
  int64_t created = 0;
  bool reasoning_alias = false;
};

std::unique_ptr<ReplyWriter> chat_writer(const Ask& ask, const ReplyContext& context);
std::unique_ptr<ReplyWriter> completions_writer(const Ask& ask, const ReplyContext& context);
std::unique_ptr<ReplyWriter> messages_writer(const Ask& ask, const ReplyContext& context);
std::unique_ptr<ReplyWriter> responses_writer(const Ask& ask, const ReplyContext& context);

// Shared by chat and completions.
Json usage_json(const UsageCount& usage);
// The stop_reason extension: the stop string, the id, or null.
Json stop_reason_json(const OutputSummary& summary);
std::string token_text(const Ask& ask, const Tokenizer& tokenizer, TokenId id);
double finite_logprob(float logprob);

}  // namespace nautile::serve
