// Words and numbers as people type them: "32k", "6.00", "2026-10-27", "gb300:4", and the nearest known name.
//
// All functions are pure. Errors are kInvalidArgument and name the flag or field they were given.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace nautile::plan {

// A count of tokens: digits, or digits with k (1024) or m (1024 * 1024): "32k", "1m", "1000000".
Result<int64_t> parse_tokens(std::string_view text, const std::string& where);

// Days since 1970-01-01 of "YYYY-MM-DD", "YYYY-MM" (its first day) or "YYYY" (its first day).
Result<int64_t> parse_date(std::string_view text, const std::string& where);
// "YYYY-MM-DD" of a day number.
std::string date_text(int64_t day);

// Names within a few edits of `name`, or that contain it, nearest first; at most three.
std::vector<std::string> near_names(std::string_view name, const std::vector<std::string>& known);
// The error for a name that does not exist, with the near ones or, when none is near, all of them.
Status unknown_name(const std::string& kind, std::string_view name, const std::vector<std::string>& known,
                    const std::string& where);

// "864.7 GB (805.3 GiB)"; below 1 GB in MB (MiB).
std::string both_units(int64_t bytes);
// "1,572,997,201,763"
std::string with_commas(int64_t value);
// Three significant digits with a thousands comma above 9,999: 0.0642, 3.96, 211, 11,812.
std::string short_number(double value);

}  // namespace nautile::plan
