// The parser keeps its open groups on a stack of its own. A quantifier copies its operand, whose states are always the
// last ones made.
#include "text/grammar_regex.h"

#include <algorithm>
#include <optional>

#include "text/utf8.h"

namespace nautile::grammar {

void CharSet::normalise() {
  std::vector<std::pair<uint32_t, uint32_t>> whole;
  for (const auto& [lo, hi] : ranges_) {
    const uint32_t top = std::min<uint32_t>(hi, 0x10ffff);
    if (lo > top) continue;
    if (lo < 0xd800) whole.push_back({lo, std::min<uint32_t>(top, 0xd7ff)});
    if (top > 0xdfff) whole.push_back({std::max<uint32_t>(lo, 0xe000), top});
  }
  std::sort(whole.begin(), whole.end());
  ranges_.clear();
  for (const auto& range : whole) {
    if (!ranges_.empty() && range.first <= ranges_.back().second + 1) {
      ranges_.back().second = std::max(ranges_.back().second, range.second);
    } else {
      ranges_.push_back(range);
    }
  }
}

CharSet CharSet::complement() const {
  CharSet out;
  uint32_t next = 0;
  for (const auto& [lo, hi] : ranges_) {
    if (lo > next) out.add(next, lo - 1);
    next = hi + 1;
  }
  if (next <= 0x10ffff) out.add(next, 0x10ffff);
  out.normalise();
  return out;
}

CharSet CharSet::intersection(const CharSet& other) const {
  CharSet out;
  size_t a = 0, b = 0;
  while (a < ranges_.size() && b < other.ranges_.size()) {
    const uint32_t lo = std::max(ranges_[a].first, other.ranges_[b].first);
    const uint32_t hi = std::min(ranges_[a].second, other.ranges_[b].second);
    if (lo <= hi) out.add(lo, hi);
    if (ranges_[a].second < other.ranges_[b].second) {
      ++a;
    } else {
      ++b;
    }
  }
  out.normalise();
  return out;
}

bool CharSet::has(uint32_t code_point) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [&](const auto& range) { return range.first <= code_point && code_point <= range.second; });
}

uint32_t Pattern::state() {
  first_.push_back(0);
  return static_cast<uint32_t>(first_.size() - 1);
}

void Pattern::edge(uint32_t from, Edge::Kind kind, uint32_t set, uint32_t to) {
  edges_.push_back({kind, set, to, first_[from]});
  first_[from] = static_cast<uint32_t>(edges_.size() - 1);
}

class PatternParser {
 public:
  PatternParser(std::string_view text, const GrammarLimits& limits) : text_(text), limits_(limits) {}

  Result<Pattern> run(bool anchored) {
    if (text_.size() > limits_.pattern_bytes) return error("schema_too_complex: the expression is too long");
    if (valid_utf8_prefix(text_) != text_.size()) return error("invalid_schema: the expression is not UTF-8");
    open();
    while (at_ < text_.size()) {
      NAUTILE_RETURN_IF_ERROR(item());
      if (pattern_.first_.size() > limits_.states) return too_large();
    }
    if (frames_.size() > 1) return error("invalid_schema: a group of the expression is not closed");
    link();
    const Frame root = frames_.back();
    pattern_.edge(root.cur, Pattern::Edge::kEmpty, 0, root.out);
    pattern_.begin_ = root.in;
    pattern_.end_ = root.out;
    if (!anchored) {
      pattern_.sets_.push_back(CharSet::all());
      const auto any = static_cast<uint32_t>(pattern_.sets_.size() - 1);
      pattern_.begin_ = pattern_.state();
      pattern_.end_ = pattern_.state();
      pattern_.edge(pattern_.begin_, Pattern::Edge::kChars, any, pattern_.begin_);
      pattern_.edge(pattern_.begin_, Pattern::Edge::kEmpty, 0, root.in);
      pattern_.edge(root.out, Pattern::Edge::kEmpty, 0, pattern_.end_);
      pattern_.edge(pattern_.end_, Pattern::Edge::kChars, any, pattern_.end_);
    }
    return std::move(pattern_);
  }

 private:
  struct Frame {
    uint32_t in, out;  // of the group
    uint32_t cur;      // end of the alternative so far, without the operand
    size_t lo;         // the group's first state
  };
  // What a quantifier would apply to.
  struct Operand {
    uint32_t begin, end;
    size_t lo;
    bool repeatable;
  };

  Status error(std::string what) const {
    return Status(Code::kInvalidArgument, std::move(what), "byte " + std::to_string(at_) + " of the expression");
  }
  Status too_large() const { return error("schema_too_complex: the expression has too many states"); }

  void open() {
    const size_t lo = pattern_.first_.size();
    const uint32_t in = pattern_.state(), out = pattern_.state();
    frames_.push_back({in, out, in, lo});
    operand_.reset();
  }

  void link() {
    if (!operand_) return;
    pattern_.edge(frames_.back().cur, Pattern::Edge::kEmpty, 0, operand_->begin);
    frames_.back().cur = operand_->end;
    operand_.reset();
  }

