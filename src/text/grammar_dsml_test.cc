#include "text/grammar_for_test.h"
#include "text/output_parser.h"

namespace nautile {
namespace {

Tool tool(const char* name, const char* parameters) {
  auto parsed = parse_json(parameters, "parameters");
  REQUIRE_MESSAGE(parsed.ok(), parsed.status().message());
  return {name, "", *parsed};
}

GrammarRequest tool_request(ToolChoice::Kind kind, std::vector<Tool> tools) {
  GrammarRequest request;
  request.tools.emplace();
  request.tools->tools = std::move(tools);
  request.tools->choice.kind = kind;
  request.tools->dsml = kTestDsml;
  return request;
}

std::vector<Tool> two_tools() {
  return {tool("add", R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"},
                          "note":{"type":"string"},"unit":{"enum":["cm","m"]}},"required":["a","b"]})"),
          tool("now", "null")};
}

// "|" stands for the control token.
bool takes(const std::shared_ptr<const Grammar>& grammar, std::string_view text) {
  GrammarMatcher matcher(grammar);
  for (const char c : text) {
    if (!(c == '|' ? matcher.accept(kTestDsml) : matcher.accept_bytes(std::string_view(&c, 1)))) return false;
  }
  return matcher.can_end();
}

std::string call(std::string_view name, std::string_view parameters) {
  return "<|invoke name=\"" + std::string(name) + "\">\n" + std::string(parameters) + "</|invoke>";
}
std::string text_parameter(std::string_view name, std::string_view value) {
  return "<|parameter name=\"" + std::string(name) + "\" string=\"true\">" + std::string(value) + "</|parameter>\n";
}
std::string json_parameter(std::string_view name, std::string_view value) {
  return "<|parameter name=\"" + std::string(name) + "\" string=\"false\">" + std::string(value) + "</|parameter>\n";
}
std::string block(std::string_view calls) {
  return "\n\n<|tool_calls>\n" + std::string(calls) + "\n</|tool_calls>";
}

TEST_CASE("grammar: tool calls as the encoder prints them") {
  const auto g = made(Grammar::compile(tool_request(ToolChoice::kRequired, two_tools()), small_trie()));
  const std::string a = json_parameter("a", "1"), b = json_parameter("b", "-20");
  CHECK(takes(g, block(call("add", a + b))));
  CHECK(takes(g, block(call("add", b + a))));  // any order
  CHECK(takes(g, block(call("add", a + text_parameter("note", "x<y </b> \"q\"\n{") + b))));
  CHECK(takes(g, block(call("add", a + b + text_parameter("unit", "cm")))));
  CHECK(takes(g, block(call("now", "\n"))));
  CHECK(takes(g, block(call("now", "\n") + "\n" + call("add", a + b))));
  CHECK(!takes(g, block(call("now", ""))));
  CHECK(!takes(g, block(call("add", a))));                                // b is required
  CHECK(!takes(g, block(call("add", a + b + a))));                        // once each
  CHECK(!takes(g, block(call("add", a + b + text_parameter("c", "")))));  // not declared
  CHECK(!takes(g, block(call("add", text_parameter("a", "1") + b))));     // not a string
  CHECK(!takes(g, block(call("add", json_parameter("a", "1.5") + b))));
  CHECK(!takes(g, block(call("add", a + b + json_parameter("note", "\"x\"")))));  // strings are raw
  CHECK(!takes(g, block(call("add", a + b + text_parameter("unit", "km")))));
  CHECK(!takes(g, block(call("sub", "\n"))));
  CHECK(!takes(g, block("")));
  CHECK(!takes(g, "text" + block(call("now", "\n"))));
  CHECK(!takes(g, block(call("now", "\n")) + "\n"));
  CHECK(!takes(g, block(call("add", a + b + text_parameter("note", "|")))));  // the control token is no text
}

TEST_CASE("grammar: tool_choice") {
  const std::string now = block(call("now", "\n"));
  const auto automatic = made(Grammar::compile(tool_request(ToolChoice::kAuto, two_tools()), small_trie()));
  CHECK(takes(automatic, ""));
  CHECK(takes(automatic, "just text < \xff </"));
  CHECK(takes(automatic, now));
  CHECK(takes(automatic, "Sure." + now));
  CHECK(!takes(automatic, "|"));
  CHECK(!takes(automatic, "</|"));
  CHECK(!takes(automatic, "a<|"));
  CHECK(!takes(automatic, now + "more"));
  CHECK(!takes(automatic, block(call("sub", "\n"))));

  GrammarRequest named = tool_request(ToolChoice::kNamed, two_tools());
  named.tools->choice.name = "now";
  const auto only = made(Grammar::compile(named, small_trie()));
  CHECK(takes(only, now));
  CHECK(!takes(only, block(call("add", json_parameter("a", "1") + json_parameter("b", "1")))));
  named.tools->choice.name = "sub";
  CHECK(Grammar::compile(named, small_trie()).status().where() == "tool_choice");

  GrammarRequest one = tool_request(ToolChoice::kRequired, two_tools());
  one.tools->parallel = false;
  CHECK(takes(made(Grammar::compile(one, small_trie())), now));
  CHECK(!takes(made(Grammar::compile(one, small_trie())), block(call("now", "\n") + "\n" + call("now", "\n"))));

  const auto none = made(Grammar::compile(tool_request(ToolChoice::kNone, two_tools()), small_trie()));
  CHECK(takes(none, "text <"));
  CHECK(!takes(none, "<|"));

  GrammarRequest both = tool_request(ToolChoice::kAuto, two_tools());
  both.text = schema_request(R"({"type":"integer"})").text;
  const auto either = made(Grammar::compile(both, small_trie()));
  CHECK(takes(either, "12"));
  CHECK(takes(either, now));
  CHECK(!takes(either, "text"));
  CHECK(!takes(either, "12" + now));
}

