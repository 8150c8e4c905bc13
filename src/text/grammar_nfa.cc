#include "text/grammar_nfa.h"

#include <algorithm>
#include <limits>

namespace nautile::grammar {

size_t Program::bytes() const {
  return states.size() * sizeof(State) + byte_edges.size() * sizeof(ByteEdge) + moves.size() * sizeof(Move) +
         token_edges.size() * sizeof(TokenEdge) + masks.size() * sizeof(uint64_t);
}

StateId Builder::state() {
  if (first_.size() >= max_states_) {
    exhausted_ = true;
    if (!first_.empty()) return 0;
  }
  first_.push_back(0);
  last_.push_back(0);
  return static_cast<StateId>(first_.size() - 1);
}

void Builder::add(StateId from, Edge edge) {
  if (edges_.size() >= 8 * max_states_) exhausted_ = true;
  if (exhausted_) return;
  const auto at = static_cast<uint32_t>(edges_.size());
  edges_.push_back(edge);
  if (first_[from] == 0) {
    first_[from] = at;
  } else {
    edges_[last_[from]].next = at;
  }
  last_[from] = at;
}

void Builder::require(StateId from, uint64_t mask, std::vector<StateId> behind, StateId to) {
  masks_.push_back(mask);
  behind_.push_back(std::move(behind));
  add(from, {EdgeKind::kRequire, 0, 0, static_cast<uint32_t>(masks_.size() - 1), to, 0});
}

StateId Builder::literal(StateId from, std::string_view text) {
  for (const char c : text) {
    const StateId to = state();
    bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
    from = to;
    if (exhausted_) break;
  }
  return from;
}

void Builder::literal(StateId from, std::string_view text, StateId to) {
  if (text.empty()) return empty(from, to);
  from = literal(from, text.substr(0, text.size() - 1));
  bytes(from, static_cast<uint8_t>(text.back()), static_cast<uint8_t>(text.back()), to);
}

void Builder::literals(StateId from, std::vector<std::string> texts, StateId to) {
  std::sort(texts.begin(), texts.end());
  std::vector<StateId> way;  // the states along the last text
  std::string_view last;
  for (const std::string& text : texts) {
    size_t common = 0;
    while (common < last.size() && common < text.size() && last[common] == text[common]) ++common;
    way.resize(std::min(way.size(), common));
    for (size_t at = common; at < text.size() && !exhausted_; ++at) {
      const StateId before = at == 0 ? from : way[at - 1];
      way.push_back(state());
      bytes(before, static_cast<uint8_t>(text[at]), static_cast<uint8_t>(text[at]), way.back());
    }
    if (exhausted_) return;
    empty(way.empty() ? from : way.back(), to);
    last = text;
  }
}

RuleId Builder::rule() {
  rules_.push_back(piece());
  return static_cast<RuleId>(rules_.size() - 1);
}

// The questions asked of the whole graph before it becomes a Program.
struct Builder::Analysis {
  const Builder& b;
  std::vector<RuleId> owner;      // [states]
  std::vector<uint32_t> group;    // [rules] those that can reach each other
  std::vector<uint16_t> height;   // [states]
  std::vector<uint8_t> nullable;  // [states] the end of the rule can be reached without consuming
  // Reverse edges: of each state, the edges that go to it or call the rule it begins.
  std::vector<uint32_t> into_begin, into;
  std::vector<StateId> source;  // [edges]
  static constexpr RuleId kNoRule = std::numeric_limits<RuleId>::max();

