// The many spellings of "hold the answer to this form".
#include <fmt/format.h>

#include <algorithm>

#include "serve/translate.h"
#include "sys/clock.h"

namespace nautile::serve {
namespace {

class ConstraintReader {
 public:
  ConstraintReader(Fields& fields, Ask& ask) : fields_(fields), ask_(ask) {}

  void read() {
    response_format();
    structured();
    guided(fields_);
    if (const Json* nvext = fields_.object("nvext")) {
      Fields inner(*nvext, "nvext", fields_.notes());
      guided(inner);
    }
    if (const Json* regex = fields_.get("regex")) text(fields_, "regex", *regex, Constraint::kRegex);
    for (const char* name : {"ebnf", "grammar"}) {
      if (const Json* grammar = fields_.get(name)) text(fields_, name, *grammar, Constraint::kGrammar);
    }
    if (const Json* schema = fields_.get("json_schema")) json(fields_, "json_schema", *schema);
    fields_.accept({"guided_decoding_backend", "guided_whitespace_pattern", "whitespace_pattern"});
  }

 private:
  bool take(Fields& fields, const char* name, Constraint::Kind kind) {
    Constraint& made = ask_.constraint;
    if (made.kind != Constraint::kNone) {
      fields.fail(name, "conflicting_parameters", fmt::format("cannot be combined with {}", made.field));
      return false;
    }
    made.kind = kind;
    made.field = fields.path_of(name);
    return true;
  }

  void json(Fields& fields, const char* name, const Json& value) {
    if (!take(fields, name, Constraint::kJsonSchema)) return;
    ask_.constraint.schema = value;
    if (value.is_string()) {  // vLLM takes the schema's text too
      auto parsed = parse_json(value.get_ref<const std::string&>(), name);
      if (!parsed.ok()) return fields.fail(name, "invalid_schema", "is not a JSON Schema");
      ask_.constraint.schema = std::move(parsed).value();
    }
    if (!ask_.constraint.schema.is_object() && !ask_.constraint.schema.is_boolean()) {
      fields.fail(name, "invalid_schema", "must be a JSON Schema object");
    }
  }
  void text(Fields& fields, const char* name, const Json& value, Constraint::Kind kind) {
    if (!value.is_string()) return fields.wrong(name, "a string");
    if (take(fields, name, kind)) ask_.constraint.text = value.get<std::string>();
  }
  void choices(Fields& fields, const char* name, const Json& value) {
    if (!value.is_array() || value.empty()) return fields.wrong(name, "an array of at least one string");
    if (!take(fields, name, Constraint::kChoice)) return;
    for (const Json& item : value) {
      if (!item.is_string()) return fields.wrong(name, "an array of strings");
      ask_.constraint.choices.push_back(item.get<std::string>());
    }
  }

  void response_format() {
    const Json* format = fields_.object("response_format");
    if (format == nullptr) return;
    Fields inner(*format, "response_format", fields_.notes());
    std::string type;
    if (!inner.text("type", type)) {
      return inner.fail("type", "missing_required_parameter", "must be text, json_object or json_schema");
    }
    if (type == "text") {
    } else if (type == "json_object") {
      if (const Json* schema = inner.get("schema")) {
        json(inner, "schema", *schema);
      } else {
        take(inner, "type", Constraint::kJsonObject);
      }
    } else if (type == "json_schema") {
      const Json* outer = inner.object("json_schema");
      if (outer == nullptr) return inner.fail("json_schema", "missing_required_parameter", "is missing");
      Fields schema_fields(*outer, "response_format.json_schema", fields_.notes());
      const Json* schema = schema_fields.get("schema");
      if (schema == nullptr) return schema_fields.fail("schema", "missing_required_parameter", "is missing");
      json(schema_fields, "schema", *schema);
      schema_fields.boolean("strict", ask_.constraint.strict);
      schema_fields.accept({"name", "description"});
      schema_fields.finish();
    } else {
      inner.fail("type", type == "structural_tag" ? "unsupported_value" : "invalid_value",
                 "must be text, json_object or json_schema");
    }
    inner.finish();
  }

  void structured() {
    const Json* value = fields_.object("structured_outputs");
    if (value == nullptr) return;
    Fields inner(*value, "structured_outputs", fields_.notes());
    bool object = false;
    if (const Json* schema = inner.get("json")) json(inner, "json", *schema);
    if (const Json* regex = inner.get("regex")) text(inner, "regex", *regex, Constraint::kRegex);
    if (const Json* choice = inner.get("choice")) choices(inner, "choice", *choice);
    if (const Json* grammar = inner.get("grammar")) text(inner, "grammar", *grammar, Constraint::kGrammar);
    if (inner.boolean("json_object", object) && object) take(inner, "json_object", Constraint::kJsonObject);
    inner.accept({"whitespace_pattern", "disable_fallback", "disable_any_whitespace", "disable_additional_properties"});
    inner.finish();
    if (ask_.constraint.kind == Constraint::kNone) {
      fields_.fail("structured_outputs", "invalid_value",
                   "must have one of json, regex, choice, grammar or json_object");
    }
  }

