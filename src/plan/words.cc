// Parsing and printing of what people type and read.
#include "plan/words.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace nautile::plan {
namespace {

// Days since the epoch of a civil date (Gregorian, proleptic).
int64_t civil_day(int64_t year, int month, int day) {
  year -= month <= 2;
  const int64_t era = (year >= 0 ? year : year - 399) / 400;
  const int64_t of_era = year - era * 400;
  const int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

size_t edits(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t corner = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = corner + (a[i - 1] != b[j - 1]);
      corner = row[j];
      row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

bool digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

Result<int64_t> parse_tokens(std::string_view text, const std::string& where) {
  std::string_view number = text;
  int64_t unit = 1;
  if (!number.empty() && (number.back() == 'k' || number.back() == 'K')) unit = 1024;
  if (!number.empty() && (number.back() == 'm' || number.back() == 'M')) unit = 1024 * 1024;
  if (unit > 1) number.remove_suffix(1);
  int64_t value = 0;
  auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (!digits(number) || error != std::errc() || end != number.data() + number.size() || value > INT64_MAX / unit) {
    return Status(Code::kInvalidArgument, fmt::format("\"{}\" is not a number of tokens", text), where,
                  "write digits, or digits with k (1024) or m (1,048,576): 32k, 1m, 1000000");
  }
  return value * unit;
}

Result<int64_t> parse_date(std::string_view text, const std::string& where) {
  const Status bad(Code::kInvalidArgument, fmt::format("\"{}\" is not a date", text), where,
                   "write YYYY-MM-DD, YYYY-MM or YYYY");
  const size_t n = text.size();
  if ((n != 4 && n != 7 && n != 10) || (n > 4 && text[4] != '-') || (n > 7 && text[7] != '-')) return bad;
  auto part = [&](size_t at, size_t length) {
    int value = -1;
    if (at + length <= n && digits(text.substr(at, length))) {
      std::from_chars(text.data() + at, text.data() + at + length, value);
    }
    return value;
  };
  const int year = part(0, 4), month = n > 4 ? part(5, 2) : 1, day = n > 7 ? part(8, 2) : 1;
  if (year < 1970 || month < 1 || month > 12 || day < 1 || day > 31) return bad;
  const int64_t number = civil_day(year, month, day);
  if (n == 10 && date_text(number) != text) return bad;  // 2026-02-30
  return number;
}

std::string date_text(int64_t day) {
  const int64_t z = day + 719468;
  const int64_t era = (z >= 0 ? z : z - 146096) / 146097;
  const int64_t of_era = z - era * 146097;
  const int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
  const int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t shifted = (5 * of_year + 2) / 153;
  const int64_t month = shifted < 10 ? shifted + 3 : shifted - 9;
  return fmt::format("{:04}-{:02}-{:02}", year_of_era + era * 400 + (month <= 2), month,
                     of_year - (153 * shifted + 2) / 5 + 1);
}

std::vector<std::string> near_names(std::string_view name, const std::vector<std::string>& known) {
  std::vector<std::pair<size_t, std::string>> found;
  for (const std::string& candidate : known) {
    // "gb30o" is near "gb300-nvl72": people leave out what follows the first hyphen.
    size_t distance = edits(name, candidate);
    const size_t hyphen = candidate.find('-');
    if (hyphen != std::string::npos && hyphen > 3)
      distance = std::min(distance, edits(name, candidate.substr(0, hyphen)));
    const bool inside = name.size() >= 3 && candidate.find(name) != std::string::npos;
    if (inside || distance <= std::max<size_t>(2, name.size() / 3)) found.emplace_back(distance, candidate);
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> names;
  for (auto& [distance, candidate] : found) {
    if (names.size() < 3) names.push_back(candidate);
  }
  return names;
}

Status unknown_name(const std::string& kind, std::string_view name, const std::vector<std::string>& known,
                    const std::string& where) {
  const auto near = near_names(name, known);
  const std::string fix = near.empty() ? fmt::format("known: {}", fmt::join(known, ", "))
                                       : fmt::format("did you mean {}?", fmt::join(near, " or "));
  return {Code::kInvalidArgument, fmt::format("no {} is called \"{}\"", kind, name), where, fix};
}

std::string both_units(int64_t bytes) {
  const double value = static_cast<double>(bytes);
  if (bytes < 1'000'000'000) return fmt::format("{:.1f} MB ({:.1f} MiB)", value / 1e6, value / (1 << 20));
  return fmt::format("{:.1f} GB ({:.1f} GiB)", value / 1e9, value / (1 << 30));
}

std::string with_commas(int64_t value) {
  std::string text = std::to_string(value);
  for (int64_t at = static_cast<int64_t>(text.size()) - 3; at > (value < 0 ? 1 : 0); at -= 3) {
    text.insert(static_cast<size_t>(at), ",");
  }
  return text;
}

std::string short_number(double value) {
  if (!std::isfinite(value)) return value > 0 ? "inf" : "-";
  const double size = std::fabs(value);
  if (size >= 999.5) return with_commas(std::llround(value));
  if (size >= 99.95) return fmt::format("{:.0f}", value);
  if (size >= 9.995) return fmt::format("{:.1f}", value);
  if (size >= 0.9995 || value == 0) return fmt::format("{:.2f}", value);
  return fmt::format("{:.3g}", value);
}

}  // namespace nautile::plan
