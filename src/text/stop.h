// User stop strings, matched over a stream of content whatever the cuts between tokens.
//
// Feed it content only: reasoning and tool calls never stop. Text that may still become a stop string is held back.
// Thread-safety: one thread. Source: spec api.md 9.2.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace nautile {

class StopMatcher {
 public:
  static constexpr size_t kMaxStrings = 64;
  static constexpr size_t kMaxBytes = 4096;  // of one string

  // kInvalidArgument for an empty string, too many or too long ones. `include` leaves the matched string in the text.
  static Result<StopMatcher> make(std::vector<std::string> stops, bool include = false);

  // Appends to `out` the text that can no longer be part of a stop string; true once one has matched. The match that
  // ends first wins, the longest of those that end together. Text from the match on is dropped.
  bool push(std::string_view text, std::string& out);
  // The stream ended without a match: releases what was held.
  void finish(std::string& out);
  bool matched() const { return !matched_.empty(); }
  const std::string& matched_string() const { return matched_; }

 private:
  StopMatcher() = default;

  struct Pattern {
    std::string text;
    std::vector<size_t> border;  // [n]: longest proper prefix of the first n bytes that also ends them
    size_t state = 0;            // bytes matched so far
  };
  std::vector<Pattern> patterns_;
  bool include_ = false;
  std::string held_;
  std::string matched_;
};

}  // namespace nautile
