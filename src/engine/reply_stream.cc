// Parser and stop matcher in a row.
#include "engine/reply_stream.h"

namespace nautile {

class ReplyGuide final : public TokenGuide {
 public:
  explicit ReplyGuide(std::shared_ptr<ReplyStream> stream) : stream_(std::move(stream)) {}
  std::span<const uint32_t> allowed() override { return {}; }
  bool accept(TokenId id) override { return stream_->accept(id); }

 private:
  const std::shared_ptr<ReplyStream> stream_;
};

ReplyStream::ReplyStream(const Tokenizer& tokenizer, const ChatTokens& tokens, OutputParserOptions parser,
                         StopMatcher stop)
    : tokenizer_(tokenizer), parser_(tokens, std::move(parser)), stop_(std::move(stop)) {}

std::unique_ptr<TokenGuide> ReplyStream::guide(std::shared_ptr<ReplyStream> stream) {
  return std::make_unique<ReplyGuide>(std::move(stream));
}

bool ReplyStream::accept(TokenId id) {
  const std::lock_guard lock(mutex_);
  reasoning_tokens_ += parser_.in_reasoning();
  parsed_.clear();
  const bool more = parser_.push(id, tokenizer_.bytes_of(id), parsed_);
  pass(parsed_);
  if (!more || parser_.block_closed()) {
    end_ = OutputEnd::kEndOfTurn;
    return false;
  }
  if (stop_.matched()) {
    end_ = OutputEnd::kStopString;
    return false;
  }
  return true;
}

// Content passes the stop matcher on its way out; everything else goes straight through.
void ReplyStream::pass(const std::vector<OutputEvent>& events) {
  for (const OutputEvent& event : events) {
    if (event.kind != OutputEvent::kContent) {
      events_.push_back(event);
      continue;
    }
    std::string text;
    if (!stop_.matched()) stop_.push(event.text, text);
    if (text.empty()) continue;
    content_ += text;
    events_.push_back({OutputEvent::kContent, -1, std::move(text)});
  }
}

void ReplyStream::take(std::vector<OutputEvent>& out) {
  const std::lock_guard lock(mutex_);
  out.insert(out.end(), std::make_move_iterator(events_.begin()), std::make_move_iterator(events_.end()));
  events_.clear();
}

ParsedMessage ReplyStream::finish(std::vector<OutputEvent>& out) {
  const std::lock_guard lock(mutex_);
  parsed_.clear();
  ParsedMessage message = parser_.finish(end_, parsed_);
  pass(parsed_);
  std::string tail;
  stop_.finish(tail);
  content_ += tail;
  if (!tail.empty()) events_.push_back({OutputEvent::kContent, -1, std::move(tail)});
  message.content = content_;
  out.insert(out.end(), std::make_move_iterator(events_.begin()), std::make_move_iterator(events_.end()));
  events_.clear();
  return message;
}

int64_t ReplyStream::reasoning_tokens() const {
  const std::lock_guard lock(mutex_);
  return reasoning_tokens_;
}

std::string ReplyStream::stop_string() const {
  const std::lock_guard lock(mutex_);
  return stop_.matched_string();
}

}  // namespace nautile
