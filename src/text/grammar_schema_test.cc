#include "text/grammar_for_test.h"

namespace nautile {
namespace {

TEST_CASE("grammar: any JSON object, one space at most between tokens") {
  GrammarRequest request;
  request.text.kind = TextConstraint::kJsonObject;
  const auto g = made(Grammar::compile(request, small_trie()));
  for (const char* good :
       {"{}", "{ }", R"({"a":1})", R"({"a": [1, 2.5e-3, -0.5, "x\n\u00e9\ud83d\ude00", true, null], "b": {}})",
        R"({ "a" : 1})"}) {
    CAPTURE(good);
    CHECK(accepts(g, good) == (std::string_view(good).find("\" :") == std::string_view::npos));
  }
  for (const char* bad : {"[]", "{}}", "{  }", R"({"a":01})", R"({"a":1,})", R"({"a":"\ud800"})", R"({"a":"\x"})",
                          "{\"a\":\"\n\"}", R"({"a":+1})", R"({"a":-0})", "{\"a\":\"\xff\"}", R"({"a":1} )", ""}) {
    CAPTURE(bad);
    CHECK(!accepts(g, bad));
  }
  std::string deep = "{\"a\":";
  CHECK(!accepts(g, deep + std::string(100, '[') + std::string(100, ']') + "}"));
  CHECK(accepts(g, deep + std::string(60, '[') + std::string(60, ']') + "}"));
}

struct Example {
  const char* schema;
  std::vector<const char*> good, bad;
};

TEST_CASE("grammar: schemas") {
  const Example examples[] = {
      {R"({"type":"integer","minimum":-12,"maximum":105})",
       {"-12", "-9", "-1", "0", "7", "99", "100", "105"},
       {"-13", "106", "1050", "-0", "00", "1.0", "-100"}},
      {R"({"type":"integer","exclusiveMinimum":5,"exclusiveMaximum":7})", {"6"}, {"5", "7", "60"}},
      {R"({"type":"integer","minimum":0.5,"maximum":2.5})", {"1", "2"}, {"0", "3"}},
      {R"({"type":"integer","minimum":1000})",
       {"1000", "999999999999999999"},
       {"999", "0", "-1000", "9999999999999999999"}},
      {R"({"type":"number","minimum":0,"exclusiveMaximum":1})",
       {"0", "0.5", "0.999", "0.0"},
       {"1", "1.0", "-0.1", "0."}},
      {R"({"type":"number","minimum":-1.25,"maximum":3.5})",
       {"-1.25", "-1.2", "3.5", "3.50", "3", "0", "-0.001"},
       {"-1.26", "-1.3", "3.51", "4", "-2"}},
      {R"({"type":"number","exclusiveMinimum":0})", {"0.1", "0.001", "5", "123.4"}, {"0", "0.0", "-1"}},
      {R"({"type":"number"})", {"1", "-1.5", "1e5", "1.5E-10", "0.0"}, {"01", ".5", "1e400", "-0"}},
      {R"({"type":"string","minLength":2,"maxLength":3})",
       {"\"ab\"", "\"\xe4\xb8\xad\xe6\x96\x87\xe5\xad\x97\"", "\"\\n\\\"\""},
       {"\"a\"", "\"abcd\"", "\"\\u0041b\""}},
      {R"({"type":"string","pattern":"^a+$"})", {"\"a\"", "\"aaa\""}, {"\"\"", "\"ab\"", "\"ba\""}},
      {R"({"type":"string","pattern":"b"})", {"\"b\"", "\"abc\"", "\"\\nb\""}, {"\"\"", "\"ac\""}},
      {R"({"type":"string","pattern":"^[a-c]*$","maxLength":2,"minLength":1})",
       {"\"a\"", "\"cb\""},
       {"\"\"", "\"abc\"", "\"d\""}},
      {R"({"allOf":[{"type":"string","pattern":"^a"},{"pattern":"[^a-]$"}]})",
       {"\"az\"", "\"abz\""},
       {"\"a\"", "\"z\""}},
      {R"({"type":"string","format":"date"})",
       {"\"2024-02-29\"", "\"1999-12-31\""},
       {"\"2023-02-29\"", "\"2023-04-31\"", "\"1900-02-29\"", "\"0000-01-01\""}},
      {R"({"type":"string","format":"ipv6"})",
       {"\"::\"", "\"::1\"", "\"2001:db8::ff00:42:8329\"", "\"1:2:3:4:5:6:7:8\"", "\"1:2:3:4:5:6:7::\""},
       {"\"1\"", "\"1::2::3\"", "\"1:2:3:4:5:6:7:8:9\"", "\":1\""}},
      {R"({"enum":["a","ab",1,null,{"x":[1,2]}]})",
       {"\"a\"", "\"ab\"", "1", "null", "{\"x\":[1,2]}", "{\"x\": [1, 2]}"},
       {"\"abc\"", "2", "{\"x\":[1]}"}},
      {R"({"enum":[1,5,"x",9],"minimum":2,"type":["integer"]})", {"5", "9"}, {"1", "\"x\""}},
      {R"({"const":"q\"\\"})", {"\"q\\\"\\\\\""}, {"\"q\""}},
      {R"({"type":["string","null"]})", {"null", "\"\""}, {"1"}},
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"boolean"},"c":{}},"required":["b"]})",
       {R"({"b":true})", R"({"a": 1, "b": false})", R"({"b":true,"c":[{}]})"},
       {R"({})", R"({"a":1})", R"({"b":true,"a":1})", R"({"b":true,"d":1})", R"({"b":true,})"}},
      {R"({"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"boolean"}})",
       {R"({"a":1,"b":true})", R"({"b":true,"aa":false})", "{}", R"({"":true})"},
       {R"({"b":1})", R"({"a":true})", R"({"b":true,"a":true})"}},
      {R"({"type":"object","required":["x"],"additionalProperties":{"type":"integer"}})",
       {R"({"x":1})", R"({"x":1,"y":2})"},
       {R"({})", R"({"y":1})", R"({"x":"s"})"}},
      {R"({"type":"object"})", {"{}", R"({"k":[1]})"}, {"[]"}},
      {R"({"properties":{"a":false,"b":true}})", {"{}", R"({"b":1})"}, {R"({"a":1})"}},
      {R"({"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":3})",
       {"[1]", "[1, 2,3]", "[ 1 ]"},
       {"[]", "[1,2,3,4]", "[\"a\"]"}},
      {R"({"type":"array","prefixItems":[{"const":1},{"const":2}]})", {"[]", "[1]", "[1,2]"}, {"[2]", "[1,2,3]"}},
      {R"({"type":"array","prefixItems":[{"const":1}],"items":{"const":2}})", {"[1]", "[1,2,2]"}, {"[2]", "[1,1]"}},
      {R"({"type":"array","minItems":2})", {"[1,\"a\"]", "[{},[],null]"}, {"[]", "[1]"}},
      {R"({"type":"array","maxItems":0})", {"[]"}, {"[1]"}},
      {R"({"anyOf":[{"type":"integer"},{"type":"array","items":{"type":"null"}}]})",
       {"1", "[]", "[null]"},
       {"\"\"", "[1]"}},
      {R"({"type":"object","properties":{"a":{"const":1},"b":{"const":2}},"anyOf":[{"required":["a"]},{"required":["b"]}]})",
       {R"({"a":1})", R"({"b":2})", R"({"a":1,"b":2})"},
       {"{}"}},
      {R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},
            {"properties":{"a":{"minimum":3},"b":{"type":"null"}}}]})",
       {R"({"a":3})", R"({"a":12,"b":null})"},
       {R"({"a":2})", R"({"b":null})"}},
      {R"({"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"v":{"type":"integer"},
            "next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["v","next"],"additionalProperties":false}}})",
       {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":null}})"},
       {R"({"v":1})", R"({"v":1,"next":1})"}},
      {R"({"type":"array","items":{"$ref":"#"}})", {"[]", "[[],[[]]]"}, {"[1]"}},
      {R"({"$defs":{"a/b":{"type":"null"},"c~d":{"type":"boolean"}},"anyOf":[{"$ref":"#/$defs/a~1b"},{"$ref":"#/%24defs/c~0d"}]})",
       {"null", "true"},
       {"1"}},
      {"true", {"1", "{\"a\":[]}"}, {"", "x"}},
  };
  for (const Example& example : examples) {
    CAPTURE(std::string(example.schema));
    const auto g = schema_grammar(example.schema);
    for (const char* text : example.good) CHECK_MESSAGE(accepts(g, text), text);
    for (const char* text : example.bad) CHECK_MESSAGE(!accepts(g, text), text);
    for (uint32_t seed = 0; seed < 4; ++seed) {
      const std::string text = random_walk(g, seed);
      CHECK_MESSAGE(accepts(g, text), text);
      CHECK_MESSAGE(parse_json(text, "walk").ok(), text);
    }
  }
}

