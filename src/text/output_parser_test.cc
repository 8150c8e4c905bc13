// Every example at every cut, malformed outputs, and random soups of markers.
#include "text/output_parser.h"

#include <algorithm>
#include <random>

#include "text/exact_json.h"
#include "text/v4_tokenizer_for_test.h"

using namespace nautile;

namespace {

struct Outcome {
  std::string reasoning, content;
  std::vector<ParsedCall> calls;
  std::vector<bool> ended;
  ParsedMessage message;
};

const ChatTokens& tokens() {
  static const ChatTokens found = ChatTokens::find(v4_tokenizer()).value();
  return found;
}

Tool tool(const std::string& name, const std::string& parameters = "null") {
  return {name, {}, parse_json(parameters, "test").value()};
}

std::vector<Tool> tools() {
  return {tool("f"), tool("now"),
          tool("add", R"({"type": "object", "properties": {"a": {"type": "integer"}, "note": {"type": "string"}}})")};
}

Outcome collect(OutputParser& parser, std::vector<OutputEvent>& events, OutputEnd end) {
  Outcome out;
  out.message = parser.finish(end, events);
  for (const OutputEvent& event : events) {
    CHECK(valid_utf8_prefix(event.text) == event.text.size());
    switch (event.kind) {
      case OutputEvent::kReasoning:
        out.reasoning += event.text;
        break;
      case OutputEvent::kContent:
        out.content += event.text;
        break;
      case OutputEvent::kToolStart:
        CHECK(event.call == static_cast<int>(out.calls.size()));
        out.calls.push_back({event.text, {}});
        out.ended.push_back(false);
        break;
      case OutputEvent::kToolArguments:
        REQUIRE(event.call == static_cast<int>(out.calls.size()) - 1);
        CHECK_FALSE(out.ended.back());
        out.calls.back().arguments += event.text;
        break;
      case OutputEvent::kToolEnd:
        REQUIRE(event.call == static_cast<int>(out.calls.size()) - 1);
        out.ended.back() = true;
    }
  }
  // The stream and the message say the same.
  CHECK(out.reasoning == out.message.reasoning);
  CHECK(out.content == out.message.content);
  CHECK(std::count(out.ended.begin(), out.ended.end(), true) == static_cast<long>(out.message.calls.size()));
  for (size_t i = 0; i < out.message.calls.size(); ++i) {
    CHECK(out.message.calls[i].name == out.calls[i].name);
    CHECK(out.message.calls[i].arguments == out.calls[i].arguments);
    CHECK(python_members(out.calls[i].arguments, "test").ok());
  }
  return out;
}

Outcome parse(const OutputParserOptions& options, const std::vector<std::string>& parts,
              OutputEnd end = OutputEnd::kEndOfTurn) {
  OutputParser parser(tokens(), options);
  std::vector<OutputEvent> events;
  for (const std::string& part : parts) parser.push(part, events);
  return collect(parser, events, end);
}

bool same(const Outcome& a, const Outcome& b) {
  const auto equal = [](const ParsedCall& x, const ParsedCall& y) {
    return x.name == y.name && x.arguments == y.arguments;
  };
  return a.reasoning == b.reasoning && a.content == b.content && a.ended == b.ended &&
         std::equal(a.calls.begin(), a.calls.end(), b.calls.begin(), b.calls.end(), equal) &&
         a.message.finish == b.message.finish;
}

// Whole, byte by byte, cut in two anywhere: all the same. Returns the whole one.
Outcome parse_all_ways(const OutputParserOptions& options, const std::string& output,
                       OutputEnd end = OutputEnd::kEndOfTurn) {
  CAPTURE(output);
  const Outcome whole = parse(options, {output}, end);
  std::vector<std::string> bytes;
  for (const char c : output) bytes.emplace_back(1, c);
  CHECK(same(parse(options, bytes, end), whole));
  for (size_t cut = 1; cut < output.size(); ++cut) {
    CHECK(same(parse(options, {output.substr(0, cut), output.substr(cut)}, end), whole));
  }
  return whole;
}

OutputParserOptions thinking() {
  return {OutputStart::kReasoning, tools(), {}};
}
OutputParserOptions answering() {
  return {OutputStart::kContent, tools(), {}};
}

const std::string kOpen = "<｜DSML｜tool_calls>\n";
const std::string kClose = "</｜DSML｜tool_calls>";
std::string invoke(const std::string& name, const std::string& body) {
  return "<｜DSML｜invoke name=\"" + name + "\">\n" + body + "\n</｜DSML｜invoke>\n";
}
std::string parameter(const std::string& key, const std::string& value, bool is_string) {
  return "<｜DSML｜parameter name=\"" + key + "\" string=\"" + (is_string ? "true" : "false") + "\">" + value +
         "</｜DSML｜parameter>";
}

}  // namespace

