// Holds back the longest suffix that begins a stop string, by one failure function per string.
#include "text/stop.h"

#include <fmt/format.h>

#include <algorithm>

namespace nautile {

Result<StopMatcher> StopMatcher::make(std::vector<std::string> stops, bool include) {
  if (stops.size() > kMaxStrings) {
    return Status(Code::kInvalidArgument, fmt::format("{} stop strings are more than {}", stops.size(), kMaxStrings),
                  "stop");
  }
  StopMatcher made;
  for (size_t i = 0; i < stops.size(); ++i) {
    const std::string where = fmt::format("stop[{}]", i);
    if (stops[i].empty()) return Status(Code::kInvalidArgument, "a stop string must not be empty", where);
    if (stops[i].size() > kMaxBytes) {
      return Status(Code::kInvalidArgument, fmt::format("a stop string must not be longer than {} bytes", kMaxBytes),
                    where);
    }
    Pattern pattern{std::move(stops[i]), {}, 0};
    pattern.border.assign(pattern.text.size() + 1, 0);
    for (size_t at = 1, border = 0; at < pattern.text.size(); ++at) {
      while (border > 0 && pattern.text[at] != pattern.text[border]) border = pattern.border[border];
      if (pattern.text[at] == pattern.text[border]) ++border;
      pattern.border[at + 1] = border;
    }
    made.patterns_.push_back(std::move(pattern));
  }
  made.include_ = include;
  return made;
}

bool StopMatcher::push(std::string_view text, std::string& out) {
  if (matched()) return true;
  for (const char c : text) {
    held_ += c;
    size_t longest = 0;  // of the prefixes of stop strings that end here
    const Pattern* hit = nullptr;
    for (Pattern& pattern : patterns_) {
      while (pattern.state > 0 && (pattern.state == pattern.text.size() || c != pattern.text[pattern.state])) {
        pattern.state = pattern.border[pattern.state];
      }
      if (c == pattern.text[pattern.state]) ++pattern.state;
      if (pattern.state == pattern.text.size() && (hit == nullptr || pattern.text.size() > hit->text.size()))
        hit = &pattern;
      longest = std::max(longest, pattern.state);
    }
    if (hit != nullptr) {
      matched_ = hit->text;
      out += std::string_view(held_).substr(0, held_.size() - (include_ ? 0 : matched_.size()));
      held_.clear();
      return true;
    }
    const size_t free = held_.size() - longest;
    out.append(held_, 0, free);
    held_.erase(0, free);
  }
  return false;
}

void StopMatcher::finish(std::string& out) {
  out += held_;
  held_.clear();
}

}  // namespace nautile
