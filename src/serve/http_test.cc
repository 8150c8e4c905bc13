// Paths, request ids, names.
#include "serve/http.h"

#include <doctest/doctest.h>

using namespace nautile::http;

TEST_CASE("route_path drops query and one slash, and refuses whatever could be a file") {
  CHECK(route_path("/v1/models?x=1") == "/v1/models");
  CHECK(route_path("/v1/models/") == "/v1/models");
  CHECK(route_path("/") == "/");
  for (const char* bad :
       {"", "*", "v1", "//", "/a//b", "/a/../b", "/a%2fb", "/a%2Fb", "/a%5cb", "/%2e%2e/x", "http://x/y"}) {
    CHECK(route_path(bad) == "");
  }
  CHECK(route_path("/v1/models/") == route_path("/v1/models"));
  CHECK(route_path("/v1/models/x%20y") == "/v1/models/x%20y");
}

TEST_CASE("request ids are taken over only when they may be shown") {
  CHECK(request_id("abc-1.2:3_Z") == "abc-1.2:3_Z");
  for (const std::string& bad :
       {std::string(), std::string("a b"), std::string("a\n"), std::string("ü"), std::string(129, 'a')}) {
    CHECK(request_id(bad).starts_with("req_"));
    CHECK(request_id(bad).size() == 36);
  }
  CHECK(request_id({}) != request_id({}));
}

TEST_CASE("headers are found without case") {
  Request request;
  request.headers = {{"Content-Type", "x"}, {"X-A", "1"}};
  CHECK(request.header("content-type") == "x");
  CHECK(request.header("x-a") == "1");
  CHECK(request.header("nothing").empty());
  CHECK(same_name("Host", "hOST"));
  CHECK_FALSE(same_name("Host", "Hosts"));
}
