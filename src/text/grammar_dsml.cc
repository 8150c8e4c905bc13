#include "text/grammar_dsml.h"

#include <algorithm>

namespace nautile::grammar {
namespace {

constexpr size_t kMaxMarks = 64;

// What a name may hold and still stand between quotes in a tag.
const CharSet& name_characters() {
  static const CharSet set = [] {
    CharSet barred;
    barred.add(0, 0x1f);
    barred.add(0x7f, 0x9f);
    for (const uint32_t c : {'"', '<', '>'}) barred.add(c, c);
    barred.normalise();
    return barred.complement();
  }();
  return set;
}

bool can_be_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return static_cast<uint8_t>(c) >= 0x20 && c != 0x7f && c != '"' && c != '<' && c != '>';
  });
}

class ToolCalls {
 public:
  ToolCalls(Builder& builder, JsonPieces& pieces, TokenId dsml) : b_(builder), pieces_(pieces), dsml_(dsml) {}

  // Text with '|' where the control token stands.
  void tag(StateId from, std::string_view text, StateId to) {
    for (size_t at = 0; at < text.size(); ++at) {
      const StateId next = at + 1 == text.size() ? to : b_.state();
      if (text[at] == '|') {
        b_.token(from, dsml_, next);
      } else {
        b_.bytes(from, static_cast<uint8_t>(text[at]), static_cast<uint8_t>(text[at]), next);
      }
      from = next;
    }
  }

  // From behind the parameter's name to behind its line.
  Status value(SchemaCompiler& schema, const FlatSchema::Nodes& nodes, StateId from, StateId to) {
    NAUTILE_ASSIGN(const std::vector<FlatSchema> flats, schema.flatten(nodes));
    const RuleId text = b_.rule(), json = b_.rule();
    for (const FlatSchema& flat : flats) {
      NAUTILE_RETURN_IF_ERROR(schema.value(flat, kString, TextForm::kRaw, b_.of(text).begin, b_.of(text).end));
      NAUTILE_RETURN_IF_ERROR(
          schema.value(flat, kAnyType & ~kString, TextForm::kJson, b_.of(json).begin, b_.of(json).end));
      if (b_.exhausted()) break;
    }
    const StateId open_text = b_.state(), open_json = b_.state(), close = b_.state();
    tag(from, "\" string=\"true\">", open_text);
    tag(from, "\" string=\"false\">", open_json);
    b_.call(open_text, text, close);
    b_.call(open_json, json, close);
    tag(close, "</|parameter>\n", to);
    return {};
  }

  // The rule of what stands between a tool's invoke tags.
  Result<RuleId> parameters(SchemaCompiler& schema) {
    const RuleId rule = b_.rule();
    const auto [begin, end] = b_.of(rule);
    if (schema.root().is_null()) {
      b_.bytes(begin, '\n', '\n', end);
      return rule;
    }
    NAUTILE_ASSIGN(const std::vector<FlatSchema> flats, schema.flatten({&schema.root()}));
    bool any = false;
    for (const FlatSchema& flat : flats) {
      if (!(flat.kinds() & kObject) || flat.values) continue;
      any = true;
      NAUTILE_RETURN_IF_ERROR(object(schema, flat, begin, end));
      if (b_.exhausted()) break;
    }
    if (!any) {
      return Status(Code::kInvalidArgument, "invalid_schema: a tool's parameters are an object",
                    schema.path(&schema.root()));
    }
    return rule;
  }

