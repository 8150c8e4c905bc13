// Packing: which rows and lines belong together, and the shuffle of bytes (and nibbles) in plain code, for any CPU and for
// the odd ends of a matrix.
#include "kernels/tiles.h"

#include <cstring>

#include "kernels/avx2/kernels.h"
#include "kernels/avx512/kernels.h"

namespace nautile {
namespace {

constexpr size_t kHalf = kTileRows / 2;

// Nibbles n0 .. n7 of a word to n0 n4 n1 n5 n2 n6 n3 n7: byte i holds columns i and i + 4.
inline uint32_t spread(uint32_t half) {
  half = (half | half << 8) & 0x00ff00ffu;
  return (half | half << 4) & 0x0f0f0f0fu;
}

bool pack_fp4(const HalfTile& h) {
  for (size_t g = 0; g < h.groups; ++g) {
    std::byte* const pair = h.out + g / 2 * (17 * 64);
    for (size_t r = 0; r < h.count; ++r) {
      pair[g % 2 * 32 + h.half * kHalf + r] = static_cast<std::byte>(h.scales[r * h.groups + g]);
      const std::byte* from = h.rows + r * h.row_bytes + g * 16;
      std::byte* to = pair + 64 + g % 2 * 512 + h.half * 256 + r * 4;
      for (size_t q = 0; q < 4; ++q) {
        uint32_t word;
        std::memcpy(&word, from + 4 * q, 4);
        word = spread(word & 0xffff) | spread(word >> 16) << 4;
        std::memcpy(to + 64 * q, &word, 4);
      }
    }
  }
  return h.groups != 0 && std::memchr(h.scales, 255, h.count * h.groups) != nullptr;
}

// FP8 and BF16, a unit being 2 columns of a row: of each 4 columns the first unit of a row goes to `at`, the second
// `apart` bytes on.
template <class Unit>
void pack_pairs(const HalfTile& h) {
  constexpr size_t kUnit = sizeof(Unit);
  constexpr bool kFp8 = kUnit == 2;
  std::byte* out = h.out + h.half * 2 * kUnit * kHalf;
  for (size_t byte = 0; byte < h.row_bytes; byte += 2 * kUnit, out += 2 * kUnit * kTileRows) {
    const size_t left = h.row_bytes - byte;
    for (size_t r = 0; r < h.count; ++r) {
      const std::byte* from = h.rows + r * h.row_bytes + byte;
      std::byte* to = out + (kFp8 ? r / 4 * 16 + r % 4 * 2 : r * 4);
      std::memcpy(to, from, left < kUnit ? left : kUnit);
      if (left <= kUnit) continue;
      to += kFp8 ? 8 : 64;
      if (left >= 2 * kUnit) {
        std::memcpy(to, from + kUnit, kUnit);
      } else {
        std::memcpy(to, from + kUnit, left - kUnit);
      }
    }
  }
}

bool pack_fp8(const HalfTile& h) {
  pack_pairs<uint16_t>(h);
  uint8_t most = 0;  // of the codes without their sign, doubled
  for (size_t i = 0; i < h.count * h.row_bytes; ++i) {
    const uint8_t doubled = static_cast<uint8_t>(static_cast<uint8_t>(h.rows[i]) << 1);
    most = doubled > most ? doubled : most;
  }
  return most == 0xfe;
}

bool pack_half(const HalfTile& h) {
  switch (h.format) {
    case WeightFormat::kFp4:
      return pack_fp4(h);
    case WeightFormat::kFp8:
      return pack_fp8(h);
    case WeightFormat::kBf16:
      pack_pairs<uint32_t>(h);
      break;
    case WeightFormat::kF32:
      break;
  }
  return false;
}

}  // namespace

std::vector<Packer> packers() {
  std::vector<Packer> all = {{"plain", pack_half}};
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) all.push_back({"avx2", avx2::pack_half});
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    all.push_back({"avx512", avx512::pack_half});
  }
  return all;
}

bool pack_tiles(const Packer& packer, const WeightView& rows, size_t tile_begin, size_t tile_end, std::byte* out) {
  const size_t bytes = tile_bytes(rows.format, rows.cols);
  const bool fp4 = rows.format == WeightFormat::kFp4;
  HalfTile h;
  h.format = rows.format;
  h.row_bytes = rows.row_bytes();
  h.groups = fp4 ? rows.cols / 32 : 0;
  bool nan = false;
  for (size_t tile = tile_begin; tile < tile_end; ++tile) {
    h.out = out + tile * bytes;
    const size_t first = tile * kTileRows, end = rows.rows - first < kTileRows ? rows.rows : first + kTileRows;
    if (end < first + kTileRows || rows.cols != padded_cols(rows.format, rows.cols)) std::memset(h.out, 0, bytes);
    for (size_t row = first; row < end; row += kHalf) {
      h.half = (row - first) / kHalf;
      h.count = end - row < kHalf ? end - row : kHalf;
      h.rows = rows.data + row * h.row_bytes;
      h.scales = fp4 ? rows.scales + row * h.groups : nullptr;
      nan |= (h.count == kHalf && h.row_bytes % 16 == 0 ? packer.half : pack_half)(h);
    }
  }
  if (rows.format != WeightFormat::kFp8 || tile_begin >= tile_end) return nan;
  const size_t scale_cols = (rows.cols + 127) / 128, begin = tile_begin * kTileRows / 128;
  const size_t rows_end = rows.rows < tile_end * kTileRows ? rows.rows : tile_end * kTileRows;
  return std::memchr(rows.scales + begin * scale_cols, 255, ((rows_end + 127) / 128 - begin) * scale_cols) != nullptr || nan;
}

bool pack_tiles(const WeightView& rows, size_t tile_begin, size_t tile_end, std::byte* out) {
  static const Packer fastest = packers().back();
  return pack_tiles(fastest, rows, tile_begin, tile_end, out);
}

}  // namespace nautile
