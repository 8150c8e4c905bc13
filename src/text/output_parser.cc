// The automaton. Input is first a sequence of symbols: plain bytes, ｜DSML｜ and </think>; the states work on these.
#include "text/output_parser.h"

#include <algorithm>

#include "text/chat_texts.h"

namespace nautile {
namespace {

using chat_texts::kDsml;
using chat_texts::kThinkClose;

// Longer than any word looked for in a block.
constexpr size_t kTailBytes = 24;

bool newlines_only(std::string_view text) {
  return text.find_first_not_of('\n') == std::string_view::npos;
}

}  // namespace

OutputStart output_start(std::span<const TokenId> prompt, const ChatTokens& tokens) {
  for (auto id = prompt.rbegin(); id != prompt.rend(); ++id) {
    if (*id == tokens.think_open) return OutputStart::kReasoning;
    if (*id == tokens.think_close || *id == tokens.assistant || *id == tokens.user) break;
  }
  return OutputStart::kContent;
}

OutputParser::OutputParser(const ChatTokens& tokens, OutputParserOptions options)
    : tokens_(tokens), options_(std::move(options)) {
  switch (options_.start) {
    case OutputStart::kContent:
      state_ = State::kContent;
      break;
    case OutputStart::kReasoning:
      state_ = State::kReasoning;
      break;
    case OutputStart::kCallName:
      state_ = State::kName;
      block_seen_ = true;
      break;
    case OutputStart::kCallArguments:
      state_ = State::kArguments;
      block_seen_ = forced_call_ = true;
      name_ = options_.forced_name;
      break;
  }
}

void OutputParser::begin(std::vector<OutputEvent>& out) {
  out_ = &out;
  if (forced_call_) start_call();
  forced_call_ = false;
}

void OutputParser::push(std::string_view bytes, std::vector<OutputEvent>& out) {
  begin(out);
  symbols(bytes);
  out_ = nullptr;
}

bool OutputParser::push(TokenId id, std::string_view bytes, std::vector<OutputEvent>& out) {
  if (tokens_.is_stop(id)) return false;
  begin(out);
  release_literal();
  if (id == tokens_.think_close) {
    think_close();
  } else if (id == tokens_.dsml) {
    dsml();
  } else {
    for (const char c : bytes) byte(c);
  }
  out_ = nullptr;
  return true;
}

// Byte input: finds the literals of the two markers, whatever the cuts.
void OutputParser::symbols(std::string_view bytes) {
  for (const char c : bytes) {
    literal_ += c;
    while (!literal_.empty()) {
      if (literal_ == kThinkClose) {
        literal_.clear();
        think_close();
      } else if (literal_ == kDsml) {
        literal_.clear();
        dsml();
      } else if (kThinkClose.starts_with(literal_) || kDsml.starts_with(literal_)) {
        break;
      } else {
        const char first = literal_.front();
        literal_.erase(0, 1);
        byte(first);
      }
    }
  }
}

void OutputParser::release_literal() {
  const std::string bytes = std::move(literal_);
  literal_.clear();
  for (const char c : bytes) byte(c);
}

void OutputParser::byte(char c) {
  switch (state_) {
    case State::kReasoning:
    case State::kContent:
      text_byte(c);
      break;
    case State::kStray:
      if (c == '>') {
        state_ = stray_from_;
      } else if (!((c >= 'a' && c <= 'z') || c == '_')) {
        state_ = stray_from_;
        text_byte(c);
      }
      break;
    case State::kBlock:
      if (closing_tag_ && c == '>') {
        closing_tag_ = false;
        // Models misname the outer tag; whatever closes and is not an inner one closes the block.
        if (tail_ != "invoke" && tail_ != "parameter") state_ = State::kDone;
        tail_.clear();
        break;
      }
      tail_ += c;
      if (tail_is("invoke name=\"")) {
        name_.clear();
        state_ = State::kName;
      }
      break;
    case State::kName:
      if (c == '"') {
        start_call();
      } else {
        name_ += c;
      }
      break;
    case State::kArguments:
      tail_ += c;
      if (tail_is("parameter name=\"")) {
        key_.clear();
        state_ = State::kKey;
      } else if (tail_is("invoke name=\"")) {  // the call before was not closed
        end_call();
        name_.clear();
        state_ = State::kName;
      }
      break;
    case State::kKey:
      if (c == '"') {
        tail_.clear();
        state_ = State::kType;
      } else {
        key_ += c;
      }
      break;
    case State::kType:
      tail_ += c;
      if (c == '>') {  // `string="true">`, and a string also where the attribute is missing
        std::string json;
        arguments_.begin_value(key_, !tail_is("false\">"), json);
        emit(OutputEvent::kToolArguments, std::move(json));
        state_ = State::kValue;
        held_.clear();
      }
      break;
    case State::kValue:
      if (c == '<' || (c == '/' && held_ == "<")) {
        if (c == '<') flush_held();
        held_ += c;
      } else {
        flush_held();
        value(std::string_view(&c, 1));
      }
      break;
    case State::kDone:
      break;
  }
  if (tail_.size() > kTailBytes) {
    tail_.erase(0, tail_.size() - kTailBytes);
    closing_tag_ = false;  // no tag has so long a name
  }
}

// Newlines and the beginning of a tag wait until it is known whether a marker follows.
void OutputParser::text_byte(char c) {
  if (c == '/' && held_.ends_with('<')) {
    held_ += c;
    return;
  }
  if (c == '\n') {
    if (!newlines_only(held_)) flush_held();
    held_ += c;
  } else if (c == '<') {
    if (!newlines_only(held_)) flush_held();
    held_ += c;
  } else {
    flush_held();
    text(std::string_view(&c, 1));
  }
}

void OutputParser::dsml() {
  switch (state_) {
    case State::kReasoning:
    case State::kContent:
      if (!options_.tools.empty() && held_.ends_with('<')) {
        held_.clear();
        enter_block();
      } else if (!options_.tools.empty() && held_.ends_with("</")) {  // closes what was never open
        held_.clear();
        stray_from_ = state_;
        state_ = State::kStray;
      } else {
        flush_held();
        // Where something has been left out in between, the two must not come together to markup.
        const bool joins = last_text_.ends_with('<') || last_text_ == "</";
        if (options_.tools.empty() || !joins) text(kDsml);
      }
      break;
    case State::kStray:
      state_ = stray_from_;
      dsml();
      break;
    case State::kBlock:
      closing_tag_ = tail_is("</");
      tail_.clear();
      break;
    case State::kArguments:
      if (tail_is("</")) {
        end_call();
        closing_tag_ = true;
        state_ = State::kBlock;
      }
      tail_.clear();
      break;
    case State::kValue:
      if (held_ == "</") {
        held_.clear();
        std::string json;
        arguments_.end_value(json);
        emit(OutputEvent::kToolArguments, std::move(json));
        tail_.clear();
        state_ = State::kArguments;
      } else {
        flush_held();
        value(kDsml);
      }
      break;
    case State::kName:
      name_ += kDsml;
      break;
    case State::kKey:
      key_ += kDsml;
      break;
    case State::kType:
    case State::kDone:
      break;
  }
}

void OutputParser::think_close() {
  switch (state_) {
    case State::kReasoning:
      if (newlines_only(held_)) held_.clear();
      flush_held();
      leave_text();
      state_ = State::kContent;
      break;
    case State::kStray:
      state_ = stray_from_;
      think_close();
      break;
    case State::kValue:
      flush_held();
      value(kThinkClose);
      break;
    case State::kName:
      name_ += kThinkClose;
      break;
    case State::kKey:
      key_ += kThinkClose;
      break;
    default:
      break;
  }
}

void OutputParser::flush_held() {
  if (held_.empty()) return;
  const std::string held = std::move(held_);
  held_.clear();
  if (state_ == State::kValue) {
    value(held);
    return;
  }
  // Newlines at the beginning of a channel do not count.
  text(text_begun_ ? std::string_view(held)
                   : std::string_view(held).substr(std::min(held.find_first_not_of('\n'), held.size())));
}

void OutputParser::text(std::string_view bytes) {
  if (bytes.empty()) return;
  text_begun_ = true;
  last_text_ += bytes;
  if (last_text_.size() > 2) last_text_.erase(0, last_text_.size() - 2);
  std::string valid;
  gate_.push(bytes, valid);
  emit(state_ == State::kReasoning ? OutputEvent::kReasoning : OutputEvent::kContent, std::move(valid));
}

// The channel ends: a code point cut short by the marker becomes U+FFFD.
void OutputParser::leave_text() {
  std::string rest;
  gate_.finish(rest);
  emit(state_ == State::kReasoning ? OutputEvent::kReasoning : OutputEvent::kContent, std::move(rest));
  text_begun_ = false;
  last_text_.clear();
}

void OutputParser::value(std::string_view bytes) {
  std::string json;
  arguments_.value(bytes, json);
  emit(OutputEvent::kToolArguments, std::move(json));
}

void OutputParser::enter_block() {
  leave_text();
  block_seen_ = true;
  closing_tag_ = false;
  tail_.clear();
  state_ = State::kBlock;
}

void OutputParser::start_call() {
  std::string valid;
  gate_.push(name_, valid);
  gate_.finish(valid);
  name_ = std::move(valid);
  const auto tool =
      std::find_if(options_.tools.begin(), options_.tools.end(), [&](const Tool& t) { return t.name == name_; });
  arguments_.begin(tool == options_.tools.end() ? nullptr : &*tool);
  message_.calls.push_back({name_, {}});
  call_open_ = true;
  emit(OutputEvent::kToolStart, name_);
  tail_.clear();
  state_ = State::kArguments;
}

void OutputParser::end_call() {
  std::string json;
  arguments_.end(json);
  emit(OutputEvent::kToolArguments, std::move(json));
  emit(OutputEvent::kToolEnd, {});
  call_open_ = false;
}

void OutputParser::emit(OutputEvent::Kind kind, std::string text) {
  const bool marks = kind == OutputEvent::kToolStart || kind == OutputEvent::kToolEnd;
  if (text.empty() && !marks) return;
  int call = -1;
  switch (kind) {
    case OutputEvent::kReasoning:
      message_.reasoning += text;
      break;
    case OutputEvent::kContent:
      message_.content += text;
      break;
    case OutputEvent::kToolArguments:
      message_.calls.back().arguments += text;
      [[fallthrough]];
    default:
      call = static_cast<int>(message_.calls.size()) - 1;
  }
  if (!marks && !out_->empty() && out_->back().kind == kind && out_->back().call == call) {
    out_->back().text += text;
  } else {
    out_->push_back({kind, call, std::move(text)});
  }
}

ParsedMessage OutputParser::finish(OutputEnd end, std::vector<OutputEvent>& out) {
  out_ = &out;
  release_literal();
  if (state_ == State::kStray) state_ = stray_from_;
  if (state_ == State::kReasoning || state_ == State::kContent) {
    // Cut where a block of calls was about to begin: a "<" on a line of its own is its tag's.
    const bool opening = end == OutputEnd::kLimit && !options_.tools.empty() && held_.ends_with('<') &&
                         (held_.size() > 1 || !text_begun_);
    if (opening) held_.clear();
    flush_held();
    leave_text();
  }
  out_ = nullptr;
  message_.reasoning_unclosed = state_ == State::kReasoning;
  message_.incomplete_call = call_open_ || state_ == State::kName;
  if (call_open_) message_.calls.pop_back();
  message_.block_without_call = block_seen_ && message_.calls.empty() && !message_.incomplete_call;
  if (end == OutputEnd::kLimit && state_ != State::kDone) {
    message_.finish = FinishReason::kLength;
  } else {
    message_.finish = message_.calls.empty() ? FinishReason::kStop : FinishReason::kToolCalls;
  }
  return std::move(message_);
}

}  // namespace nautile
