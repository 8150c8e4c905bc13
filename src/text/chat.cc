// Merging, sorting, dropping and rendering, in the order of the reference.
#include "text/chat.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "text/chat_texts.h"

namespace nautile {
namespace {

using namespace chat_texts;

// One message after merging: runs of user and tool messages are one user turn of blocks.
struct Turn {
  Role role;
  Task task = Task::kNone;
  const Message* message = nullptr;    // of every role but user
  std::vector<const Message*> blocks;  // of a user turn: user texts and tool results
};

std::vector<Turn> merge(const std::vector<Message>& messages) {
  std::vector<Turn> turns;
  for (const Message& message : messages) {
    const bool result = message.role == Role::kTool;
    if (!result && message.role != Role::kUser) {
      turns.push_back({message.role, message.task, &message, {}});
      continue;
    }
    if (!turns.empty() && turns.back().role == Role::kUser && (result || turns.back().task == Task::kNone)) {
      turns.back().blocks.push_back(&message);
    } else {
      turns.push_back({Role::kUser, result ? Task::kNone : message.task, nullptr, {&message}});
    }
  }
  return turns;
}

// Tool results take the order of the calls they answer, among their own places.
void sort_results(std::vector<Turn>& turns) {
  std::unordered_map<std::string, size_t> order;
  for (Turn& turn : turns) {
    if (turn.role == Role::kAssistant && !turn.message->tool_calls.empty()) {
      order.clear();
      for (size_t i = 0; i < turn.message->tool_calls.size(); ++i) order[turn.message->tool_calls[i].id] = i;
    }
    std::vector<const Message*> results;
    for (const Message* block : turn.blocks) {
      if (block->role == Role::kTool) results.push_back(block);
    }
    if (results.size() < 2) continue;
    const auto rank = [&](const Message* result) {
      const auto found = order.find(result->tool_call_id);
      return found == order.end() ? 0 : found->second;
    };
    std::stable_sort(results.begin(), results.end(), [&](auto* a, auto* b) { return rank(a) < rank(b); });
    size_t next = 0;
    for (const Message*& block : turn.blocks) {
      if (block->role == Role::kTool) block = results[next++];
    }
  }
}

int last_question(const std::vector<Turn>& turns) {
  for (int i = static_cast<int>(turns.size()) - 1; i >= 0; --i) {
    if (turns[i].role == Role::kUser || turns[i].role == Role::kDeveloper) return i;
  }
  return -1;
}

std::string_view task_token(Task task) {
  switch (task) {
    case Task::kAction:
      return "<｜action｜>";
    case Task::kQuery:
      return "<｜query｜>";
    case Task::kAuthority:
      return "<｜authority｜>";
    case Task::kDomain:
      return "<｜domain｜>";
    case Task::kTitle:
      return "<｜title｜>";
    case Task::kReadUrl:
      return "<｜read_url｜>";
    case Task::kNone:
      break;
  }
  return "";
}

Result<std::string_view> effort_text(const EncodeOptions& options) {
  const bool preview = options.profile == EncodingProfile::kPreview;
  switch (options.mode) {
    case ReasoningMode::kNonThink:
      return std::string_view();
    case ReasoningMode::kThinkLow:
      if (!preview) return std::string_view();
      return Status(Code::kInvalidArgument, "the mode think_low does not exist in the preview profile", {},
                    "use think_high, or the official profile if the checkpoint is of that release");
    case ReasoningMode::kThinkHigh:
      return preview ? std::string_view() : kAbsoluteMaximum;
    case ReasoningMode::kThinkMax:
      return preview ? kAbsoluteMaximum : kBeyondMaximum;
  }
  return std::string_view();
}

class Renderer {
 public:
  explicit Renderer(bool literal) : literal_(literal) {}

  // Text of the format itself; literals of added tokens in it are these tokens.
  void mark(std::string_view text) { add(text, true); }
  // Text that came from outside.
  void text(std::string_view text) { add(text, literal_); }

  void declare(const std::vector<Tool>& tools) {
    mark(kToolsHead);
    for (size_t i = 0; i < tools.size(); ++i) {
      if (i > 0) mark("\n");
      text(tools[i].schema_line);
    }
    mark(kToolsTail);
  }

  void attachments(const Message& message) {
    if (!message.tools.empty()) {
      mark("\n\n");
      declare(message.tools);
    }
    if (message.response_format) {
      mark("\n\n");
      mark(kResponseFormatHead);
      text(*message.response_format);
    }
  }

