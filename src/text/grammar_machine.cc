#include "text/grammar_machine.h"

#include <algorithm>
#include <cstring>

namespace nautile::grammar {
namespace {

uint32_t mix(uint64_t value) {
  value ^= value >> 33;
  value *= 0xff51afd7ed558ccdULL;
  value ^= value >> 33;
  value *= 0xc4ceb9fe1a85ec53ULL;
  return static_cast<uint32_t>(value ^ (value >> 33));
}

void set_bit(std::vector<uint32_t>& bits, TokenId id) {
  bits[static_cast<size_t>(id) / 32] |= 1u << (id % 32);
}

}  // namespace

Machine::Machine(const Program& program, const TokenTrie& trie, const GrammarLimits& limits)
    : program_(program), trie_(trie), limits_(limits) {
  const size_t mask_bytes = std::max<size_t>(1, trie.mask_words() * sizeof(uint32_t));
  max_slots_ = std::max<size_t>(2 * kMaxGroups, limits.cache_bytes / 3 / mask_bytes);
  way_.resize(trie.max_depth() + 1);
  bits_.resize(trie.mask_words());
  group_bits_.resize(trie.mask_words());
  seen_.assign(64, kUnknown);
  clear();
}

void Machine::clear() {
  stacks_.clear();
  states_.clear();
  configs_.clear();
  rows_.clear();
  stamps_.clear();
  stack_table_.assign(64, kUnknown);
  state_table_.assign(64, kUnknown);
  stacks_.push_back({0, kBottom, 0, 0});
  // Masks of an open stack are for the upper half of the allowed depth; see mask_by_groups.
  stacks_.push_back({0, kOpen, 0, static_cast<uint32_t>(program_.nesting) / 2});
  for (Slot& slot : slots_) slot.owner = kFree;
  next_slot_ = 0;
  start_ = kUnknown;
}

// ---- sets of configurations

uint32_t Machine::find_stack(const Stack& stack) {
  if (2 * stacks_.size() > stack_table_.size()) {
    stack_table_.assign(2 * stack_table_.size(), kUnknown);
    for (uint32_t i = 2; i < stacks_.size(); ++i) {
      const Stack& other = stacks_[i];
      uint32_t at = mix((uint64_t{other.ret} << 32 | other.parent) ^ other.marks * 0x9e3779b97f4a7c15ULL);
      while (stack_table_[at & (stack_table_.size() - 1)] != kUnknown) ++at;
      stack_table_[at & (stack_table_.size() - 1)] = i;
    }
  }
  uint32_t at = mix((uint64_t{stack.ret} << 32 | stack.parent) ^ stack.marks * 0x9e3779b97f4a7c15ULL);
  for (;; ++at) {
    uint32_t& entry = stack_table_[at & (stack_table_.size() - 1)];
    if (entry == kUnknown) {
      entry = static_cast<uint32_t>(stacks_.size());
      stacks_.push_back(stack);
      return entry;
    }
    const Stack& other = stacks_[entry];
    if (other.ret == stack.ret && other.parent == stack.parent && other.marks == stack.marks) return entry;
  }
}

uint32_t Machine::push(StateId ret, uint32_t parent, uint64_t marks, uint32_t depth) {
  return find_stack({ret, parent, marks, depth});
}

void Machine::begin_set() {
  set_.clear();
  kept_.clear();
  for (const uint32_t at : seen_filled_) seen_[at] = kUnknown;
  seen_filled_.clear();
  accept_ = escapes_ = false;
}

void Machine::add(StateId state, uint32_t stack) {
  const uint16_t height = program_.states[state].height;
  if (height == kNoHeight || stacks_[stack].depth + height > static_cast<uint32_t>(program_.nesting)) return;
  if (set_.size() >= kMaxClosure) return;
  if (2 * (set_.size() + 1) > seen_.size()) {
    seen_.assign(2 * seen_.size(), kUnknown);
    seen_filled_.clear();
    for (uint32_t i = 0; i < set_.size(); ++i) {
      uint32_t at = mix(uint64_t{set_[i].state} << 32 | set_[i].stack);
      while (seen_[at & (seen_.size() - 1)] != kUnknown) ++at;
      seen_[at & (seen_.size() - 1)] = i;
      seen_filled_.push_back(at & static_cast<uint32_t>(seen_.size() - 1));
    }
  }
  uint32_t at = mix(uint64_t{state} << 32 | stack) & static_cast<uint32_t>(seen_.size() - 1);
  while (seen_[at] != kUnknown) {
    if (set_[seen_[at]] == Config{state, stack}) return;
    at = (at + 1) & static_cast<uint32_t>(seen_.size() - 1);
  }
  seen_[at] = static_cast<uint32_t>(set_.size());
  seen_filled_.push_back(at);
  set_.push_back({state, stack});
}

// Follows everything that consumes nothing; keeps the configurations that can consume.
uint32_t Machine::close_set() {
  for (size_t i = 0; i < set_.size(); ++i) {
    const Config config = set_[i];
    const Program::State& state = program_.states[config.state];
    const Program::State& next = program_.states[config.state + 1];
    if (state.accept) {
      if (config.stack == kBottom) {
        accept_ = true;
      } else if (config.stack == kOpen) {
        escapes_ = true;
      } else {
        const Stack& top = stacks_[config.stack];
        add(top.ret, top.parent);
      }
    }
    for (uint32_t m = state.moves; m < next.moves; ++m) {
      const Program::Move& move = program_.moves[m];
      switch (move.kind) {
        case EdgeKind::kCall: {
          if (move.tail) {
            add(move.arg, config.stack);
            break;
          }
          const uint32_t depth = stacks_[config.stack].depth + move.weight;
          const uint32_t inner = program_.states[move.arg].height, rest = program_.states[move.target].height;
          if (depth + inner > static_cast<uint32_t>(program_.nesting) ||
              stacks_[config.stack].depth + rest > static_cast<uint32_t>(program_.nesting)) {
            break;
          }
          add(move.arg, push(move.target, config.stack, 0, depth));
          break;
        }
        case EdgeKind::kMark: {
          const Stack top = stacks_[config.stack];
          if (config.stack == kOpen) {
            escapes_ = true;
          } else if (config.stack != kBottom && !(top.marks >> move.arg & 1)) {
            add(move.target, push(top.ret, top.parent, top.marks | uint64_t{1} << move.arg, top.depth));
          }
          break;
        }
        case EdgeKind::kRequire: {
          const uint64_t mask = program_.masks[move.arg];
          if (config.stack == kOpen) {
            escapes_ = true;
          } else if (config.stack != kBottom && (stacks_[config.stack].marks & mask) == mask) {
            add(move.target, config.stack);
          }
          break;
        }
        default:
          add(move.target, config.stack);
      }
    }
    if ((state.bytes < next.bytes || state.tokens < next.tokens) && kept_.size() < kMaxConfigs) kept_.push_back(config);
  }
  if (kept_.empty() && !accept_ && !escapes_) return kDead;
  return intern(kept_, accept_, escapes_);
}

uint32_t Machine::intern(std::span<const Config> configs, bool accept, bool escapes) {
  uint32_t hash = accept ? 0x51u : 0x17u;
  if (escapes) hash ^= 0x9000u;
  for (const Config& config : configs) {
    hash = mix((uint64_t{config.state} << 32 | config.stack) + uint64_t{hash} * 0x9e3779b97f4a7c15ULL);
  }
  if (2 * states_.size() >= state_table_.size()) {
    state_table_.assign(2 * state_table_.size(), kUnknown);
    for (uint32_t i = 0; i < states_.size(); ++i) {
      uint32_t at = states_[i].hash;
      while (state_table_[at & (state_table_.size() - 1)] != kUnknown) ++at;
      state_table_[at & (state_table_.size() - 1)] = i;
    }
  }
  for (uint32_t at = hash;; ++at) {
    uint32_t& entry = state_table_[at & (state_table_.size() - 1)];
    if (entry == kUnknown) {
      entry = static_cast<uint32_t>(states_.size());
      states_.push_back(
          {static_cast<uint32_t>(configs_.size()), static_cast<uint32_t>(configs.size()), hash, -1, accept, escapes});
      configs_.insert(configs_.end(), configs.begin(), configs.end());
      rows_.resize(rows_.size() + static_cast<size_t>(program_.classes), kUnknown);
      stamps_.push_back(0);
      return static_cast<uint32_t>(states_.size() - 1);
    }
    const DState& other = states_[entry];
    if (other.hash == hash && other.accept == accept && other.escapes == escapes && other.count == configs.size() &&
        std::equal(configs.begin(), configs.end(), configs_.begin() + other.configs)) {
      return entry;
    }
  }
}

uint32_t Machine::step(uint32_t from, int byte_class) {
  const size_t at = size_t{from} * static_cast<size_t>(program_.classes) + static_cast<size_t>(byte_class);
  if (rows_[at] != kUnknown) return rows_[at];
  begin_set();
  const uint32_t begin = states_[from].configs, end = begin + states_[from].count;
  for (uint32_t c = begin; c < end; ++c) {
    const Config config = configs_[c];
    const uint32_t last = program_.states[config.state + 1].bytes;
    for (uint32_t e = program_.states[config.state].bytes; e < last; ++e) {
      const Program::ByteEdge& edge = program_.byte_edges[e];
      if (edge.first <= byte_class && byte_class <= edge.last) add(edge.target, config.stack);
    }
  }
  const uint32_t to = close_set();
  rows_[at] = to;
  return to;
}

uint32_t Machine::token_step(uint32_t from, TokenId id) {
  begin_set();
  const uint32_t begin = states_[from].configs, end = begin + states_[from].count;
  for (uint32_t c = begin; c < end; ++c) {
    const Config config = configs_[c];
    const uint32_t last = program_.states[config.state + 1].tokens;
    for (uint32_t e = program_.states[config.state].tokens; e < last; ++e) {
      if (program_.token_edges[e].id == id) add(program_.token_edges[e].target, config.stack);
    }
  }
  return close_set();
}

uint32_t Machine::start_state() {
  if (start_ == kUnknown) {
    begin_set();
    add(program_.start, kBottom);
    start_ = close_set();
  }
  return start_;
}

// ---- cells

uint32_t Machine::open_cell() {
  const uint32_t start = start_state();
  const auto free = std::find(cells_.begin(), cells_.end(), kFree);
  if (free != cells_.end()) {
    *free = start;
    return static_cast<uint32_t>(free - cells_.begin());
  }
  cells_.push_back(start);
  return static_cast<uint32_t>(cells_.size() - 1);
}

void Machine::close_cell(uint32_t cell) {
  cells_[cell] = kFree;
}

void Machine::reset_cell(uint32_t cell) {
  cells_[cell] = start_state();
}

void Machine::copy_cell(uint32_t from, uint32_t to) {
  cells_[to] = cells_[from];
}

bool Machine::accept_bytes(uint32_t cell, std::string_view bytes) {
  flush_if_large();
  uint32_t state = cells_[cell];
  for (const char c : bytes) {
    state = step(state, program_.class_of[static_cast<uint8_t>(c)]);
    if (state == kDead) return false;
  }
  cells_[cell] = state;
  return true;
}

bool Machine::accept_token(uint32_t cell, TokenId id) {
  if (!trie_.has(id)) return false;
  const std::string_view bytes = trie_.bytes_of(id);
  if (!bytes.empty()) return accept_bytes(cell, bytes);
  flush_if_large();
  const uint32_t state = token_step(cells_[cell], id);
  if (state == kDead) return false;
  cells_[cell] = state;
  return true;
}

std::string Machine::forced(uint32_t cell, size_t limit) {
  flush_if_large();
  std::string out;
  uint32_t state = cells_[cell];
  while (out.size() < limit && !states_[state].accept) {
    uint32_t only = kDead;
    int bytes = 0;
    const uint32_t begin = states_[state].configs, end = begin + states_[state].count;
    uint8_t byte = 0;
    for (uint32_t c = begin; c < end && bytes <= 1; ++c) {
      const StateId s = configs_[c].state;
      if (program_.states[s].tokens < program_.states[s + 1].tokens) bytes = 2;
      for (uint32_t e = program_.states[s].bytes; e < program_.states[s + 1].bytes && bytes <= 1; ++e) {
        const Program::ByteEdge& edge = program_.byte_edges[e];
        const int first = program_.byte_of[edge.first];
        const bool single =
            edge.first == edge.last &&
            (edge.first + 1 < program_.classes ? program_.byte_of[edge.first + 1] == first + 1 : first == 255);
        if (!single || (bytes == 1 && first != byte)) {
          bytes = 2;
        } else {
          byte = static_cast<uint8_t>(first);
          bytes = 1;
        }
      }
    }
    if (bytes != 1) break;
    only = step(state, program_.class_of[byte]);
    if (only == kDead) break;
    out += static_cast<char>(byte);
    state = only;
  }
  return out;
}

// ---- memory

Machine::Counters Machine::counters() const {
  size_t masks = 0, bytes = 0;
  for (const Slot& slot : slots_) {
    masks += slot.owner != kFree ? 1 : 0;
    bytes += slot.bits.capacity() * 4 + slot.escapes.capacity() * 4;
  }
  bytes += stacks_.capacity() * sizeof(Stack) + stack_table_.capacity() * 4 + states_.capacity() * sizeof(DState) +
           state_table_.capacity() * 4 + configs_.capacity() * sizeof(Config) + rows_.capacity() * 4 +
           stamps_.capacity() * 4;
  return {states_.size(), stacks_.size(), masks, bytes, flushes_, walked_nodes_};
}

// Keeps only the positions that cells hold.
void Machine::flush_if_large() {
  const size_t used = stacks_.size() * (sizeof(Stack) + 8) + configs_.size() * sizeof(Config) + rows_.size() * 4 +
                      states_.size() * (sizeof(DState) + 12);
  if (used <= limits_.cache_bytes / 2) return;
  ++flushes_;
  const std::vector<Stack> stacks = std::move(stacks_);
  const std::vector<DState> states = std::move(states_);
  const std::vector<Config> configs = std::move(configs_);
  clear();
  std::vector<uint32_t> moved(stacks.size(), kUnknown);
  moved[kBottom] = kBottom;
  moved[kOpen] = kOpen;
  std::vector<uint32_t> way;
  std::vector<Config> kept;
  for (uint32_t& cell : cells_) {
    if (cell == kFree) continue;
    const DState& old = states[cell];
    kept.assign(configs.begin() + old.configs, configs.begin() + old.configs + old.count);
    for (Config& config : kept) {
      uint32_t at = config.stack;
      for (; moved[at] == kUnknown; at = stacks[at].parent) way.push_back(at);
      for (; !way.empty(); way.pop_back()) {
        Stack stack = stacks[way.back()];
        stack.parent = moved[stack.parent];
        moved[way.back()] = find_stack(stack);
      }
      config.stack = moved[config.stack];
    }
    cell = intern(kept, old.accept, old.escapes);
  }
}

// The mask of `owner`; it stays at least until the next one is stored.
void Machine::store(uint32_t owner, std::span<const uint32_t> bits, std::span<const uint32_t> escapes) {
  if (next_slot_ == slots_.size()) slots_.push_back({kFree, {}, {}});
  const size_t at = next_slot_;
  next_slot_ = (next_slot_ + 1) % max_slots_;
  Slot& slot = slots_[at];
  if (slot.owner != kFree) states_[slot.owner].mask = -1;
  slot_bytes_ -= 4 * (slot.bits.capacity() + slot.escapes.capacity());
  slot.owner = owner;
  slot.bits.assign(bits.begin(), bits.end());
  slot.escapes.assign(escapes.begin(), escapes.end());
  slot_bytes_ += 4 * (slot.bits.capacity() + slot.escapes.capacity());
  states_[owner].mask = static_cast<int32_t>(at);
  if (slot_bytes_ > limits_.cache_bytes / 2) drop_masks(at);
}

void Machine::drop_masks(size_t but) {
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (i == but) continue;
    if (slots_[i].owner != kFree) states_[slots_[i].owner].mask = -1;
    slots_[i] = {kFree, {}, {}};
  }
  slot_bytes_ = 4 * (slots_[but].bits.capacity() + slots_[but].escapes.capacity());
}

