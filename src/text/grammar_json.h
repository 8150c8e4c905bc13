// The pieces JSON grammars are made of: whitespace, strings, numbers within bounds, any value.
//
// Between JSON tokens stands at most one space (after "{", "[", "," and ":", before "}" and "]"), or what the caller's
// own pattern allows: models that may write any amount of whitespace do so without end. Numbers have at most 18 digits
// before and 18 behind the point and an exponent of at most two, so that every reader holds them.
// Thread-safety: belongs to one thread. Source: spec api.md 10.
#pragma once

#include <optional>
#include <string>

#include "base/json.h"
#include "text/grammar_regex.h"

namespace nautile::grammar {

// A number in plain decimals.
struct Decimal {
  bool negative = false;
  std::string whole = "0";  // without leading zeros
  std::string fraction;     // without trailing zeros
};

struct NumberBounds {
  struct Bound {
    Decimal value;
    bool exclusive = false;
  };
  std::optional<Bound> low, high;
};

// Nothing for a number with more than `kMaxDigits` behind the point, or beyond 10^18.
inline constexpr size_t kMaxDigits = 18;
std::optional<Decimal> decimal_of(const Json& number);

class JsonPieces {
 public:
  // `builder` must outlive the pieces.
  explicit JsonPieces(Builder& builder)
      : builder_(builder), json_text_(builder, TextForm::kJson), raw_text_(builder, TextForm::kRaw) {}
  // An expression to stand for whitespace between tokens, in place of the optional space. Errors of Pattern::parse().
  Status set_whitespace(std::string_view expression, const GrammarLimits& limits);

  void space(StateId from, StateId to);
  RuleId string();    // with its quotes
  RuleId any_text();  // UTF-8 without quotes
  RuleId any_value();
  RuleId any_object();
  RuleId any_number();
  RuleId any_integer();
  void number(StateId from, const NumberBounds& bounds, bool integer, StateId to);
  // One value exactly, with the optional spaces.
  void constant(StateId from, const Json& value, StateId to);
  TextEncoder& text(TextForm form) { return form == TextForm::kJson ? json_text_ : raw_text_; }

 private:
  void object(StateId from, StateId to);
  void array(StateId from, StateId to);
  void magnitude(StateId from, const NumberBounds& bounds, bool integer, StateId to);
  RuleId numbers(std::optional<RuleId>& rule, bool integer);

  Builder& builder_;
  TextEncoder json_text_, raw_text_;
  std::optional<RuleId> whitespace_, string_, text_, value_, object_, number_, integer_;
};

}  // namespace nautile::grammar
