// The matrix unit of newer Intel CPUs (AMX): whether this process may use it.
#pragma once

namespace nautile {

// Whether this CPU has the unit with BF16 products and the system lets this process use it: Linux keeps the tile registers
// (8 KB a thread) only for processes that ask. The first call asks; threads inherit the answer. Thread-safe.
bool matrix_unit_usable();

}  // namespace nautile
