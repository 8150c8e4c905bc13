// Escaping, events, error bodies, metrics text, the replay store.
#include <doctest/doctest.h>

#include "serve/errors.h"
#include "serve/metrics.h"
#include "serve/replay.h"
#include "serve/sse.h"

using namespace nautile;
using namespace nautile::serve;

TEST_CASE("escaped text reads back as itself") {
  std::string all;
  for (int c = 0; c < 128; ++c) all += static_cast<char>(c);
  all += "Grüße 🚀 \xe2\x80\xa8 \\\" end";
  std::string quoted;
  append_quoted(all, quoted);
  CHECK(quoted.find('\n') == std::string::npos);
  // The strict reader takes no raw NUL, so it must have been escaped.
  CHECK(parse_json(quoted, "t").value() == all);
  std::string out;
  append_event("name", "{}", out);
  CHECK(out == "event: name\ndata: {}\n\n");
}

TEST_CASE("error bodies of the dialects") {
  const ApiError error = bad_request("invalid_value", "No.", "top_p");
  CHECK(error_body(error, Dialect::kOpenAi, "r").dump() ==
        R"({"error":{"message":"No.","type":"invalid_request_error","param":"top_p","code":"invalid_value"}})");
  CHECK(error_body(error, Dialect::kMessages, "r").dump() ==
        R"({"type":"error","error":{"type":"invalid_request_error","message":"No."},"request_id":"r"})");
  CHECK(error_body({404, "", "x"}, Dialect::kOpenAi, "r")["error"]["code"].is_null());
  const ApiError full = overloaded("server_overloaded", "Full.", 3);
  CHECK(error_response(full, Dialect::kOpenAi, "r").status == 503);
  const http::Response messages = error_response(full, Dialect::kMessages, "r");
  CHECK(messages.status == 529);
  CHECK(messages.headers[0].value == "3");
  CHECK(parse_json(messages.body, "t").value()["error"]["type"] == "overloaded_error");
  // What a room below says about the machine stays inside.
  CHECK(from_status(Status(Code::kInternal, "pointer 0xdead", "/home/x")).message.find("0xdead") == std::string::npos);
  CHECK(from_status(Status(Code::kIo, "secret path")).status == 500);
  CHECK(from_status(Status(Code::kInvalidArgument, "must be a string", "messages[0].role")).param ==
        "messages[0].role");
}

TEST_CASE("metrics: counters add, histograms accumulate, labels are escaped") {
  CHECK(label("a", "x\"\\\ny") == "a=\"x\\\"\\\\\\ny\"");
  Metrics metrics;
  metrics.count("nautile_requests_rejected_total", label("reason", "auth"));
  metrics.count("nautile_requests_rejected_total", label("reason", "auth"), 2);
  CHECK(metrics.value("nautile_requests_rejected_total", label("reason", "auth")) == 3);
  metrics.observe("vllm:time_to_first_token_seconds", 0.03);
  metrics.observe("vllm:time_to_first_token_seconds", 99999);
  std::string out;
  metrics.write(label("model_name", "m"), out);
  CHECK(out.find("nautile_requests_rejected_total{model_name=\"m\",reason=\"auth\"} 3\n") != std::string::npos);
  CHECK(out.find("vllm:time_to_first_token_seconds_bucket{model_name=\"m\",le=\"0.02\"} 0\n") != std::string::npos);
  CHECK(out.find("vllm:time_to_first_token_seconds_bucket{model_name=\"m\",le=\"0.04\"} 1\n") != std::string::npos);
  CHECK(out.find("vllm:time_to_first_token_seconds_bucket{model_name=\"m\",le=\"+Inf\"} 2\n") != std::string::npos);
  CHECK(out.find("vllm:time_to_first_token_seconds_count{model_name=\"m\"} 2\n") != std::string::npos);
}

TEST_CASE("the replay store forgets the oldest and keeps owners apart") {
  ReplayStore store(8000);
  store.keep("a", "call_1", {"why", {}, {}, nullptr});
  REQUIRE(store.find("a", "call_1"));
  CHECK(store.find("a", "call_1")->reasoning == "why");
  CHECK_FALSE(store.find("b", "call_1"));
  for (int i = 0; i < 100; ++i) {
    store.keep("a", "call_x" + std::to_string(i), {std::string(100, 'x'), {}, {}, nullptr});
    CHECK(store.find("a", "call_1"));  // used, so it stays
  }
  CHECK_FALSE(store.find("a", "call_x0"));
  CHECK(store.find("a", "call_x99"));
  CHECK(store.bytes() <= 8000);
  store.keep("a", "huge", {std::string(5000, 'x'), {}, {}, nullptr});
  CHECK_FALSE(store.find("a", "huge"));
  // Tokens count too, and a later turn takes the place of an earlier one.
  const auto turn = std::make_shared<GeneratedTurn>(GeneratedTurn{std::vector<TokenId>(1000, 5), true});
  store.keep("a", "tokens", {"why", {}, {}, turn});
  CHECK_FALSE(store.find("a", "tokens"));
  const size_t before = store.bytes();
  store.keep("a", "call_1", {"why not", {}, {}, nullptr});
  CHECK(store.find("a", "call_1")->reasoning == "why not");
  CHECK(store.bytes() == before + 4);
}

TEST_CASE("a turn that comes back is the same turn whatever the spaces and the order of its arguments") {
  const Replay turn{
      "why", "text", {{"call_1", "f", {{"a", false, "{\"x\": 1, \"y\": [2.0]}"}, {"b", true, "s"}}}}, nullptr};
  Message message;
  message.role = Role::kAssistant;
  message.reasoning_content = "why";
  message.content = "text";
  message.tool_calls = {{"call_1", "f", {{"b", true, "s"}, {"a", false, "{\"y\":[2.0],\"x\":1}"}}}};
  CHECK(turn.is(message));
  Message other = message;
  other.content = "text ";
  CHECK_FALSE(turn.is(other));
  other = message;
  other.tool_calls[0].arguments[0].value = "t";
  CHECK_FALSE(turn.is(other));
  other = message;
  other.tool_calls[0].arguments[1].value = "{\"y\":[2.0],\"x\":2}";
  CHECK_FALSE(turn.is(other));
  other = message;
  other.tool_calls.push_back({"call_2", "f", {}});
  CHECK_FALSE(turn.is(other));
  other = message;
  other.reasoning_content = "";
  CHECK_FALSE(turn.is(other));
}
