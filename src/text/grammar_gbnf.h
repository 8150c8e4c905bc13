// Grammars in GBNF (llama.cpp's notation) to automaton states; the rule `root` is the text.
//
//   root ::= "a" [0-9]+ (item | ".")? {0,3}      # names, "literals", [classes], ".", groups, * + ? {m,n}, comments
//
// Left recursion and rules that are not defined are errors. Thread-safety: a pure function. Source: spec api.md 10.
#pragma once

#include <string_view>

#include "text/grammar_json.h"

namespace nautile::grammar {

// The rule of `root`. kInvalidArgument, where() naming the line.
Result<RuleId> add_gbnf(std::string_view text, Builder& builder, JsonPieces& pieces, const GrammarLimits& limits);

}  // namespace nautile::grammar
