// One safetensors file (spec checkpoint.md section 2): the header, read with every rejection the format calls for.
//
// Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tensor/dtype.h"

namespace nautile {

inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct SafetensorsTensor {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // of its first byte in the file
  uint64_t bytes = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsTensor> tensors;  // by offset
  std::vector<std::pair<std::string, std::string>> metadata;
  uint64_t data_offset = 0;  // 8 + N
};

// `file` is the whole file (it may be a mapping: only the header is touched), `where` its name for errors.
// kCorrupt for a header that is too long, not JSON, not UTF-8, names a tensor twice, has an unknown dtype or a shape
// whose size overflows, or for offsets that leave the file, overlap, leave holes or do not fit dtype and shape.
Result<SafetensorsHeader> parse_safetensors(std::span<const std::byte> file, const std::string& where);

// The header bytes (length field included) for tensors laid out one after the other in the given order; `offset` is
// ignored. Padded so that the data starts at a multiple of 8.
std::string safetensors_header(const std::vector<SafetensorsTensor>& tensors);

}  // namespace nautile
