// Features of a CPU that not every compiler's __builtin_cpu_supports() knows (clang 14 knows neither). Thread-safe.
#pragma once

namespace nautile {

// Whether this CPU has the matrix unit of newer Intel CPUs (AMX) with BF16 products and the system lets this process use
// it: Linux keeps the tile registers (8 KB a thread) only for processes that ask. The first call asks; threads inherit the
// answer.
bool matrix_unit_usable();

// Whether this CPU has AVX2 and the 256-bit dot products of bytes that come without AVX-512 (AVX-VNNI).
bool avx_vnni_usable();

}  // namespace nautile