  void atom(Pattern::Edge::Kind kind, CharSet set) {
    link();
    const size_t lo = pattern_.first_.size();
    const uint32_t begin = pattern_.state(), end = pattern_.state();
    if (kind == Pattern::Edge::kChars) pattern_.sets_.push_back(std::move(set));
    pattern_.edge(begin, kind, static_cast<uint32_t>(pattern_.sets_.size() - 1), end);
    operand_ = {begin, end, lo, kind == Pattern::Edge::kChars};
  }

  uint32_t next() {
    const CodePoint point = decode_utf8(text_, at_);
    at_ += point.bytes;
    return point.value;
  }

  bool take(std::string_view wanted) {
    if (!text_.substr(at_).starts_with(wanted)) return false;
    at_ += wanted.size();
    return true;
  }

  Status item() {
    if (take("(")) return group();
    if (take(")")) {
      if (frames_.size() == 1) return error("invalid_schema: ')' without '('");
      link();
      const Frame frame = frames_.back();
      pattern_.edge(frame.cur, Pattern::Edge::kEmpty, 0, frame.out);
      frames_.pop_back();
      // The operand before the group has been linked when the group was opened.
      operand_ = {frame.in, frame.out, frame.lo, true};
      return {};
    }
    if (take("|")) {
      link();
      Frame& frame = frames_.back();
      pattern_.edge(frame.cur, Pattern::Edge::kEmpty, 0, frame.out);
      frame.cur = frame.in;
      return {};
    }
    if (take("*")) return repeat(0, kInfinite);
    if (take("+")) return repeat(1, kInfinite);
    if (take("?")) return repeat(0, 1);
    if (text_[at_] == '{') {
      const size_t before = at_;
      size_t min = 0, max = 0;
      if (counts(min, max)) return repeat(min, max);
      at_ = before;
    }
    if (take("^")) return atom(Pattern::Edge::kBegin, {}), Status();
    if (take("$")) return atom(Pattern::Edge::kEnd, {}), Status();
    if (take(".")) return atom(Pattern::Edge::kChars, CharSet('\n', '\n').complement()), Status();
    if (take("[")) return char_class();
    if (take("\\")) {
      if (take("A")) return atom(Pattern::Edge::kBegin, {}), Status();
      if (take("z") || take("Z")) return atom(Pattern::Edge::kEnd, {}), Status();
      CharSet set;
      NAUTILE_RETURN_IF_ERROR(escape(set, false));
      return atom(Pattern::Edge::kChars, std::move(set)), Status();
    }
    const uint32_t point = next();
    return atom(Pattern::Edge::kChars, {point, point}), Status();
  }

  Status group() {
    link();
    if (take("?")) {
      if (take("P<") || (text_.substr(at_).starts_with("<") && !text_.substr(at_).starts_with("<=") &&
                         !text_.substr(at_).starts_with("<!") && take("<"))) {
        const size_t close = text_.find('>', at_);
        if (close == std::string_view::npos) return error("invalid_schema: a group's name is not closed");
        at_ = close + 1;
      } else if (!take(":")) {
        return error("invalid_schema: look-around and flags are not supported");
      }
    }
    open();
    return {};
  }

  // "{m}", "{m,}" or "{m,n}"; anything else is literal text.
  bool counts(size_t& min, size_t& max) {
    ++at_;
    if (!number(min)) return false;
    if (take("}")) {
      max = min;
      return true;
    }
    if (!take(",")) return false;
    if (take("}")) {
      max = kInfinite;
      return true;
    }
    return number(max) && take("}");
  }

