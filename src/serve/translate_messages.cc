// POST /v1/messages and count_tokens: Anthropic's request becomes the conversation that an OpenAI one would
// (spec api.md 13.1).
#include <fmt/format.h>

#include "serve/translate.h"

namespace nautile::serve {
namespace {

class MessagesReader {
 public:
  MessagesReader(const TranslateContext& context, FieldNotes& notes) : context_(context), notes_(notes) {}

  // The same conversation as an OpenAI request, for the one reader of conversations.
  Json read(Fields& fields, Ask& ask) {
    request_["messages"] = Json::array();
    if (const Json* system = fields.get("system")) {
      const std::string text = system->is_string() ? system->get<std::string>() : text_of(*system, "system", "\n\n");
      if (!text.empty()) add({{"role", "system"}, {"content", text}});
    }
    const Json* messages = fields.array("messages");
    if (messages == nullptr || messages->empty()) {
      fields.fail("messages", "missing_required_parameter", "must be an array of at least one message");
      return request_;
    }
    for (size_t i = 0; i < messages->size() && !notes_.error; ++i)
      message((*messages)[i], fmt::format("messages.{}", i));
    if (notes_.error) return request_;
    Json& last = request_["messages"].back();
    if (last["role"] == "assistant" && !last.contains("tool_calls")) last["prefix"] = true;
    tools(fields, ask);
    return request_;
  }

 private:
  void fail(std::string code, std::string message, const std::string& where) {
    notes_.fail(bad_request(std::move(code), where + ": " + message, where));
  }
  void add(Json message) { request_["messages"].push_back(std::move(message)); }

  // Text blocks joined.
  std::string text_of(const Json& blocks, const std::string& where, const char* joint = "") {
    std::string text;
    if (blocks.is_null()) return text;
    if (blocks.is_string()) return blocks.get<std::string>();
    if (!blocks.is_array()) {
      fail("invalid_type", "must be a string or an array of text blocks", where);
      return text;
    }
    for (size_t i = 0; i < blocks.size(); ++i) {
      const Json& block = blocks[i];
      const std::string place = fmt::format("{}.{}", where, i);
      if (!block.is_object() || !block.contains("type") || !block["type"].is_string()) {
        fail("invalid_type", "must be a content block with a type", place);
        return text;
      }
      if (block["type"] != "text") {
        fail("unsupported_content",
             fmt::format("blocks of type \"{}\" are not supported here: the model reads text only",
                         block["type"].get<std::string>()),
             place);
        return text;
      }
      if (!block.contains("text") || !block["text"].is_string()) {
        fail("invalid_type", "must have a text", place);
        return text;
      }
      if (!text.empty()) text += joint;
      text += block["text"].get_ref<const std::string&>();
    }
    return text;
  }

  void message(const Json& message, const std::string& where) {
    if (!message.is_object()) return fail("invalid_type", "must be an object", where);
    Fields fields(message, where, notes_);
    std::string role;
    if (!fields.text("role", role))
      return fail("missing_required_parameter", "must be user or assistant", where + ".role");
    const Json* content = fields.get("content");
    if (content == nullptr) return fail("missing_required_parameter", "is missing", where + ".content");
    if (!content->is_string() && !content->is_array())
      return fail("invalid_type", "must be a string or an array", where + ".content");
    if (content->is_array() && content->size() > context_.limits.parts)
      return fail("invalid_value", "has too many blocks", where);
    if (role == "system") return add({{"role", "system"}, {"content", text_of(*content, where + ".content", "\n\n")}});
    if (role == "user") return user(*content, where + ".content");
    if (role == "assistant") return assistant(*content, where + ".content");
    fail("invalid_value", fmt::format("the role \"{}\" does not exist", role), where + ".role");
  }

