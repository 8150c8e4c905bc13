// A conversation: the messages that become a prompt, and how they are read from an OpenAI-style request.
//
// Thread-safety: values and pure functions. Source: spec chat.md 2, 4, 6, 7 and api.md 7.2, 7.3, 11.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "nautile/sampling.h"

namespace nautile {

enum class Role { kSystem, kDeveloper, kUser, kAssistant, kTool, kLatestReminder };

// Internal one-shot heads (spec chat.md 6).
enum class Task { kNone, kAction, kQuery, kAuthority, kDomain, kTitle, kReadUrl };

struct Argument {
  std::string name;
  bool is_string = false;
  std::string value;  // the raw text of a string, else JSON as Python's json.dumps prints it
};

struct HistoryCall {
  std::string id;
  std::string name;
  std::vector<Argument> arguments;
};

struct Tool {
  std::string name;
  std::string schema_line;  // the request's `function` object as Python's json.dumps prints it
  Json parameters;          // its JSON Schema, null if there is none
};

// An assistant's turn as the model produced it, from behind its opener to before its end token. The same text can be
// spelled in other tokens too; these are the ones a cached prefix holds.
struct GeneratedTurn {
  std::vector<TokenId> tokens;
  bool thinking = false;  // the opener was <think>
};

struct Message {
  Role role = Role::kUser;
  std::string content{};
  std::string reasoning_content{};               // assistant
  std::vector<HistoryCall> tool_calls{};         // assistant
  std::string tool_call_id{};                    // tool
  std::vector<Tool> tools{};                     // system or developer: declared after the content
  std::optional<std::string> response_format{};  // system or developer: a schema, as Python's json.dumps prints it
  Task task = Task::kNone;
  bool wo_eos = false;  // assistant, last: the turn stays open and the model goes on from here
  std::shared_ptr<const GeneratedTurn>
      generated{};  // assistant: stands for the text above wherever the opener is its own
};

struct ToolChoice {
  enum Kind { kAuto, kNone, kRequired, kNamed } kind = kAuto;
  std::string name;  // of kNamed
};

struct Conversation {
  std::vector<Message> messages;
  ToolChoice tool_choice;
  bool json_object = false;  // response_format {"type": "json_object"}: V4 has no text for it

  // The tools declared on any message: what the output may call. Empty means output is never parsed for calls.
  std::vector<Tool> declared_tools() const;
};

struct ConversationOptions {
  // Also accept what the encoder knows and no public API offers: the role latest_reminder, developer as a role of its
  // own (else it is read as system), the fields task, wo_eos, tools and response_format on messages, and a conversation
  // that ends with a system message.
  bool internal_fields = false;
};

// Reads `messages`, `tools` (or `functions`), `tool_choice`, `response_format` and `continue_final_message` of a
// request; other fields are not looked at. Every error is kInvalidArgument with the field's path
// ("messages[2].tool_calls[0].id").
//
// Content parts of type text, input_text, output_text and refusal are joined; those of a tool result with an empty line
// between, where parts of another type become "[Unsupported TYPE]" as in the reference (elsewhere they are an error).
// Tools and a json_schema go to the first message if that is system, else to an empty system message put in front.
// arguments may be an object or its JSON text; text keeps integers of any size to the digit. In the request itself
// parse_json refuses integers beyond 64 bits.
Result<Conversation> parse_conversation(const Json& request, const ConversationOptions& options = {});

}  // namespace nautile