TEST_CASE("reasoning, content and a call") {
  auto out = parse_all_ways(thinking(), "ok</think>hi");
  CHECK(out.reasoning == "ok");
  CHECK(out.content == "hi");
  CHECK(out.message.finish == FinishReason::kStop);

  out = parse_all_ways(
      thinking(), "r</think>pre\n\n" + kOpen +
                      invoke("f", parameter("a", "x\n\"y\"", true) + "\n" + parameter("b", "[1, 2]", false)) + kClose);
  CHECK(out.reasoning == "r");
  CHECK(out.content == "pre");
  REQUIRE(out.message.calls.size() == 1);
  CHECK(out.message.calls[0].name == "f");
  CHECK(out.message.calls[0].arguments == R"({"a": "x\n\"y\"", "b": [1, 2]})");
  CHECK(out.message.finish == FinishReason::kToolCalls);
}

TEST_CASE("newlines around markers go, others stay; parts of markers are text") {
  auto out = parse_all_ways(thinking(), "\n\na\n\nb\n\n</think>\n\nc\n\n</think>d\n");
  CHECK(out.reasoning == "a\n\nb");
  CHECK(out.content == "c\n\nd\n");
  const std::string text = "if (a < b) <p>\n</p> <| </thin </thinking> ｜DSML｜ |DSML| <|DSML|tool_calls> <｜DSM </";
  CHECK(parse_all_ways(answering(), text).content == text);
  CHECK(parse_all_ways(answering(), "a\n<").content == "a\n<");
  CHECK(parse_all_ways(answering(), "\n\n").content.empty());
  CHECK(parse_all_ways(answering(), "").content.empty());
}

TEST_CASE("calls: none, several, values that look like markup") {
  for (const char* body : {"", "\n"}) {
    const auto out =
        parse_all_ways(answering(), kOpen + "<｜DSML｜invoke name=\"now\">\n" + body + "</｜DSML｜invoke>\n" + kClose);
    REQUIRE(out.message.calls.size() == 1);
    CHECK(out.message.calls[0].arguments == "{}");
    CHECK(out.content.empty());
  }
  const std::string value = "cmd 2>&1 <b></b> </ <｜DSML｜x> </think> é🐦\t\\";
  const auto out = parse_all_ways(
      answering(), "Sure.\n\n" + kOpen + invoke("f", parameter("c", value, true)) +
                       invoke("add", parameter("a", "-1.50", false) + "\n" + parameter("note", "", true)) + kClose +
                       "ignored");
  CHECK(out.content == "Sure.");
  REQUIRE(out.message.calls.size() == 2);
  CHECK(python_members(out.message.calls[0].arguments, "t").value()[0].value == value);
  CHECK(out.message.calls[1].arguments == R"({"a": -1.50, "note": ""})");
}

TEST_CASE("what models get wrong") {
  const std::string call = invoke("f", parameter("a", "1", false));
  // No </think> before the block: the block ends the reasoning.
  auto out = parse_all_ways(thinking(), "let me\n\n" + kOpen + call + kClose);
  CHECK(out.reasoning == "let me");
  CHECK(out.message.calls.size() == 1);
  CHECK_FALSE(out.message.reasoning_unclosed);
  // No </think> at all.
  out = parse_all_ways(thinking(), "short answer");
  CHECK(out.reasoning == "short answer");
  CHECK(out.content.empty());
  CHECK(out.message.reasoning_unclosed);
  // No outer tag, a wrong one, a missing end of parameter or call.
  CHECK(parse_all_ways(answering(), "x" + call).message.calls.size() == 1);
  CHECK(parse_all_ways(answering(), "x<｜DSML｜function_calls>\n" + call + "</｜DSML｜function_calls>y").content ==
        "x");
  out = parse_all_ways(
      answering(),
      kOpen + "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">v</｜DSML｜invoke>\n" +
          kClose);
  REQUIRE(out.message.calls.size() == 1);
  CHECK(out.message.calls[0].arguments == R"({"a": "v"})");
  out = parse_all_ways(answering(),
                       kOpen + "<｜DSML｜invoke name=\"f\">\n" + parameter("a", "1", false) + "\n" + call + kClose);
  CHECK(out.message.calls.size() == 2);
  out =
      parse_all_ways(answering(), kOpen + invoke("f", "<｜DSML｜parameter name=\"a\">v</｜DSML｜parameter>") + kClose);
  CHECK(out.message.calls[0].arguments == R"({"a": "v"})");
  // A closing tag in the middle of text is markup, not text.
  CHECK(parse_all_ways(answering(), "a\n</｜DSML｜tool_calls>b").content == "ab");
  // A block that holds no call.
  out = parse_all_ways(answering(), "a" + kOpen + kClose);
  CHECK(out.message.block_without_call);
  CHECK(out.message.finish == FinishReason::kStop);
}