  // Results go to the tool turn, in front; text after them.
  void user(const Json& content, const std::string& where) {
    if (content.is_string()) return add({{"role", "user"}, {"content", content}});
    Json texts = Json::array();
    for (size_t i = 0; i < content.size(); ++i) {
      const Json& block = content[i];
      const std::string place = fmt::format("{}.{}", where, i);
      const std::string type = block.is_object() && block.contains("type") && block["type"].is_string()
                                   ? block["type"].get<std::string>()
                                   : "";
      if (type == "tool_result") {
        Fields fields(block, place, notes_);
        std::string id, text;
        if (!fields.text("tool_use_id", id))
          return fail("missing_required_parameter", "is missing", place + ".tool_use_id");
        bool is_error = false;
        fields.boolean("is_error", is_error);
        if (const Json* inner = fields.get("content")) text = text_of(*inner, place + ".content", "\n\n");
        if (is_error && text.empty()) text = "error";
        add({{"role", "tool"}, {"tool_call_id", id}, {"content", text}});
      } else {
        texts.push_back(block);
      }
    }
    if (!texts.empty() || content.empty()) add({{"role", "user"}, {"content", text_of(texts, where)}});
  }

  void assistant(const Json& content, const std::string& where) {
    Json made = {{"role", "assistant"}};
    if (content.is_string()) {
      made["content"] = content;
      return add(std::move(made));
    }
    Json texts = Json::array(), calls = Json::array();
    std::string thinking;
    for (size_t i = 0; i < content.size(); ++i) {
      const Json& block = content[i];
      const std::string place = fmt::format("{}.{}", where, i);
      const std::string type = block.is_object() && block.contains("type") && block["type"].is_string()
                                   ? block["type"].get<std::string>()
                                   : "";
      Fields fields(block, place, notes_);
      if (type == "thinking") {
        std::string text, signature;  // any signature is fine; one of ours stands for the text that was left out
        fields.text("thinking", text);
        fields.text("signature", signature);
        if (text.empty() && context_.replay != nullptr && signature.starts_with("nautile-")) {
          if (const auto kept = context_.replay->find(context_.owner, signature)) text = kept->reasoning;
        }
        thinking += text;
      } else if (type == "redacted_thinking") {
      } else if (type == "tool_use") {
        std::string id, name;
        if (!fields.text("id", id)) return fail("missing_required_parameter", "is missing", place + ".id");
        if (!fields.text("name", name)) return fail("missing_required_parameter", "is missing", place + ".name");
        const Json* input = fields.get("input");
        if (input != nullptr && !input->is_object()) return fail("invalid_type", "must be an object", place + ".input");
        calls.push_back({{"id", id},
                         {"type", "function"},
                         {"function", {{"name", name}, {"arguments", input == nullptr ? Json::object() : *input}}}});
      } else {
        texts.push_back(block);
      }
    }
    made["content"] = text_of(texts, where);
    if (!thinking.empty()) made["reasoning_content"] = thinking;
    if (!calls.empty()) made["tool_calls"] = calls;
    add(std::move(made));
  }

  void tools(Fields& fields, Ask& ask) {
    if (const Json* tools = fields.array("tools"); tools != nullptr && !tools->empty()) {
      Json list = Json::array();
      for (size_t i = 0; i < tools->size(); ++i) {
        const Json& tool = (*tools)[i];
        const std::string place = fmt::format("tools.{}", i);
        if (!tool.is_object()) return fail("invalid_type", "must be an object", place);
        if (tool.contains("type") && tool["type"].is_string() && tool["type"] != "custom" &&
            tool["type"] != "function") {
          if (context_.ignore_hosted_tools) continue;
          return fail("unsupported_value", "tools that the server would run are not offered", place + ".type");
        }
        Json function = Json::object();
        if (tool.contains("name")) function["name"] = tool["name"];
        if (tool.contains("description")) function["description"] = tool["description"];
        if (tool.contains("input_schema")) function["parameters"] = tool["input_schema"];
        if (tool.contains("strict") && tool["strict"].is_boolean()) function["strict"] = tool["strict"];
        list.push_back({{"type", "function"}, {"function", function}});
      }
      if (!list.empty()) request_["tools"] = list;
    }
    const Json* choice = fields.object("tool_choice");
    if (choice == nullptr) return;
    Fields inner(*choice, "tool_choice", notes_);
    std::string type, name;
    bool one = false;
    inner.text("type", type);
    if (inner.boolean("disable_parallel_tool_use", one)) ask.parallel_calls = !one;
    if (type == "auto" || type == "none") {
      request_["tool_choice"] = type;
    } else if (type == "any") {
      request_["tool_choice"] = "required";
    } else if (type == "tool" && inner.text("name", name)) {
      request_["tool_choice"] = {{"type", "function"}, {"function", {{"name", name}}}};
    } else {
      inner.fail("type", "invalid_value", "must be auto, any, none, or tool with a name");
    }
  }

