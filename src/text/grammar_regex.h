// Regular expressions for grammars: the subset that needs no backtracking, over code points.
//
// Literals, ".", classes, \d \w \s and their complements (ASCII, as in RE2), groups, alternation, * + ? {m,n} (lazy
// spellings mean the same), ^ and $ anywhere. No back-references, look-around, flags or \p: kInvalidArgument, naming
// the byte. A Pattern becomes states of a Builder through TextEncoder, as raw UTF-8 or as the inside of a JSON string.
// Thread-safety: values; an encoder belongs to one thread. Source: spec api.md 10.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/grammar_nfa.h"

namespace nautile::grammar {

// Code points, as sorted ranges that do not touch; surrogates are never among them.
class CharSet {
 public:
  CharSet() = default;
  CharSet(uint32_t lo, uint32_t hi) : ranges_{{lo, hi}} { normalise(); }
  static CharSet all() { return {0, 0x10ffff}; }
  void add(uint32_t lo, uint32_t hi) { ranges_.push_back({lo, hi}); }
  void add(const CharSet& other) { ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end()); }
  void normalise();  // after add()
  CharSet complement() const;
  CharSet intersection(const CharSet& other) const;
  bool empty() const { return ranges_.empty(); }
  bool has(uint32_t code_point) const;
  const std::vector<std::pair<uint32_t, uint32_t>>& ranges() const { return ranges_; }
  auto operator<=>(const CharSet&) const = default;

 private:
  std::vector<std::pair<uint32_t, uint32_t>> ranges_;
};

class Pattern {
 public:
  // anchored: the whole text must match; else any part of it (as JSON Schema's `pattern`). kInvalidArgument also beyond
  // the limits.
  static Result<Pattern> parse(std::string_view expression, bool anchored, const GrammarLimits& limits);
  size_t states() const { return first_.size(); }

 private:
  friend class PatternParser;
  friend class TextEncoder;
  struct Edge {
    enum Kind : uint8_t { kChars, kEmpty, kBegin, kEnd } kind;
    uint32_t set;  // of kChars
    uint32_t target;
    uint32_t next;  // of the same state, 0 for none
  };
  uint32_t state();
  void edge(uint32_t from, Edge::Kind kind, uint32_t set, uint32_t to);

  std::vector<uint32_t> first_;  // [states]
  std::vector<Edge> edges_ = std::vector<Edge>(1);
  std::vector<CharSet> sets_;
  uint32_t begin_ = 0, end_ = 0;
};

enum class TextForm { kRaw, kJson };

struct TextLength {
  uint64_t min = 0, max = kAny;  // code points
  static constexpr uint64_t kAny = ~uint64_t{0};
};

class TextEncoder {
 public:
  // `builder` must outlive the encoder.
  TextEncoder(Builder& builder, TextForm form) : builder_(builder), form_(form) {}
  // One code point of the set.
  void chars(StateId from, const CharSet& set, StateId to);
  // The texts that all patterns match and that are as long as asked. Stops at the builder's limit.
  void texts(StateId from, const std::vector<const Pattern*>& patterns, TextLength length, StateId to);
  // Any text of the alphabet but the listed ones. Without "\uXXXX" in JSON, so that a text has one spelling.
  void other_texts(StateId from, std::vector<std::string> listed, const CharSet& alphabet, StateId to);

 private:
  // How one code point of a set is written: small sets in place, others by a rule.
  struct Symbol {
    CharSet small;
    std::optional<RuleId> rule;
  };
  Symbol symbol(const CharSet& set);
  void write(StateId from, const Symbol& symbol, StateId to);
  void spell(StateId from, const CharSet& set, StateId to);

  Builder& builder_;
  const TextForm form_;
  std::map<CharSet, RuleId> rules_;
};

// The text as it stands inside a JSON string's quotes.
std::string json_escaped(std::string_view text);

}  // namespace nautile::grammar