 private:
  Status object(SchemaCompiler& schema, const FlatSchema& flat, StateId begin, StateId end) {
    const std::vector<FlatSchema::Property> properties = flat.properties();
    const bool given = std::any_of(flat.members.begin(), flat.members.end(),
                                   [](const FlatSchema::Members& part) { return part.additional != nullptr; });
    const std::optional<FlatSchema::Nodes> additional = given ? flat.additional() : std::nullopt;
    for (const FlatSchema::Property& property : properties) {
      if (can_be_name(property.name)) continue;
      return Status(Code::kInvalidArgument, "invalid_schema: \"" + property.name + "\" cannot be a parameter's name",
                    schema.path(&schema.root()) + ".properties");
    }
    // No parameter yet, or some.
    StateId none = b_.state(), some = b_.state();
    b_.empty(begin, none);
    const bool in_order = properties.size() > kMaxMarks;
    uint64_t required = 0;
    std::vector<StateId> required_states;
    for (size_t i = 0; i < properties.size(); ++i) {
      if (b_.exhausted()) return {};
      const FlatSchema::Property& property = properties[i];
      // A rule, so that what is required can be asked whether it can be had at all.
      const RuleId rule = b_.rule();
      const StateId open = b_.state();
      const StateId next_none = in_order ? b_.state() : none, next_some = in_order ? b_.state() : some;
      if (in_order) {
        b_.empty(none, open);
        b_.empty(some, open);
        if (!property.required) {
          b_.empty(none, next_none);
          b_.empty(some, next_some);
        }
      } else {
        b_.mark(none, static_cast<uint32_t>(i), open);
        b_.mark(some, static_cast<uint32_t>(i), open);
        if (property.required) {
          required |= uint64_t{1} << i;
          required_states.push_back(b_.of(rule).begin);
        }
      }
      b_.call(open, rule, next_some);
      const StateId quote = b_.state();
      tag(b_.of(rule).begin, "<|parameter name=\"", quote);
      NAUTILE_RETURN_IF_ERROR(value(schema, property.value, b_.literal(quote, property.name), b_.of(rule).end));
      none = next_none;
      some = next_some;
    }
    if (additional) {
      const StateId quote = b_.state(), name = b_.state();
      tag(none, "<|parameter name=\"", quote);
      tag(some, "<|parameter name=\"", quote);
      std::vector<std::string> listed = {""};
      for (const FlatSchema::Property& property : properties) listed.push_back(property.name);
      pieces_.text(TextForm::kRaw).other_texts(quote, std::move(listed), name_characters(), name);
      NAUTILE_RETURN_IF_ERROR(value(schema, *additional, name, some));
    }
    const StateId none_ends = b_.state();
    b_.require(none, required, required_states, none_ends);
    b_.bytes(none_ends, '\n', '\n', end);
    b_.require(some, required, required_states, end);
    return {};
  }

  Builder& b_;
  JsonPieces& pieces_;
  const TokenId dsml_;
};

}  // namespace

Status add_tool_calls(const ToolConstraint& tools, Builder& builder, JsonPieces& pieces, const GrammarLimits& limits,
                      std::vector<std::unique_ptr<SchemaCompiler>>& compilers, StateId from, StateId to) {
  ToolCalls calls(builder, pieces, tools.dsml);
  const RuleId invoke = builder.rule();
  const StateId begin = builder.of(invoke).begin, behind = builder.state();
  calls.tag(behind, "</|invoke>", builder.of(invoke).end);
  bool any = false;
  for (size_t i = 0; i < tools.tools.size(); ++i) {
    const Tool& tool = tools.tools[i];
    if (tools.choice.kind == ToolChoice::kNamed && tool.name != tools.choice.name) continue;
    const std::string place =
        i < tools.places.size() ? tools.places[i] : "tools[" + std::to_string(i) + "].function.parameters";
    if (!can_be_name(tool.name)) {
      return Status(Code::kInvalidArgument, "invalid_schema: \"" + tool.name + "\" cannot be a tool's name", place);
    }
    any = true;
    const bool strict = i < tools.strict.size() && tools.strict[i];
    compilers.push_back(std::make_unique<SchemaCompiler>(builder, pieces, limits, tool.parameters, place, !strict));
    SchemaCompiler& schema = *compilers.back();
    NAUTILE_ASSIGN(const RuleId parameters, calls.parameters(schema));
    NAUTILE_RETURN_IF_ERROR(schema.run());
    const StateId body = builder.state();
    calls.tag(begin, "<|invoke name=\"" + tool.name + "\">\n", body);
    builder.call(body, parameters, behind);
    if (builder.exhausted()) return Status(Code::kInvalidArgument, "schema_too_complex: too many states", place);
  }
  if (!any) return Status(Code::kInvalidArgument, "there is no tool to call", "tool_choice");
  const StateId open = builder.state(), called = builder.state(), line = builder.state();
  calls.tag(from, "<|tool_calls>\n", open);
  builder.call(open, invoke, called);
  builder.bytes(called, '\n', '\n', line);
  if (tools.parallel) builder.call(line, invoke, called);
  calls.tag(line, "</|tool_calls>", to);
  return {};
}

}  // namespace nautile::grammar