  explicit Analysis(const Builder& builder) : b(builder) {
    const size_t states = b.first_.size();
    owner.assign(states, kNoRule);
    source.assign(b.edges_.size(), 0);
    for (StateId state = 0; state < states; ++state) {
      for (uint32_t e = b.first_[state]; e != 0; e = b.edges_[e].next) source[e] = state;
    }
    std::vector<StateId> work;
    for (RuleId rule = 0; rule < b.rules_.size(); ++rule) {
      work.push_back(b.rules_[rule].begin);
      owner[work.back()] = rule;
      while (!work.empty()) {
        const StateId state = work.back();
        work.pop_back();
        for (uint32_t e = b.first_[state]; e != 0; e = b.edges_[e].next) {
          const StateId target = b.edges_[e].target;
          if (owner[target] != kNoRule) continue;
          owner[target] = rule;
          work.push_back(target);
        }
      }
    }
    into_begin.assign(states + 1, 0);
    const auto each_into = [&](auto&& visit) {
      for (uint32_t e = 1; e < b.edges_.size(); ++e) {
        visit(b.edges_[e].target, e);
        if (b.edges_[e].kind == EdgeKind::kCall) visit(b.rules_[b.edges_[e].arg].begin, e);
        if (b.edges_[e].kind != EdgeKind::kRequire) continue;
        for (const StateId state : b.behind_[b.edges_[e].arg]) visit(state, e);
      }
    };
    each_into([&](StateId state, uint32_t) { ++into_begin[state + 1]; });
    for (size_t i = 0; i < states; ++i) into_begin[i + 1] += into_begin[i];
    into.resize(into_begin[states]);
    std::vector<uint32_t> at(into_begin.begin(), into_begin.end() - 1);
    each_into([&](StateId state, uint32_t e) { into[at[state]++] = e; });
    find_groups();
    find_heights();
    find_nullable();
  }

  // Calls of each rule, as (caller, callee) sorted by caller.
  std::vector<std::pair<RuleId, RuleId>> calls() const {
    std::vector<std::pair<RuleId, RuleId>> out;
    for (uint32_t e = 1; e < b.edges_.size(); ++e) {
      if (b.edges_[e].kind == EdgeKind::kCall && owner[source[e]] != kNoRule) {
        out.push_back({owner[source[e]], b.edges_[e].arg});
      }
    }
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
  }

  // Tarjan's strongly connected components, with a stack of its own.
  void find_groups() {
    const auto edges = calls();
    const size_t rules = b.rules_.size();
    std::vector<uint32_t> begin(rules + 1, 0);
    for (const auto& [caller, callee] : edges) ++begin[caller + 1];
    for (size_t i = 0; i < rules; ++i) begin[i + 1] += begin[i];
    std::vector<uint32_t> index(rules, 0), low(rules, 0), next(begin.begin(), begin.end() - 1);
    group.assign(rules, 0);
    std::vector<RuleId> way, open;
    uint32_t counter = 0, groups = 0;
    for (RuleId root = 0; root < rules; ++root) {
      if (index[root]) continue;
      way.push_back(root);
      while (!way.empty()) {
        const RuleId rule = way.back();
        if (!index[rule]) {
          index[rule] = low[rule] = ++counter;
          open.push_back(rule);
        }
        bool descends = false;
        while (next[rule] < begin[rule + 1]) {
          const RuleId callee = edges[next[rule]].second;
          if (!index[callee]) {
            way.push_back(callee);
            descends = true;
            break;
          }
          if (!group[callee]) low[rule] = std::min(low[rule], low[callee]);
          ++next[rule];
        }
        if (descends) continue;
        way.pop_back();
        if (low[rule] == index[rule]) {
          ++groups;
          while (!group[rule]) {
            group[open.back()] = groups;
            open.pop_back();
          }
        }
        if (!way.empty()) low[way.back()] = std::min(low[way.back()], low[rule]);
      }
    }
  }

  int weight(uint32_t e) const {
    return owner[source[e]] != kNoRule && group[owner[source[e]]] == group[b.edges_[e].arg] ? 1 : 0;
  }

