// JSON in: one strict parser for every file and request that Nautile reads. Order-preserving, linear in the text,
// rejects duplicate keys (unless told otherwise), invalid UTF-8, trailing bytes, nesting deeper than kMaxJsonDepth, and
// integers that 64 bits do not hold (never rounded).
//
// Thread-safety: free functions without state.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace nautile {

using Json = nlohmann::ordered_json;
inline constexpr int kMaxJsonDepth = 128;

struct JsonRules {
  int max_depth = kMaxJsonDepth;
  size_t max_values = SIZE_MAX;      // of every kind, containers included
  bool last_duplicate_wins = false;  // else a key that stands twice is a fault
};

// `where` names the text in the error ("config.json"). kCorrupt with the byte position otherwise; kResourceExhausted
// for a text that is deeper or has more values than the rules allow.
Result<Json> parse_json(std::string_view text, const std::string& where, const JsonRules& rules = {});

// Feeds all of `text` to a SAX handler of J; false when the handler or the parser found a fault. Every caller of the
// library's parser goes through here: the library takes a NUL byte for the end of its input, whatever follows, and no
// JSON text holds one, so it arrives at the handler's parse_error like any other fault.
template <class J, class Handler>
bool read_json(std::string_view text, Handler* handler) {
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return handler->parse_error(nul, "", nlohmann::detail::parse_error::create(101, nul, "a NUL byte", nullptr));
  }
  return J::sax_parse(text.begin(), text.end(), handler);
}

// The library's words for a fault, without its own numbering.
std::string json_fault(const nlohmann::detail::exception& error);

// The field `key` of `object` as the asked type; kInvalidArgument naming `where.key` when it is missing or of another
// type. Integers must be whole numbers within int64.
Result<int64_t> json_int(const Json& object, const char* key, const std::string& where);
Result<double> json_number(const Json& object, const char* key, const std::string& where);
Result<bool> json_bool(const Json& object, const char* key, const std::string& where);
Result<std::string> json_string(const Json& object, const char* key, const std::string& where);

// Python's json.dumps(value, ensure_ascii=False): ", " and ": ", key order kept, floats in shortest round-trip Python
// style, NaN and Infinity by these words. This is the form V4 prompts use (spec chat.md 4.1).
std::string python_json(const Json& value);

}  // namespace nautile
