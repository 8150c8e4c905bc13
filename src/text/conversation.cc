// Reads the messages and tools of a request, refusing what V4 has no text for.
#include "text/conversation.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "text/exact_json.h"

namespace nautile {
namespace {

Status bad(std::string what, const std::string& where, std::string fix = {}) {
  return {Code::kInvalidArgument, std::move(what), where, std::move(fix)};
}

// The field, or null where it is absent or JSON null: both mean the same in every request.
const Json* field(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

Result<std::string> text_field(const Json& object, const char* key, const std::string& where) {
  const Json* value = field(object, key);
  if (value == nullptr) return std::string();
  if (!value->is_string())
    return bad(fmt::format("must be a string, but is {}", value->type_name()), where + "." + key);
  return value->get<std::string>();
}

Result<bool> flag_field(const Json& object, const char* key, const std::string& where) {
  const Json* value = field(object, key);
  if (value == nullptr) return false;
  if (!value->is_boolean())
    return bad(fmt::format("must be true or false, but is {}", value->type_name()), where + "." + key);
  return value->get<bool>();
}

bool valid_name(const std::string& name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' || c == '-';
  });
}

class Reader {
 public:
  Reader(const Json& request, const ConversationOptions& options) : request_(request), options_(options) {}

  Result<Conversation> read() {
    if (!request_.is_object()) return bad(fmt::format("must be an object, but is {}", request_.type_name()), "request");
    const Json* messages = field(request_, "messages");
    if (messages == nullptr || !messages->is_array() || messages->empty()) {
      return bad("must be an array of at least one message", "messages");
    }
    for (size_t i = 0; i < messages->size(); ++i) {
      NAUTILE_RETURN_IF_ERROR(message((*messages)[i], fmt::format("messages[{}]", i), i + 1 == messages->size()));
    }
    NAUTILE_RETURN_IF_ERROR(ending());
    NAUTILE_ASSIGN(std::vector<Tool> tools, declared(request_, "request"));
    NAUTILE_RETURN_IF_ERROR(choice(tools));
    NAUTILE_ASSIGN(std::optional<std::string> format, response_format());
    if (conversation_.tool_choice.kind == ToolChoice::kNone) tools.clear();
    if (!tools.empty() || format) {
      Message* first = &conversation_.messages.front();
      if (first->role != Role::kSystem && first->role != Role::kDeveloper) {
        first = &*conversation_.messages.emplace(conversation_.messages.begin());
        first->role = Role::kSystem;
      }
      std::move(tools.begin(), tools.end(), std::back_inserter(first->tools));
      if (format) first->response_format = std::move(format);
    }
    return std::move(conversation_);
  }

 private:
  Status message(const Json& json, const std::string& where, bool last) {
    if (!json.is_object()) return bad(fmt::format("must be an object, but is {}", json.type_name()), where);
    Message message;
    NAUTILE_RETURN_IF_ERROR(role(json, where, message));
    const bool assistant = message.role == Role::kAssistant, tool = message.role == Role::kTool;
    if (assistant) {
      NAUTILE_RETURN_IF_ERROR(calls(json, where, message));
      for (const char* key : {"reasoning_content", "reasoning", "thinking"}) {
        if (!message.reasoning_content.empty()) break;
        NAUTILE_ASSIGN(message.reasoning_content, text_field(json, key, where));
      }
    }
    const bool may_be_null = tool || !message.tool_calls.empty() || !message.reasoning_content.empty();
    NAUTILE_RETURN_IF_ERROR(content(json, where, may_be_null, message));
    NAUTILE_ASSIGN(const bool prefix, flag_field(json, "prefix", where));
    if (prefix && !(assistant && last)) {
      return bad("only the last message, and only of the assistant, can be a prefix", where + ".prefix");
    }
    message.wo_eos = prefix;
    if (options_.internal_fields) NAUTILE_RETURN_IF_ERROR(internal(json, where, message));

    if (tool) {
      NAUTILE_RETURN_IF_ERROR(result(json, where, message));
    } else if (message.role == Role::kUser || assistant) {
      for (size_t i = 0; i < open_calls_.size(); ++i) {
        if (!answered_[i]) {
          return bad(fmt::format("the call \"{}\" of an earlier assistant message has no result before this message",
                                 open_calls_[i]),
                     where, "send a message with role tool and this tool_call_id");
        }
      }
      open_calls_.clear();
      for (const HistoryCall& call : message.tool_calls) open_calls_.push_back(call.id);
      answered_.assign(open_calls_.size(), false);
      if (assistant) has_calls_ = !open_calls_.empty();
    }
    conversation_.messages.push_back(std::move(message));
    return {};
  }