// ---- masks

void Machine::charge(uint32_t state, Walk& walk) {
  if (stamps_[state] == walk.stamp) return;
  stamps_[state] = walk.stamp;
  walk.steps += 16 * (states_[state].count + 1);
}

// Marks the tokens of nodes first..last that can follow. `state` is the one before the first node's byte. Past the
// budget only single bytes are tried: every token marked is right, and there is always one.
void Machine::walk_tree(uint32_t first, uint32_t last, uint32_t state, Walk& walk, std::vector<uint32_t>& bits,
                        std::vector<uint32_t>* escapes) {
  const std::span<const TokenTrie::Node> nodes = trie_.nodes();
  const size_t base = first < last ? nodes[first].depth - 1u : 0;
  way_[base] = state;
  for (uint32_t at = first; at < last;) {
    const TokenTrie::Node& node = nodes[at];
    ++walked_nodes_;
    if (node.depth > 1 && walk.steps > limits_.walk_steps) {
      at = node.end;
      continue;
    }
    const uint32_t next = step(way_[node.depth - 1], program_.class_of[node.byte]);
    if (next == kDead) {
      at = node.end;
      continue;
    }
    charge(next, walk);
    const DState& reached = states_[next];
    if (reached.escapes && escapes) escapes->push_back(at);
    if (reached.count == 0 && !reached.accept) {  // it goes on below the open stack at best: not known here
      at = node.end;
      continue;
    }
    if (node.token >= 0) set_bit(bits, node.token);
    way_[node.depth] = next;
    ++at;
  }
}

