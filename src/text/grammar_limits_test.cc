// Bounds: what is too large is refused, what is hard takes bounded work, and nothing depends on what is remembered.
#include <thread>

#include "text/grammar_for_test.h"

namespace nautile {
namespace {

std::string too_complex(const GrammarRequest& request) {
  const auto result = Grammar::compile(request, small_trie());
  REQUIRE(!result.ok());
  CHECK_MESSAGE(result.status().what().starts_with("schema_too_complex: "), result.status().message());
  CHECK(result.status().code() == Code::kInvalidArgument);
  return result.status().where();
}

TEST_CASE("grammar limits: what is too large is refused with its place") {
  CHECK(too_complex(regex_request("(a{1,1000}){1,1000}")).find("byte ") != std::string::npos);
  CHECK(too_complex(regex_request("((((((a{1,99}){1,99}){1,99}){1,99}){1,99}){1,99}){1,99}")) != "");
  CHECK(too_complex(regex_request("a{1,999999999}")) != "");
  CHECK(too_complex(regex_request(std::string(100'000, 'a'))) != "");
  CHECK(too_complex(schema_request(R"({"properties":{"s":{"type":"string","maxLength":1000000000}}})")) ==
        "schema.properties.s");
  CHECK(too_complex(schema_request(R"({"type":"string","maxLength":18446744073709551615,"minLength":5000000000})")) ==
        "schema");
  CHECK(too_complex(schema_request(R"({"type":"array","minItems":100000000})")) == "schema");
  CHECK(too_complex(schema_request(R"({"items":{"type":"array","items":{"type":"null"},"maxItems":9999999999999}})")) ==
        "schema.items");

  Json schema = {{"type", "null"}};
  for (int i = 0; i < 200; ++i) schema = {{"items", schema}};
  GrammarRequest request = schema_request("true");
  request.text.schema = schema;
  CHECK(too_complex(request) == "schema");
  for (int i = 0; i < 3000; ++i) schema = Json::array({std::move(schema)});
  request.text.schema = {{"enum", schema}};
  CHECK(too_complex(request) == "schema");

  request.text.schema = {{"enum", Json::array()}};
  for (int i = 0; i < 10001; ++i) request.text.schema["enum"].push_back(i);
  CHECK(too_complex(request) == "schema.enum");
  request.text.schema["enum"].erase(0);
  CHECK(Grammar::compile(request, small_trie()).ok());
  request.text.schema = {{"const", std::string(300'000, 'x')}};
  CHECK(too_complex(request) == "schema");

  // Alternatives that multiply, references that double.
  Json all = Json::array();
  for (int i = 0; i < 8; ++i) {
    Json any = Json::array();
    for (int k = 0; k < 8; ++k) any.push_back({{"properties", {{"p" + std::to_string(i * 8 + k), true}}}});
    all.push_back({{"anyOf", any}});
  }
  request.text.schema = {{"allOf", all}};
  CHECK(too_complex(request).starts_with("schema.allOf"));
  Json defs = {{"d0", {{"type", "null"}}}};
  for (int i = 1; i < 20; ++i) {
    const Json ref = {{"$ref", "#/$defs/d" + std::to_string(i - 1)}};
    defs["d" + std::to_string(i)] = {{"allOf", Json::array({ref, ref})}};
  }
  request.text.schema = {{"$defs", defs}, {"$ref", "#/$defs/d19"}};
  CHECK(too_complex(request).starts_with("schema"));
  // Many expressions that are each small enough.
  request.text.schema = {{"type", "object"}, {"properties", Json::object()}};
  for (int i = 0; i < 2000; ++i) {
    request.text.schema["properties"]["p" + std::to_string(i)] = {
        {"pattern", "^(a" + std::to_string(i) + "){1,9000}$"}};
  }
  CHECK(too_complex(request).starts_with("schema.properties.p"));
  // Many places that each lead to many schemas.
  Json wide = Json::object();
  for (int i = 0; i < 1500; ++i) wide["m" + std::to_string(i)] = true;
  Json many = Json::array();
  for (int i = 0; i < 3000; ++i) many.push_back({{"$ref", "#/$defs/wide"}});
  request.text.schema = {{"$defs", {{"wide", {{"properties", wide}}}}}, {"allOf", many}};
  CHECK(too_complex(request).starts_with("schema"));
  // References that double, but in a list each: a small grammar of very long texts.
  for (int i = 1; i < 40; ++i) {
    const Json ref = {{"$ref", "#/$defs/d" + std::to_string(i - 1)}};
    defs["d" + std::to_string(i)] = {{"type", "array"}, {"prefixItems", Json::array({ref, ref})}, {"minItems", 2}};
  }
  request.text.schema = {{"$defs", defs}, {"$ref", "#/$defs/d39"}};
  const auto g = made(Grammar::compile(request, small_trie()));
  GrammarMatcher matcher(g);
  CHECK(matcher.accept_bytes(std::string(39, '[') + "null"));
  CHECK(!matcher.can_end());
}

TEST_CASE("grammar limits: hard grammars take bounded work and still never get stuck") {
  GrammarLimits limits;
  limits.walk_steps = 20'000;
  limits.cache_bytes = 4 << 20;
  std::string ambiguous = R"({"$ref":"#/$defs/n","$defs":{"n":{"anyOf":[{"type":"null"})";
  for (int i = 0; i < 6; ++i) {
    ambiguous +=
        R"(,{"type":"array","prefixItems":[{"$ref":"#/$defs/n"},{"const":)" + std::to_string(i) + R"(}],"minItems":2})";
  }
  ambiguous += "]}}}";
  const GrammarRequest requests[] = {
      regex_request("(.{0,100}){0,60}x"),
      regex_request("(a|b|ab|ba|aa)*(a|b|[^c]|(ab)*)*z"),
      regex_request("((a?){50}){20}"),
      schema_request(ambiguous),
      schema_request(R"({"type":"string","pattern":"(.*a.*b){1,30}","maxLength":40})"),
  };
  for (const GrammarRequest& request : requests) {
    const auto g = made(Grammar::compile(request, small_trie(), limits));
    GrammarMatcher matcher(g);
    std::vector<uint32_t> mask(g->trie().mask_words());
    std::mt19937 random(3);
    for (int step = 0; step < 150; ++step) {
      matcher.fill_mask(mask);
      std::vector<TokenId> ids;
      for (TokenId id = 0; id < static_cast<TokenId>(g->trie().vocabulary()); ++id) {
        if (allowed(mask, id)) ids.push_back(id);
      }
      REQUIRE(!ids.empty());
      const TokenId pick = ids[random() % ids.size()];
      REQUIRE(matcher.accept(pick));
      if (matcher.finished()) matcher.reset();
      CHECK(g->counters().bytes < limits.cache_bytes + (48u << 20));
    }
  }
}

TEST_CASE("grammar limits: masks do not depend on what is remembered") {
  GrammarLimits tiny;
  tiny.cache_bytes = 64 << 10;
  GrammarRequest request;
  request.text.kind = TextConstraint::kJsonObject;
  const auto forgetful = made(Grammar::compile(request, small_trie(), tiny));
  const auto fresh = made(Grammar::compile(request, small_trie()));
  std::mt19937 random(5);
  std::vector<uint32_t> a(fresh->trie().mask_words()), b(a.size());
  std::vector<GrammarMatcher> others;  // positions that must survive
  std::vector<std::vector<uint32_t>> masks;
  GrammarMatcher one(forgetful), two(fresh);
  for (int step = 0; step < 6000; ++step) {
    one.fill_mask(a);
    two.fill_mask(b);
    REQUIRE(a == b);
    if (step % 700 == 3) {
      others.push_back(one);
      masks.push_back(a);
    }
    std::vector<TokenId> ids;
    for (TokenId id = 0; id < static_cast<TokenId>(fresh->trie().vocabulary()); ++id) {
      if (id != kTestEos && allowed(a, id)) ids.push_back(id);
    }
    if (ids.empty()) {
      one.reset();
      two.reset();
      continue;
    }
    const TokenId pick = ids[random() % ids.size()];
    REQUIRE(one.accept(pick));
    REQUIRE(two.accept(pick));
  }
  CHECK(forgetful->counters().flushes > 0);
  CHECK(fresh->counters().flushes == 0);
  for (size_t i = 0; i < others.size(); ++i) {
    others[i].fill_mask(a);
    CHECK(a == masks[i]);
  }
}

TEST_CASE("grammar limits: threads share a grammar") {
  GrammarLimits small;
  small.cache_bytes = 256 << 10;
  GrammarRequest request;
  request.text.kind = TextConstraint::kJsonObject;
  const auto g = made(Grammar::compile(request, small_trie(), small));
  std::vector<std::string> texts[4];
  std::vector<std::thread> threads;
  for (auto& mine : texts) {
    threads.emplace_back([&mine, g] {
      for (uint32_t seed = 0; seed < 20; ++seed) mine.push_back(random_walk(g, seed));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& others : texts) CHECK(others == texts[0]);
}

TEST_CASE("grammar limits: the quick way to a mask is the slow one's") {
  // Held against single acceptance of every token, on V4's own vocabulary, inside nested values.
  GrammarRequest request;
  request.text.kind = TextConstraint::kJsonObject;
  const auto g = made(Grammar::compile(request, v4_trie()));
  std::vector<uint32_t> mask(g->trie().mask_words());
  for (const char* prefix :
       {"", "{", "{\"a", "{\"a\":", "{\"a\":[{\"b\":\"", "{\"a\":[[1", "{\"a\":[[{\"x\":tr", "{\"\xe4\xb8"}) {
    CAPTURE(std::string(prefix));
    GrammarMatcher matcher(g);
    REQUIRE(matcher.accept_bytes(prefix));
    matcher.fill_mask(mask);
    GrammarMatcher probe(matcher);
    size_t wrong = 0;
    for (TokenId id = 0; id < static_cast<TokenId>(g->trie().vocabulary()); ++id) {
      const bool taken = probe.accept(id);
      if (taken) probe = matcher;
      wrong += taken != allowed(mask, id) ? 1 : 0;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("token tree: every token once, twins, bytes") {
  const TokenTrie& trie = *v4_trie();
  CHECK(trie.vocabulary() == 129280);
  CHECK(trie.spells_all_bytes());
  CHECK(trie.twins().empty());
  size_t tokens = 0;
  for (const TokenTrie::Node& node : trie.nodes()) tokens += node.token >= 0 ? 1 : 0;
  CHECK(tokens == 127'997);  // 128,000 without the three control tokens among them
  CHECK(trie.bytes_of(128825) == "");
  const std::string bytes[] = {"a", "ab", "a", "", "b", "end"};
  const TokenId end[] = {5};
  const TokenTrie small = TokenTrie::build(bytes, end);
  CHECK(small.nodes().size() == 3);
  CHECK(small.twins().size() == 1);
  CHECK(small.bytes_of(5) == "");
  CHECK(!small.spells_all_bytes());
  GrammarRequest any;
  CHECK(Grammar::compile(any, std::make_shared<const TokenTrie>(small)).status().code() == Code::kUnsupported);
}

}  // namespace
}  // namespace nautile