  // Lowest height first, as Dijkstra: no edge lowers what it is made of.
  void find_heights() {
    height.assign(b.first_.size(), kNoHeight);
    std::vector<std::vector<StateId>> by_height(1);
    const auto reach = [&](StateId state, size_t h) {
      if (h >= height[state]) return;
      height[state] = static_cast<uint16_t>(h);
      if (by_height.size() <= h) by_height.resize(h + 1);
      by_height[h].push_back(state);
    };
    for (const Piece& rule : b.rules_) reach(rule.end, 0);
    for (size_t h = 0; h < by_height.size(); ++h) {
      for (size_t i = 0; i < by_height[h].size(); ++i) {
        const StateId state = by_height[h][i];
        if (height[state] != h) continue;
        for (uint32_t k = into_begin[state]; k < into_begin[state + 1]; ++k) {
          const uint32_t e = into[k];
          const Edge& edge = b.edges_[e];
          size_t through = height[edge.target];
          if (edge.kind == EdgeKind::kCall) {
            const size_t inner = height[b.rules_[edge.arg].begin];
            if (inner == kNoHeight || through == kNoHeight) continue;
            through = std::max<size_t>(through, inner + static_cast<size_t>(weight(e)));
          }
          if (edge.kind == EdgeKind::kRequire) {
            for (const StateId needed : b.behind_[edge.arg]) through = std::max<size_t>(through, height[needed]);
          }
          if (through < kNoHeight) reach(source[e], through);
        }
      }
    }
  }

  void find_nullable() {
    nullable.assign(b.first_.size(), 0);
    std::vector<StateId> work;
    const auto reach = [&](StateId state) {
      if (nullable[state]) return;
      nullable[state] = 1;
      work.push_back(state);
    };
    for (const Piece& rule : b.rules_) reach(rule.end);
    while (!work.empty()) {
      const StateId state = work.back();
      work.pop_back();
      for (uint32_t k = into_begin[state]; k < into_begin[state + 1]; ++k) {
        const Edge& edge = b.edges_[into[k]];
        if (edge.kind == EdgeKind::kBytes || edge.kind == EdgeKind::kToken || !nullable[edge.target]) continue;
        if (edge.kind == EdgeKind::kCall && !nullable[b.rules_[edge.arg].begin]) continue;
        reach(source[into[k]]);
      }
    }
  }

  bool alive(const Edge& edge) const {
    if (edge.kind == EdgeKind::kRequire) {
      for (const StateId needed : b.behind_[edge.arg]) {
        if (height[needed] == kNoHeight) return false;
      }
    }
    return height[edge.target] != kNoHeight &&
           (edge.kind != EdgeKind::kCall || height[b.rules_[edge.arg].begin] != kNoHeight);
  }

  // Whether some rule can come back to its own beginning without consuming anything.
  bool left_recursive() const {
    const size_t rules = b.rules_.size();
    std::vector<std::vector<RuleId>> first_calls(rules);
    std::vector<uint32_t> called(rules, 0);
    std::vector<uint8_t> seen(b.first_.size(), 0);
    std::vector<StateId> work;
    for (RuleId rule = 0; rule < rules; ++rule) {
      const auto reach = [&](StateId state) {
        if (seen[state]) return;
        seen[state] = 1;
        work.push_back(state);
      };
      reach(b.rules_[rule].begin);
      while (!work.empty()) {
        const StateId state = work.back();
        work.pop_back();
        for (uint32_t e = b.first_[state]; e != 0; e = b.edges_[e].next) {
          const Edge& edge = b.edges_[e];
          if (!alive(edge) || edge.kind == EdgeKind::kBytes || edge.kind == EdgeKind::kToken) continue;
          if (edge.kind == EdgeKind::kCall) {
            first_calls[rule].push_back(edge.arg);
            ++called[edge.arg];
            if (!nullable[b.rules_[edge.arg].begin]) continue;
          }
          reach(edge.target);
        }
      }
    }
    std::vector<RuleId> free;
    for (RuleId rule = 0; rule < rules; ++rule) {
      if (!called[rule]) free.push_back(rule);
    }
    for (size_t i = 0; i < free.size(); ++i) {
      for (const RuleId callee : first_calls[free[i]]) {
        if (--called[callee] == 0) free.push_back(callee);
      }
    }
    return free.size() != rules;
  }