void Machine::fill_mask(uint32_t cell, std::span<uint32_t> bits) {
  if (states_[cells_[cell]].mask < 0) {
    flush_if_large();
    mask_of(cells_[cell]);
  }
  const Slot& slot = slots_[static_cast<size_t>(states_[cells_[cell]].mask)];
  const size_t words = std::min(bits.size(), slot.bits.size());
  std::copy_n(slot.bits.begin(), words, bits.begin());
  std::fill(bits.begin() + static_cast<std::ptrdiff_t>(words), bits.end(), 0u);
}

void Machine::mask_of(uint32_t state) {
  std::fill(bits_.begin(), bits_.end(), 0u);
  Walk walk{0, ++walk_stamp_};
  if (!mask_by_groups(state, walk)) {
    std::fill(bits_.begin(), bits_.end(), 0u);
    walk = {0, ++walk_stamp_};
    walk_tree(0, static_cast<uint32_t>(trie_.nodes().size()), state, walk, bits_, nullptr);
  }
  for (const auto& [token, twin] : trie_.twins()) {
    if (bits_[static_cast<size_t>(token) / 32] >> (token % 32) & 1) set_bit(bits_, twin);
  }
  const uint32_t begin = states_[state].configs, end = begin + states_[state].count;
  for (uint32_t c = begin; c < end; ++c) {
    const StateId s = configs_[c].state;
    for (uint32_t e = program_.states[s].tokens; e < program_.states[s + 1].tokens; ++e) {
      if (trie_.has(program_.token_edges[e].id)) set_bit(bits_, program_.token_edges[e].id);
    }
  }
  if (states_[state].accept) {
    for (const TokenId id : trie_.end_tokens()) {
      if (trie_.has(id)) set_bit(bits_, id);
    }
  }
  store(state, bits_, {});
}

