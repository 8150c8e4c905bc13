// Bounds, age and owners of stored responses.
#include "serve/response_store.h"

#include <doctest/doctest.h>

using namespace nautile::serve;

TEST_CASE("stored responses: count, bytes, age, owner") {
  ResponseStore off(0, 1 << 20, 60);
  off.keep("me", "a", {"[]", "{}"}, 0);
  CHECK_FALSE(off.find("me", "a", 0));

  ResponseStore store(2, 4096, 60);
  store.keep("me", "a", {"[1]", "{}"}, 0);
  store.keep("me", "b", {"[2]", "{}"}, 0);
  CHECK(store.find("me", "a", 1)->input == "[1]");
  CHECK_FALSE(store.find("you", "a", 1));
  store.keep("me", "c", {"[3]", "{}"}, 2);  // b was used least recently
  CHECK_FALSE(store.find("me", "b", 2));
  CHECK(store.count() == 2);
  CHECK_FALSE(store.forget("you", "a", 2));
  CHECK(store.forget("me", "a", 2));
  CHECK_FALSE(store.forget("me", "a", 2));
  CHECK(store.find("me", "c", 62));
  CHECK_FALSE(store.find("me", "c", 62.5));
  CHECK(store.bytes() == 0);
  store.keep("me", "d", {std::string(5000, 'x'), "{}"}, 70);  // more than all there is room for
  CHECK(store.count() == 0);
  CHECK(store.bytes() == 0);
}
