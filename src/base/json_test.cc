// The strict reader refuses what a lenient one lets through; the writer prints what Python prints.
#include "base/json.h"

#include <doctest/doctest.h>

using namespace nautile;

TEST_CASE("parse_json refuses duplicate keys, depth, trailing bytes and bad UTF-8") {
  CHECK(parse_json(R"({"a": 1, "b": [true, null]})", "t").ok());
  CHECK(parse_json(R"({"a": 1, "a": 2})", "t").status().what().find("twice") != std::string::npos);
  CHECK_FALSE(parse_json("{} x", "t").ok());
  CHECK_FALSE(parse_json("\"\xff\"", "t").ok());
  CHECK_FALSE(parse_json("", "t").ok());
  // Found by fuzzing: the library takes a NUL for the end of the text.
  CHECK_FALSE(parse_json(std::string_view("1\0}", 3), "t").ok());
  CHECK_FALSE(parse_json(std::string_view("{}\0", 3), "t").ok());
  CHECK(parse_json(std::string(128, '[') + std::string(128, ']'), "t").ok());
  CHECK_FALSE(parse_json(std::string(129, '[') + std::string(129, ']'), "t").ok());
  CHECK_FALSE(parse_json(std::string(200000, '['), "t").ok());
  CHECK(parse_json("[18446744073709551615, -9223372036854775808, 1e30]", "t").ok());
  CHECK(parse_json("[18446744073709551616]", "t").status().what().find("18446744073709551616") != std::string::npos);
  CHECK_FALSE(parse_json("[-9223372036854775809]", "t").ok());
  CHECK(parse_json("[1, }", "t").status().where().find("byte 5") != std::string::npos);
}

TEST_CASE("parse_json is linear in the keys of one object, and the rules bend as asked") {
  std::string text = "{";
  for (int i = 0; i < 200000; ++i) text += "\"k" + std::to_string(i) + "\":" + std::to_string(i) + ",";
  text += "\"last\":1}";
  auto big = parse_json(text, "t");  // quadratic, this would take minutes
  REQUIRE(big.ok());
  CHECK(big->size() == 200001);
  CHECK(big->begin().key() == "k0");
  std::string twice = text;
  twice.replace(twice.size() - 9, 6, "\"k777\"");
  CHECK(parse_json(twice, "t").status().what().find("\"k777\" appears twice") != std::string::npos);
  auto last = parse_json(twice, "t", {.last_duplicate_wins = true});
  REQUIRE(last.ok());
  CHECK(last->size() == 200000);
  CHECK((*last)["k777"] == 1);
  CHECK(parse_json(R"({"a": {"x": [1]}, "b": 1, "a": [2, 3]})", "t", {.last_duplicate_wins = true})->dump() ==
        R"({"a":[2,3],"b":1})");
  CHECK(parse_json("[1,[2],3]", "t", {.max_values = 5}).ok());
  CHECK(parse_json("[1,[2],3]", "t", {.max_values = 4}).status().code() == Code::kResourceExhausted);
  CHECK(parse_json("[[[]]]", "t", {.max_depth = 2}).status().code() == Code::kResourceExhausted);
}

TEST_CASE("typed fields name the place and the type") {
  Json object = parse_json(R"({"n": 3, "x": 1.5, "big": 18446744073709551615})", "t").value();
  CHECK(json_int(object, "n", "config.json").value() == 3);
  CHECK_FALSE(json_int(object, "x", "config.json").ok());
  CHECK_FALSE(json_int(object, "big", "config.json").ok());
  CHECK(json_number(object, "n", "config.json").value() == 3.0);
  auto missing = json_string(object, "s", "config.json").status();
  CHECK(missing.where() == "config.json");
  CHECK(missing.what().find("\"s\" is missing") != std::string::npos);
}

TEST_CASE("python_json prints like json.dumps(ensure_ascii=False)") {
  auto same = [](const char* text) { return python_json(parse_json(text, "t").value()); };
  CHECK(same(R"({"b":1,"a":[1.0,-0.5,1e-7,1e16,123456789.25,true,null]})") ==
        R"({"b": 1, "a": [1.0, -0.5, 1e-07, 1e+16, 123456789.25, true, null]})");
  CHECK(same(R"(["\u00e9\/\u0001\n\"", 0.0001, 1e-5, 12345678901234567890])") ==
        "[\"é/\\u0001\\n\\\"\", 0.0001, 1e-05, 12345678901234567890]");
}
