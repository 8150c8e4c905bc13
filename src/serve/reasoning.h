// Which reasoning mode a request asks for: every dialect's own spelling, one answer.
//
// Thread-safety: pure functions. Source: spec api.md section 6.
#pragma once

#include <optional>

#include "serve/fields.h"
#include "serve/request.h"

namespace nautile::serve {

struct ReasoningChoice {
  ReasoningMode mode = ReasoningMode::kThinkHigh;
  std::optional<int64_t> budget;
  bool exclude = false;    // think, do not send
  bool summary = false;    // Responses: reasoning.summary was asked for
  bool omit = false;       // Messages: thinking.display "omitted"
  bool explicit_ = false;  // some field asked for it
};

// Reads the reasoning fields of a request. `fallback` is the alias's or the server's default.
ReasoningChoice read_reasoning(Fields& fields, Dialect dialect, EncodingProfile profile, ReasoningMode fallback);

// The mode that an effort word stands for; nothing for a word that is none. "default" and "auto" give `fallback`.
std::optional<ReasoningMode> effort_mode(const std::string& word, EncodingProfile profile, ReasoningMode fallback);

// "non_think", "think_low", ...; also the short forms.
std::optional<ReasoningMode> mode_of(const std::string& name);

}  // namespace nautile::serve
