// The members of a JSON object in the form V4 prompts use, straight from its text: numbers keep every digit.
//
// Thread-safety: a pure function. Source: spec chat.md 4.1, 4.2.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/conversation.h"

namespace nautile {

// Top-level members in order; of a key that stands twice the last value counts, at the first one's place (Python).
// kInvalidArgument at `where` if the text is not one JSON object.
Result<std::vector<Argument>> python_members(std::string_view json, const std::string& where);

// True if the text is one JSON value, not nested deeper than arguments may hold it.
bool is_json(std::string_view text);

}  // namespace nautile
