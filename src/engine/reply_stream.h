// ReplyStream: one generation's tokens become a reply, as they come: reasoning, content, tool calls, cut at stop
// strings. The engine feeds it through a guide, so that generation ends with the token that completes a stop string or
// the last tool call.
//
// Thread-safety: take() and finish() from the reader, the guide from the engine; each call locks.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "nautile/engine.h"
#include "text/output_parser.h"
#include "text/stop.h"
#include "text/tokenizer.h"

namespace nautile {

class ReplyStream {
 public:
  // `tokenizer` must outlive it.
  ReplyStream(const Tokenizer& tokenizer, const ChatTokens& tokens, OutputParserOptions parser, StopMatcher stop);

  // The guide of a request whose reply this is. `stream` lives as long as the guide.
  static std::unique_ptr<TokenGuide> guide(std::shared_ptr<ReplyStream> stream);

  // Appends the events since the last call; content is cut at a stop string.
  void take(std::vector<OutputEvent>& out);
  // Once, after the generation has ended: the last events and the whole message.
  ParsedMessage finish(std::vector<OutputEvent>& out);

  int64_t reasoning_tokens() const;
  std::string stop_string() const;  // the one that matched

 private:
  friend class ReplyGuide;
  bool accept(TokenId id);
  void pass(const std::vector<OutputEvent>& events);

  const Tokenizer& tokenizer_;
  mutable std::mutex mutex_;
  OutputParser parser_;
  StopMatcher stop_;
  std::vector<OutputEvent> events_, parsed_;
  std::string content_;  // what has passed the stop matcher
  int64_t reasoning_tokens_ = 0;
  OutputEnd end_ = OutputEnd::kLimit;
};

}  // namespace nautile
