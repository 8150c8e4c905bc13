// The scanner against PCRE2 running the same expressions, and pieces too long for a careless matcher.
#include "text/pretokenizer.h"

#include <doctest/doctest.h>

#include <random>

#include "text/utf8.h"

using namespace nautile;
using Pieces = std::vector<std::string>;

namespace {

Pieces split(const Pretokenizer& pretokenizer, const std::string& text) {
  PieceEnds ends;
  REQUIRE(pretokenizer.split(text, ends).ok());
  Pieces pieces;
  size_t begin = 0;
  for (size_t end : ends) {
    REQUIRE(end > begin);
    pieces.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  REQUIRE(begin == text.size());
  return pieces;
}

}  // namespace

TEST_CASE("pieces of the V4 expressions") {
  const auto scanner = Pretokenizer::compile(v4_split_expressions()).value();
  REQUIRE(scanner.uses_scanner());
  CHECK(split(scanner, "") == Pieces{});
  CHECK(split(scanner, "don't") == Pieces{"don", "'t"});
  CHECK(split(scanner, "12345 6") == Pieces{"123", "45", " ", "6"});
  CHECK(split(scanner, "f(x);\n\n  y") == Pieces{"f", "(x", ");\n\n", " ", " y"});
  CHECK(split(scanner, "  \n  \n  z ") == Pieces{"  \n  \n", " ", " z", " "});
  CHECK(split(scanner, "ア・イ中x") == Pieces{"ア", "・", "イ中", "x"});
  CHECK(split(scanner, "\x01\x02z\x03") == Pieces{"\x01", "\x02z", "\x03"});
  CHECK(split(scanner, "a\xFF\xFE b\xE4") == Pieces{"a", "\xFF\xFE", " b", "\xE4"});
  CHECK(split(scanner, "\u0301 \u0301x ...!?\r\n") == Pieces{"\u0301", " \u0301x", " ...!?\r\n"});
}

TEST_CASE("the scanner and PCRE2 cut random text alike") {
  const auto scanner = Pretokenizer::compile(v4_split_expressions()).value();
  const auto regex = Pretokenizer::compile(v4_split_expressions(), Pretokenizer::Engine::kPcre2).value();
  REQUIRE_FALSE(regex.uses_scanner());
  // Characters whose class is the same in every Unicode version in use.
  const std::vector<std::string> alphabet = {
      "a",      "Z",      "é",      "ß",  "ж",      "1",      "9",  "½", "３", " ",  " ",      "\n",  "\r", "\t",
      "\u00a0", "\u3000", "\u0085", ".",  "'",      "(",      "_",  "$", "~",  "…",  "。",     "€",   "中", "あ",
      "カ",     "・",     "゠",     "ー", "\u3099", "\u0301", "한", "ع", "🐦",  "\1", "\u200d", "\x7f"};
  std::mt19937 random(3);
  for (int round = 0; round < 4000; ++round) {
    std::string text;
    for (int n = random() % 24; n > 0; --n) text += alphabet[random() % alphabet.size()];
    CAPTURE(text);
    CHECK(split(scanner, text) == split(regex, text));
  }
}

TEST_CASE("PCRE2 gets through a long piece, and gives up on an expression that backtracks without end") {
  const auto regex = Pretokenizer::compile(v4_split_expressions(), Pretokenizer::Engine::kPcre2).value();
  CHECK(split(regex, std::string(1 << 20, 'a')).size() == 1);
  CHECK(split(regex, std::string(1 << 20, ' ') + "x").size() == 2);
  const auto bad = Pretokenizer::compile({"(?:a+)+[cd]"}).value();
  PieceEnds ends;
  CHECK(bad.split(std::string(60, 'a'), ends).code() == Code::kResourceExhausted);
  CHECK(Pretokenizer::compile({"(?<=a"}).status().code() == Code::kUnsupported);
  // An empty match cuts and the search goes on.
  CHECK(split(Pretokenizer::compile({"(?=b)"}).value(), "abab") == Pieces{"a", "ba", "b"});
}
