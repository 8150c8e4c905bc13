// What the tests of grammars share: vocabularies, and texts held against a grammar.
#pragma once

#include <doctest/doctest.h>

#include <random>

#include "text/grammar.h"
#include "text/v4_tokenizer_for_test.h"

namespace nautile {

inline constexpr TokenId kTestEos = 256, kTestDsml = 257;

// The 256 bytes, an end token, ｜DSML｜, and some longer tokens.
inline std::shared_ptr<const TokenTrie> small_trie() {
  static const std::shared_ptr<const TokenTrie> trie = [] {
    std::vector<std::string> bytes;
    for (int byte = 0; byte < 256; ++byte) bytes.push_back(std::string(1, static_cast<char>(byte)));
    bytes.resize(258);
    for (const char* text :
         {"{\"",      "\":",      "\",", "\"}", "[[", "]]", "}}",   "\"]",    "true", "null", "12",   "-1",
          "\xc3\xa9", "\xe4\xb8", "ab",  "abc", "  ", "</", "\n\n", "\": \"", "\": ", ", ",   "\"}\n"}) {
      bytes.push_back(text);
    }
    const TokenId end[] = {kTestEos};
    return std::make_shared<const TokenTrie>(TokenTrie::build(bytes, end));
  }();
  return trie;
}

inline std::shared_ptr<const TokenTrie> v4_trie() {
  static const std::shared_ptr<const TokenTrie> trie = [] {
    const TokenId end[] = {1};
    return std::make_shared<const TokenTrie>(TokenTrie::build(v4_tokenizer(), end));
  }();
  return trie;
}

inline std::shared_ptr<const Grammar> made(Result<std::shared_ptr<const Grammar>> result) {
  REQUIRE_MESSAGE(result.ok(), result.status().message());
  return *result;
}

inline GrammarRequest schema_request(std::string_view schema, bool lenient = false) {
  auto parsed = parse_json(schema, "schema");
  REQUIRE_MESSAGE(parsed.ok(), parsed.status().message());
  GrammarRequest request;
  request.text.kind = TextConstraint::kJsonSchema;
  request.text.schema = *parsed;
  request.text.lenient = lenient;
  return request;
}

inline GrammarRequest regex_request(std::string pattern) {
  GrammarRequest request;
  request.text.kind = TextConstraint::kRegex;
  request.text.pattern = std::move(pattern);
  return request;
}

inline std::shared_ptr<const Grammar> schema_grammar(std::string_view schema) {
  return made(Grammar::compile(schema_request(schema), small_trie()));
}

// Whether the whole text is one the grammar describes.
inline bool accepts(const std::shared_ptr<const Grammar>& grammar, std::string_view text) {
  GrammarMatcher matcher(grammar);
  return matcher.accept_bytes(text) && matcher.can_end();
}

inline bool allowed(std::span<const uint32_t> mask, TokenId id) {
  return mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1;
}

// A walk along random allowed tokens, at last the one that ends; checks on the way that a token is allowed in the mask
// exactly where it is accepted (on some of them), and that there always is one. Shorter tokens and the end are
// preferred after a while. The text, with "|" for ｜DSML｜.
inline std::string random_walk(const std::shared_ptr<const Grammar>& grammar, uint32_t seed, TokenId dsml = kTestDsml,
                               size_t soft_limit = 60, size_t limit = 20000) {
  std::mt19937 random(seed);
  GrammarMatcher matcher(grammar);
  const TokenTrie& trie = grammar->trie();
  std::vector<uint32_t> mask(trie.mask_words());
  std::string text;
  for (size_t step = 0; step < limit; ++step) {
    matcher.fill_mask(mask);
    std::vector<TokenId> ids;
    for (size_t word = 0; word < mask.size(); ++word) {
      for (uint32_t bits = mask[word]; bits != 0; bits &= bits - 1) {
        ids.push_back(static_cast<TokenId>(word * 32 + static_cast<size_t>(__builtin_ctz(bits))));
      }
    }
    REQUIRE_MESSAGE(!ids.empty(), "nothing may follow " << text);
    const TokenId end = trie.end_tokens()[0];
    CHECK(allowed(mask, end) == matcher.can_end());
    for (int probe = 0; probe < 3; ++probe) {
      const auto id = static_cast<TokenId>(random() % trie.vocabulary());
      GrammarMatcher copy(matcher);
      CHECK_MESSAGE(copy.accept(id) == allowed(mask, id), "token " << id << " after " << text);
    }
    TokenId pick = ids[random() % ids.size()];
    if (step > soft_limit) {  // towards the end: what closes
      std::vector<TokenId> closing;
      for (const TokenId id : ids) {
        const std::string_view bytes = trie.bytes_of(id);
        if (id == end || id == dsml || bytes == "\"" || bytes == "}" || bytes == "]" || bytes == "</")
          closing.push_back(id);
      }
      if (!closing.empty()) pick = closing[random() % closing.size()];
      if (random() % 4 == 0) pick = ids[random() % ids.size()];
    }
    if (matcher.can_end() && random() % 4 == 0) pick = end;
    REQUIRE(matcher.accept(pick));
    if (pick == end) return text;
    text += pick == dsml ? "|" : std::string(trie.bytes_of(pick));
  }
  return "(too long)";
}

}  // namespace nautile
