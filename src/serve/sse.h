// Server-sent events, and the JSON text inside them, written without building a document.
//
// Thread-safety: pure functions. Source: spec api.md 2.4.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace nautile::serve {

// Appends the text as the inside of a JSON string. The text is valid UTF-8; U+2028 and the like stay as they are.
void append_escaped(std::string_view text, std::string& out);
// With quotes.
void append_quoted(std::string_view text, std::string& out);
// "data: " + json + blank line. `json` has no newline.
void append_data(std::string_view json, std::string& out);
// With an event name before it.
void append_event(std::string_view name, std::string_view json, std::string& out);
// One line, broken UTF-8 replaced.
std::string compact(const Json& json);

}  // namespace nautile::serve
