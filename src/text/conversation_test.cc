// What a request may say, and that every refusal names its field.
#include "text/conversation.h"

#include <doctest/doctest.h>

using namespace nautile;

namespace {

Result<Conversation> read(const std::string& request) {
  auto json = parse_json(request, "request");
  REQUIRE_MESSAGE(json.ok(), json.status().message());
  return parse_conversation(*json);
}

void refused(const std::string& request, const std::string& where) {
  CAPTURE(request);
  const Status status = read(request).status();
  CHECK(status.code() == Code::kInvalidArgument);
  CHECK(status.where().find(where) != std::string::npos);
  CHECK_FALSE(status.what().empty());
}

std::string call(const std::string& id, const std::string& arguments) {
  return R"({"role": "assistant", "tool_calls": [{"id": )" + id +
         R"(, "type": "function", "function": {"name": "f", "arguments": )" + arguments + "}}]}";
}

const std::string kUser = R"({"role": "user", "content": "Hi"})";

}  // namespace

TEST_CASE("messages that are refused") {
  refused("[]", "request");
  refused("{}", "messages");
  refused(R"({"messages": []})", "messages");
  refused(R"({"messages": [1]})", "messages[0]");
  refused(R"({"messages": [{"content": "x"}]})", "messages[0].role");
  refused(R"({"messages": [{"role": "robot", "content": "x"}]})", "messages[0].role");
  refused(R"({"messages": [{"role": "latest_reminder", "content": "x"}]})", "messages[0].role");
  refused(R"({"messages": [{"role": "user"}]})", "messages[0].content");
  refused(R"({"messages": [{"role": "user", "content": null}]})", "messages[0].content");
  refused(R"({"messages": [{"role": "user", "content": 5}]})", "messages[0].content");
  refused(R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]})",
          "messages[0].content[0].type");
  refused(R"({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]})",
          "messages[0].content[0].text");
  refused(R"({"messages": [)" + kUser + R"(, {"role": "system", "content": "x"}]})", "messages[1].role");
  refused(R"({"messages": [{"role": "user", "content": "x", "prefix": true}]})", "messages[0].prefix");
  refused(R"({"messages": [{"role": "assistant", "content": "x", "prefix": true}, )" + kUser + "]}",
          "messages[0].prefix");
  refused(R"({"messages": [)" + kUser + R"(], "continue_final_message": true})", "continue_final_message");
  refused(R"({"messages": [)" + kUser + ", " + call("\"a\"", "\"[1]\"") + "]}",
          "messages[1].tool_calls[0].function.arguments");
  refused(R"({"messages": [)" + kUser + ", " + call("\"a\"", "[1]") + "]}",
          "messages[1].tool_calls[0].function.arguments");
  refused(R"({"messages": [)" + kUser + ", " + call("\"a\"", "\"{bad\"") + "]}",
          "messages[1].tool_calls[0].function.arguments");
  refused(R"({"messages": [)" + kUser + ", " + call("\"a\"", "\"5\"") + "]}", "arguments");
  refused(R"({"messages": [)" + kUser + ", " + call("7", "\"{}\"") + "]}", "messages[1].tool_calls[0].id");
  refused(R"({"messages": [)" + kUser + R"(, {"role": "tool", "tool_call_id": "a", "content": "x"}]})",
          "messages[1].tool_call_id");
  refused(R"({"messages": [)" + call("\"a\"", "\"\"") + R"(, {"role": "tool", "tool_call_id": "b", "content": "x"}]})",
          "messages[1].tool_call_id");
  refused(R"({"messages": [)" + call("\"a\"", "\"\"") + ", " + kUser + "]}", "messages[1]");
}

