// POST /v1/responses: items become the conversation that an OpenAI chat request would (spec api.md 12.1).
#include <fmt/format.h>

#include <algorithm>

#include "serve/translate.h"
#include "sys/clock.h"

namespace nautile::serve {
namespace {

class ItemsReader {
 public:
  ItemsReader(const TranslateContext& context, FieldNotes& notes) : context_(context), notes_(notes) {}

  Json read(Fields& fields, Ask& ask) {
    request_["messages"] = Json::array();
    std::string instructions;
    if (fields.text("instructions", instructions) && !instructions.empty()) {
      add({{"role", "system"}, {"content", instructions}});
    }
    const Json* input = fields.get("input");
    if (input == nullptr) {
      fields.fail("input", "missing_required_parameter", "is missing");
    } else if (input->is_string()) {
      add({{"role", "user"}, {"content", *input}});
    } else if (!input->is_array() || input->empty()) {
      fields.fail("input", "invalid_type", "must be a string, or an array of items that is not empty");
    } else if (input->size() > context_.limits.messages) {
      fields.fail("input", "invalid_value", fmt::format("must not have more than {} items", context_.limits.messages));
    } else {
      for (size_t i = 0; i < input->size() && !notes_.error; ++i) item((*input)[i], fmt::format("input[{}]", i));
      flush();
    }
    tools(fields, ask);
    choice(fields, ask);
    return request_;
  }

 private:
  void fail(std::string code, std::string message, const std::string& where) {
    notes_.fail(bad_request(std::move(code), where + " " + message + ".", where));
  }
  void add(Json message) { request_["messages"].push_back(std::move(message)); }

  // What the assistant did in one turn is one message: reasoning, text, calls.
  void flush() {
    if (!open_) return;
    Json message = {{"role", "assistant"}, {"content", text_}};
    if (!reasoning_.empty()) message["reasoning_content"] = reasoning_;
    if (!calls_.empty()) message["tool_calls"] = calls_;
    if (said_ || !calls_.empty() || !reasoning_.empty()) add(std::move(message));
    open_ = said_ = false;
    text_.clear();
    reasoning_.clear();
    calls_ = Json::array();
  }
  void turn(bool begins) {
    if (begins && open_ && (said_ || !calls_.empty())) flush();
    open_ = true;
  }

  std::string text_parts(const Json& content, const std::string& where) {
    if (content.is_null()) return {};
    if (content.is_string()) return content.get<std::string>();
    std::string text;
    if (!content.is_array()) {
      fail("invalid_type", "must be a string or an array of parts", where);
      return text;
    }
    if (content.size() > context_.limits.parts) fail("invalid_value", "has too many parts", where);
    for (size_t i = 0; i < content.size(); ++i) {
      const Json& part = content[i];
      const std::string place = fmt::format("{}[{}]", where, i);
      std::string type;
      if (part.is_object() && part.contains("type") && part["type"].is_string()) type = part["type"].get<std::string>();
      const char* key = type == "refusal" ? "refusal" : "text";
      const bool known = type == "input_text" || type == "output_text" || type == "text" || type == "refusal" ||
                         type == "reasoning_text" || type == "summary_text";
      if (!known) {
        fail("unsupported_content", fmt::format("of type \"{}\" is not supported: the model reads text only", type),
             place);
        return text;
      }
      if (!part.contains(key) || !part[key].is_string()) {
        fail("invalid_type", "must have a text", place);
        return text;
      }
      text += part[key].get_ref<const std::string&>();
    }
    return text;
  }

