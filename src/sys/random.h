// Entropy from the operating system: only ever used to choose a seed that is then shown.
#pragma once

#include <cstdint>
#include <random>

namespace nautile {

inline uint64_t random_seed() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

}  // namespace nautile