TEST_CASE("tools, choices and formats that are refused") {
  const std::string begin = R"({"messages": [)" + kUser + "], ";
  refused(begin + R"("tools": []})", "tools");
  refused(begin + R"("tools": [{"type": "web_search"}]})", "tools[0].type");
  refused(begin + R"("tools": [{"type": "function", "function": {"name": "a b"}}]})", "tools[0].function.name");
  refused(begin + R"("tools": [{"type": "function", "function": {"name": "f", "parameters": 5}}]})",
          "tools[0].function.parameters");
  refused(begin + R"("tools": [{"type": "function", "function": {"name": "f"}}, {"type": "function", "name": "f"}]})",
          "tools[1]");
  refused(begin + R"("tool_choice": "required"})", "tool_choice");
  refused(begin + R"("tool_choice": "sometimes"})", "tool_choice");
  refused(
      begin +
          R"("tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": {"type": "function", "function": {"name": "g"}}})",
      "tool_choice.function.name");
  refused(begin + R"("response_format": {"type": "xml"}})", "response_format.type");
  refused(begin + R"("response_format": {"type": "json_schema"}})", "response_format.json_schema.schema");
}

TEST_CASE("what is accepted") {
  auto talk = read(
      R"({"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"role": "user", "content": ""}, {"role": "assistant", "content": "x", "reasoning": "why"}, {"role": "user", "content": "Hi"}],
    "tool_choice": "none", "temperature": 3, "response_format": {"type": "json_object"}})");
  REQUIRE(talk.ok());
  CHECK(talk->messages[0].role == Role::kSystem);
  CHECK(talk->messages[0].content == "ab");
  CHECK(talk->messages[2].reasoning_content == "why");
  CHECK(talk->json_object);

  auto tools = read(
      R"({"messages": [)" + kUser + ", " + call("\"a\"", R"({"k": {"z": 1, "a": [1.0, "é"]}, "s": "t"})") +
      R"(, {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "1"}, {"type": "image_url"}]}],
    "tools": [{"type": "function", "function": {"name": "f", "strict": true, "parameters": {"type": "object", "b": 1, "a": 2}}}]})");
  REQUIRE_MESSAGE(tools.ok(), tools.status().message());
  CHECK(tools->messages[0].role == Role::kSystem);  // put in front to carry the tools
  CHECK(tools->messages[0].tools[0].schema_line ==
        R"({"name": "f", "strict": true, "parameters": {"type": "object", "b": 1, "a": 2}})");
  CHECK(tools->declared_tools().size() == 1);
  const auto& arguments = tools->messages[2].tool_calls[0].arguments;
  CHECK(arguments[0].value == R"({"z": 1, "a": [1.0, "é"]})");
  CHECK(arguments[1].is_string);
  CHECK(arguments[1].value == "t");
  CHECK(tools->messages[3].content == "1\n\n[Unsupported image_url]");
}

TEST_CASE("arguments given as text keep every digit; a repeated key's last value counts") {
  auto talk = read(
      R"({"messages": [)" + kUser + ", " +
      call("\"a\"",
           R"("{\"n\":123456789012345678901234567890,\"x\":1e-7,\"n2\":{\"a\":[{},[],-1,true]},\"x\":\"1\\n\"}")") +
      "]}");
  REQUIRE_MESSAGE(talk.ok(), talk.status().message());
  const auto& arguments = talk->messages[1].tool_calls[0].arguments;
  REQUIRE(arguments.size() == 3);
  CHECK(arguments[0].value == "123456789012345678901234567890");
  CHECK(arguments[1].name == "x");
  CHECK(arguments[1].is_string);
  CHECK(arguments[1].value == "1\n");
  CHECK(arguments[2].value == R"({"a": [{}, [], -1, true]})");
}

TEST_CASE("results without ids follow their calls by position") {
  const std::string two = R"({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}},
                             {"function": {"name": "g", "arguments": ""}}]})";
  auto talk = read(R"({"messages": [)" + two +
                   R"(, {"role": "tool", "content": "1"}, {"role": "function", "name": "g", "content": "2"}]})");
  REQUIRE_MESSAGE(talk.ok(), talk.status().message());
  CHECK(talk->messages[1].tool_call_id == talk->messages[0].tool_calls[0].id);
  CHECK(talk->messages[2].tool_call_id == talk->messages[0].tool_calls[1].id);
  CHECK(talk->messages[1].tool_call_id != talk->messages[2].tool_call_id);
  refused(
      R"({"messages": [)" + two +
          R"(, {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}, {"role": "tool", "content": "3"}]})",
      "messages[3]");
}