  Status role(const Json& json, const std::string& where, Message& message) const {
    const Json* role = field(json, "role");
    if (role == nullptr || !role->is_string()) return bad("must be a string", where + ".role");
    const auto& name = role->get_ref<const std::string&>();
    if (name == "system") {
      message.role = Role::kSystem;
    } else if (name == "developer") {
      message.role = options_.internal_fields ? Role::kDeveloper : Role::kSystem;
    } else if (name == "user") {
      message.role = Role::kUser;
    } else if (name == "assistant") {
      message.role = Role::kAssistant;
    } else if (name == "tool" || name == "function") {
      message.role = Role::kTool;
    } else if (name == "latest_reminder" && options_.internal_fields) {
      message.role = Role::kLatestReminder;
    } else {
      return bad(fmt::format("the role \"{}\" does not exist", name), where + ".role",
                 "use system, developer, user, assistant or tool");
    }
    return {};
  }

  Status content(const Json& json, const std::string& where, bool may_be_null, Message& message) const {
    const std::string path = where + ".content";
    const Json* content = field(json, "content");
    if (content == nullptr) return may_be_null ? Status() : bad("is missing", path, "an empty string is allowed");
    if (content->is_string()) {
      message.content = content->get<std::string>();
      return {};
    }
    if (!content->is_array())
      return bad(fmt::format("must be a string or an array of parts, but is {}", content->type_name()), path);
    const bool tool = message.role == Role::kTool;
    for (size_t i = 0; i < content->size(); ++i) {
      const Json& part = (*content)[i];
      const std::string part_path = fmt::format("{}[{}]", path, i);
      if (!part.is_object()) return bad(fmt::format("must be an object, but is {}", part.type_name()), part_path);
      NAUTILE_ASSIGN(const std::string type, text_field(part, "type", part_path));
      if (tool && i > 0) message.content += "\n\n";
      const bool text = type == "text" || type == "input_text" || type == "output_text";
      if (!text && type != "refusal") {
        if (tool && !type.empty()) {
          message.content += fmt::format("[Unsupported {}]", type);
          continue;
        }
        return bad(fmt::format("parts of type \"{}\" are not supported: the model reads text only", type),
                   part_path + ".type");
      }
      const char* key = text ? "text" : "refusal";
      const Json* value = field(part, key);
      if (value == nullptr || !value->is_string()) return bad("must be a string", fmt::format("{}.{}", part_path, key));
      message.content += value->get_ref<const std::string&>();
    }
    return {};
  }

  Status calls(const Json& json, const std::string& where, Message& message) {
    if (const Json* legacy = field(json, "function_call"); legacy != nullptr) {
      return call(*legacy, {}, where + ".function_call", message);
    }
    const Json* calls = field(json, "tool_calls");
    if (calls == nullptr) return {};
    if (!calls->is_array()) return bad("must be an array", where + ".tool_calls");
    for (size_t i = 0; i < calls->size(); ++i) {
      const Json& item = (*calls)[i];
      const std::string path = fmt::format("{}.tool_calls[{}]", where, i);
      if (!item.is_object()) return bad(fmt::format("must be an object, but is {}", item.type_name()), path);
      NAUTILE_ASSIGN(const std::string type, text_field(item, "type", path));
      if (!type.empty() && type != "function")
        return bad(fmt::format("\"{}\" is not a type of call", type), path + ".type", "use function");
      NAUTILE_ASSIGN(const std::string id, text_field(item, "id", path));
      const Json* function = field(item, "function");
      if (function == nullptr || !function->is_object()) return bad("must be an object", path + ".function");
      NAUTILE_RETURN_IF_ERROR(call(*function, id, path + ".function", message));
    }
    return {};
  }

  Status call(const Json& function, const std::string& id, const std::string& where, Message& message) {
    if (!function.is_object()) return bad("must be an object", where);
    HistoryCall made{id, {}, {}};
    NAUTILE_ASSIGN(made.name, text_field(function, "name", where));
    if (made.name.empty()) return bad("must be a string that is not empty", where + ".name");
    const std::string path = where + ".arguments";
    const Json* arguments = field(function, "arguments");
    if (arguments == nullptr || (arguments->is_string() && arguments->get_ref<const std::string&>().empty())) {
      // no arguments: {}
    } else if (arguments->is_string()) {
      NAUTILE_ASSIGN(made.arguments, python_members(arguments->get_ref<const std::string&>(), path));
    } else if (arguments->is_object()) {
      for (auto it = arguments->begin(); it != arguments->end(); ++it) {
        const bool text = it.value().is_string();
        made.arguments.push_back({it.key(), text, text ? it.value().get<std::string>() : python_json(it.value())});
      }
    } else {
      return bad(fmt::format("must be a JSON object or its text, but is {}", arguments->type_name()), path);
    }
    message.tool_calls.push_back(std::move(made));
    return {};
  }

