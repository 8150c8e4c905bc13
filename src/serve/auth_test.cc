// Keys, rates, hosts.
#include "serve/auth.h"

#include <doctest/doctest.h>

using namespace nautile;
using namespace nautile::serve;

TEST_CASE("a key ring finds what it was given and nothing else") {
  KeyRing ring;
  CHECK(ring.empty());
  ring.add("one, two,,");
  REQUIRE(ring.add_file(
                  "# c\n\nalice:secret max_concurrent=2 rpm=3 tpm=100 # tail\nbob:other priority admin\r\nplain\n", "f")
              .ok());
  CHECK(ring.find("one") != nullptr);
  CHECK(ring.find("two") != nullptr);
  CHECK(ring.find("plain") != nullptr);
  REQUIRE(ring.find("secret") != nullptr);
  CHECK(ring.find("secret")->name == "alice");
  CHECK(ring.find("secret")->max_concurrent == 2);
  CHECK(ring.find("secret")->tokens_per_minute == 100);
  CHECK(ring.find("other")->may_set_priority);
  CHECK(ring.find("other")->admin);
  for (const char* wrong : {"", "on", "onee", "alice", "alice:secret", "secret "}) CHECK(ring.find(wrong) == nullptr);
  CHECK(KeyRing().add_file("a:b c=1", "f").where() == "f, line 1");
  CHECK_FALSE(KeyRing().add_file("a:", "f").ok());
  CHECK_FALSE(KeyRing().add_file("a:b rpm=-1", "f").ok());
}

TEST_CASE("a key is read from three headers, the scheme in any case") {
  http::Request request;
  request.headers = {{"Authorization", "BEARER  k1 "}};
  CHECK(presented_key(request) == "k1");
  request.headers = {{"X-Api-Key", "k2"}};
  CHECK(presented_key(request) == "k2");
  request.headers = {{"api-key", "k3"}, {"Authorization", "Basic x"}};
  CHECK(presented_key(request) == "k3");
  request.headers = {};
  CHECK(presented_key(request).empty());
}

TEST_CASE("rates slide over a minute") {
  Key key;
  key.requests_per_minute = 2;
  Usage usage;
  CHECK(usage.refuse_s(key, 0) == 0);
  usage.begin(0);
  usage.end(1, 10);
  usage.begin(10);
  CHECK(usage.refuse_s(key, 20) == 40);
  CHECK(usage.refuse_s(key, 61) == 0);
  key = {};
  key.max_concurrent = 1;
  CHECK(usage.refuse_s(key, 61) == 1);
  usage.end(62, 500);
  CHECK(usage.refuse_s(key, 62) == 0);
  key.tokens_per_minute = 100;
  CHECK(usage.refuse_s(key, 63) == 59);
  CHECK(usage.refuse_s(key, 130) == 0);
}

TEST_CASE("hosts: loopback names and those allowed") {
  for (const char* fine : {"localhost", "LOCALHOST:80", "127.0.0.1", "127.8.8.8:1", "[::1]:8000", "me.example:1"}) {
    CHECK(host_allowed(fine, {"ME.example"}));
  }
  for (const char* bad : {"evil", "127.0.0.1.evil", "localhost.evil:80", "0.0.0.0", "[::2]", "127.evil"}) {
    CHECK_FALSE(host_allowed(bad, {"me.example"}));
  }
  CHECK(is_loopback("127.0.0.1"));
  CHECK_FALSE(is_loopback("0.0.0.0"));
}
