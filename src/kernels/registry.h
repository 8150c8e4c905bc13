// Chooses the kernels once, at start: by what the CPU has, or by name (--isa).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "kernels/ops.h"

namespace nautile {

// "ref", "avx2", "avx512", "amx": what this program was built with, slowest first.
std::vector<std::string> built_isas();

// Those of them that this CPU can run and the system lets it.
std::vector<std::string> available_isas();

// The fastest for "auto". kInvalidArgument says whether `isa` is unknown or this CPU lacks something for it, and names what
// there is.
// The reference stays valid for the life of the process. Thread-safety: pure.
Result<const Kernels*> find_kernels(std::string_view isa);

// For tests: each version that runs here, also those that are not chosen, because others of their name are faster here.
std::vector<const Kernels*> all_kernels();

}  // namespace nautile
