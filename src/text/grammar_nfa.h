// What every grammar compiles to: a set of rules, each a nondeterministic automaton over bytes, that may call each
// other.
//
// Builder makes states and edges; finish() turns them into a Program in which every state can still reach the end:
// rules that match nothing, and the edges into them, are gone, so that a walk never gets stuck. Nothing here is
// recursive, and states are counted against a limit. Thread-safety: a Builder belongs to one thread; a Program is
// immutable. Source: spec api.md 10.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/bpe.h"

namespace nautile {

// What one grammar may cost. Work is counted in steps, not in time, so that the outcome never depends on the machine.
struct GrammarLimits {
  size_t states = 200'000;
  size_t schema_bytes = 256 << 10;  // of a schema's text
  size_t pattern_bytes = 16 << 10;  // of one regular expression
  int schema_depth = 64;
  size_t enum_values = 10'000;
  size_t merge_steps = 1'000'000;   // keywords read, once for every alternative and reference that leads to them
  size_t alternatives = 4096;       // that anyOf inside allOf may multiply to
  int nesting = 64;                 // of what is generated
  size_t cache_bytes = 48 << 20;    // of states and masks worked out while generating
  uint64_t walk_steps = 4'000'000;  // for one mask
};

namespace grammar {

using StateId = uint32_t;
using RuleId = uint32_t;

enum class EdgeKind : uint8_t {
  kBytes,    // one byte in lo..hi
  kEmpty,    // nothing
  kCall,     // whatever the rule `arg` matches
  kToken,    // the control token `arg`
  kMark,     // nothing, once for each bit `arg` and call of the rule it stands in
  kRequire,  // nothing, if all bits of masks[arg] are marked
};

// A piece of an automaton: from one state to another.
struct Piece {
  StateId begin, end;
};

struct Program {
  struct ByteEdge {
    uint8_t first, last;  // classes of bytes
    StateId target;
  };
  struct Move {
    EdgeKind kind;
    bool tail;       // a call after which the caller has nothing left to do
    uint8_t weight;  // of a call: 1 if it may come back to the calling rule, and so nests
    uint32_t arg;    // first state of the called rule, bit, or index of a mask
    StateId target;
  };
  struct TokenEdge {
    TokenId id;
    StateId target;
  };
  struct State {
    uint32_t bytes, moves, tokens;  // where its edges begin; they end where those of the next state begin
    uint16_t height;                // nesting that is still needed to get to the end of the rule
    bool accept;                    // the end of its rule
  };
  std::vector<State> states;  // one more than there are
  std::vector<ByteEdge> byte_edges;
  std::vector<Move> moves;
  std::vector<TokenEdge> token_edges;
  std::vector<uint64_t> masks;
  StateId start = 0;
  uint8_t class_of[256] = {};
  uint8_t byte_of[256] = {};  // one byte of each class
  int classes = 0;
  int nesting = 0;
  int max_height = 0;

  size_t bytes() const;
};

inline constexpr uint16_t kNoHeight = 0xffff;  // the end cannot be reached

class Builder {
 public:
  explicit Builder(size_t max_states) : max_states_(max_states) {}

  // Set once a limit is passed: from then on nothing is added, and whoever loops should stop.
  bool exhausted() const { return exhausted_; }
  size_t size() const { return first_.size(); }

  StateId state();
  Piece piece() { return {state(), state()}; }
  void bytes(StateId from, uint8_t lo, uint8_t hi, StateId to) { add(from, {EdgeKind::kBytes, lo, hi, 0, to, 0}); }
  void empty(StateId from, StateId to) { add(from, {EdgeKind::kEmpty, 0, 0, 0, to, 0}); }
  void call(StateId from, RuleId rule, StateId to) { add(from, {EdgeKind::kCall, 0, 0, rule, to, 0}); }
  void token(StateId from, TokenId id, StateId to) {
    add(from, {EdgeKind::kToken, 0, 0, static_cast<uint32_t>(id), to, 0});
  }
  void mark(StateId from, uint32_t bit, StateId to) { add(from, {EdgeKind::kMark, 0, 0, bit, to, 0}); }
  // `behind`: the first states of what the marks that are asked for lead into (rules of their own); if one of these can
  // match nothing, this can never be passed.
  void require(StateId from, uint64_t mask, std::vector<StateId> behind, StateId to);
  // Spells the text; returns the state behind it.
  StateId literal(StateId from, std::string_view text);
  void literal(StateId from, std::string_view text, StateId to);
  // One of the texts, which share their prefixes.
  void literals(StateId from, std::vector<std::string> texts, StateId to);

  // A rule has its two states from the start, so that others may call it before it is filled.
  RuleId rule();
  Piece of(RuleId rule) const { return rules_[rule]; }

  // `nesting`: how deep what is generated may nest. kInvalidArgument if the root matches nothing, or only what nests
  // deeper, if a rule calls itself before it has consumed anything, or if the builder is exhausted().
  Result<Program> finish(RuleId root, int nesting);

 private:
  struct Edge {
    EdgeKind kind;
    uint8_t lo, hi;
    uint32_t arg;
    StateId target;
    uint32_t next;  // edge of the same state, 0 for none
  };
  struct Analysis;
  void add(StateId from, Edge edge);

  size_t max_states_;
  bool exhausted_ = false;
  std::vector<uint32_t> first_, last_;  // [states] of the state's list of edges
  std::vector<Edge> edges_ = std::vector<Edge>(1);
  std::vector<Piece> rules_;
  std::vector<uint64_t> masks_;
  std::vector<std::vector<StateId>> behind_;  // [masks]
};

}  // namespace grammar
}  // namespace nautile