  void calls(const std::vector<HistoryCall>& calls) {
    mark("\n\n<｜DSML｜tool_calls>\n");
    for (const HistoryCall& call : calls) {
      mark("<｜DSML｜invoke name=\"");
      text(call.name);
      mark("\">\n");
      for (size_t i = 0; i < call.arguments.size(); ++i) {
        if (i > 0) mark("\n");
        mark("<｜DSML｜parameter name=\"");
        text(call.arguments[i].name);
        mark(call.arguments[i].is_string ? "\" string=\"true\">" : "\" string=\"false\">");
        text(call.arguments[i].value);
        mark("</｜DSML｜parameter>");
      }
      mark("\n</｜DSML｜invoke>\n");
    }
    mark("</｜DSML｜tool_calls>");
  }

  void user(const Turn& turn) {
    mark(kUser);
    for (size_t i = 0; i < turn.blocks.size(); ++i) {
      if (i > 0) mark("\n\n");
      const bool result = turn.blocks[i]->role == Role::kTool;
      if (result) mark(kToolResultOpen);
      text(turn.blocks[i]->content);
      if (result) mark(kToolResultClose);
    }
  }

  std::vector<Segment> take() { return std::move(segments_); }

  // What is added from here on ...
  size_t place() {
    barred_ = true;
    return segments_.size();
  }
  // ... is these tokens.
  void spelled_as(size_t place, const std::vector<TokenId>& ids) {
    Segment whole{text_of(std::span(segments_).subspan(place)), false, ids};
    segments_.resize(place);
    if (!ids.empty()) segments_.push_back(std::move(whole));
    barred_ = true;
  }

 private:
  void add(std::string_view text, bool specials) {
    if (text.empty()) return;
    if (barred_ || segments_.empty() || segments_.back().may_contain_specials != specials) {
      segments_.push_back({{}, specials});
    }
    barred_ = false;
    segments_.back().text += text;
  }

