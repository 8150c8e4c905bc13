// The description of the API: paths from the table that routes requests, bodies from the tables below
// (spec api.md 14.4).
#include <string>

#include "serve/router.h"
#include "serve/service.h"

namespace nautile::serve {
namespace {

struct Property {
  const char* name;
  const char* type;          // a JSON type, "ref:NAME", or "any"
  double low = 0, high = 0;  // no bounds when equal
  const char* note = "";
};

constexpr Property kSampling[] = {
    {"model", "string", 0, 0, "A served name; GET /v1/models lists them."},
    {"temperature", "number", 0, 2},
    {"top_p", "number", 0, 1},
    {"top_k", "integer", -1, 1 << 30},
    {"min_p", "number", 0, 1},
    {"presence_penalty", "number", -2, 2},
    {"frequency_penalty", "number", -2, 2},
    {"seed", "integer"},
    {"stream", "boolean"},
    {"user", "string"},
};
constexpr Property kChatFields[] = {
    {"messages", "ref:Messages"},
    {"max_tokens", "integer", 1, 1 << 30},
    {"max_completion_tokens", "integer", 1, 1 << 30},
    {"n", "integer", 1, 16},
    {"stop", "any", 0, 0, "A string or up to 16 of them."},
    {"logprobs", "boolean"},
    {"top_logprobs", "integer", 0, 20},
    {"logit_bias", "object"},
    {"tools", "array"},
    {"tool_choice", "any"},
    {"parallel_tool_calls", "boolean"},
    {"response_format", "object"},
    {"reasoning_mode", "string", 0, 0, "non_think, think_low, think_high or think_max."},
    {"reasoning_effort", "string"},
    {"thinking", "any"},
    {"thinking_token_budget", "integer", 0, 1 << 30},
    {"stream_options", "object"},
};
constexpr Property kCompletionFields[] = {
    {"prompt", "any", 0, 0, "A string, token ids, or an array of these."},
    {"suffix", "string"},
    {"max_tokens", "integer", 0, 1 << 30},
    {"n", "integer", 1, 16},
    {"best_of", "integer", 1, 20},
    {"echo", "boolean"},
    {"logprobs", "integer", 0, 20},
    {"stop", "any"},
};
constexpr Property kMessageFields[] = {
    {"messages", "ref:Messages"},
    {"max_tokens", "integer", 1, 1 << 30},
    {"system", "any"},
    {"tools", "array"},
    {"tool_choice", "object"},
    {"thinking", "any"},
    {"stop_sequences", "array"},
    {"metadata", "object"},
};
constexpr Property kResponseFields[] = {
    {"input", "any", 0, 0, "A string or an array of items."},
    {"instructions", "string"},
    {"max_output_tokens", "integer", 1, 1 << 30},
    {"tools", "array"},
    {"tool_choice", "any"},
    {"reasoning", "object"},
    {"text", "object"},
    {"include", "array"},
    {"metadata", "object"},
};
constexpr Property kTokenizeFields[] = {{"model", "string"},
                                        {"prompt", "string"},
                                        {"messages", "ref:Messages"},
                                        {"add_special_tokens", "boolean"},
                                        {"return_token_strs", "boolean"}};
constexpr Property kDetokenizeFields[] = {{"model", "string"}, {"tokens", "array"}};

void put(Json& properties, const Property& property) {
  Json schema = Json::object();
  const std::string type = property.type;
  if (type.starts_with("ref:")) {
    schema["$ref"] = "#/components/schemas/" + type.substr(4);
  } else if (type != "any") {
    schema["type"] = {type, "null"};
  }
  if (property.low != property.high) {
    const bool whole = type == "integer";
    schema["minimum"] = whole ? Json(static_cast<int64_t>(property.low)) : Json(property.low);
    schema["maximum"] = whole ? Json(static_cast<int64_t>(property.high)) : Json(property.high);
  }
  if (*property.note != '\0') schema["description"] = property.note;
  properties[property.name] = schema;
}

template <size_t N>
Json body_schema(const Property (&fields)[N], bool sampling, Json required) {
  Json properties = Json::object();
  if (sampling) {
    for (const Property& property : kSampling) put(properties, property);
  }
  for (const Property& property : fields) put(properties, property);
  return {{"type", "object"}, {"properties", properties}, {"required", required}};
}

Json request_schema(Action action) {
  switch (action) {
    case Action::kChat:
    case Action::kRenderChat:
      return body_schema(kChatFields, true, {"model", "messages"});
    case Action::kCompletions:
    case Action::kRenderCompletions:
      return body_schema(kCompletionFields, true, {"model", "prompt"});
    case Action::kMessages:
      return body_schema(kMessageFields, true, {"model", "max_tokens", "messages"});
    case Action::kCountTokens:
      return body_schema(kMessageFields, true, {"model", "messages"});
    case Action::kResponses:
    case Action::kInputTokens:
      return body_schema(kResponseFields, true, {"model", "input"});
    case Action::kTokenize:
      return body_schema(kTokenizeFields, false, Json::array());
    case Action::kDetokenize:
      return body_schema(kDetokenizeFields, false, Json::array({"tokens"}));
    default:
      return nullptr;
  }
}

Json content(const char* type, Json schema) {
  Json made;
  made[type] = {{"schema", std::move(schema)}};
  return made;
}

// What a 200 holds at least. Further members may come.
struct AnswerShape {
  Action action;
  const char* schema;
};
constexpr AnswerShape kAnswers[] = {
    {Action::kChat,
     R"({"type":"object","required":["id","object","created","model","choices","usage","system_fingerprint"],
      "properties":{"id":{"type":"string","pattern":"^chatcmpl-"},"object":{"const":"chat.completion"},"created":{"type":"integer"},
      "choices":{"type":"array","minItems":1,"items":{"type":"object","required":["index","message","finish_reason","logprobs"],
      "properties":{"finish_reason":{"enum":["stop","length","tool_calls","function_call"]},"message":{"type":"object",
      "required":["role","content"],"properties":{"role":{"const":"assistant"},"content":{"type":["string","null"]},
      "reasoning_content":{"type":"string"},"tool_calls":{"type":"array","minItems":1}}}}}},
      "usage":{"type":"object","required":["prompt_tokens","completion_tokens","total_tokens"]}}})"},
    {Action::kCompletions, R"({"type":"object","required":["id","object","created","model","choices","usage"],
      "properties":{"id":{"type":"string","pattern":"^cmpl-"},"object":{"const":"text_completion"},
      "choices":{"type":"array","minItems":1,"items":{"type":"object","required":["index","text","finish_reason","logprobs"],
      "properties":{"text":{"type":"string"},"finish_reason":{"enum":["stop","length"]}}}}}})"},
    {Action::kMessages,
     R"({"type":"object","required":["id","type","role","model","content","stop_reason","stop_sequence","usage"],
      "properties":{"id":{"type":"string","pattern":"^msg_"},"type":{"const":"message"},"role":{"const":"assistant"},
      "content":{"type":"array","minItems":1,"items":{"type":"object","required":["type"]}},
      "stop_reason":{"enum":["end_turn","max_tokens","stop_sequence","tool_use"]},
      "usage":{"type":"object","required":["input_tokens","output_tokens","cache_read_input_tokens"]}}})"},
    {Action::kResponses,
     R"({"type":"object","required":["id","object","created_at","completed_at","status","incomplete_details",
      "error","model","output","instructions","previous_response_id","tools","tool_choice","parallel_tool_calls","text",
      "truncation","temperature","top_p","presence_penalty","frequency_penalty","top_logprobs","reasoning","max_output_tokens",
      "max_tool_calls","store","background","service_tier","metadata","safety_identifier","prompt_cache_key","usage"],
      "properties":{"id":{"type":"string","pattern":"^resp_"},"object":{"const":"response"},
      "status":{"enum":["completed","incomplete","failed","in_progress","cancelled"]},
      "output":{"type":"array","items":{"type":"object","required":["type","id","status"]}}}})"},
    {Action::kCountTokens,
     R"({"type":"object","required":["input_tokens"],"properties":{"input_tokens":{"type":"integer","minimum":1}}})"},
    {Action::kInputTokens,
     R"({"type":"object","required":["object","input_tokens"],"properties":{"input_tokens":{"type":"integer","minimum":1}}})"},
    {Action::kRenderChat, R"({"type":"object","required":["prompt","token_ids","prompt_tokens","reasoning_mode"]})"},
    {Action::kRenderCompletions, R"({"type":"object","required":["prompt","token_ids","prompt_tokens"]})"},
    {Action::kTokenize, R"({"type":"object","required":["count","max_model_len","tokens","token_strs"],
      "properties":{"count":{"type":"integer"},"tokens":{"type":"array","items":{"type":"integer"}}}})"},
    {Action::kDetokenize, R"({"type":"object","required":["prompt"],"properties":{"prompt":{"type":"string"}}})"},
    {Action::kTokenizerInfo, R"({"type":"object","required":["bos_token","eos_token","pad_token","vocab_size"]})"},
    {Action::kModels, R"({"type":"object","required":["data"],"properties":{"data":{"type":"array","minItems":1}}})"},
    {Action::kModel, R"({"type":"object","required":["id"],"properties":{"id":{"type":"string"}}})"},
    {Action::kVersion, R"({"type":"object","required":["release","api"]})"},
    {Action::kPlainVersion, R"({"type":"object","required":["version"]})"},
    {Action::kLoad, R"({"type":"object","required":["server_load"]})"},
    {Action::kMetadata, R"({"type":"object","required":["version","modelInfo","licenseInfo"]})"},
};