TEST_CASE("repair: no JSON, only strings allowed, a wrapper around the object") {
  const auto arguments = [](const std::string& name, const std::string& body) {
    const auto out = parse_all_ways(answering(), kOpen + invoke(name, body) + kClose);
    REQUIRE(out.message.calls.size() == 1);
    return out.message.calls[0].arguments;
  };
  CHECK(arguments("f", parameter("a", "bare text", false)) == R"({"a": "bare text"})");
  CHECK(arguments("f", parameter("a", "1, \"b\": 2", false)) == R"({"a": "1, \"b\": 2"})");
  CHECK(arguments("f", parameter("a", "", false)) == R"({"a": ""})");
  CHECK(arguments("f", parameter("a", std::string(200, '['), false)) == "{\"a\": \"" + std::string(200, '[') + "\"}");
  CHECK(arguments("add", parameter("note", "5", false)) == R"({"note": "5"})");
  CHECK(arguments("add", parameter("note", "\"5\"", false)) == R"({"note": "5"})");
  CHECK(arguments("add", parameter("a", "x", true)) == R"({"a": "x"})");
  CHECK(arguments("add", parameter("arguments", R"({"a": 1})", false)) == R"({"a": 1})");
  CHECK(arguments("add", parameter("input", R"({"a": 1})", true)) == R"({"a": 1})");
  CHECK(arguments("add", parameter("input", R"({"zzz": 1})", false)) == R"({"input": {"zzz": 1}})");
  CHECK(arguments("add", parameter("input", R"({"a": 1})", false) + parameter("a", "2", false)) ==
        R"({"input": {"a": 1}, "a": 2})");
  CHECK(arguments("f", parameter("input", R"({"a": 1})", false)) == R"({"input": {"a": 1}})");
}

TEST_CASE("cut by the limit") {
  const std::string call = invoke("f", parameter("a", "1", false));
  auto out = parse_all_ways(
      answering(), kOpen + call + "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">ha",
      OutputEnd::kLimit);
  CHECK(out.message.calls.size() == 1);
  CHECK(out.calls.size() == 2);
  CHECK(out.message.incomplete_call);
  CHECK(out.message.finish == FinishReason::kLength);
  CHECK(parse_all_ways(answering(), kOpen + call + kClose, OutputEnd::kLimit).message.finish ==
        FinishReason::kToolCalls);
  CHECK(parse_all_ways(answering(), "text", OutputEnd::kLimit).message.finish == FinishReason::kLength);
  // Cut behind the first byte of a block.
  CHECK(parse_all_ways(answering(), "text\n\n<", OutputEnd::kLimit).message.content == "text");
  CHECK(parse_all_ways(answering(), "\n\n<", OutputEnd::kLimit).message.content == "");
  CHECK(parse_all_ways(answering(), "a <", OutputEnd::kLimit).message.content == "a <");
  CHECK(parse_all_ways(answering(), "text\n\n<", OutputEnd::kEndOfTurn).message.content == "text\n\n<");
  CHECK(parse_all_ways(answering(), "text", OutputEnd::kStopString).message.finish == FinishReason::kStop);
}

TEST_CASE("without tools nothing is a call") {
  const std::string text = "like this: " + kOpen + invoke("f", "") + kClose;
  const auto out = parse_all_ways({OutputStart::kReasoning, {}, {}}, "r</think>" + text);
  CHECK(out.content == text);
  CHECK(out.message.calls.empty());
}

TEST_CASE("broken UTF-8 becomes U+FFFD in its own channel") {
  const auto out = parse_all_ways(
      thinking(), "a\xF0\x9F</think>b\xE4\xB8\n\xFF" + kOpen + invoke("f", parameter("a", "\xF0\x9F", true)) + kClose);
  CHECK(out.reasoning == "a\uFFFD");
  CHECK(out.content == "b\uFFFD\n\uFFFD");
  CHECK(out.message.calls[0].arguments == "{\"a\": \"\uFFFD\"}");
}

