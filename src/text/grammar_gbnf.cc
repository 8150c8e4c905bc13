// One pass with a stack of open groups. A group is a rule of its own, so that a quantifier repeats calls and copies
// nothing.
#include "text/grammar_gbnf.h"

#include <algorithm>
#include <unordered_map>

#include "text/utf8.h"

namespace nautile::grammar {
namespace {

constexpr size_t kInfinite = size_t{1} << 30;

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

class GbnfParser {
 public:
  GbnfParser(std::string_view text, Builder& builder, JsonPieces& pieces, const GrammarLimits& limits)
      : text_(text), b_(builder), pieces_(pieces), limits_(limits) {}

  Result<RuleId> run() {
    if (text_.size() > limits_.schema_bytes) return error("schema_too_complex: the grammar is too long");
    if (valid_utf8_prefix(text_) != text_.size()) return error("invalid_schema: the grammar is not UTF-8");
    for (skip(true); at_ < text_.size(); skip(true)) NAUTILE_RETURN_IF_ERROR(definition());
    for (const auto& [name, rule] : rules_) {
      if (rule.defined) continue;
      at_ = rule.first_use;
      return error("invalid_schema: the rule \"" + name + "\" is not defined");
    }
    const auto root = rules_.find("root");
    if (root == rules_.end()) return error("invalid_schema: there is no rule \"root\"");
    return root->second.rule;
  }

 private:
  struct Named {
    RuleId rule;
    bool defined;
    size_t first_use;
  };
  struct Frame {
    Piece rule;
    RuleId id;
    StateId cur;
  };
  struct Item {
    std::string bytes;  // a literal, unless one of the others is set
    std::optional<CharSet> set;
    std::optional<RuleId> rule;
  };

  Status error(std::string what) const {
    const size_t line =
        1 + static_cast<size_t>(std::count(text_.begin(), text_.begin() + std::min(at_, text_.size()), '\n'));
    return Status(Code::kInvalidArgument, std::move(what), "line " + std::to_string(line) + " of the grammar");
  }

  // Spaces and comments; line ends only where a rule may go on behind them.
  void skip(bool lines) {
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '#') {
        while (at_ + 1 < text_.size() && text_[at_ + 1] != '\n') ++at_;
      } else if (c != ' ' && c != '\t' && (!lines || (c != '\n' && c != '\r'))) {
        break;
      }
    }
  }

  std::string_view name() {
    const size_t begin = at_;
    while (at_ < text_.size() && is_name(text_[at_])) ++at_;
    return text_.substr(begin, at_ - begin);
  }

  bool take(std::string_view wanted) {
    if (!text_.substr(at_).starts_with(wanted)) return false;
    at_ += wanted.size();
    return true;
  }

  Named& named(std::string_view name) {
    const auto found = rules_.find(std::string(name));
    if (found != rules_.end()) return found->second;
    return rules_.emplace(std::string(name), Named{b_.rule(), false, at_}).first->second;
  }

  Status definition() {
    const std::string_view defined = name();
    if (defined.empty()) return error("invalid_schema: the name of a rule is missing");
    skip(true);
    if (!take("::=")) return error("invalid_schema: \"::=\" is missing");
    Named& rule = named(defined);
    if (rule.defined) return error("invalid_schema: the rule is defined twice");
    rule.defined = true;
    open(rule.rule);
    skip(true);
    while (true) {
      if (b_.exhausted()) return error("schema_too_complex: too many states");
      skip(frames_.size() > 1);
      if (at_ >= text_.size() || text_[at_] == '\n' || text_[at_] == '\r') {
        if (frames_.size() > 1) return error("invalid_schema: a group is not closed");
        // A line that begins with "|" goes on.
        const size_t end = at_;
        skip(true);
        if (!text_.substr(at_).starts_with("|")) {
          at_ = end;
          break;
        }
      }
      if (take("|")) {
        b_.empty(frames_.back().cur, frames_.back().rule.end);
        frames_.back().cur = frames_.back().rule.begin;
        skip(true);
      } else if (take("(")) {
        open(b_.rule());
      } else if (take(")")) {
        if (frames_.size() == 1) return error("invalid_schema: ')' without '('");
        Item group;
        group.rule = frames_.back().id;
        close();
        NAUTILE_RETURN_IF_ERROR(quantified(group));
      } else {
        Item item;
        NAUTILE_RETURN_IF_ERROR(read(item));
        NAUTILE_RETURN_IF_ERROR(quantified(item));
      }
    }
    close();
    return {};
  }

  void open(RuleId id) { frames_.push_back({b_.of(id), id, b_.of(id).begin}); }
  void close() {
    b_.empty(frames_.back().cur, frames_.back().rule.end);
    frames_.pop_back();
  }