Json answer_schema(Action action) {
  for (const AnswerShape& shape : kAnswers) {
    if (shape.action == action) return Json::parse(shape.schema, nullptr, false);
  }
  return {{"type", "object"}};
}

Json answers(const Route& route) {
  Json made = Json::object();
  const bool text = route.action == Action::kMetrics || route.action == Action::kNimMetrics;
  const bool bare = route.action == Action::kHealth || route.action == Action::kPing;
  Json ok = {{"description", "The answer."}};
  if (!bare)
    ok["content"] =
        text ? content("text/plain", {{"type", "string"}}) : content("application/json", answer_schema(route.action));
  const bool streams = route.action == Action::kChat || route.action == Action::kCompletions ||
                       route.action == Action::kMessages || route.action == Action::kResponses;
  if (streams) ok["content"]["text/event-stream"] = {{"schema", {{"type", "string"}}}};
  made["200"] = ok;
  const char* schema =
      route.dialect == Dialect::kMessages ? "#/components/schemas/MessagesError" : "#/components/schemas/Error";
  for (const char* status :
       {"400", "401", "403", "404", "405", "408", "413", "414", "415", "429", "431", "500", "503", "504", "529"}) {
    Json error = {{"description", "See the error's code."}};
    if (!bare) error["content"] = content("application/json", {{"$ref", schema}});
    made[status] = error;
  }
  return made;
}

}  // namespace

