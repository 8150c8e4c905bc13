// Entropy from the operating system: for a seed that is then shown, for keys, and for names that no other process takes.
//
// Thread-safety: any thread.
#pragma once

#include <cstdint>
#include <random>

namespace nautile {

inline uint64_t random_seed() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

}  // namespace nautile
