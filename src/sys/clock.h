// Time: seconds on a clock that never goes back, from a start of its own.
//
// Thread-safety: any thread.
#pragma once

#include <chrono>

namespace nautile {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace nautile
