// TextEncoder: sets of code points and patterns become bytes, raw or as they stand inside a JSON string.
#include <algorithm>
#include <cstdio>

#include "text/grammar_regex.h"
#include "text/utf8.h"

namespace nautile::grammar {
namespace {

struct ByteRange {
  uint8_t lo, hi;
};

// Splits code points lo..hi into sequences of byte ranges.
template <class Visit>
void utf8_sequences(uint32_t lo, uint32_t hi, Visit visit) {
  std::vector<std::pair<uint32_t, uint32_t>> work = {{lo, hi}};
  while (!work.empty()) {
    auto [a, b] = work.back();
    work.pop_back();
    bool split = false;
    for (const uint32_t top : {0x7fu, 0x7ffu, 0xffffu}) {
      if (a <= top && b > top) {
        work.push_back({top + 1, b});
        work.push_back({a, top});
        split = true;
        break;
      }
    }
    if (split) continue;
    const int tail = b <= 0x7f ? 0 : b <= 0x7ff ? 1 : b <= 0xffff ? 2 : 3;
    for (int i = 1; i <= tail && !split; ++i) {
      const uint32_t low_bits = (1u << (6 * i)) - 1;
      if ((a & ~low_bits) == (b & ~low_bits)) continue;
      if ((a & low_bits) != 0) {
        work.push_back({(a | low_bits) + 1, b});
        work.push_back({a, a | low_bits});
        split = true;
      } else if ((b & low_bits) != low_bits) {
        work.push_back({b & ~low_bits, b});
        work.push_back({a, (b & ~low_bits) - 1});
        split = true;
      }
    }
    if (split) continue;
    std::string first, last;
    append_utf8(a, first);
    append_utf8(b, last);
    ByteRange bytes[4];
    for (size_t i = 0; i < first.size(); ++i) {
      bytes[i] = {static_cast<uint8_t>(first[i]), static_cast<uint8_t>(last[i])};
    }
    visit(std::span<const ByteRange>(bytes, first.size()));
  }
}

const CharSet& json_plain() {
  static const CharSet set = [] {
    CharSet made;
    made.add(0x20, 0x21);
    made.add(0x23, 0x5b);
    made.add(0x5d, 0x10ffff);
    made.normalise();
    return made;
  }();
  return set;
}

}  // namespace

std::string json_escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    const size_t named = std::string_view("\"\\\b\f\n\r\t").find(c);
    if (named != std::string_view::npos) {
      out += '\\';
      out += "\"\\bfnrt"[named];
    } else if (byte < 0x20) {
      char buffer[8];
      std::snprintf(buffer, sizeof buffer, "\\u%04x", byte);
      out += buffer;
    } else {
      out += c;
    }
  }
  return out;
}

void TextEncoder::spell(StateId from, const CharSet& set, StateId to) {
  const bool json = form_ == TextForm::kJson;
  const CharSet plain = json ? set.intersection(json_plain()) : set;
  for (const auto& [lo, hi] : plain.ranges()) {
    utf8_sequences(lo, hi, [&](std::span<const ByteRange> bytes) {
      StateId at = from;
      for (size_t i = 0; i < bytes.size(); ++i) {
        const StateId next = i + 1 == bytes.size() ? to : builder_.state();
        builder_.bytes(at, bytes[i].lo, bytes[i].hi, next);
        at = next;
      }
    });
  }
  if (!json) return;
  std::vector<std::string> escapes;
  for (const uint32_t point : {0x22u, 0x5cu}) {
    if (set.has(point)) escapes.push_back(json_escaped(std::string(1, static_cast<char>(point))));
  }
  for (uint32_t point = 0; point < 0x20; ++point) {
    if (set.has(point)) escapes.push_back(json_escaped(std::string(1, static_cast<char>(point))));
  }
  if (!escapes.empty()) builder_.literals(from, std::move(escapes), to);
}

TextEncoder::Symbol TextEncoder::symbol(const CharSet& set) {
  const CharSet simple = form_ == TextForm::kJson ? set.intersection(json_plain()) : set;
  if (simple == set && set.ranges().size() <= 8 && (set.empty() || set.ranges().back().second < 0x80)) {
    return {set, std::nullopt};
  }
  auto found = rules_.find(set);
  if (found == rules_.end()) {
    found = rules_.emplace(set, builder_.rule()).first;
    const Piece rule = builder_.of(found->second);
    spell(rule.begin, set, rule.end);
  }
  return {{}, found->second};
}

void TextEncoder::write(StateId from, const Symbol& symbol, StateId to) {
  if (symbol.rule) {
    builder_.call(from, *symbol.rule, to);
  } else {
    spell(from, symbol.small, to);
  }
}

void TextEncoder::chars(StateId from, const CharSet& set, StateId to) {
  if (!set.empty()) write(from, symbol(set), to);
}

