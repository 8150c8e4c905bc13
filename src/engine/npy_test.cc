// What is written is read back; what is cut short or of another type is refused.
#include "engine/npy.h"

#include <doctest/doctest.h>

using namespace nautile;

TEST_CASE("npy round trip and refusals") {
  const std::vector<float> values = {1, 2.5f, -3, 4, 5, 6};
  const std::string bytes = npy_bytes(values, 2, 3);
  CHECK((bytes.size() - 24) % 64 == 0);
  auto back = parse_npy(bytes, "x.npy").value();
  CHECK((back.rows == 2 && back.cols == 3 && back.values == values));
  CHECK(parse_npy(bytes.substr(0, bytes.size() - 1), "x").status().code() == Code::kCorrupt);
  CHECK(parse_npy(bytes.substr(0, 40), "x").status().code() == Code::kCorrupt);
  CHECK(parse_npy("hello", "x").status().code() == Code::kUnsupported);
}
