// The table: what is found, what is refused, what is open.
#include "serve/router.h"

#include <doctest/doctest.h>

#include <set>

using namespace nautile::serve;

TEST_CASE("paths and methods") {
  CHECK(match("POST", "/v1/chat/completions").route->action == Action::kChat);
  CHECK(match("POST", "/beta/completions").route->action == Action::kCompletions);
  CHECK(match("GET", "/v1/models/deepseek-ai/deepseek-v4-pro").argument == "deepseek-ai/deepseek-v4-pro");
  CHECK(match("GET", "/v1/responses/resp_1").argument == "resp_1");
  CHECK(match("GET", "/v1/responses/resp_1/x").route == nullptr);
  CHECK(match("POST", "/v1/responses/resp_1/cancel").argument == "resp_1");
  const Match wrong = match("GET", "/v1/chat/completions");
  CHECK(wrong.route == nullptr);
  CHECK(wrong.allow == "POST, OPTIONS");
  CHECK(match("PUT", "/v1/models").allow == "GET, HEAD, OPTIONS");
  for (const char* none :
       {"/v1/embeddings", "/sleep", "/v1/models/", "/v1", "/V1/models", "/slots", "/collective_rpc"}) {
    CHECK(match("GET", none).route == nullptr);
    CHECK(match("GET", none).allow == "");
  }
}

TEST_CASE("only probes and the page are open") {
  std::set<Action> open;
  for (const Route& route : routes()) {
    if (route.open) open.insert(route.action);
  }
  CHECK(open == std::set<Action>{Action::kHealth, Action::kPing, Action::kLive, Action::kReady, Action::kPage});
}

TEST_CASE("errors of unknown paths speak the dialect of the prefix") {
  CHECK(dialect_of_path("/v1/messages/x") == Dialect::kMessages);
  CHECK(dialect_of_path("/anthropic/v1/x") == Dialect::kMessages);
  CHECK(dialect_of_path("/v1/responses/x") == Dialect::kResponses);
  CHECK(dialect_of_path("/x") == Dialect::kOpenAi);
}