  bool literal_;
  bool barred_ = false;  // the next text begins a segment
  std::vector<Segment> segments_;
};

}  // namespace

const char* name_of(ReasoningMode mode) {
  switch (mode) {
    case ReasoningMode::kNonThink:
      return "non_think";
    case ReasoningMode::kThinkLow:
      return "think_low";
    case ReasoningMode::kThinkHigh:
      return "think_high";
    case ReasoningMode::kThinkMax:
      return "think_max";
  }
  return "";
}

const char* name_of(EncodingProfile profile) {
  return profile == EncodingProfile::kPreview ? "preview" : "official";
}

Result<std::vector<Segment>> render(const Conversation& conversation, const EncodeOptions& options) {
  NAUTILE_ASSIGN(const std::string_view effort, effort_text(options));
  if (conversation.messages.empty()) {
    return Status(Code::kInvalidArgument, "there is no message", "messages", "send at least one user message");
  }
  const bool thinking = options.mode != ReasoningMode::kNonThink;
  std::vector<Turn> turns = merge(conversation.messages);
  sort_results(turns);
  const bool drop = options.drop_reasoning && conversation.declared_tools().empty();
  if (thinking && drop) {
    const int last = last_question(turns);
    int index = 0;
    std::erase_if(turns, [&](const Turn& turn) { return index++ < last && turn.role == Role::kDeveloper; });
  }
  const int last = last_question(turns);

  Renderer out(options.literal_specials);
  out.mark(kBos);
  out.mark(effort);
  const int count = static_cast<int>(turns.size());
  for (int i = 0; i < count; ++i) {
    const Turn& turn = turns[i];
    const Message* message = turn.message;
    switch (turn.role) {
      case Role::kUser:
      case Role::kTool:
        out.user(turn);
        break;
      case Role::kDeveloper:
        if (message->content.empty())
          return Status(Code::kInvalidArgument, "a developer message must not be empty", "messages");
        out.mark(kUser);
        [[fallthrough]];
      case Role::kSystem:
        out.text(message->content);
        out.attachments(*message);
        break;
      case Role::kLatestReminder:
        out.mark(kLatestReminder);
        out.text(message->content);
        break;
      case Role::kAssistant: {
        // A turn left open with reasoning alone goes on inside the reasoning.
        const bool open_reasoning = i + 1 == count && message->wo_eos && message->content.empty() &&
                                    message->tool_calls.empty() && !message->reasoning_content.empty();
        const bool reasons = thinking && (i == 0 || turns[i - 1].task == Task::kNone) && (!drop || i > last);
        if (open_reasoning && !reasons) {
          return Status(Code::kInvalidArgument, "reasoning to go on from was given, but the mode is non_think",
                        "messages, the last one's reasoning_content", "ask for a thinking mode, or give content");
        }
        const bool as_generated = message->generated && message->generated->thinking == reasons && !message->wo_eos &&
                                  !options.literal_specials;
        const size_t place = as_generated ? out.place() : 0;
        if (reasons) {
          out.text(message->reasoning_content);
          if (!open_reasoning) out.mark(kThinkClose);
        }
        out.text(message->content);
        if (!message->tool_calls.empty()) out.calls(message->tool_calls);
        if (as_generated) out.spelled_as(place, message->generated->tokens);
        if (!message->wo_eos) out.mark(kEos);
        break;
      }
    }
    if (i + 1 < count && turns[i + 1].role != Role::kAssistant && turns[i + 1].role != Role::kLatestReminder) continue;
    if (turn.task == Task::kAction) {
      out.mark(kAssistant);
      out.mark(thinking ? kThinkOpen : kThinkClose);
    }
    if (turn.task != Task::kNone) {
      out.mark(task_token(turn.task));
    } else if (turn.role == Role::kUser || turn.role == Role::kDeveloper) {
      out.mark(kAssistant);
      out.mark(thinking && (!drop || i >= last) ? kThinkOpen : kThinkClose);
    }
  }

  const Turn& final_turn = turns.back();
  const bool answered = final_turn.role == Role::kAssistant;
  if (answered && options.reopen_after_assistant && !final_turn.message->wo_eos && final_turn.task == Task::kNone) {
    out.mark(kAssistant);
    out.mark(thinking ? kThinkOpen : kThinkClose);
  }
  const ToolChoice& choice = conversation.tool_choice;
  if (choice.kind == ToolChoice::kRequired || choice.kind == ToolChoice::kNamed) {
    if (thinking) {
      return Status(Code::kUnsupported, "a tool call cannot be forced while the model thinks", "tool_choice",
                    "use \"auto\", or reasoning mode non_think");
    }
    if (answered && !options.reopen_after_assistant) {
      return Status(Code::kInvalidArgument, "a tool call cannot be forced after an assistant message", "tool_choice");
    }
    out.mark("\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"");
    if (choice.kind == ToolChoice::kNamed) {
      out.text(choice.name);
      out.mark("\">\n");
    }
  }
  return out.take();
}

Result<std::vector<TokenId>> encode(const Tokenizer& tokenizer, const Conversation& conversation,
                                    const EncodeOptions& options) {
  NAUTILE_ASSIGN(const std::vector<Segment> segments, render(conversation, options));
  return tokenizer.encode(segments);
}

std::vector<Segment> render_fim(std::string prefix, std::string suffix) {
  return {{std::string(kBos) + std::string(kFimBegin), true},
          {std::move(prefix), false},
          {std::string(kFimHole), true},
          {std::move(suffix), false},
          {std::string(kFimEnd), true}};
}

std::string text_of(std::span<const Segment> segments) {
  std::string out;
  for (const Segment& segment : segments) out += segment.text;
  return out;
}

Result<ChatTokens> ChatTokens::find(const Tokenizer& tokenizer) {
  ChatTokens tokens{};
  const std::pair<std::string_view, TokenId*> wanted[] = {{kBos, &tokens.bos},
                                                          {kEos, &tokens.eos},
                                                          {kUser, &tokens.user},
                                                          {kAssistant, &tokens.assistant},
                                                          {kThinkOpen, &tokens.think_open},
                                                          {kThinkClose, &tokens.think_close},
                                                          {kDsml, &tokens.dsml}};
  for (const auto& [text, id] : wanted) {
    const auto found = tokenizer.id_of(text);
    if (!found) {
      return Status(Code::kUnsupported,
                    fmt::format("the vocabulary has no token \"{}\", which the V4 chat format needs", text),
                    "tokenizer.json, added_tokens", "use the tokenizer.json of a DeepSeek-V4 checkpoint");
    }
    *id = *found;
  }
  tokens.latest_reminder = tokenizer.id_of(kLatestReminder).value_or(-1);
  return tokens;
}

}  // namespace nautile