  // A result belongs to a call of the nearest assistant message, by id or, without one, by position.
  Status result(const Json& json, const std::string& where, Message& message) {
    const std::string path = where + ".tool_call_id";
    NAUTILE_ASSIGN(message.tool_call_id, text_field(json, "tool_call_id", where));
    if (!has_calls_) return bad("there is no assistant message with tool_calls before this result", path);
    auto at = open_calls_.end();
    if (message.tool_call_id.empty()) {
      const auto free = std::find(answered_.begin(), answered_.end(), false);
      if (free == answered_.end()) return bad("there are more results than calls", where);
      at = open_calls_.begin() + (free - answered_.begin());
    } else {
      at = std::find(open_calls_.begin(), open_calls_.end(), message.tool_call_id);
      if (at == open_calls_.end()) {
        return bad(fmt::format("no call of the nearest assistant message has the id \"{}\"", message.tool_call_id),
                   path);
      }
    }
    const size_t place = at - open_calls_.begin();
    answered_[place] = true;
    // Calls without an id get one, so that results can be put in their order.
    if (at->empty()) {
      *at = fmt::format("call at place {}", place);
      for (auto earlier = conversation_.messages.rbegin(); earlier != conversation_.messages.rend(); ++earlier) {
        if (earlier->role != Role::kAssistant) continue;
        earlier->tool_calls[place].id = *at;
        break;
      }
    }
    message.tool_call_id = *at;
    return {};
  }

  Status internal(const Json& json, const std::string& where, Message& message) const {
    NAUTILE_ASSIGN(const std::string task, text_field(json, "task", where));
    static constexpr std::pair<const char*, Task> kTasks[] = {
        {"", Task::kNone},
        {"action", Task::kAction},
        {"query", Task::kQuery},
        {"authority", Task::kAuthority},
        {"domain", Task::kDomain},
        {"title", Task::kTitle},
        {"read_url", Task::kReadUrl},
    };
    const auto* known =
        std::find_if(std::begin(kTasks), std::end(kTasks), [&](const auto& pair) { return task == pair.first; });
    if (known == std::end(kTasks)) return bad(fmt::format("the task \"{}\" does not exist", task), where + ".task");
    message.task = known->second;
    NAUTILE_ASSIGN(const bool open, flag_field(json, "wo_eos", where));
    message.wo_eos |= open;
    if (message.role == Role::kSystem || message.role == Role::kDeveloper) {
      NAUTILE_ASSIGN(message.tools, declared(json, where));
      if (const Json* format = field(json, "response_format"); format != nullptr)
        message.response_format = python_json(*format);
    }
    return {};
  }

  Status ending() {
    Message& last = conversation_.messages.back();
    const std::string where = fmt::format("messages[{}]", conversation_.messages.size() - 1);
    NAUTILE_ASSIGN(const bool go_on, flag_field(request_, "continue_final_message", "request"));
    if (go_on && last.role != Role::kAssistant) {
      return bad("the last message is not of the assistant, so there is nothing to continue",
                 "request.continue_final_message");
    }
    last.wo_eos |= go_on;
    if (last.wo_eos && !last.tool_calls.empty())
      return bad("a message with tool_calls cannot be continued", where + ".tool_calls");
    if (!options_.internal_fields && last.role == Role::kSystem) {
      return bad("the last message is a system message: the model would have no turn to answer", where + ".role",
                 "put system messages before the last user message");
    }
    return {};
  }

