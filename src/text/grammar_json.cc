#include "text/grammar_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace nautile::grammar {

std::optional<Decimal> decimal_of(const Json& number) {
  Decimal out;
  char buffer[64];
  if (number.is_number_integer()) {
    out.whole =
        number.is_number_unsigned() ? std::to_string(number.get<uint64_t>()) : std::to_string(number.get<int64_t>());
    if (out.whole.front() == '-') {
      out.negative = true;
      out.whole.erase(0, 1);
    }
  } else {
    const double value = number.get<double>();
    if (!std::isfinite(value)) return std::nullopt;
    const auto [end, fault] =
        std::to_chars(buffer, buffer + sizeof buffer, std::fabs(value), std::chars_format::scientific);
    std::string text(buffer, end);
    const size_t e = text.find('e');
    int exponent = 0;
    const char* digits_of_exponent = text.data() + e + 1 + (text[e + 1] == '+' ? 1 : 0);
    std::from_chars(digits_of_exponent, text.data() + text.size(), exponent);
    std::string digits = text.substr(0, e);
    std::erase(digits, '.');
    out.negative = std::signbit(value) && value != 0;
    if (std::abs(exponent) > 40) return std::nullopt;
    const int point = exponent + 1;  // digits before the point
    if (point <= 0) {
      out.fraction = std::string(static_cast<size_t>(-point), '0') + digits;
    } else {
      if (digits.size() < static_cast<size_t>(point)) digits.resize(static_cast<size_t>(point), '0');
      out.whole = digits.substr(0, static_cast<size_t>(point));
      out.fraction = digits.substr(static_cast<size_t>(point));
    }
    while (!out.fraction.empty() && out.fraction.back() == '0') out.fraction.pop_back();
    const size_t first = out.whole.find_first_not_of('0');
    out.whole = first == std::string::npos ? "0" : out.whole.substr(first);
  }
  if (out.whole.size() > kMaxDigits || out.fraction.size() > kMaxDigits) return std::nullopt;
  return out;
}

Status JsonPieces::set_whitespace(std::string_view expression, const GrammarLimits& limits) {
  NAUTILE_ASSIGN(const Pattern pattern, Pattern::parse(expression, true, limits));
  whitespace_ = builder_.rule();
  raw_text_.texts(builder_.of(*whitespace_).begin, {&pattern}, {}, builder_.of(*whitespace_).end);
  return {};
}

void JsonPieces::space(StateId from, StateId to) {
  if (whitespace_) return builder_.call(from, *whitespace_, to);
  builder_.empty(from, to);
  builder_.bytes(from, ' ', ' ', to);
}

RuleId JsonPieces::any_text() {
  if (text_) return *text_;
  text_ = builder_.rule();
  const auto [begin, end] = builder_.of(*text_);
  raw_text_.chars(begin, CharSet::all(), begin);
  builder_.empty(begin, end);
  return *text_;
}

RuleId JsonPieces::string() {
  if (string_) return *string_;
  string_ = builder_.rule();
  const auto [begin, end] = builder_.of(*string_);
  const StateId body = builder_.state();
  builder_.bytes(begin, '"', '"', body);
  CharSet plain;
  plain.add(0x20, 0x21);
  plain.add(0x23, 0x5b);
  plain.add(0x5d, 0x10ffff);
  plain.normalise();
  raw_text_.chars(body, plain, body);
  const StateId escape = builder_.state();
  builder_.bytes(body, '\\', '\\', escape);
  for (const char c : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'}) {
    builder_.bytes(escape, static_cast<uint8_t>(c), static_cast<uint8_t>(c), body);
  }
  // \uXXXX; surrogates only as pairs.
  const auto hex = [&](StateId from, std::string_view digits, StateId to) {
    for (const char c : digits) builder_.bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
  };
  constexpr std::string_view kHex = "0123456789abcdefABCDEF";
  const StateId u = builder_.state(), one = builder_.state(), two = builder_.state(), three = builder_.state();
  builder_.bytes(escape, 'u', 'u', u);
  hex(u, "0123456789abcefABCEF", one);
  hex(one, kHex, two);
  hex(two, kHex, three);
  hex(three, kHex, body);
  const StateId d = builder_.state();
  hex(u, "dD", d);
  hex(d, "01234567", two);
  const StateId high = builder_.state(), high3 = builder_.state(), high4 = builder_.state();
  hex(d, "89abAB", high);
  hex(high, kHex, high3);
  hex(high3, kHex, high4);
  const StateId low = builder_.literal(high4, "\\u"), low2 = builder_.state(), low3 = builder_.state();
  hex(low, "dD", low2);
  hex(low2, "cdefCDEF", low3);
  hex(low3, kHex, three);
  builder_.bytes(body, '"', '"', end);
  return *string_;
}

