// Running a grammar's Program: the lazily built deterministic automaton, and the masks of allowed tokens.
//
// A position is a set of configurations (automaton state, stack of calls). Stacks share their tails and are interned,
// so a set of configurations is found again by its numbers and becomes one deterministic state, with its transitions
// filled in as they are walked. A mask is a walk over the token tree. It is worked out with the stack below the current
// rule left open, so that it serves every depth; tokens that reach below are walked again with the real stack.
//
// What is remembered is bounded: when it grows too large, everything but the positions in use (cells) is dropped. No
// answer depends on what was remembered. Thread-safety: none; Grammar holds the lock. Source: spec api.md 10.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/grammar_nfa.h"
#include "text/token_trie.h"

namespace nautile::grammar {

class Machine {
 public:
  // Both must outlive the machine.
  Machine(const Program& program, const TokenTrie& trie, const GrammarLimits& limits);

  // A cell holds the position of one matcher.
  uint32_t open_cell();
  void close_cell(uint32_t cell);
  void reset_cell(uint32_t cell);
  void copy_cell(uint32_t from, uint32_t to);

  // Each leaves the cell as it was, and returns false, where the grammar does not allow it.
  bool accept_token(uint32_t cell, TokenId id);
  bool accept_bytes(uint32_t cell, std::string_view bytes);
  bool may_end(uint32_t cell) const { return states_[cells_[cell]].accept; }
  // bits: one for each token; what lies beyond the vocabulary is cleared.
  void fill_mask(uint32_t cell, std::span<uint32_t> bits);
  // The bytes that must come next, at most `limit` of them.
  std::string forced(uint32_t cell, size_t limit);

  struct Counters {
    size_t states, stacks, masks, bytes;
    uint64_t flushes, walked_nodes;
  };
  Counters counters() const;

 private:
  struct Config {
    StateId state;
    uint32_t stack;
    bool operator==(const Config&) const = default;
  };
  struct Stack {
    StateId ret;  // where the caller goes on
    uint32_t parent;
    uint64_t marks;
    uint32_t depth;
  };
  struct DState {
    uint32_t configs, count;
    uint32_t hash;
    int32_t mask;  // slot, or -1
    bool accept;   // the whole grammar may end here
    bool escapes;  // the rule at the bottom of an open stack may end here
  };
  struct Slot {
    uint32_t owner;
    std::vector<uint32_t> bits;     // [mask_words]
    std::vector<uint32_t> escapes;  // nodes of the tree where the stack below is needed
  };
  static constexpr uint32_t kUnknown = 0xffffffff, kDead = 0xfffffffe, kFree = 0xfffffffd;
  static constexpr uint32_t kBottom = 0, kOpen = 1;  // stacks: empty, and unknown
  static constexpr size_t kMaxConfigs = 4096;        // of one state; more are left out
  static constexpr size_t kMaxClosure = 65536;       // configurations looked at for one state
  static constexpr size_t kMaxGroups = 8;

  void clear();
  void flush_if_large();
  void drop_masks(size_t but);
  uint32_t push(StateId ret, uint32_t parent, uint64_t marks, uint32_t depth);
  uint32_t find_stack(const Stack& stack);
  void begin_set();
  void add(StateId state, uint32_t stack);
  uint32_t close_set();
  uint32_t intern(std::span<const Config> configs, bool accept, bool escapes);
  uint32_t step(uint32_t from, int byte_class);
  uint32_t token_step(uint32_t from, TokenId id);
  uint32_t start_state();

  struct Walk {
    uint64_t steps = 0;
    uint32_t stamp = 0;
  };
  void charge(uint32_t state, Walk& walk);
  void walk_tree(uint32_t first, uint32_t last, uint32_t state, Walk& walk, std::vector<uint32_t>& bits,
                 std::vector<uint32_t>* escapes);
  void mask_of(uint32_t state);
  bool mask_by_groups(uint32_t state, Walk& walk);
  void mask_group(std::span<const Config> group, Walk& walk);
  void store(uint32_t owner, std::span<const uint32_t> bits, std::span<const uint32_t> escapes);

  const Program& program_;
  const TokenTrie& trie_;
  const GrammarLimits limits_;

  std::vector<Stack> stacks_;
  std::vector<uint32_t> stack_table_;  // open addressing, powers of two
  std::vector<DState> states_;
  std::vector<uint32_t> state_table_;
  std::vector<Config> configs_;
  std::vector<uint32_t> rows_;    // [states][classes]
  std::vector<uint32_t> stamps_;  // [states] the last walk that came by
  std::vector<Slot> slots_;
  size_t next_slot_ = 0, max_slots_, slot_bytes_ = 0;
  std::vector<uint32_t> cells_;
  uint32_t start_ = kUnknown;

  // Working memory of one set, one walk.
  std::vector<Config> set_, kept_;
  std::vector<uint32_t> seen_;
  std::vector<uint32_t> seen_filled_;
  bool accept_ = false, escapes_ = false;
  std::vector<uint32_t> way_;
  std::vector<uint32_t> bits_, group_bits_, group_escapes_;
  std::vector<Config> group_, configs_scratch_;
  uint32_t walk_stamp_ = 0;
  uint64_t flushes_ = 0, walked_nodes_ = 0;
};

}  // namespace nautile::grammar
