// .npy files (NumPy format 1.0) of float matrices: what `score` writes and the golden tests read.
//
// Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace nautile {

struct FloatMatrix {
  size_t rows = 0, cols = 0;
  std::vector<float> values;  // [rows, cols]
};

// values: [rows, cols]
std::string npy_bytes(std::span<const float> values, size_t rows, size_t cols);

// Little-endian float32, C order, two dimensions; anything else is kUnsupported, a file that is cut or too long kCorrupt.
Result<FloatMatrix> parse_npy(std::string_view bytes, const std::string& where);

}  // namespace nautile