// The configurations that share a stack are worked out together, with that stack left open. False where that would not
// be exact, or not pay.
bool Machine::mask_by_groups(uint32_t state, Walk& walk) {
  if (program_.max_height > program_.nesting / 4) return false;
  configs_scratch_.assign(configs_.begin() + states_[state].configs,
                          configs_.begin() + states_[state].configs + states_[state].count);
  uint32_t groups[kMaxGroups];
  size_t count = 0;
  for (const Config& config : configs_scratch_) {
    if (std::find(groups, groups + count, config.stack) != groups + count) continue;
    // An empty stack is itself; a deep one would be cut too late.
    if (config.stack == kBottom || stacks_[config.stack].depth > static_cast<uint32_t>(program_.nesting) / 2 ||
        count == kMaxGroups) {
      return false;
    }
    groups[count++] = config.stack;
  }
  for (size_t g = 0; g < count; ++g) {
    group_.clear();
    for (const Config& config : configs_scratch_) {
      if (config.stack == groups[g]) group_.push_back(config);
    }
    mask_group(group_, walk);
  }
  return std::any_of(bits_.begin(), bits_.end(), [](uint32_t word) { return word != 0; }) || count == 0;
}

void Machine::mask_group(std::span<const Config> group, Walk& walk) {
  const uint32_t real = intern(group, false, false);
  for (Config& config : group_) config.stack = kOpen;
  const uint32_t open = intern(group_, false, false);
  if (states_[open].mask < 0) {
    std::fill(group_bits_.begin(), group_bits_.end(), 0u);
    group_escapes_.clear();
    Walk own{0, ++walk_stamp_};
    walk_tree(0, static_cast<uint32_t>(trie_.nodes().size()), open, own, group_bits_, &group_escapes_);
    store(open, group_bits_, group_escapes_);
  }
  const size_t slot = static_cast<size_t>(states_[open].mask);
  for (size_t i = 0; i < bits_.size(); ++i) bits_[i] |= slots_[slot].bits[i];
  // Where the rule may end: the same bytes with the stack as it is.
  const std::span<const TokenTrie::Node> nodes = trie_.nodes();
  uint32_t done = 0;
  for (const uint32_t node : slots_[slot].escapes) {
    if (node < done) continue;  // inside a subtree that has been walked
    uint32_t leaf = node;
    while (nodes[leaf].token < 0) ++leaf;
    const std::string_view bytes = trie_.bytes_of(nodes[leaf].token);
    uint32_t at = real;
    for (size_t i = 0; i + 1 < nodes[node].depth && at != kDead; ++i) {
      at = step(at, program_.class_of[static_cast<uint8_t>(bytes[i])]);
    }
    if (at != kDead) walk_tree(node, nodes[node].end, at, walk, bits_, nullptr);
    done = nodes[node].end;
  }
}

}  // namespace nautile::grammar