  // Whether a state has nothing left to do but to end its rule.
  std::vector<uint8_t> find_final() const {
    std::vector<uint8_t> final(b.first_.size(), 0);
    std::vector<StateId> work;
    for (const Piece& rule : b.rules_) {
      if (b.first_[rule.end] == 0) {
        final[rule.end] = 1;
        work.push_back(rule.end);
      }
    }
    while (!work.empty()) {
      const StateId state = work.back();
      work.pop_back();
      for (uint32_t k = into_begin[state]; k < into_begin[state + 1]; ++k) {
        const Edge& edge = b.edges_[into[k]];
        const StateId from = source[into[k]];
        if (edge.kind == EdgeKind::kEmpty && b.first_[from] == into[k] && edge.next == 0 && !final[from]) {
          final[from] = 1;
          work.push_back(from);
        }
      }
    }
    return final;
  }
};

Result<Program> Builder::finish(RuleId root, int nesting) {
  if (exhausted_) return Status(Code::kInvalidArgument, "schema_too_complex: too many states");
  const Analysis analysis(*this);
  if (analysis.left_recursive()) {
    return Status(Code::kInvalidArgument, "invalid_schema: a rule refers to itself with nothing in between");
  }
  const uint16_t needed = analysis.height[rules_[root].begin];
  if (needed == kNoHeight || needed > nesting) {
    return Status(Code::kInvalidArgument, needed == kNoHeight ? "invalid_schema: no value can ever match"
                                                              : "schema_too_complex: every value nests too deeply");
  }
  const std::vector<uint8_t> final = analysis.find_final();
  Program program;
  program.start = rules_[root].begin;
  program.nesting = nesting;
  program.masks = masks_;
  std::vector<uint8_t> accept(first_.size(), 0);
  for (const Piece& rule : rules_) accept[rule.end] = 1;

  bool cut[257] = {true};
  for (uint32_t e = 1; e < edges_.size(); ++e) {
    if (edges_[e].kind != EdgeKind::kBytes || !analysis.alive(edges_[e])) continue;
    cut[edges_[e].lo] = cut[edges_[e].hi + 1] = true;
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (cut[byte]) program.byte_of[program.classes++] = static_cast<uint8_t>(byte);
    program.class_of[byte] = static_cast<uint8_t>(program.classes - 1);
  }
  program.states.reserve(first_.size() + 1);
  for (StateId state = 0; state <= first_.size(); ++state) {
    const bool real = state < first_.size();
    program.states.push_back({static_cast<uint32_t>(program.byte_edges.size()),
                              static_cast<uint32_t>(program.moves.size()),
                              static_cast<uint32_t>(program.token_edges.size()),
                              real ? analysis.height[state] : kNoHeight, real && accept[state] != 0});
    if (!real || analysis.height[state] == kNoHeight) continue;
    program.max_height = std::max<int>(program.max_height, analysis.height[state]);
    for (uint32_t e = first_[state]; e != 0; e = edges_[e].next) {
      const Edge& edge = edges_[e];
      if (!analysis.alive(edge)) continue;
      switch (edge.kind) {
        case EdgeKind::kBytes:
          program.byte_edges.push_back({program.class_of[edge.lo], program.class_of[edge.hi], edge.target});
          break;
        case EdgeKind::kToken:
          program.token_edges.push_back({static_cast<TokenId>(edge.arg), edge.target});
          break;
        case EdgeKind::kCall:
          program.moves.push_back({edge.kind, final[edge.target] != 0, static_cast<uint8_t>(analysis.weight(e)),
                                   rules_[edge.arg].begin, edge.target});
          break;
        default:
          program.moves.push_back({edge.kind, false, 0, edge.arg, edge.target});
      }
    }
  }
  return program;
}

}  // namespace nautile::grammar