  void guided(Fields& fields) {
    if (const Json* schema = fields.get("guided_json")) json(fields, "guided_json", *schema);
    if (const Json* regex = fields.get("guided_regex")) text(fields, "guided_regex", *regex, Constraint::kRegex);
    if (const Json* choice = fields.get("guided_choice")) choices(fields, "guided_choice", *choice);
    if (const Json* grammar = fields.get("guided_grammar"))
      text(fields, "guided_grammar", *grammar, Constraint::kGrammar);
  }

  Fields& fields_;
  Ask& ask_;
};

TextConstraint text_constraint(const Constraint& asked) {
  TextConstraint made;
  made.place = asked.field;
  made.lenient = !asked.strict;
  switch (asked.kind) {
    case Constraint::kNone:
      break;
    case Constraint::kJsonObject:
      made.kind = TextConstraint::kJsonObject;
      break;
    case Constraint::kJsonSchema:
      made.kind = TextConstraint::kJsonSchema;
      made.schema = asked.schema;
      break;
    case Constraint::kRegex:
      made.kind = TextConstraint::kRegex;
      made.pattern = asked.text;
      break;
    case Constraint::kGrammar:
      made.kind = TextConstraint::kGbnf;
      made.pattern = asked.text;
      break;
    case Constraint::kChoice:
      made.kind = TextConstraint::kChoice;
      made.choices = asked.choices;
      break;
  }
  return made;
}

ToolConstraint tool_constraint(const Ask& ask, const std::vector<Tool>& declared, TokenId dsml) {
  ToolConstraint made;
  made.choice = ask.conversation.tool_choice;
  made.parallel = ask.parallel_calls;
  made.dsml = dsml;
  for (size_t i = 0; i < declared.size(); ++i) {
    const Tool& tool = declared[i];
    const auto& allowed = ask.allowed_tools;
    if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), tool.name) == allowed.end()) continue;
    made.tools.push_back(tool);
    const auto function = parse_json(tool.schema_line, "tool");
    const bool strict = function.ok() && function.value().contains("strict") && function.value()["strict"] == true;
    made.strict.push_back(strict);
    made.places.push_back(fmt::format("tools[{}].function.parameters", i));
  }
  return made;
}

// "invalid_schema: ..." names its own code.
ApiError grammar_error(const Status& status, const Constraint& asked) {
  if (status.code() != Code::kInvalidArgument) return from_status(status);
  std::string code = "invalid_schema", message = status.what();
  std::string param = status.where().substr(0, status.where().find(','));
  if (asked.kind == Constraint::kRegex && param == asked.field) code = "invalid_regex";
  if (asked.kind == Constraint::kGrammar && param == asked.field) code = "invalid_grammar";
  for (const char* known : {"schema_too_complex", "invalid_grammar", "invalid_regex", "invalid_schema"}) {
    const std::string prefix = std::string(known) + ": ";
    if (!message.starts_with(prefix)) continue;
    if (std::string_view(known) != "invalid_schema" || code == "invalid_schema") code = known;
    message = message.substr(prefix.size());
  }
  if (!status.fix().empty()) message += " (" + status.fix() + ")";
  return bad_request(code, status.where() + ": " + message, param);
}

}  // namespace

std::optional<ApiError> constrain(Ask& ask, const TranslateContext& context) {
  const std::vector<Tool> declared = ask.chat ? ask.conversation.declared_tools() : std::vector<Tool>();
  if (ask.constraint.kind == Constraint::kNone && declared.empty()) return std::nullopt;
  GrammarRequest request;
  request.text = text_constraint(ask.constraint);
  if (!declared.empty()) request.tools = tool_constraint(ask, declared, context.model.tokens.dsml);
  const double begin = seconds_now();
  auto grammar = context.grammars->get(context.owner, request, context.model.trie);
  ask.grammar_s = seconds_now() - begin;
  if (!grammar.ok()) return grammar_error(grammar.status(), ask.constraint);
  ask.grammar = std::move(grammar).value();
  for (const std::string& keyword : ask.grammar->ignored()) ask.ignored.push_back(keyword);
  return std::nullopt;
}

Json with_format(Json request, const Constraint& constraint) {
  if (constraint.kind == Constraint::kJsonSchema && constraint.schema.is_object()) {
    request["response_format"]["type"] = "json_schema";
    request["response_format"]["json_schema"]["schema"] = constraint.schema;
  }
  return request;
}

void read_constraint(Fields& fields, Ask& ask) {
  ConstraintReader(fields, ask).read();
}

}  // namespace nautile::serve