// Inside "{" ... "}" of any members.
void JsonPieces::object(StateId from, StateId to) {
  const StateId open = builder_.state(), empty = builder_.state(), key = builder_.state(), some = builder_.state();
  builder_.bytes(from, '{', '{', open);
  space(open, empty);
  builder_.bytes(empty, '}', '}', to);
  builder_.empty(empty, key);
  const StateId colon = builder_.state(), before = builder_.state(), value = builder_.state();
  builder_.call(key, string(), colon);
  builder_.bytes(colon, ':', ':', before);
  space(before, value);
  builder_.call(value, any_value(), some);
  const StateId comma = builder_.state(), last = builder_.state();
  builder_.bytes(some, ',', ',', comma);
  space(comma, key);
  space(some, last);
  builder_.bytes(last, '}', '}', to);
}

void JsonPieces::array(StateId from, StateId to) {
  const StateId open = builder_.state(), empty = builder_.state(), value = builder_.state(), some = builder_.state();
  builder_.bytes(from, '[', '[', open);
  space(open, empty);
  builder_.bytes(empty, ']', ']', to);
  builder_.empty(empty, value);
  builder_.call(value, any_value(), some);
  const StateId comma = builder_.state(), last = builder_.state();
  builder_.bytes(some, ',', ',', comma);
  space(comma, value);
  space(some, last);
  builder_.bytes(last, ']', ']', to);
}

RuleId JsonPieces::any_value() {
  if (value_) return *value_;
  value_ = builder_.rule();
  const auto [begin, end] = builder_.of(*value_);
  object(begin, end);
  array(begin, end);
  builder_.call(begin, string(), end);
  builder_.call(begin, any_number(), end);
  for (const char* word : {"true", "false", "null"}) builder_.literal(begin, word, end);
  return *value_;
}

RuleId JsonPieces::any_object() {
  if (object_) return *object_;
  object_ = builder_.rule();
  object(builder_.of(*object_).begin, builder_.of(*object_).end);
  return *object_;
}

RuleId JsonPieces::numbers(std::optional<RuleId>& rule, bool integer) {
  if (rule) return *rule;
  rule = builder_.rule();
  const auto [begin, end] = builder_.of(*rule);
  const StateId plain = builder_.state();
  number(begin, {}, integer, plain);
  builder_.empty(plain, end);
  if (!integer) {
    const StateId e = builder_.state(), sign = builder_.state(), one = builder_.state();
    builder_.bytes(plain, 'e', 'e', e);
    builder_.bytes(plain, 'E', 'E', e);
    builder_.empty(e, sign);
    builder_.bytes(e, '+', '+', sign);
    builder_.bytes(e, '-', '-', sign);
    builder_.bytes(sign, '0', '9', one);
    builder_.empty(one, end);
    builder_.bytes(one, '0', '9', end);
  }
  return *rule;
}

RuleId JsonPieces::any_number() {
  return numbers(number_, false);
}

RuleId JsonPieces::any_integer() {
  return numbers(integer_, true);
}

void JsonPieces::number(StateId from, const NumberBounds& bounds, bool integer, StateId to) {
  const bool low_negative = !bounds.low || bounds.low->value.negative;
  const bool high_negative = bounds.high && bounds.high->value.negative;
  if (!high_negative) {
    NumberBounds positive = bounds;
    if (low_negative) positive.low.reset();
    magnitude(from, positive, integer, to);
  }
  if (low_negative) {
    NumberBounds negative;
    // Without a negative upper bound any magnitude but zero: "-0" is nobody's number.
    negative.low = high_negative ? *bounds.high : NumberBounds::Bound{{}, true};
    negative.high = bounds.low;
    const StateId minus = builder_.state();
    builder_.bytes(from, '-', '-', minus);
    magnitude(minus, negative, integer, to);
  }
}

