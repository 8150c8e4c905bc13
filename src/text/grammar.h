// Structured output: what a generation may say, as a mask of allowed tokens at every step.
//
//   request ── Grammar::compile ──> Grammar (shared, any thread) ──> GrammarMatcher: fill_mask, sample, accept, ...
//
// Compile away from the engine thread; it is bounded by GrammarLimits. Start a matcher where the constraint starts:
// with the content, that is behind </think>. Every allowed token leads to a place from which the text can be finished,
// as long as the token budget lasts, and there is always one (end tokens count). Control tokens are allowed only where
// the grammar asks for them (｜DSML｜), end tokens only where the text may end.
//
// Thread-safety: a Grammar may be shared by matchers of any threads; it remembers what it has worked out behind a lock.
// A matcher belongs to one thread. Source: spec api.md 10, 11; docs/design/text.md.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/grammar_dsml.h"
#include "text/grammar_machine.h"
#include "text/grammar_nfa.h"
#include "text/token_trie.h"

namespace nautile {

// What the visible text must be.
struct TextConstraint {
  enum Kind { kNone, kJsonObject, kJsonSchema, kRegex, kChoice, kGbnf } kind = kNone;
  Json schema{};                            // of kJsonSchema
  std::string place = "schema";             // where it stands in the request, for messages
  bool lenient = false;                     // ignore keywords that are not supported (strict: false)
  std::string pattern{};                    // of kRegex and kGbnf; the whole text must match
  std::vector<std::string> choices{};       // of kChoice
  std::optional<std::string> whitespace{};  // expression for what may stand between JSON tokens
};

struct GrammarRequest {
  TextConstraint text;
  // With tool_choice auto the text comes first and may be followed by a block of calls (with a constraint on the text:
  // it or a block); required and named leave only a block; none, or no tools, only text.
  std::optional<ToolConstraint> tools;
};

// Whether the request's schemas are small and shallow enough to be looked at; the first thing compile() asks. Errors as
// those of compile().
Status check_grammar_size(const GrammarRequest& request, const GrammarLimits& limits);

class Grammar {
 public:
  // Errors are kInvalidArgument; where() is the place in the request, what() begins with "schema_too_complex: " or
  // "invalid_schema: ". kUnsupported for a vocabulary that cannot spell every byte.
  static Result<std::shared_ptr<const Grammar>> compile(const GrammarRequest& request,
                                                        std::shared_ptr<const TokenTrie> trie,
                                                        const GrammarLimits& limits = {});
  Grammar(const Grammar&) = delete;

  // Keywords that were ignored, by path (lenient only).
  const std::vector<std::string>& ignored() const { return ignored_; }
  const TokenTrie& trie() const { return *trie_; }
  // Memory held now; at most the Program and GrammarLimits::cache_bytes.
  size_t bytes() const;
  size_t states() const { return program_.states.size() - 1; }
  grammar::Machine::Counters counters() const;

 private:
  friend class GrammarMatcher;
  Grammar(grammar::Program program, std::shared_ptr<const TokenTrie> trie, const GrammarLimits& limits);

  grammar::Program program_;
  std::shared_ptr<const TokenTrie> trie_;
  std::vector<std::string> ignored_;
  mutable std::mutex lock_;
  mutable grammar::Machine machine_;
};

// One generation's position. Copies are cheap (a few words and a lock): copy to try drafted tokens and drop the copy.
class GrammarMatcher {
 public:
  explicit GrammarMatcher(std::shared_ptr<const Grammar> grammar);
  GrammarMatcher(const GrammarMatcher& other);
  GrammarMatcher(GrammarMatcher&& other) noexcept;
  GrammarMatcher& operator=(GrammarMatcher other) noexcept;
  ~GrammarMatcher();

  // False, and nothing changes, if the token is not allowed here. After an end token nothing is.
  bool accept(TokenId id);
  bool accept_bytes(std::string_view bytes);
  // bits: one a token, 32 a word, lowest bit first, as Sampler takes it; ids beyond the vocabulary are cleared.
  // Microseconds where the state has been seen before.
  void fill_mask(std::span<uint32_t> bits);
  bool can_end() const;
  // An end token has been accepted.
  bool finished() const { return finished_; }
  // Text that is the only way on, at most `limit` bytes: it can be appended without asking the model.
  std::string forced_bytes(size_t limit = 256);
  void reset();
  const Grammar& grammar() const { return *grammar_; }

 private:
  std::shared_ptr<const Grammar> grammar_;  // null once moved from
  uint32_t cell_ = 0;
  bool finished_ = false;
};

}  // namespace nautile
