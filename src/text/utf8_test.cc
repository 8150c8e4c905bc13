// The gate against every cut, and the standard's table of well-formed sequences.
#include "text/utf8.h"

#include <doctest/doctest.h>

#include <random>

using namespace nautile;

TEST_CASE("every code point round-trips; surrogates, overlong forms and values beyond the end are invalid") {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    std::string text;
    append_utf8(c, text);
    const CodePoint read = decode_utf8(text, 0);
    const bool surrogate = c >= 0xD800 && c < 0xE000;
    if ((read.kind == CodePoint::kValid) == surrogate ||
        (!surrogate && (read.value != c || read.bytes != text.size()))) {
      FAIL("code point " << c);
    }
  }
  for (const char* text : {"\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xF0\x80\x80\x80", "\xF4\x90\x80\x80",
                           "\xF5\x80\x80\x80", "\x80", "\xFF"}) {
    CHECK(decode_utf8(text, 0).kind == CodePoint::kInvalid);
  }
  CHECK(decode_utf8("\xF0\x9F\x90", 0).kind == CodePoint::kIncomplete);
  CHECK(valid_utf8_prefix("aé\xE4\xB8") == 3);
}

TEST_CASE("the gate's output does not depend on the cuts") {
  const auto run = [](const std::string& bytes, size_t step) {
    Utf8Gate gate;
    std::string out;
    for (size_t at = 0; at < bytes.size(); at += step) {
      gate.push(std::string_view(bytes).substr(at, step), out);
      CHECK(valid_utf8_prefix(out) == out.size());
    }
    gate.finish(out);
    return out;
  };
  CHECK(run("a\xF0\x9F\x90\xA6z", 1) == "a🐦z");
  CHECK(run("a\xF0\x9Fz\xE4\xB8", 1) == "a\uFFFDz\uFFFD");  // one for each maximal broken prefix
  CHECK(run("\xE0\x80\x80", 1) == "\uFFFD\uFFFD\uFFFD");
  std::mt19937 random(2);
  for (int round = 0; round < 500; ++round) {
    std::string bytes(random() % 20, 0);
    for (char& c : bytes) c = "a\xF0\x9F\x90\xA6\xE4\xB8\xAD\xED\xA0\xC3\xA9"[random() % 12];
    for (size_t step = 1; step < 5; ++step) CHECK(run(bytes, step) == run(bytes, 1000));
  }
}