void TextEncoder::texts(StateId from, const std::vector<const Pattern*>& patterns, TextLength length, StateId to) {
  if (length.min > length.max) return;
  const uint64_t cap = length.max != TextLength::kAny ? length.max : length.min;
  if (cap > UINT32_MAX) {  // more code points than any limit allows states
    while (!builder_.exhausted()) builder_.state();
    return;
  }
  constexpr uint32_t kConsumed = 1, kEnded = 2;
  // A state of the product: where each pattern is, what has been passed, how long the text is.
  using Key = std::vector<uint32_t>;
  std::map<Key, StateId> made;
  std::vector<const std::pair<const Key, StateId>*> work;
  const auto reach = [&](Key key) {
    const auto [entry, added] = made.try_emplace(std::move(key), 0);
    if (added) {
      entry->second = builder_.state();
      work.push_back(&*entry);
    }
    return entry->second;
  };
  const size_t count = patterns.size();
  Key key(count + 2, 0);
  for (size_t i = 0; i < count; ++i) key[i] = patterns[i]->begin_;
  builder_.empty(from, reach(key));
  const CharSet all = CharSet::all();
  std::map<uint32_t, Symbol> symbols;  // of a single pattern's sets, which are copied with every repetition
  while (!work.empty() && !builder_.exhausted()) {
    const auto& [at, state] = *work.back();
    work.pop_back();
    bool ends = at[count + 1] >= length.min;
    for (size_t i = 0; i < count; ++i) {
      ends = ends && at[i] == patterns[i]->end_;
      for (uint32_t e = patterns[i]->first_[at[i]]; e != 0; e = patterns[i]->edges_[e].next) {
        const Pattern::Edge& edge = patterns[i]->edges_[e];
        if (edge.kind == Pattern::Edge::kChars || (edge.kind == Pattern::Edge::kBegin && at[count] & kConsumed))
          continue;
        Key next = at;
        next[i] = edge.target;
        if (edge.kind == Pattern::Edge::kEnd) next[count] |= kEnded;
        builder_.empty(state, reach(std::move(next)));
      }
    }
    if (ends) builder_.empty(state, to);
    if (at[count] & kEnded || at[count + 1] >= length.max) continue;
    if (count == 1) {
      for (uint32_t e = patterns[0]->first_[at[0]]; e != 0; e = patterns[0]->edges_[e].next) {
        const Pattern::Edge& edge = patterns[0]->edges_[e];
        if (edge.kind != Pattern::Edge::kChars || patterns[0]->sets_[edge.set].empty()) continue;
        auto found = symbols.find(edge.set);
        if (found == symbols.end()) found = symbols.emplace(edge.set, symbol(patterns[0]->sets_[edge.set])).first;
        const uint32_t length_then = std::min<uint32_t>(at[2] + 1, static_cast<uint32_t>(cap));
        write(state, found->second, reach({edge.target, at[1] | kConsumed, length_then}));
      }
      continue;
    }
    // One code point, in all patterns at once: every choice of an edge each.
    Key next = at;
    next[count] |= count > 0 ? kConsumed : 0;
    next[count + 1] = std::min<uint32_t>(at[count + 1] + 1, static_cast<uint32_t>(cap));
    std::vector<uint32_t> choice(count);
    std::vector<CharSet> sets(count + 1);
    sets[0] = all;
    size_t level = 0;
    const auto first_chars = [&](size_t i, uint32_t e) {
      while (e != 0 && patterns[i]->edges_[e].kind != Pattern::Edge::kChars) e = patterns[i]->edges_[e].next;
      return e;
    };
    if (count > 0) choice[0] = first_chars(0, patterns[0]->first_[at[0]]);
    for (;;) {
      if (level == count) {
        chars(state, sets[count], reach(next));
        if (builder_.exhausted() || level == 0) break;
        --level;
        choice[level] = first_chars(level, patterns[level]->edges_[choice[level]].next);
        continue;
      }
      if (choice[level] == 0) {
        if (level == 0) break;
        --level;
        choice[level] = first_chars(level, patterns[level]->edges_[choice[level]].next);
        continue;
      }
      const Pattern::Edge& edge = patterns[level]->edges_[choice[level]];
      sets[level + 1] = sets[level].intersection(patterns[level]->sets_[edge.set]);
      next[level] = edge.target;
      if (sets[level + 1].empty()) {
        choice[level] = first_chars(level, edge.next);
        continue;
      }
      ++level;
      if (level < count) choice[level] = first_chars(level, patterns[level]->first_[at[level]]);
    }
  }
}

void TextEncoder::other_texts(StateId from, std::vector<std::string> listed, const CharSet& alphabet, StateId to) {
  std::sort(listed.begin(), listed.end());
  listed.erase(std::unique(listed.begin(), listed.end()), listed.end());
  const StateId free = builder_.state();
  chars(free, alphabet, free);
  builder_.empty(free, to);
  // The tree of listed texts: each open level has the code points that stay in it, and whether it is itself a text.
  struct Level {
    StateId state;
    size_t begin;  // bytes of the text before it
    CharSet taken;
    bool listed;
  };
  std::vector<Level> open = {{from, 0, {}, false}};
  const auto close = [&] {
    Level& level = open.back();
    level.taken.normalise();
    chars(level.state, level.taken.complement().intersection(alphabet), free);
    if (!level.listed) builder_.empty(level.state, to);
    open.pop_back();
  };
  std::string_view last;
  for (const std::string& text : listed) {
    if (builder_.exhausted()) return;
    size_t common = 0;
    while (common < last.size() && common < text.size() && last[common] == text[common]) ++common;
    while (open.back().begin > common) close();
    size_t at = open.back().begin;
    while (at < text.size() && !builder_.exhausted()) {
      const CodePoint point = decode_utf8(text, at);
      open.back().taken.add(point.value, point.value);
      const StateId next = builder_.state();
      chars(open.back().state, {point.value, point.value}, next);
      at += point.bytes;
      open.push_back({next, at, {}, false});
    }
    open.back().listed = true;
    last = text;
  }
  while (!open.empty()) close();
}

}  // namespace nautile::grammar