  void item(const Json& item, const std::string& where) {
    if (!item.is_object()) return fail("invalid_type", "must be an object", where);
    Fields fields(item, where, notes_);
    std::string type = "message";
    fields.text("type", type);
    if (type == "message") return message(fields, where);
    if (type == "function_call" || type == "custom_tool_call") {
      std::string id, name, arguments;
      if (!fields.text("call_id", id)) return fail("missing_required_parameter", "is missing", where + ".call_id");
      if (!fields.text("name", name)) return fail("missing_required_parameter", "is missing", where + ".name");
      if (type == "function_call") {
        fields.text("arguments", arguments);
      } else {
        std::string input;
        fields.text("input", input);
        arguments = Json{{"input", input}}.dump(-1, ' ', false, Json::error_handler_t::replace);
      }
      turn(false);
      calls_.push_back({{"id", id}, {"type", "function"}, {"function", {{"name", name}, {"arguments", arguments}}}});
      return;
    }
    if (type == "function_call_output" || type == "custom_tool_call_output") {
      flush();
      std::string id;
      if (!fields.text("call_id", id)) return fail("missing_required_parameter", "is missing", where + ".call_id");
      const Json* output = fields.get("output");
      return add({{"role", "tool"},
                  {"tool_call_id", id},
                  {"content", output == nullptr ? "" : text_parts(*output, where + ".output")}});
    }
    if (type == "reasoning") {
      turn(true);
      std::string text, handle;
      if (const Json* content = fields.get("content")) text = text_parts(*content, where + ".content");
      if (text.empty() && fields.text("encrypted_content", handle) && context_.replay != nullptr) {
        if (const auto kept = context_.replay->find(context_.owner, handle)) text = kept->reasoning;
      }
      if (text.empty()) {
        if (const Json* summary = fields.get("summary")) text = text_parts(*summary, where + ".summary");
      }
      reasoning_ += text;
      return;
    }
    fail("unsupported_value",
         type == "item_reference" ? "needs stored responses; send the item itself"
                                  : fmt::format("of type \"{}\" is not supported", type),
         where);
  }

  void message(Fields& fields, const std::string& where) {
    std::string role;
    if (!fields.text("role", role)) return fail("missing_required_parameter", "is missing", where + ".role");
    const Json* content = fields.get("content");
    if (content == nullptr) return fail("missing_required_parameter", "is missing", where + ".content");
    const std::string text = text_parts(*content, where + ".content");
    if (role == "assistant") {
      turn(said_ || !calls_.empty());
      said_ = true;  // an empty text is a turn too, as it is in chat
      text_ += text;
      return;
    }
    flush();
    if (role != "user" && role != "system" && role != "developer") {
      return fail("invalid_value", fmt::format("\"{}\" does not exist", role), where + ".role");
    }
    add({{"role", role}, {"content", text}});
  }

  void tool(const Json& tool, const std::string& where, Json& list, Ask& ask) {
    if (!tool.is_object()) return fail("invalid_type", "must be an object", where);
    const std::string type = tool.contains("type") && tool["type"].is_string() ? tool["type"].get<std::string>() : "";
    if (type == "function") {
      Json function = tool.contains("function") ? tool["function"] : tool;
      if (function.is_object()) {
        function.erase("type");
        for (const char* key : {"parameters", "description", "strict"}) {
          if (function.contains(key) && function[key].is_null()) function.erase(key);
        }
      }
      list.push_back({{"type", "function"}, {"function", function}});
    } else if (type == "custom") {
      const Json name = tool.contains("name") ? tool["name"] : Json();
      if (name.is_string()) ask.custom_tools.push_back(name.get<std::string>());
      Json function = {{"name", name}};
      if (tool.contains("description")) function["description"] = tool["description"];
      function["parameters"] = {
          {"type", "object"}, {"properties", {{"input", {{"type", "string"}}}}}, {"required", {"input"}}};
      list.push_back({{"type", "function"}, {"function", function}});
    } else if (type == "namespace" && tool.contains("tools") && tool["tools"].is_array()) {
      for (size_t i = 0; i < tool["tools"].size(); ++i)
        this->tool(tool["tools"][i], fmt::format("{}.tools[{}]", where, i), list, ask);
    } else if (!context_.ignore_hosted_tools) {
      fail("unsupported_value", fmt::format("of type \"{}\" is not offered here", type), where);
    }
  }

  void tools(Fields& fields, Ask& ask) {
    const Json* tools = fields.array("tools");
    if (tools == nullptr || tools->empty()) return;
    Json list = Json::array();
    for (size_t i = 0; i < tools->size(); ++i) tool((*tools)[i], fmt::format("tools[{}]", i), list, ask);
    if (!list.empty()) request_["tools"] = list;
  }

