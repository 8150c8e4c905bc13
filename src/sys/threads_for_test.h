// Topologies that this machine need not have.
#pragma once

#include <vector>

#include "sys/machine.h"

namespace nautile {

// cores[i] cores on the i-th node, whose number is 2 * i; the CPUs are this machine's, as often as it takes.
inline std::vector<Core> made_up(const std::vector<int>& cores) {
  const std::vector<int> cpus = allowed_cpus();
  std::vector<Core> all;
  for (size_t node = 0; node < cores.size(); ++node) {
    for (int i = 0; i < cores[node]; ++i) all.push_back({cpus[all.size() % cpus.size()], static_cast<int>(2 * node)});
  }
  return all;
}

}  // namespace nautile