  Status read(Item& item) {
    const char c = text_[at_];
    if (is_name(c)) {
      const size_t begin = at_;
      const std::string_view used = name();
      const size_t end = std::exchange(at_, begin);
      item.rule = named(used).rule;
      at_ = end;
      return {};
    }
    if (take(".")) {
      item.set = CharSet::all();
      return {};
    }
    if (take("\"")) {
      while (!take("\"")) {
        uint32_t point = 0;
        NAUTILE_RETURN_IF_ERROR(character(point));
        append_utf8(point, item.bytes);
      }
      return {};
    }
    if (take("[")) {
      const bool negated = take("^");
      CharSet set;
      while (!take("]")) {
        uint32_t low = 0;
        NAUTILE_RETURN_IF_ERROR(character(low));
        uint32_t high = low;
        if (text_.substr(at_).starts_with("-") && !text_.substr(at_).starts_with("-]")) {
          ++at_;
          NAUTILE_RETURN_IF_ERROR(character(high));
        }
        if (high < low) return error("invalid_schema: a range of a class is the wrong way round");
        set.add(low, high);
      }
      set.normalise();
      item.set = negated ? set.complement() : set;
      return {};
    }
    return error("invalid_schema: a name, literal, class or group is missing");
  }

  // One character of a literal or class.
  Status character(uint32_t& point) {
    if (at_ >= text_.size() || text_[at_] == '\n') return error("invalid_schema: a literal or class is not closed");
    const CodePoint decoded = decode_utf8(text_, at_);
    at_ += decoded.bytes;
    point = decoded.value;
    if (point != '\\') return {};
    if (at_ >= text_.size()) return error("invalid_schema: the grammar ends in '\\'");
    const char c = text_[at_++];
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      const size_t index = std::string_view("nrt\\\"[]-^").find(c);
      if (index == std::string_view::npos) return error("invalid_schema: no such escape");
      point = static_cast<uint8_t>("\n\r\t\\\"[]-^"[index]);
      return {};
    }
    point = 0;
    for (size_t i = 0; i < digits; ++i, ++at_) {
      const size_t value = at_ < text_.size() ? std::string_view("0123456789abcdef0123456789ABCDEF").find(text_[at_])
                                              : std::string_view::npos;
      if (value == std::string_view::npos) return error("invalid_schema: a hexadecimal escape is broken");
      point = point << 4 | static_cast<uint32_t>(value % 16);
    }
    if (point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return error("invalid_schema: no such code point");
    return {};
  }

  void emit(const Item& item, StateId from, StateId to) {
    if (item.rule) {
      b_.call(from, *item.rule, to);
    } else if (item.set) {
      pieces_.text(TextForm::kRaw).chars(from, *item.set, to);
    } else {
      b_.literal(from, item.bytes, to);
    }
  }

  Status quantified(const Item& item) {
    size_t min = 1, max = 1;
    if (take("*")) {
      min = 0;
      max = kInfinite;
    } else if (take("+")) {
      max = kInfinite;
    } else if (take("?")) {
      min = 0;
    } else if (take("{")) {
      const auto number = [&](size_t& value) {
        const size_t begin = at_;
        value = 0;
        for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
          value = std::min(value * 10 + static_cast<size_t>(text_[at_] - '0'), kInfinite - 1);
        }
        return at_ > begin;
      };
      const bool low = number(min);
      if (!low) min = 0;
      max = min;
      bool good = low;
      if (take(",")) {
        const bool high = number(max);
        if (!high) max = kInfinite;
        good = low || high;
      }
      if (!good || !take("}") || max < min) return error("invalid_schema: a repetition is broken");
    }
    StateId& cur = frames_.back().cur;
    for (size_t i = 0; i < min && !b_.exhausted(); ++i) {
      const StateId next = b_.state();
      emit(item, cur, next);
      cur = next;
    }
    if (max == min) return {};
    const StateId end = b_.state();
    if (max == kInfinite) {
      const StateId loop = b_.state();
      b_.empty(cur, loop);
      emit(item, loop, loop);
      b_.empty(loop, end);
    } else {
      for (size_t i = min; i < max && !b_.exhausted(); ++i) {
        const StateId next = b_.state();
        b_.empty(cur, end);
        emit(item, cur, next);
        cur = next;
      }
      b_.empty(cur, end);
    }
    cur = end;
    return {};
  }

  const std::string_view text_;
  Builder& b_;
  JsonPieces& pieces_;
  const GrammarLimits& limits_;
  size_t at_ = 0;
  std::vector<Frame> frames_;
  std::unordered_map<std::string, Named> rules_;
};

}  // namespace

Result<RuleId> add_gbnf(std::string_view text, Builder& builder, JsonPieces& pieces, const GrammarLimits& limits) {
  return GbnfParser(text, builder, pieces, limits).run();
}

}  // namespace nautile::grammar