  Result<std::vector<Tool>> declared(const Json& object, const std::string& where) const {
    std::vector<Tool> tools;
    const Json* list = field(object, "tools");
    const Json* legacy = field(object, "functions");
    const std::string path = where == "request" ? (list ? "tools" : "functions") : where + ".tools";
    if (list == nullptr) list = legacy;
    if (list == nullptr) return tools;
    if (!list->is_array() || list->empty())
      return bad("must be an array of at least one tool", path, "leave the field out");
    std::unordered_set<std::string> names;
    for (size_t i = 0; i < list->size(); ++i) {
      const Json& item = (*list)[i];
      const std::string place = fmt::format("{}[{}]", path, i);
      if (!item.is_object()) return bad(fmt::format("must be an object, but is {}", item.type_name()), place);
      NAUTILE_ASSIGN(const std::string type, text_field(item, "type", place));
      const Json* function = field(item, "function");
      Json flat;
      if (function == nullptr) {  // the flat form, or the legacy one
        flat = item;
        flat.erase("type");
        function = &flat;
      }
      if (!type.empty() && type != "function")
        return bad(fmt::format("tools of type \"{}\" are not supported", type), place + ".type", "use function");
      if (!function->is_object()) return bad("must be an object", place + ".function");
      Tool tool;
      NAUTILE_ASSIGN(tool.name, text_field(*function, "name", place + ".function"));
      if (!valid_name(tool.name)) return bad("must be 1 to 64 letters, digits, _ or -", place + ".function.name");
      if (!names.insert(tool.name).second)
        return bad(fmt::format("the tool \"{}\" is declared twice", tool.name), place + ".function.name");
      if (const Json* parameters = field(*function, "parameters"); parameters != nullptr) {
        if (!parameters->is_object()) return bad("must be a JSON Schema object", place + ".function.parameters");
        tool.parameters = *parameters;
      }
      tool.schema_line = python_json(*function);
      tools.push_back(std::move(tool));
    }
    return tools;
  }

  Status choice(const std::vector<Tool>& tools) {
    const Json* choice = field(request_, "tool_choice");
    if (choice == nullptr) choice = field(request_, "function_call");
    if (choice == nullptr) return {};
    ToolChoice& made = conversation_.tool_choice;
    if (choice->is_string()) {
      const auto& word = choice->get_ref<const std::string&>();
      if (word == "auto") return {};
      if (word == "none") {
        made.kind = ToolChoice::kNone;
        return {};
      }
      if (word != "required" && word != "any") {
        return bad(fmt::format("\"{}\" is not a choice", word), "tool_choice",
                   "use auto, none, required, or name a function");
      }
      made.kind = ToolChoice::kRequired;
    } else if (choice->is_object()) {
      const Json* function = field(*choice, "function");
      if (function == nullptr) function = choice;
      if (!function->is_object()) return bad("must be an object", "tool_choice.function");
      NAUTILE_ASSIGN(made.name, text_field(*function, "name", "tool_choice.function"));
      made.kind = ToolChoice::kNamed;
    } else {
      return bad(fmt::format("must be a string or an object, but is {}", choice->type_name()), "tool_choice");
    }
    if (tools.empty()) return bad("a call is demanded, but no tools are declared", "tool_choice");
    if (made.kind == ToolChoice::kNamed &&
        std::none_of(tools.begin(), tools.end(), [&](const Tool& tool) { return tool.name == made.name; })) {
      return bad(fmt::format("no tool is named \"{}\"", made.name), "tool_choice.function.name");
    }
    return {};
  }

  Result<std::optional<std::string>> response_format() {
    std::optional<std::string> schema;
    const Json* format = field(request_, "response_format");
    if (format == nullptr) return schema;
    if (!format->is_object()) return bad("must be an object", "response_format");
    NAUTILE_ASSIGN(const std::string type, text_field(*format, "type", "response_format"));
    if (type == "text") return schema;
    if (type == "json_object") {
      conversation_.json_object = true;
      return schema;
    }
    if (type != "json_schema") {
      return bad(fmt::format("the type \"{}\" does not exist", type), "response_format.type",
                 "use text, json_object or json_schema");
    }
    const Json* outer = field(*format, "json_schema");
    const Json* inner = outer == nullptr || !outer->is_object() ? nullptr : field(*outer, "schema");
    if (inner == nullptr || !inner->is_object()) return bad("must be an object", "response_format.json_schema.schema");
    const Message& last = conversation_.messages.back();
    if (last.wo_eos && !last.content.empty()) {
      return bad("a response format cannot be combined with a content prefix", "response_format");
    }
    schema = python_json(*inner);
    return schema;
  }

  const Json& request_;
  const ConversationOptions& options_;
  Conversation conversation_;
  // The calls of the nearest assistant message by id, and which of them have a result.
  std::vector<std::string> open_calls_;
  std::vector<bool> answered_;
  bool has_calls_ = false;
};

}  // namespace

std::vector<Tool> Conversation::declared_tools() const {
  std::vector<Tool> tools;
  for (const Message& message : messages) tools.insert(tools.end(), message.tools.begin(), message.tools.end());
  return tools;
}

Result<Conversation> parse_conversation(const Json& request, const ConversationOptions& options) {
  return Reader(request, options).read();
}

}  // namespace nautile