// Digits of a number without sign. Signs of the bounds are not looked at. A state knows how many digits have come, and
// whether these equal the bounds' own so far (tight); once both are decided, states are shared.
void JsonPieces::magnitude(StateId from, const NumberBounds& bounds, bool integer, StateId to) {
  const Decimal low = bounds.low ? bounds.low->value : Decimal{};
  const Decimal high = bounds.high ? bounds.high->value : Decimal{};
  const auto digit = [](const std::string& digits, size_t at) { return at < digits.size() ? digits[at] - '0' : 0; };
  const auto all_zero_from = [](const std::string& digits, size_t at) { return at >= digits.size(); };
  const size_t max_fraction = integer ? 0 : kMaxDigits;

  // [behind the point][digits left or done]
  std::optional<StateId> free_whole[kMaxDigits + 1], free_fraction[kMaxDigits + 1];
  const auto fraction_free = [&](size_t done) {
    for (size_t k = kMaxDigits + 1; k-- > done;) {
      if (free_fraction[k]) continue;
      free_fraction[k] = builder_.state();
      builder_.empty(*free_fraction[k], to);
      if (k < kMaxDigits) builder_.bytes(*free_fraction[k], '0', '9', *free_fraction[k + 1]);
    }
    return *free_fraction[done];
  };
  const auto whole_free = [&](size_t left) {
    for (size_t k = 0; k <= left; ++k) {
      if (free_whole[k]) continue;
      free_whole[k] = builder_.state();
      if (k > 0) {
        builder_.bytes(*free_whole[k], '0', '9', *free_whole[k - 1]);
        continue;
      }
      builder_.empty(*free_whole[0], to);
      if (!integer) {
        const StateId point = builder_.state();
        builder_.bytes(*free_whole[0], '.', '.', point);
        builder_.bytes(point, '0', '9', fraction_free(1));
      }
    }
    return *free_whole[left];
  };
  const auto may_end = [&](size_t fraction_digits, bool tight_low, bool tight_high) {
    const bool low_ok = !tight_low || (all_zero_from(low.fraction, fraction_digits) && !bounds.low->exclusive);
    const bool high_ok = !tight_high || !all_zero_from(high.fraction, fraction_digits) || !bounds.high->exclusive;
    return low_ok && high_ok;
  };

  const size_t shortest = bounds.low ? low.whole.size() : 1, longest = bounds.high ? high.whole.size() : kMaxDigits;
  // Lengths between those of the bounds: one chain for all of them.
  const size_t first_free = bounds.low ? shortest + 1 : 1, last_free = bounds.high ? longest - 1 : longest;
  if (first_free <= last_free) {
    if (first_free == 1) builder_.bytes(from, '0', '0', whole_free(0));
    StateId at = from;
    for (size_t digits = 1; digits <= last_free; ++digits) {
      const StateId next = builder_.state();
      builder_.bytes(at, digits == 1 ? '1' : '0', '9', next);
      if (digits >= first_free) builder_.empty(next, whole_free(0));
      at = next;
    }
  }
  for (size_t length = shortest; length <= longest; ++length) {
    if (length >= first_free && length <= last_free) continue;
    std::optional<StateId> level[4];  // by tight_low + 2 * tight_high
    const bool tight_low = bounds.low && length == low.whole.size();
    const bool tight_high = bounds.high && length == high.whole.size();
    level[(tight_low ? 1 : 0) + (tight_high ? 2 : 0)] = from;
    for (size_t at = 0; at <= length + max_fraction; ++at) {
      const bool whole = at < length;
      std::optional<StateId> next[4];
      for (int flags = 0; flags < 4; ++flags) {
        if (!level[flags]) continue;
        StateId state = *level[flags];
        const bool tl = flags & 1, th = flags & 2;
        const size_t fraction_at = whole ? 0 : at - length;
        if (!whole) {
          if (may_end(fraction_at, tl, th)) builder_.empty(state, to);
          if (fraction_at == max_fraction) continue;
          if (fraction_at == 0) {
            const StateId point = builder_.state();
            builder_.bytes(state, '.', '.', point);
            state = point;
          }
        }
        const int least = tl ? (whole ? low.whole[at] - '0' : digit(low.fraction, fraction_at)) : 0;
        const int most = th ? (whole ? high.whole[at] - '0' : digit(high.fraction, fraction_at)) : 9;
        for (int d = std::max(least, whole && at == 0 && length > 1 ? 1 : 0); d <= most; ++d) {
          const int to_flags = (tl && d == least ? 1 : 0) + (th && d == most ? 2 : 0);
          StateId target = 0;
          if (to_flags == 0) {
            target = whole ? whole_free(length - at - 1) : fraction_free(fraction_at + 1);
          } else {
            if (!next[to_flags]) next[to_flags] = builder_.state();
            target = *next[to_flags];
          }
          builder_.bytes(state, static_cast<uint8_t>('0' + d), static_cast<uint8_t>('0' + d), target);
        }
      }
      std::copy(next, next + 4, level);
      if (builder_.exhausted()) return;
    }
  }
}

void JsonPieces::constant(StateId from, const Json& value, StateId to) {
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  bool quoted = false;
  for (size_t at = 0; at < text.size() && !builder_.exhausted(); ++at) {
    const char c = text[at];
    const StateId next = builder_.state();
    builder_.bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), next);
    from = next;
    if (quoted && c == '\\') {
      from = builder_.literal(from, text.substr(++at, 1));
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && (c == ',' || c == ':')) {
      const StateId spaced = builder_.state();
      space(from, spaced);
      from = spaced;
    }
  }
  builder_.empty(from, to);
}

}  // namespace nautile::grammar
