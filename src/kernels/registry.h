// Chooses the kernels once, at start: by what the CPU has, or by name (--isa).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "kernels/ops.h"

namespace nautile {

// "ref", "avx2", "avx512": what this program was built with and this CPU can run, slowest first.
std::vector<std::string> available_isas();

// The fastest for "auto". kInvalidArgument names what there is when `isa` is unknown or this CPU cannot run it.
// The reference stays valid for the life of the process. Thread-safety: pure.
Result<const Kernels*> find_kernels(std::string_view isa);

}  // namespace nautile
