// Stop strings over every cut of a text.
#include "text/stop.h"

#include <doctest/doctest.h>

#include <random>

using namespace nautile;

namespace {

// Text and whether it stopped, with the input cut into pieces of `step` bytes.
std::pair<std::string, bool> run(const std::vector<std::string>& stops, const std::string& text, size_t step,
                                 bool include = false) {
  StopMatcher matcher = StopMatcher::make(stops, include).value();
  std::string out;
  for (size_t at = 0; at < text.size(); at += step) {
    if (matcher.push(std::string_view(text).substr(at, step), out)) break;
  }
  const bool matched = matcher.matched();
  if (!matched) matcher.finish(out);
  return {out, matched};
}

}  // namespace

TEST_CASE("matches across cuts, earliest end first, then the longest") {
  for (size_t step = 1; step < 12; ++step) {
    CAPTURE(step);
    CHECK(run({"STOP"}, "abc STOP def", step) == std::pair(std::string("abc "), true));
    CHECK(run({"STOP"}, "abc STOP def", step, true) == std::pair(std::string("abc STOP"), true));
    CHECK(run({"STOP"}, "abc STO", step) == std::pair(std::string("abc STO"), false));
    CHECK(run({"x"}, "x", step) == std::pair(std::string(), true));
    CHECK(run({"bcd", "d"}, "abcd", step) == std::pair(std::string("a"), true));
    CHECK(run({"abcde", "bc"}, "xabcde", step) == std::pair(std::string("xa"), true));
    CHECK(run({"aab"}, "aaab", step) == std::pair(std::string("a"), true));
    CHECK(run({"\n\n"}, "a\nb\n\nc", step) == std::pair(std::string("a\nb"), true));
    CHECK(run({"。停"}, "好。停止", step) == std::pair(std::string("好"), true));
    CHECK(run({}, "abc", step) == std::pair(std::string("abc"), false));
  }
  StopMatcher matcher = StopMatcher::make({"STOP"}).value();
  std::string out;
  CHECK_FALSE(matcher.push("abS", out));
  CHECK(out == "ab");  // nothing is held longer than it has to be
  CHECK(matcher.push("TOPx", out));
  CHECK(matcher.push("more", out));
  CHECK(out == "ab");
  CHECK(matcher.matched_string() == "STOP");
}

TEST_CASE("random texts agree with a plain search") {
  std::mt19937 random(5);
  const auto word = [&](int longest) {
    std::string text(1 + random() % longest, 'a');
    for (char& c : text) c = "ab"[random() % 2];
    return text;
  };
  for (int round = 0; round < 2000; ++round) {
    const std::string text = word(30);
    const std::vector<std::string> stops = {word(5), word(6)};
    size_t end = std::string::npos, begin = text.size();
    for (const std::string& stop : stops) {
      const size_t at = text.find(stop);
      if (at == std::string::npos) continue;
      if (at + stop.size() < end || (at + stop.size() == end && at < begin)) {
        end = at + stop.size();
        begin = at;
      }
    }
    CHECK(run(stops, text, 1 + random() % 4) == std::pair(text.substr(0, begin), end != std::string::npos));
  }
}

TEST_CASE("stop strings that are refused") {
  CHECK(StopMatcher::make({"a", ""}).status().where() == "stop[1]");
  CHECK(StopMatcher::make({std::string(5000, 'a')}).status().code() == Code::kInvalidArgument);
  CHECK(StopMatcher::make(std::vector<std::string>(65, "a")).status().code() == Code::kInvalidArgument);
}
