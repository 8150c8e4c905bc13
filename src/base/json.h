// JSON in: one strict parser for every file and request that Nautile reads. Order-preserving, rejects duplicate keys,
// invalid UTF-8, trailing bytes, nesting deeper than kMaxJsonDepth, and integers that 64 bits do not hold (never rounded).
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

// `where` names the text in the error ("config.json"). kCorrupt with the byte position otherwise.
Result<Json> parse_json(std::string_view text, const std::string& where);

// No JSON text holds a NUL byte, and the library reads one as the end of its input, whatever follows: every caller of its
// parser looks for one first. npos when there is none.
inline size_t find_nul(std::string_view text) { return text.find('\0'); }

// The field `key` of `object` as the asked type; kInvalidArgument naming `where.key` when it is missing or of another
// type. Integers must be whole numbers within int64.
Result<int64_t> json_int(const Json& object, const char* key, const std::string& where);
Result<double> json_number(const Json& object, const char* key, const std::string& where);
Result<bool> json_bool(const Json& object, const char* key, const std::string& where);
Result<std::string> json_string(const Json& object, const char* key, const std::string& where);

// Python's json.dumps(value, ensure_ascii=False): ", " and ": ", key order kept, floats in shortest round-trip Python
// style. This is the form V4 prompts use (spec chat.md 4.1).
std::string python_json(const Json& value);

}  // namespace nautile
