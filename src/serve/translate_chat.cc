// POST /v1/chat/completions (spec api.md 7.1 to 7.3, 11).
#include <fmt/format.h>

#include "serve/translate.h"

namespace nautile::serve {
namespace {

// allowed_tools narrows what may be called; the mode is left in tool_choice for parse_conversation.
Json plain_tool_choice(const Json& body, Ask& ask, FieldNotes& notes) {
  Json request = body;
  const auto choice = request.find("tool_choice");
  if (choice == request.end() || !choice->is_object()) return request;
  const auto type = choice->find("type");
  if (type == choice->end() || *type != "allowed_tools") return request;
  const Json inner = choice->contains("allowed_tools") ? (*choice)["allowed_tools"] : *choice;
  Fields fields(inner, "tool_choice.allowed_tools", notes);
  std::string mode = "auto";
  fields.text("mode", mode);
  if (const Json* tools = fields.array("tools")) {
    for (const Json& tool : *tools) {
      const Json* function = tool.is_object() && tool.contains("function") ? &tool["function"] : &tool;
      if (!function->is_object() || !function->contains("name") || !(*function)["name"].is_string()) {
        fields.fail("tools", "invalid_value", "must name functions");
        continue;
      }
      ask.allowed_tools.push_back((*function)["name"].get<std::string>());
    }
  }
  if (ask.allowed_tools.empty()) fields.fail("tools", "missing_required_parameter", "must name at least one function");
  *choice = mode;
  return request;
}

}  // namespace

Outcome<Ask> translate_chat(const Json& body, const TranslateContext& context) {
  Ask ask;
  ask.dialect = Dialect::kOpenAi;
  FieldNotes notes;
  Fields fields(body, "", notes);
  ReasoningMode fallback{};
  read_model(fields, ask, context, fallback);
  if (notes.error) return *notes.error;
  read_reasoning_into(fields, ask, context, fallback);
  read_generation(fields, ask, context);
  read_constraint(fields, ask);

  int64_t limit = 0;
  if (fields.integer("max_tokens", limit, 1, INT64_MAX)) ask.max_tokens = limit;
  if (fields.integer("max_completion_tokens", limit, 1, INT64_MAX)) ask.max_tokens = limit;
  fields.boolean("logprobs", ask.logprobs);
  int64_t top = 0;
  if (fields.integer("top_logprobs", top, 0, context.limits.logprobs) && !ask.logprobs && top > 0) {
    fields.fail("top_logprobs", "conflicting_parameters", "needs logprobs: true");
  }
  if (ask.logprobs) ask.sampling.top_logprobs = static_cast<int>(top);
  fields.boolean("stream_reasoning", ask.stream_reasoning);
  bool separate = true;
  if (fields.boolean("separate_reasoning", separate) && !separate) {
    fields.fail("separate_reasoning", "unsupported_value", "cannot be false: reasoning never goes into content");
  }
  fields.boolean("parallel_tool_calls", ask.parallel_calls);
  fields.refuse({"best_of"});

  bool go_on = false, begin_turn = false;
  fields.boolean("continue_final_message", go_on);
  if (fields.boolean("add_generation_prompt", begin_turn) && begin_turn && go_on) {
    fields.fail("add_generation_prompt", "conflicting_parameters", "cannot be combined with continue_final_message");
  }
  fields.accept({"messages", "tools", "tool_choice", "functions", "function_call", "documents"});
  ask.legacy_functions = body.contains("functions") && !body.contains("tools");
  if (!notes.error) read_conversation(plain_tool_choice(body, ask, notes), ask, context, notes);
  fields.finish();
  return conclude(std::move(ask), notes, context);
}

}  // namespace nautile::serve