TEST_CASE("tokens decide by id, not by spelling") {
  const auto feed = [](const OutputParserOptions& options, const std::vector<Segment>& segments) {
    OutputParser parser(tokens(), options);
    std::vector<OutputEvent> events;
    const std::vector<TokenId> ids = v4_tokenizer().encode(segments).value();
    for (const TokenId id : ids) {
      if (!parser.push(id, v4_tokenizer().bytes_of(id), events)) break;
    }
    return collect(parser, events, OutputEnd::kEndOfTurn);
  };
  const std::string output = "r🐦\n</think>\npre\n\n" + kOpen + invoke("f", parameter("a", "x🐦", true)) + kClose;
  CHECK(same(feed(thinking(), {{output + "<｜end▁of▁sentence｜>more", true}}), parse(thinking(), {output})));
  const auto quoted =
      feed(thinking(), {{"the tag </think> and " + kOpen + ".", false}, {"</think>", true}, {"a", false}});
  CHECK(quoted.reasoning == "the tag </think> and " + kOpen + ".");
  CHECK(quoted.content == "a");
}

TEST_CASE("starting inside a call, and where a prompt says to start") {
  auto out = parse_all_ways({OutputStart::kCallArguments, tools(), "f"},
                            parameter("a", "1", false) + "\n</｜DSML｜invoke>\n" + kClose);
  REQUIRE(out.message.calls.size() == 1);
  CHECK(out.message.calls[0].name == "f");
  CHECK(out.message.calls[0].arguments == R"({"a": 1})");
  out = parse_all_ways({OutputStart::kCallName, tools(), {}}, "now\">\n\n</｜DSML｜invoke>\n" + kClose);
  REQUIRE(out.message.calls.size() == 1);
  CHECK(out.message.calls[0].name == "now");
  const auto start = [](std::string_view prompt) {
    return output_start(*v4_tokenizer().encode(prompt, true), tokens());
  };
  CHECK(start("<｜User｜>Hi<｜Assistant｜><think>") == OutputStart::kReasoning);
  CHECK(start("<｜User｜>Hi<｜Assistant｜><think>Let me") == OutputStart::kReasoning);
  CHECK(start("<｜User｜>Hi<｜Assistant｜></think>") == OutputStart::kContent);
  CHECK(start("inside <think><｜User｜>Hi<｜query｜>") == OutputStart::kContent);
}

TEST_CASE("a value that is JSON up to a NUL byte becomes a string") {
  // Found by fuzzing.
  const std::string value("1\0 trailing", 11);
  const Outcome whole = parse_all_ways(answering(), kOpen + invoke("f", parameter("b", value, false)) + kClose);
  REQUIRE(whole.message.calls.size() == 1);
  CHECK(whole.message.calls[0].arguments == "{\"b\": \"1\\u0000 trailing\"}");
}

TEST_CASE("random soups: cuts do not matter, text is not lost, markup does not leak") {
  std::mt19937 random(11);
  const std::vector<std::string> plain = {"a", "word ", "é",   "🐦",     "\n",     "\n\n", "<",         "</",
                                          ">", "\"",    "<｜", "｜DSM", "|DSML|", "</p>", "{\"k\": 1}"};
  std::vector<std::string> markup = {"<｜DSML｜",
                                     "</｜DSML｜",
                                     "tool_calls>",
                                     "invoke name=\"",
                                     "invoke>",
                                     "f",
                                     "parameter name=\"",
                                     "parameter>",
                                     "\" string=\"true\">",
                                     "\" string=\"false\">",
                                     "｜DSML｜",
                                     kOpen,
                                     kClose};
  for (int round = 0; round < 6000; ++round) {
    const bool with_markup = round % 2 == 0;
    const bool with_close = round % 3 == 0;
    std::string soup;
    for (int n = random() % 14; n > 0; --n) {
      if (with_close && random() % 6 == 0) {
        soup += "</think>";
      } else if (with_markup && random() % 2 == 0) {
        soup += markup[random() % markup.size()];
      } else {
        soup += plain[random() % plain.size()];
      }
    }
    CAPTURE(soup);
    const OutputParserOptions options = {random() % 2 ? OutputStart::kReasoning : OutputStart::kContent, tools(), {}};
    const Outcome whole = parse(options, {soup});
    std::vector<std::string> parts;
    for (size_t at = 0; at < soup.size();) {
      const size_t take = 1 + random() % 5;
      parts.push_back(soup.substr(at, take));
      at += take;
    }
    CHECK(same(parse(options, parts), whole));
    if (!with_markup) {  // all text arrives, in order, in one channel each
      const auto stripped = [](std::string text) {
        for (size_t at; (at = text.find("</think>")) != std::string::npos;) text.erase(at, 8);
        std::erase(text, '\n');
        return text;
      };
      CHECK(stripped(whole.reasoning + whole.content) == stripped(soup));
    }
    if (!with_close) {
      for (const std::string& channel : {whole.reasoning, whole.content}) {
        CHECK(channel.find("<｜DSML｜") == std::string::npos);
        CHECK(channel.find("</｜DSML｜") == std::string::npos);
      }
    }
  }
}