  bool number(size_t& value) {
    const size_t begin = at_;
    value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      value = std::min<size_t>(value * 10 + static_cast<size_t>(text_[at_] - '0'), kInfinite - 1);
    }
    return at_ > begin;
  }

  Status repeat(size_t min, size_t max) {
    if (!operand_ || !operand_->repeatable) return error("invalid_schema: nothing to repeat");
    if (max < min) return error("invalid_schema: a repetition's bounds are the wrong way round");
    take("?");  // lazy: the same language
    const size_t copies = max == kInfinite ? std::max<size_t>(min, 1) : max;
    const size_t lo = operand_->lo, states = pattern_.first_.size() - lo;
    if (copies > 1 && copies * states + lo > limits_.states) return too_large();
    const uint32_t begin = operand_->begin, end = operand_->end;
    if (copies == 0) {
      const uint32_t nothing = pattern_.state();
      operand_ = {nothing, nothing, lo, false};
      return {};
    }
    for (size_t copy = 1; copy < copies; ++copy) {
      const auto shift = static_cast<uint32_t>(copy * states);
      for (size_t i = 0; i < states; ++i) {
        const uint32_t made = pattern_.state();
        for (uint32_t e = pattern_.first_[lo + i]; e != 0; e = pattern_.edges_[e].next) {
          const Pattern::Edge old = pattern_.edges_[e];
          pattern_.edge(made, old.kind, old.set, old.target + shift);
        }
      }
    }
    const uint32_t out = pattern_.state();
    for (size_t copy = 0; copy < copies; ++copy) {
      const auto shift = static_cast<uint32_t>(copy * states);
      if (copy >= min) pattern_.edge(begin + shift, Pattern::Edge::kEmpty, 0, out);
      const bool last = copy + 1 == copies;
      pattern_.edge(end + shift, Pattern::Edge::kEmpty, 0, last ? out : begin + shift + static_cast<uint32_t>(states));
      if (last && max == kInfinite) pattern_.edge(end + shift, Pattern::Edge::kEmpty, 0, begin + shift);
    }
    operand_ = {begin, out, lo, false};
    return {};
  }

  Status char_class() {
    CharSet set;
    const bool negated = take("^");
    bool first = true;
    for (;; first = false) {
      if (at_ >= text_.size()) return error("invalid_schema: '[' is not closed");
      if (!first && take("]")) break;
      if (text_.substr(at_).starts_with("[:")) return error("invalid_schema: [:name:] classes are not supported");
      if (first && take("]")) {  // "[]" matches nothing in one dialect and opens with "]" in another
        return error("invalid_schema: ']' at the beginning of a class must be escaped");
      }
      CharSet one;
      bool single = true;
      if (take("\\")) {
        NAUTILE_RETURN_IF_ERROR(escape(one, true));
        single = one.ranges().size() == 1 && one.ranges()[0].first == one.ranges()[0].second;
      } else {
        const uint32_t point = next();
        one = {point, point};
      }
      if (single && !one.empty() && text_.substr(at_).starts_with("-") && !text_.substr(at_).starts_with("-]")) {
        ++at_;
        if (at_ >= text_.size()) return error("invalid_schema: '[' is not closed");
        CharSet top;
        if (take("\\")) {
          NAUTILE_RETURN_IF_ERROR(escape(top, true));
        } else {
          const uint32_t point = next();
          top = {point, point};
        }
        if (top.ranges().size() != 1 || top.ranges()[0].first != top.ranges()[0].second ||
            top.ranges()[0].first < one.ranges()[0].first) {
          return error("invalid_schema: a range of a class is not one");
        }
        set.add(one.ranges()[0].first, top.ranges()[0].first);
      } else {
        set.add(one);
      }
    }
    set.normalise();
    atom(Pattern::Edge::kChars, negated ? set.complement() : set);
    return {};
  }

  Status escape(CharSet& set, bool in_class) {
    if (at_ >= text_.size()) return error("invalid_schema: the expression ends in '\\'");
    const uint32_t c = next();
    const auto one = [&](uint32_t point) { set = {point, point}; };
    CharSet named;
    switch (c) {
      case 'd':
      case 'D':
        named.add('0', '9');
        break;
      case 'w':
      case 'W':
        named.add('0', '9');
        named.add('A', 'Z');
        named.add('a', 'z');
        named.add('_', '_');
        break;
      case 's':
      case 'S':
        named.add('\t', '\r');
        named.add(' ', ' ');
        break;
      case 'n':
        return one('\n'), Status();
      case 't':
        return one('\t'), Status();
      case 'r':
        return one('\r'), Status();
      case 'f':
        return one('\f'), Status();
      case 'v':
        return one('\v'), Status();
      case 'a':
        return one('\a'), Status();
      case '0':
        return one(0), Status();
      case 'b':
        if (in_class) return one('\b'), Status();
        return error("invalid_schema: \\b is not supported");
      case 'x':
      case 'u': {
        const bool braces = take("{");
        const size_t digits = braces ? 6 : c == 'x' ? 2 : 4;
        uint32_t point = 0;
        size_t count = 0;
        for (; count < digits && at_ < text_.size(); ++count, ++at_) {
          const char h = text_[at_];
          const int value = h >= '0' && h <= '9'   ? h - '0'
                            : h >= 'a' && h <= 'f' ? h - 'a' + 10
                            : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                                   : -1;
          if (value < 0) break;
          point = point * 16 + static_cast<uint32_t>(value);
        }
        if (count == 0 || (!braces && count != digits) || (braces && !take("}")) || point > 0x10ffff) {
          return error("invalid_schema: a hexadecimal escape is broken");
        }
        return one(point), Status();
      }
      default:
        if (c < 0x80 && ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))) {
          return error(std::string("invalid_schema: \\") + static_cast<char>(c) + " is not supported");
        }
        return one(c), Status();
    }
    named.normalise();
    set = c >= 'a' ? named : named.complement();
    return {};
  }

  static constexpr size_t kInfinite = size_t{1} << 30;
  const std::string_view text_;
  const GrammarLimits& limits_;
  size_t at_ = 0;
  Pattern pattern_;
  std::vector<Frame> frames_;
  std::optional<Operand> operand_;
};

Result<Pattern> Pattern::parse(std::string_view expression, bool anchored, const GrammarLimits& limits) {
  return PatternParser(expression, limits).run(anchored);
}

}  // namespace nautile::grammar
