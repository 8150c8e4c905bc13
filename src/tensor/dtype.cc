// Names and sizes of the stored element types.
#include "tensor/dtype.h"

#include <array>

namespace nautile {
namespace {

struct Facts {
  const char* name;
  int bits;
};

// In the order of the enum.
constexpr std::array<Facts, kDTypes> kFacts = {{
    {"BF16", 16}, {"F16", 16},    {"F32", 32},    {"F64", 64}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8},
    {"F4", 4},    {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"BOOL", 8}, {"I8", 8},      {"U8", 8},      {"I16", 16},
    {"U16", 16},  {"I32", 32},    {"U32", 32},    {"I64", 64}, {"U64", 64},
}};

}  // namespace

int dtype_bits(DType type) {
  return kFacts[static_cast<size_t>(type)].bits;
}

const char* dtype_name(DType type) {
  return kFacts[static_cast<size_t>(type)].name;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (size_t i = 0; i < kFacts.size(); ++i) {
    if (name == kFacts[i].name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::optional<int64_t> shape_elements(const std::vector<int64_t>& shape) {
  int64_t elements = 1;
  bool empty = false;
  for (int64_t dimension : shape) {
    if (dimension < 0) return std::nullopt;
    empty = empty || dimension == 0;
  }
  if (empty) return 0;
  for (int64_t dimension : shape) {
    if (__builtin_mul_overflow(elements, dimension, &elements)) return std::nullopt;
  }
  return elements;
}

std::optional<uint64_t> tensor_bytes(DType type, const std::vector<int64_t>& shape) {
  const std::optional<int64_t> elements = shape_elements(shape);
  uint64_t bits = 0;
  if (!elements ||
      __builtin_mul_overflow(static_cast<uint64_t>(*elements), static_cast<uint64_t>(dtype_bits(type)), &bits) ||
      bits % 8 != 0) {
    return std::nullopt;
  }
  return bits / 8;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace nautile
