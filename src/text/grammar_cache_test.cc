#include "text/grammar_cache.h"

#include "text/grammar_for_test.h"

namespace nautile {
namespace {

TEST_CASE("grammar cache: by owner and by request, bounded in bytes") {
  GrammarCache cache(300'000);
  const GrammarRequest one = regex_request("a+"), other = regex_request("b+");
  const auto first = made(cache.get("k1", one, small_trie()));
  CHECK(made(cache.get("k1", one, small_trie())) == first);
  CHECK(made(cache.get("k2", one, small_trie())) != first);
  CHECK(made(cache.get("k1", other, small_trie())) != first);
  CHECK(cache.size() == 3);
  CHECK(!cache.get("k1", regex_request("("), small_trie()).ok());
  CHECK(cache.size() == 3);
  for (int i = 0; i < 200; ++i) (void)cache.get("k1", regex_request("a{" + std::to_string(i) + "}x"), small_trie());
  CHECK(cache.size() > 1);
  CHECK(cache.size() < 150);
  CHECK(accepts(first, "aa"));  // whoever holds one keeps it

  GrammarRequest a = schema_request(R"({"type":"null"})"), b = a;
  CHECK(grammar_key(a) == grammar_key(b));
  b.text.lenient = true;
  CHECK(grammar_key(a) != grammar_key(b));
  b = a;
  b.text.choices = {"x"};
  CHECK(grammar_key(a) != grammar_key(b));
  Json deep = nullptr;
  for (int i = 0; i < 1000; ++i) deep = Json::array({std::move(deep)});
  a.text.schema = {{"enum", deep}};
  CHECK(!cache.get("k1", a, small_trie()).ok());
}

}  // namespace
}  // namespace nautile