Json openapi(const std::string& version) {
  Json paths = Json::object();
  for (const Route& route : routes()) {
    if (!route.listed) continue;
    std::string path = route.path, method = route.method;
    for (char& c : method) c = static_cast<char>(c + 32);
    std::string hole;
    for (const char* name : {"{id}", "{rest}"}) {
      if (path.find(name) != std::string::npos) hole = std::string(name).substr(1, std::string(name).size() - 2);
    }
    Json operation = {{"summary", route.summary}, {"operationId", method + path}, {"responses", answers(route)}};
    if (route.action == Action::kResponses) {
      for (const char* target :
           {"get/v1/responses/{id}", "delete/v1/responses/{id}", "get/v1/responses/{id}/input_items"}) {
        operation["responses"]["200"]["links"][target] = {{"operationId", target},
                                                          {"parameters", {{"id", "$response.body#/id"}}}};
      }
    }
    if (!hole.empty()) {
      operation["parameters"] = Json::array(
          {{{"name", hole}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}, {"minLength", 1}}}}});
    }
    if (const Json schema = request_schema(route.action); !schema.is_null()) {
      operation["requestBody"] = {{"required", true}, {"content", content("application/json", schema)}};
    }
    if (route.open) operation["security"] = Json::array();
    paths[path][method] = operation;
  }
  const Json error = {{"type", "object"},
                      {"properties",
                       {{"message", {{"type", "string"}}},
                        {"type", {{"type", "string"}}},
                        {"param", {{"type", {"string", "null"}}}},
                        {"code", {{"type", {"string", "null"}}}}}},
                      {"required", {"message", "type", "param", "code"}}};
  Json schemas;
  schemas["Error"] = {{"type", "object"}, {"properties", {{"error", error}}}, {"required", Json::array({"error"})}};
  schemas["MessagesError"] = {{"type", "object"},
                              {"properties",
                               {{"type", {{"const", "error"}}},
                                {"error", {{"type", "object"}, {"required", {"type", "message"}}}},
                                {"request_id", {{"type", "string"}}}}},
                              {"required", {"type", "error", "request_id"}}};
  schemas["Messages"] = {{"type", "array"},
                         {"minItems", 1},
                         {"items",
                          {{"type", "object"},
                           {"properties",
                            {{"role", {{"type", "string"}}},
                             {"content", Json::object()},
                             {"tool_calls", {{"type", {"array", "null"}}}},
                             {"tool_call_id", {{"type", {"string", "null"}}}}}},
                           {"required", Json::array({"role"})}}}};
  return {{"openapi", "3.1.0"},
          {"info",
           {{"title", "Nautile"},
            {"version", version},
            {"description", "OpenAI, Anthropic and Responses dialects of one engine."}}},
          {"paths", paths},
          {"components",
           {{"schemas", schemas},
            {"securitySchemes",
             {{"bearer", {{"type", "http"}, {"scheme", "bearer"}}},
              {"key", {{"type", "apiKey"}, {"in", "header"}, {"name", "x-api-key"}}}}}}},
          {"security", Json::array({{{"bearer", Json::array()}}, {{"key", Json::array()}}})}};
}

}  // namespace nautile::serve