  const TranslateContext& context_;
  FieldNotes& notes_;
  Json request_ = Json::object();
};

void read_format(Fields& fields, const char* name, Ask& ask) {
  const Json* format = fields.object(name);
  if (format == nullptr) return;
  Fields shape(*format, fields.path_of(name), fields.notes());
  std::string type;
  shape.text("type", type);
  const Json* schema = shape.get("schema");
  if (type != "json_schema" || schema == nullptr) {
    return fields.fail(name, "invalid_value", "must be of type json_schema, with a schema");
  }
  ask.constraint.kind = Constraint::kJsonSchema;
  ask.constraint.schema = *schema;
  ask.constraint.field = shape.path_of("schema");
}

// Conversations are not held here. To begin one is harmless, as all that it asks for is a later turn's; to continue one
// is told so under the code that makes clients send the whole history instead.
void read_thread(Fields& fields) {
  const Json* thread = fields.object("thread");
  if (thread == nullptr) return;
  Fields inner(*thread, "thread", fields.notes());
  std::string type;
  inner.text("type", type);
  inner.accept({"previous_message_id"});
  if (type == "create") return;
  if (type != "continue") return inner.fail("type", "invalid_value", "must be create or continue");
  ApiError error = {404, "thread_not_found", "thread: conversations are not held here; send all messages.", "thread"};
  error.details = {{"error_code", "thread_not_found"}};
  fields.notes().fail(std::move(error));
}

}  // namespace

Outcome<Ask> translate_messages(const Json& body, const TranslateContext& context, bool count_only) {
  Ask ask;
  ask.dialect = Dialect::kMessages;
  FieldNotes notes;
  Fields fields(body, "", notes);
  ReasoningMode fallback{};
  read_model(fields, ask, context, fallback);
  if (notes.error) return *notes.error;
  read_reasoning_into(fields, ask, context, fallback);
  ask.sampling.temperature = context.model.temperature;
  ask.sampling.top_p = context.model.top_p;
  ask.sampling.seed = std::stoull(http::random_hex(7), nullptr, 16);
  fields.number("temperature", ask.sampling.temperature, 0, 2);
  fields.number("top_p", ask.sampling.top_p, 0, 1);
  fields.integer("top_k", ask.sampling.top_k, -1, INT32_MAX);
  int64_t limit = 0;
  if (fields.integer("max_tokens", limit, 1, INT64_MAX)) {
    ask.max_tokens = limit;
  } else if (!count_only) {
    fields.fail("max_tokens", "missing_required_parameter", "is missing");
  }
  fields.texts("stop_sequences", ask.stop, context.limits.stops, context.limits.stop_bytes);
  fields.boolean("stream", ask.stream);
  if (const Json* metadata = fields.object("metadata")) {
    Fields inner(*metadata, "metadata", notes);
    inner.text("user_id", ask.user, context.limits.id_bytes);
  }
  if (const Json* config = fields.object("output_config")) {
    Fields inner(*config, "output_config", notes);
    read_format(inner, "format", ask);
  }
  read_format(fields, "output_format", ask);  // its place before output_config
  read_thread(fields);
  fields.refuse({"compaction"});  // asks for a summary instead of an answer
  fields.accept({"container", "mcp_servers", "service_tier", "context_management", "inference_geo", "cache_control"});
  MessagesReader reader(context, notes);
  const Json request = reader.read(fields, ask);
  if (!notes.error) {
    read_conversation(with_format(request, ask.constraint), ask, context, notes);
    // A prefilled answer begins after an empty, closed think block.
    if (!notes.error && ask.conversation.messages.back().wo_eos && ask.conversation.messages.back().content.empty()) {
      ask.conversation.messages.back().wo_eos = false;
    }
  }
  fields.finish();
  return conclude(std::move(ask), notes, context);
}

}  // namespace nautile::serve