  void choice(Fields& fields, Ask& ask) {
    const Json* choice = fields.get("tool_choice");
    if (choice == nullptr) return;
    if (choice->is_string()) {
      request_["tool_choice"] = *choice;
      return;
    }
    if (!choice->is_object()) return fields.wrong("tool_choice", "a string or an object");
    const Json type = choice->contains("type") ? (*choice)["type"] : Json();
    if (type == "allowed_tools") {
      for (const Json& allowed : choice->contains("tools") ? (*choice)["tools"] : Json::array()) {
        if (allowed.is_object() && allowed.contains("name") && allowed["name"].is_string()) {
          ask.allowed_tools.push_back(allowed["name"].get<std::string>());
        }
      }
      if (ask.allowed_tools.empty())
        return fields.fail("tool_choice", "invalid_value", "must allow at least one function");
      request_["tool_choice"] = choice->contains("mode") ? (*choice)["mode"] : Json("auto");
    } else if (choice->contains("name")) {
      request_["tool_choice"] = {{"type", "function"}, {"function", {{"name", (*choice)["name"]}}}};
    } else {
      fields.fail("tool_choice", "invalid_value", "must name a function");
    }
  }

  const TranslateContext& context_;
  FieldNotes& notes_;
  Json request_ = Json::object();
  bool open_ = false, said_ = false;  // a turn of the assistant; with a message in it
  std::string text_, reasoning_;
  Json calls_ = Json::array();
};

void read_format(Fields& fields, Ask& ask) {
  const Json* text = fields.object("text");
  if (text == nullptr) return;
  Fields inner(*text, "text", fields.notes());
  inner.accept({"verbosity"});
  if (const Json* format = inner.object("format")) {
    Fields shape(*format, "text.format", fields.notes());
    std::string type = "text";
    shape.text("type", type);
    if (type == "json_object") {
      ask.constraint.kind = Constraint::kJsonObject;
      ask.constraint.field = "text.format";
    } else if (type == "json_schema") {
      const Json* schema = shape.get("schema");
      if (schema == nullptr) return shape.fail("schema", "missing_required_parameter", "is missing");
      ask.constraint.kind = Constraint::kJsonSchema;
      ask.constraint.schema = *schema;
      ask.constraint.field = "text.format.schema";
      shape.boolean("strict", ask.constraint.strict);
    } else if (type != "text") {
      shape.fail("type", "invalid_value", "must be text, json_object or json_schema");
    }
  }
  inner.finish();
}

// What the response object repeats.
Json echoed(const Json& body, const Ask& ask, const ServedModel& model) {
  auto given = [&](const char* name, Json fallback) {
    return body.contains(name) && !body[name].is_null() ? body[name] : std::move(fallback);
  };
  Json reasoning = {{"effort", nullptr}, {"summary", nullptr}};
  if (body.contains("reasoning") && body["reasoning"].is_object()) {
    for (const char* key : {"effort", "summary"}) {
      if (body["reasoning"].contains(key)) reasoning[key] = body["reasoning"][key];
    }
  }
  Json text = given("text", {{"format", {{"type", "text"}}}});
  if (text.is_object() && !text.contains("format")) text["format"] = {{"type", "text"}};
  return {{"instructions", given("instructions", nullptr)},
          {"previous_response_id", given("previous_response_id", nullptr)},
          {"tools", given("tools", Json::array())},
          {"tool_choice", given("tool_choice", "auto")},
          {"parallel_tool_calls", ask.parallel_calls},
          {"text", text},
          {"truncation", given("truncation", "disabled")},
          {"temperature", ask.sampling.temperature},
          {"top_p", ask.sampling.top_p},
          {"presence_penalty", ask.sampling.presence_penalty},
          {"frequency_penalty", ask.sampling.frequency_penalty},
          {"top_logprobs", given("top_logprobs", 0)},
          {"reasoning", reasoning},
          {"max_output_tokens", given("max_output_tokens", nullptr)},
          {"max_tool_calls", given("max_tool_calls", nullptr)},
          {"store", ask.store},
          {"background", false},
          {"service_tier", "default"},
          {"metadata", given("metadata", Json::object())},
          {"safety_identifier", given("safety_identifier", nullptr)},
          {"prompt_cache_key", given("prompt_cache_key", nullptr)},
          {"user", given("user", nullptr)},
          {"model", model.name}};
}

// The input as items, whichever way it was written; null if it is neither.
Json items_of(const Json& input) {
  if (input.is_string()) return Json::array({{{"type", "message"}, {"role", "user"}, {"content", input}}});
  return input.is_array() ? input : Json(nullptr);
}

// The request with the conversation of its previous_response_id in front of its own input. Instructions do not carry
// over: they are not among the items.
std::optional<ApiError> join_previous(Json& body, const TranslateContext& context) {
  const Json& previous = body["previous_response_id"];
  if (!previous.is_string() || !body.contains("input")) return std::nullopt;  // said by the readers of these fields
  const Json own = items_of(body["input"]);
  if (own.is_null()) return std::nullopt;
  const auto stored = context.responses->find(context.owner, previous.get<std::string>(), seconds_now());
  if (!stored) {
    return bad_request("previous_response_not_found", "There is no stored response with this id: send the full input.",
                       "previous_response_id");
  }
  Json joined = Json::parse(stored->input, nullptr, false);
  const Json response = Json::parse(stored->response, nullptr, false);
  for (const Json& item : response["output"]) joined.push_back(item);
  for (const Json& item : own) joined.push_back(item);
  body["input"] = std::move(joined);
  return std::nullopt;
}

}  // namespace

Outcome<Ask> translate_responses(const Json& asked, const TranslateContext& context) {
  Json joined;
  if (context.responses != nullptr && asked.contains("previous_response_id")) {
    joined = asked;
    if (const auto error = join_previous(joined, context)) return *error;
  }
  const Json& body = joined.is_null() ? asked : joined;
  Ask ask;
  ask.dialect = Dialect::kResponses;
  FieldNotes notes;
  Fields fields(body, "", notes);
  ReasoningMode fallback{};
  read_model(fields, ask, context, fallback);
  if (notes.error) return *notes.error;
  read_reasoning_into(fields, ask, context, fallback);
  read_generation(fields, ask, context);
  ask.n = 1;
  int64_t value = 0;
  if (fields.integer("max_output_tokens", value, 1, INT64_MAX)) ask.max_tokens = value;
  if (fields.integer("top_logprobs", value, 0, context.limits.logprobs))
    ask.sampling.top_logprobs = static_cast<int>(value);
  fields.boolean("parallel_tool_calls", ask.parallel_calls);
  if (const Json* include = fields.array("include")) {
    for (const Json& item : *include) {
      if (item == "reasoning.encrypted_content") {
        ask.want_handle = true;
      } else if (item == "message.output_text.logprobs") {
        ask.logprobs = true;
        ask.sampling.top_logprobs = std::max(0, ask.sampling.top_logprobs);
      } else {
        fields.fail("include", "invalid_value", "holds a value that is not supported");
      }
    }
  }
  if (!ask.logprobs) ask.sampling.top_logprobs = -1;
  ask.store = context.responses != nullptr;
  bool store = true;
  if (fields.boolean("store", store) && !store) ask.store = false;
  std::string previous;
  if (context.responses != nullptr) {
    fields.text("previous_response_id", previous);
  } else if (fields.has("previous_response_id")) {
    fields.fail("previous_response_id", "unsupported_parameter",
                "is not supported: responses are not stored here; send the full input");
  }
  fields.refuse({"conversation", "background", "prompt"});
  std::string truncation;
  if (fields.text("truncation", truncation) && truncation != "auto" && truncation != "disabled") {
    fields.fail("truncation", "invalid_value", "must be auto or disabled");
  }
  fields.accept({"max_tool_calls", "client_metadata"});
  read_format(fields, ask);
  if (!notes.error) {
    ItemsReader reader(context, notes);
    const Json request = reader.read(fields, ask);
    if (!notes.error) read_conversation(with_format(request, ask.constraint), ask, context, notes);
  }
  fields.finish();
  if (ask.store && !notes.error) {
    ask.stored_input = items_of(body["input"]).dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  ask.echo_fields = echoed(body, ask, context.model);
  return conclude(std::move(ask), notes, context);
}

}  // namespace nautile::serve