TEST_CASE("grammar: what is wrong with a schema is said with its place") {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"type":"hiccup"})", "schema.type"},
      {R"({"type":123})", "schema.type"},
      {R"({"properties":{"a":{"items":{"not":{}}}}})", "schema.properties.a.items.not"},
      {R"({"properties":{"a":{"pattern":"(("}}})", "schema.properties.a.pattern"},
      {R"_({"properties":{"a":{"pattern":"(?=x)"}}})_", "schema.properties.a.pattern"},
      {R"_({"properties":{"a":{"pattern":"(a)\\1"}}})_", "schema.properties.a.pattern"},
      {R"({"$ref":"http://example.com/x"})", "schema.$ref"},
      {R"({"$ref":"#/nowhere"})", "schema.$ref"},
      {R"({"$ref":"#"})", "schema.$ref"},
      {R"({"allOf":[{"$ref":"#"}]})", "schema.allOf.0"},
      {R"({"anyOf":[{"$ref":"#"},{"type":"null"}]})", "schema"},
      {R"({"anyOf":[{"properties":{"x":{"patternProperties":{}}}}]})", "schema.anyOf.0.properties.x.patternProperties"},
      {R"({"type":"object","properties":{"a":7}})", "schema.properties.a"},
      {R"({"required":["a"],"properties":{"a":false}})", "schema"},
      {R"({"allOf":[{"type":"string"},{"type":"null"}]})", "schema"},
      {R"({"type":"object","properties":{"n":{"$ref":"#"}},"required":["n"]})", "schema"},
      {R"({"minLength":-1})", "schema.minLength"},
      {R"({"minimum":"1"})", "schema.minimum"},
      {R"({"enum":3})", "schema.enum"},
      {R"({"format":"colour"})", "schema.format"},
      {R"([])", "schema"},
  };
  for (const auto& [schema, where] : cases) {
    CAPTURE(std::string(schema));
    const auto result = Grammar::compile(schema_request(schema), small_trie());
    REQUIRE(!result.ok());
    CHECK(result.status().code() == Code::kInvalidArgument);
    CHECK_MESSAGE(result.status().where() == std::string(where), result.status().message());
    CHECK_MESSAGE(result.status().what().starts_with("invalid_schema: "), result.status().message());
  }
}

TEST_CASE("grammar: a lenient schema lists what it ignores") {
  const auto g = made(Grammar::compile(
      schema_request(R"({"type":"object","properties":{"a":{"type":"integer","multipleOf":2}},"patternProperties":{}})",
                     true),
      small_trie()));
  CHECK(g->ignored() == std::vector<std::string>{"schema.patternProperties", "schema.properties.a.multipleOf"});
  CHECK(accepts(g, R"({"a":1})"));
}

TEST_CASE("grammar: whitespace of one's own") {
  GrammarRequest request = schema_request(R"({"type":"array","items":{"type":"null"}})");
  request.text.whitespace = "[ \\n]{0,2}";
  const auto g = made(Grammar::compile(request, small_trie()));
  CHECK(accepts(g, "[\n null,\n\nnull  ]"));
  CHECK(!accepts(g, "[   ]"));
}

}  // namespace
}  // namespace nautile
