// What of this machine the process may use: physical cores with their memory nodes, and the limits of its control
// group.
//
// Read from /proc and /sys as text; a file that is missing or cannot be understood counts as "no such limit" or "one
// node", never as an error: containers hide parts of both. `root` stands before the paths, for tests.
// Thread-safety: pure functions of the system's files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace nautile {

// A physical core, by one logical CPU of it that may be used.
struct Core {
  int cpu = 0;
  int node = 0;  // of its memory, by the system's number; 0 where the system does not say
};

// The logical CPUs of the process's affinity mask, ascending; never empty.
std::vector<int> allowed_cpus();

// The cores behind these logical CPUs, by node, then CPU: of CPUs that share a core the first one stands for it.
std::vector<Core> read_cores(std::span<const int> cpus, const std::string& root = "");

// Limits of the process's control group and those above it, version 2 or 1; 0 where there is none.
struct Limits {
  double cpus = 0;            // of processor time
  uint64_t memory_bytes = 0;  // the smallest limit
  uint64_t memory_left = 0;   // least room under any limit, file cache that can be dropped not counted as used
};
Limits read_limits(const std::string& root = "");

// Processor time since the start that these logical CPUs were ready to run and the host of a virtual machine ran something else,
// in seconds; 0 where the system does not say.
double stolen_seconds(std::span<const int> cpus, const std::string& root = "");

// How many threads a pool should have: one a physical core, and no more than the processor time allows; at least 1.
int usable_cores();

}  // namespace nautile
