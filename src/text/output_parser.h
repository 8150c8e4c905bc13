// The output parser: what the model generates becomes reasoning, content and tool calls, as it comes.
//
// One automaton for streams and whole outputs: the joined events do not depend on how the output was cut, and equal the
// finished message. Fed with tokens, markers are recognised by id alone, so text that merely spells them stays text;
// fed with bytes, by their literals. Without declared tools nothing is taken for a call. Text comes out as valid UTF-8.
// Thread-safety: a parser belongs to one thread. Source: spec chat.md 5, api.md 9.1.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat.h"
#include "text/conversation.h"
#include "text/tool_arguments.h"
#include "text/utf8.h"

namespace nautile {

struct OutputEvent {
  enum Kind {
    kReasoning,
    kContent,
    kToolStart,      // text is the name; comes before any of the call's arguments
    kToolArguments,  // a piece of the JSON object
    kToolEnd,        // the call is complete and its arguments are valid JSON
  };
  Kind kind;
  int call = -1;  // index of the call, for the last three
  std::string text;
};

struct ParsedCall {
  std::string name;
  std::string arguments;  // the text of a JSON object
};

enum class FinishReason { kStop, kLength, kToolCalls };
// Why generation ended.
enum class OutputEnd { kEndOfTurn, kStopString, kLimit };

struct ParsedMessage {
  std::string reasoning, content;
  std::vector<ParsedCall> calls;  // complete ones only
  FinishReason finish = FinishReason::kStop;
  // What was odd about the output; the text above is right all the same.
  bool reasoning_unclosed = false;  // the turn ended inside the reasoning: there is no content
  bool incomplete_call = false;     // the output stopped inside a call, which is left out (its events have been sent)
  bool block_without_call = false;  // tool markup that held no call was left out
};

// Where generation begins.
enum class OutputStart {
  kContent,
  kReasoning,
  kCallName,       // after `invoke name="`: tool_choice required
  kCallArguments,  // after the invoke tag of a named tool: tool_choice named
};

// From the prompt's own last marker, so that parser and prompt cannot disagree. kContent or kReasoning.
OutputStart output_start(std::span<const TokenId> prompt, const ChatTokens& tokens);

struct OutputParserOptions {
  OutputStart start = OutputStart::kContent;
  std::vector<Tool> tools;  // as declared in the prompt; empty: nothing is parsed as a call
  std::string forced_name;  // with kCallArguments
};

class OutputParser {
 public:
  OutputParser(const ChatTokens& tokens, OutputParserOptions options);
  OutputParser(const OutputParser&) = delete;  // holds references into its own options
  OutputParser& operator=(const OutputParser&) = delete;

  // Appends events to `out`; neighbours of one kind and call are joined.
  void push(std::string_view bytes, std::vector<OutputEvent>& out);
  // `bytes`: what the token spells. False if it ends the turn: nothing is emitted for it, and nothing should follow.
  bool push(TokenId id, std::string_view bytes, std::vector<OutputEvent>& out);
  // Releases what was held back. Call once, at the end.
  ParsedMessage finish(OutputEnd end, std::vector<OutputEvent>& out);

  bool in_reasoning() const { return state_ == State::kReasoning; }
  // User stop strings apply to content alone.
  bool in_content() const { return state_ == State::kContent; }
  // The block of calls is closed: whatever follows is ignored, so generation may stop here.
  bool block_closed() const { return state_ == State::kDone; }

 private:
  enum class State { kReasoning, kContent, kStray, kBlock, kName, kArguments, kKey, kType, kValue, kDone };

  void begin(std::vector<OutputEvent>& out);
  void symbols(std::string_view bytes);
  void release_literal();
  void byte(char c);
  void text_byte(char c);
  void dsml();
  void think_close();
  void flush_held();
  void text(std::string_view bytes);
  void value(std::string_view bytes);
  void enter_block();
  void start_call();
  void end_call();
  void leave_text();
  void emit(OutputEvent::Kind kind, std::string text);
  bool tail_is(std::string_view wanted) const { return tail_.ends_with(wanted); }

  const ChatTokens tokens_;
  const OutputParserOptions options_;
  State state_ = State::kContent;
  State stray_from_ = State::kContent;
  std::string literal_;     // bytes that may become a marker's literal (byte input only)
  std::string held_;        // in text: newlines*, then "", "<" or "</"; in a value: "", "<" or "</"
  std::string last_text_;   // the last two bytes of the text channel
  std::string tail_;        // in a block: the last plain bytes since a marker
  std::string name_, key_;  // of the call and the parameter being read
  bool closing_tag_ = false;
  bool text_begun_ = false;  // the channel has had text: newlines count from here on
  bool block_seen_ = false, call_open_ = false;
  bool forced_call_ = false;  // named in the prompt, and not announced yet
  Utf8Gate gate_;
  ToolArguments arguments_;
  ParsedMessage message_;
  std::vector<OutputEvent>* out_ = nullptr;
};

}  // namespace nautile
