// DType: how the elements of a stored tensor are coded (spec checkpoint.md sections 2 and 6), with names and sizes.
//
// Thread-safety: values and pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nautile {

enum class DType : uint8_t {
  kBf16,
  kF16,
  kF32,
  kF64,
  kF8E4M3,
  kF8E5M2,
  kE8M0,  // exponent only: a scale of 2^(b-127)
  kF4,    // one E2M1 code, 4 bits; V4's own files store pairs of them as kI8
  kF6E2M3,
  kF6E3M2,
  kBool,
  kI8,
  kU8,
  kI16,
  kU16,
  kI32,
  kU32,
  kI64,
  kU64,
};
inline constexpr int kDTypes = static_cast<int>(DType::kU64) + 1;

// Bits of one element: 4, 6, 8, 16, 32 or 64.
int dtype_bits(DType type);
// Bytes of one element; 0 for the types smaller than a byte.
inline int dtype_bytes(DType type) {
  return dtype_bits(type) / 8;
}
// The safetensors spelling: "BF16", "F8_E4M3", ...
const char* dtype_name(DType type);
std::optional<DType> dtype_from_name(std::string_view name);

// Elements of a shape (1 for rank 0); nothing when a dimension is negative or the product exceeds 2^63 - 1.
std::optional<int64_t> shape_elements(const std::vector<int64_t>& shape);
// Bytes of a tensor; nothing when the shape is impossible, the size overflows, or it does not end on a byte.
std::optional<uint64_t> tensor_bytes(DType type, const std::vector<int64_t>& shape);
// "[4096, 2048]"
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace nautile
