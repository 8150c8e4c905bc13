// engine_load MODEL PART SIZE: the engine's promises at a size that unit tests do not reach.
#include "engine_load.h"

int main(int argc, char** argv) {
  using namespace nautile::load;
  const std::string usage = "usage: engine_load MODEL mixed|agent|overload|sampled|allocations SIZE\n";
  if (argc != 4) {
    fmt::print(stderr, "{}", usage);
    return 2;
  }
  const std::string model = argv[1], part = argv[2];
  const int size = std::atoi(argv[3]);
  if (part == "mixed") {
    mixed(model, size);
  } else if (part == "agent") {
    agent(model, size);
  } else if (part == "overload") {
    overload(model, size);
  } else if (part == "sampled") {
    sampled(model, size);
  } else if (part == "allocations") {
    allocations(model, size);
  } else {
    fmt::print(stderr, "{}", usage);
    return 2;
  }
  return 0;
}
