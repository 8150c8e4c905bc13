// Packing: which rows and lines belong together, and the shuffle of bytes (and nibbles) in plain code, for any CPU and for
// the odd ends of a matrix.
#include "kernels/tiles.h"

#include <algorithm>
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

void pack_bf16(const HalfTile& h) {
  for (size_t r = 0; r < h.count; ++r) {
    const std::byte* from = h.rows + r * h.row_bytes;
    for (size_t col = 0; col < h.row_bytes / 2; ++col) {
      std::memcpy(h.out + col / 4 * 256 + h.half * 128 + col % 4 / 2 * 64 + r * 4 + col % 2 * 2, from + col * 2, 2);
    }
  }
}

bool pack_fp8(const HalfTile& h) {
  uint8_t most = 0;  // of the codes without their sign, doubled
  for (size_t r = 0; r < h.count; ++r) {
    for (size_t col = 0; col < h.row_bytes; ++col) {
      const std::byte code = h.rows[r * h.row_bytes + col];
      h.out[fp8_place(h.half * kHalf + r, col)] = code;
      most = std::max(most, static_cast<uint8_t>(code << 1));
    }
  }
  return most == 0xfe;
}

// Behind the lines of an FP8 tile with `rows` rows, from what these hold.
void list_faint(const HalfTile& h, size_t rows, size_t padded, bool in_range) {
  std::byte* const list = h.out + faint_list_place(padded);
  std::memset(list, 0, tile_bytes(WeightFormat::kFp8, padded) - faint_list_place(padded));
  const auto put = [&](size_t place, uint32_t word) { std::memcpy(list + 4 * place, &word, 4); };
  uint32_t count = in_range && h.row_bytes <= 1 << 16 ? 0 : kNoList;
  for (size_t quad = 0; quad < h.row_bytes && count != kNoList; quad += 4) {
    const std::byte* codes = h.out + quad * kTileRows;
    uint64_t some = 0;  // eight codes at a time: adding the largest exponent leaves the top bit alone where there is none
    for (size_t i = 0; i < 128; i += 8) {
      uint64_t eight;
      std::memcpy(&eight, codes + i, 8);
      some |= ~((eight & 0x7878787878787878u) + 0x7878787878787878u);
    }
    if ((some & 0x8080808080808080u) == 0) continue;
    for (size_t i = 0; i < 4 * rows && count != kNoList; ++i) {
      const size_t row = i / 4, col = quad + i % 4;
      const std::byte code = h.out[fp8_place(row, col)];
      if (col >= h.row_bytes || (code & std::byte{0x78}) != std::byte{0}) continue;
      if (count == faint_room(padded)) {
        count = kNoList;
      } else {
        put(++count, static_cast<uint32_t>(col << 16 | row << 8 | static_cast<size_t>(code)));
      }
    }
  }
  put(0, count);
}

bool pack_half(const HalfTile& h) {
  switch (h.format) {
    case WeightFormat::kFp4:
      return pack_fp4(h);
    case WeightFormat::kFp8:
      return pack_fp8(h);
    case WeightFormat::kBf16:
      pack_bf16(h);
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
  const size_t padded = padded_cols(rows.format, rows.cols), scale_cols = (rows.cols + 127) / 128;
  bool nan = false;
  for (size_t tile = tile_begin; tile < tile_end; ++tile) {
    h.out = out + tile * bytes;
    const size_t first = tile * kTileRows, end = rows.rows - first < kTileRows ? rows.rows : first + kTileRows;
    if (end < first + kTileRows || rows.cols != padded) std::memset(h.out, 0, bytes);
    bool tile_nan = false;
    for (size_t row = first; row < end; row += kHalf) {
      h.half = (row - first) / kHalf;
      h.count = end - row < kHalf ? end - row : kHalf;
      h.rows = rows.data + row * h.row_bytes;
      h.scales = fp4 ? rows.scales + row * h.groups : nullptr;
      tile_nan |= (h.count == kHalf && h.row_bytes % 16 == 0 ? packer.half : pack_half)(h);
    }
    if (rows.format == WeightFormat::kFp8) {
      const uint8_t* scales = rows.scales + first / 128 * scale_cols;
      const uint8_t most = *std::max_element(scales, scales + scale_cols);
      list_faint(h, end - first, padded, !tile_nan && most <= kMostListedScale);
      tile_nan |= most == 255;
    }
    nan |= tile_nan;
  }
  return nan;
}

bool pack_tiles(const WeightView& rows, size_t tile_begin, size_t tile_end, std::byte* out) {
  static const Packer fastest = packers().back();
  return pack_tiles(fastest, rows, tile_begin, tile_end, out);
}

}  // namespace nautile
