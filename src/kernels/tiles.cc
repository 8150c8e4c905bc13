// Packing: a shuffle of bytes (and nibbles), the same for every instruction set.
#include "kernels/tiles.h"

#include <cstring>

namespace nautile {
namespace {

constexpr size_t kHalf = kTileRows / 2;

// Nibbles n0 .. n7 of a word to n0 n4 n1 n5 n2 n6 n3 n7: byte i holds columns i and i + 4.
inline uint32_t spread(uint32_t half) {
  half = (half | half << 8) & 0x00ff00ffu;
  return (half | half << 4) & 0x0f0f0f0fu;
}

void pack_fp4(const WeightView& w, size_t first_row, std::byte* out) {
  const size_t groups = w.cols / 32, pairs = padded_cols(w.format, w.cols) / 64;
  std::memset(out, 0, tile_bytes(w.format, w.cols));
  const size_t rows = w.rows - first_row < kTileRows ? w.rows - first_row : kTileRows;
  for (size_t p = 0; p < pairs; ++p, out += 17 * 64) {
    for (size_t g = 0; g < 2 && 2 * p + g < groups; ++g) {
      for (size_t r = 0; r < rows; ++r) {
        const size_t row = first_row + r, half = r / kHalf, lane = r % kHalf;
        out[32 * g + r] = static_cast<std::byte>(w.scales[row * groups + 2 * p + g]);
        const std::byte* from = w.data + row * (w.cols / 2) + (2 * p + g) * 16;
        std::byte* to = out + 64 + g * 512 + half * 256 + lane * 4;
        for (size_t q = 0; q < 4; ++q) {
          uint32_t word;
          std::memcpy(&word, from + 4 * q, 4);
          word = spread(word & 0xffff) | spread(word >> 16) << 4;
          std::memcpy(to + 64 * q, &word, 4);
        }
      }
    }
  }
}

// FP8 and BF16, a unit being 2 columns of a row: of each 4 columns the first unit of a row goes to `at`, the second
// `apart` bytes on.
template <class Unit>
void pack_pairs(const WeightView& w, size_t first_row, std::byte* out) {
  constexpr size_t kUnit = sizeof(Unit);
  constexpr bool kFp8 = kUnit == 2;
  const size_t row_bytes = w.row_bytes();
  std::memset(out, 0, tile_bytes(w.format, w.cols));
  const size_t rows = w.rows - first_row < kTileRows ? w.rows - first_row : kTileRows;
  for (size_t byte = 0; byte < row_bytes; byte += 2 * kUnit, out += 2 * kUnit * kTileRows) {
    const size_t left = row_bytes - byte;
    for (size_t r = 0; r < rows; ++r) {
      const size_t half = r / kHalf, lane = r % kHalf;
      const std::byte* from = w.data + (first_row + r) * row_bytes + byte;
      std::byte* to = out + half * 2 * kUnit * kHalf + (kFp8 ? lane / 4 * 16 + lane % 4 * 2 : lane * 4);
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

}  // namespace

bool holds_nan(const WeightView& rows, size_t begin, size_t end) {
  auto has_scale = [&](size_t first, size_t count) { return std::memchr(rows.scales + first, 255, count) != nullptr; };
  if (rows.format == WeightFormat::kFp4) return has_scale(begin * (rows.cols / 32), (end - begin) * (rows.cols / 32));
  if (rows.format != WeightFormat::kFp8) return false;
  const size_t scale_cols = (rows.cols + 127) / 128;
  if (has_scale(begin / 128 * scale_cols, ((end + 127) / 128 - begin / 128) * scale_cols)) return true;
  uint8_t most = 0;  // of the codes without their sign, doubled
  for (size_t i = begin * rows.cols; i < end * rows.cols; ++i) {
    const uint8_t doubled = static_cast<uint8_t>(static_cast<uint8_t>(rows.data[i]) << 1);
    most = doubled > most ? doubled : most;
  }
  return most == 0xfe;
}

void pack_tiles(const WeightView& rows, size_t tile_begin, size_t tile_end, std::byte* out) {
  const size_t bytes = tile_bytes(rows.format, rows.cols);
  for (size_t tile = tile_begin; tile < tile_end; ++tile) {
    std::byte* to = out + tile * bytes;
    switch (rows.format) {
      case WeightFormat::kFp4:
        pack_fp4(rows, tile * kTileRows, to);
        break;
      case WeightFormat::kFp8:
        pack_pairs<uint16_t>(rows, tile * kTileRows, to);
        break;
      case WeightFormat::kBf16:
        pack_pairs<uint32_t>(rows, tile * kTileRows, to);
        break;
      case WeightFormat::kF32:
        break;
    }
  }
}

}  // namespace nautile