TEST_CASE("grammar: parameters of every kind") {
  const auto g = made(Grammar::compile(
      tool_request(ToolChoice::kRequired,
                   {tool("f", R"({"type":"object","properties":{"s":{"type":["string","null"],"maxLength":2},
                     "o":{"$ref":"#/$defs/o"},"any":{}},"additionalProperties":{"type":"boolean"},"required":["zz"],
                     "$defs":{"o":{"type":"object","properties":{"k":{"type":"array","items":{"type":"null"}}}}}})")}),
      small_trie()));
  const std::string zz = json_parameter("zz", "true");
  CHECK(takes(g, block(call("f", zz))));
  CHECK(takes(g, block(call("f", zz + text_parameter("s", "ab")))));
  CHECK(takes(g, block(call("f", zz + json_parameter("s", "null")))));
  CHECK(takes(g, block(call("f", json_parameter("o", R"({"k": [null]})") + zz))));
  CHECK(takes(g, block(call("f", zz + text_parameter("any", "text") + json_parameter("free", "false")))));
  CHECK(takes(g, block(call("f", zz + json_parameter("any", "[1]")))));
  CHECK(!takes(g, block(call("f", zz + json_parameter("any", "\"x\"")))));
  CHECK(!takes(g, block(call("f", zz + text_parameter("s", "abc")))));
  CHECK(!takes(g, block(call("f", "\n"))));
  CHECK(!takes(g, block(call("f", zz + json_parameter("free", "1")))));
  CHECK(!takes(g, block(call("f", zz + json_parameter("", "true")))));
}

TEST_CASE("grammar: bad tools are named by their place") {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"type":"object","properties":{"a":{"type":"hiccup"}}})", "tools[1].function.parameters.properties.a.type"},
      {R"({"type":"object","properties":{"a":{"pattern":"("}}})", "tools[1].function.parameters.properties.a.pattern"},
      {R"({"type":"string"})", "tools[1].function.parameters"},
      {R"({"type":"object","properties":{"a\"":{}}})", "tools[1].function.parameters.properties"},
      {R"({"type":"object","properties":{"a":false},"required":["a"]})", "tools"},
  };
  for (const auto& [parameters, where] : cases) {
    const auto result =
        Grammar::compile(tool_request(ToolChoice::kNamed, {tool("g", "null"), tool("f", parameters)}), small_trie());
    GrammarRequest request = tool_request(ToolChoice::kNamed, {tool("g", "null"), tool("f", parameters)});
    request.tools->choice.name = "f";
    const auto named = Grammar::compile(request, small_trie());
    REQUIRE(!named.ok());
    CHECK(named.status().where() == std::string(where));
  }
  // Not strict: what is not supported is ignored; strict: it is an error.
  GrammarRequest request = tool_request(
      ToolChoice::kAuto, {tool("f", R"({"type":"object","properties":{"a":{"type":"integer","multipleOf":2}}})")});
  CHECK(made(Grammar::compile(request, small_trie()))->ignored().size() == 1);
  request.tools->strict = {true};
  CHECK(Grammar::compile(request, small_trie()).status().where() ==
        "tools[0].function.parameters.properties.a.multipleOf");
}

TEST_CASE("grammar: random calls parse, on V4's own vocabulary too") {
  const auto tokens = ChatTokens::find(v4_tokenizer());
  REQUIRE(tokens.ok());
  std::vector<Tool> tools = two_tools();
  tools.push_back(tool("f", R"({"type":"object","properties":{"s":{"type":"string","minLength":1},"l":{"type":"array",
                                "items":{"type":"object","properties":{"x":{"type":"number"}},"required":["x"]}}}})"));
  GrammarRequest request = tool_request(ToolChoice::kRequired, tools);
  request.tools->dsml = tokens.status().ok() ? Result<ChatTokens>(tokens).value().dsml : -1;
  const auto g = made(Grammar::compile(request, v4_trie()));
  int calls = 0;
  for (uint32_t seed = 0; seed < 6; ++seed) {
    const std::string text = random_walk(g, seed, request.tools->dsml);
    if (text == "(too long)") continue;
    OutputParserOptions options;
    options.tools = tools;
    OutputParser parser(tokens.value(), options);
    std::vector<OutputEvent> events;
    std::string bytes;
    for (const char c : text) {
      if (c != '|') {
        parser.push(0x7ffffff, std::string_view(&c, 1), events);
      } else {
        parser.push(request.tools->dsml, "", events);
      }
    }
    const ParsedMessage message = parser.finish(OutputEnd::kEndOfTurn, events);
    CHECK(message.content == "");
    CHECK(message.finish == FinishReason::kToolCalls);
    for (const ParsedCall& parsed : message.calls) {
      ++calls;
      CHECK_MESSAGE(parse_json(parsed.arguments, "arguments").ok(), parsed.arguments);
    }
  }
  CHECK(calls > 0);
}

}  // namespace
}  // namespace nautile
