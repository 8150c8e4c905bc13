// Tiles: weights interleaved so that one 64-byte line feeds 16 rows of a dot-product instruction, and activations narrowed
// to what that instruction takes.
//
// A tile is 32 rows, as two halves A and B of 16. Rows are padded to 32 and columns to padded_cols() with zeros. Within a
// tile, in the order in which a product reads it:
//   FP4   for each 64 columns: one line of E8M0 scales (A and B of the first 32 columns, A and B of the second), then for
//         each 32 columns four lines of A and four of B; a line holds 4 columns of each row in its low nibbles and the
//         next 4 in the high ones
//   FP8   for each 4 columns: a line of A, a line of B; a line holds columns 2, 0, 3, 1 of each row, so that the upper bytes
//         of its 16-bit words become BF16 of columns 0 and 1, the lower ones of columns 2 and 3 (avx512/quads.h). Behind
//         all lines, the list of the tile's faint codes. Scales stay as in the checkpoint
//   BF16  for each 4 columns: A's columns 0 and 1, A's 2 and 3, B's 0 and 1, B's 2 and 3, a line each
//
// Order of sums: FP8 and BF16 sum 128 columns from zero in an order of the instruction set's own, then total += scale *
// sum; AVX-512 then adds what faint codes lack. FP4 sums 32 columns (exactly with kInt8), then total += scale * sum. The
// matrix unit has its own (amx/products.h).
#pragma once

#include <vector>

#include "kernels/ops.h"

namespace nautile {

inline constexpr size_t kTileRows = 32;

// Inlined by force, as WeightView::row_bytes() (ops.h) and for its reason.
// Columns of a row in tiles, and of the activations that meet it.
[[gnu::always_inline]] constexpr size_t padded_cols(WeightFormat format, size_t cols) {
  return format == WeightFormat::kFp4 ? (cols + 63) / 64 * 64 : (cols + 127) / 128 * 128;
}

// Where the code of a row and a column of an FP8 tile stands.
constexpr size_t fp8_place(size_t row, size_t col) {
  constexpr size_t kByte[4] = {1, 3, 0, 2};
  return col / 4 * 128 + row * 4 + kByte[col % 4];
}

// Faint: an E4M3 code whose exponent field is 0, so zero or subnormal; as a rule a few in ten thousand. Decoding by shifts
// takes them for other values. The list: 32-bit words, how many follow, then column << 16 | row << 8 | code for each. Where
// it has no room (one code in 1,024), or shifts would not do for another reason (a NaN code; a scale above
// kMostListedScale; more columns than 16 bits count), it says kNoList.
inline constexpr uint32_t kNoList = ~uint32_t{0};
inline constexpr uint8_t kMostListedScale = 127 + 119;  // shifts give 2^-8 of a value, which its scale takes back
[[gnu::always_inline]] constexpr size_t faint_room(size_t padded) {
  return padded / 32 - 1;
}
[[gnu::always_inline]] constexpr size_t faint_list_place(size_t padded) {  // byte of a tile
  return padded * kTileRows;
}

[[gnu::always_inline]] constexpr size_t tile_bytes(WeightFormat format, size_t cols) {
  const size_t padded = padded_cols(format, cols);
  switch (format) {
    case WeightFormat::kFp4:
      return padded / 64 * (17 * 64);
    case WeightFormat::kFp8:
      return faint_list_place(padded) + (4 * (1 + faint_room(padded)) + 63) / 64 * 64;
    case WeightFormat::kBf16:
      return padded * kTileRows * 2;
    case WeightFormat::kF32:
      break;
  }
  return 0;  // kept in rows
}

[[gnu::always_inline]] constexpr size_t tile_count(size_t rows) {
  return (rows + kTileRows - 1) / kTileRows;
}

// Where the second parts of kInt8AndBf16 and kInt8AndRaised start.
constexpr size_t bf16_place(size_t padded) {
  return (padded + padded / 32 * 8 + 63) / 64 * 64;
}
constexpr size_t raised_place(size_t padded) {
  return padded + padded / 32 * 8;
}

// Bytes of a row of activations of `padded` columns.
[[gnu::always_inline]] constexpr size_t activation_bytes(ActivationFormat format, size_t padded) {
  switch (format) {
    case ActivationFormat::kF32:
    case ActivationFormat::kF32Padded:
    case ActivationFormat::kF32Raised:
      return 4 * padded;
    case ActivationFormat::kBf16:
    case ActivationFormat::kBf16Eights:
      return 2 * padded;
    case ActivationFormat::kInt8:
      return padded + padded / 32 * 8;
    case ActivationFormat::kInt8AndRaised:
      return raised_place(padded) + padded;
    case ActivationFormat::kInt8AndBf16:
      return bf16_place(padded) + 2 * padded;
  }
  return 0;
}

// Writes tiles [tile_begin, tile_end) of a matrix in rows to `out`, the place of tile 0. Not for kF32. Returns whether
// their rows, or scales of theirs, hold a NaN code: 127 or 255 of E4M3, 255 of E8M0. No checkpoint has a reason to.
// (Versions that place E4M3 codes in floats would multiply them as 480.)
bool pack_tiles(const WeightView& rows, size_t tile_begin, size_t tile_end, std::byte* out);

// Half of a tile at packing: up to 16 rows, evenly apart. Padding in `out` is zero beforehand.
struct HalfTile {
  WeightFormat format = WeightFormat::kF32;
  size_t half = 0;   // 0: A, 1: B
  size_t count = 0;  // rows
  const std::byte* rows = nullptr;
  size_t row_bytes = 0;
  const uint8_t* scales = nullptr;  // FP4: [count, groups]
  size_t groups = 0;
  std::byte* out = nullptr;  // of the tile
};

// A version of packing: writes a half, returns whether values, or scales of FP4, hold a NaN code. Versions of vectors
// (kernels/pack.inc) take 16 rows of whole 16 bytes and leave the rest to the plain one.
struct Packer {
  const char* name = "";
  bool (*half)(const HalfTile&) = nullptr;
};
// Those that this CPU runs, "plain" first, the fastest last.
std::vector<Packer> packers();
// pack_tiles() by one of them.
bool pack_tiles(const Packer& packer, const WeightView& rows, size_t tile_begin, size_t tile_end, std::byte* out);

// Writes columns [begin, end) of a row of activations; when end is cols, the padding too.
struct NarrowArgs {
  const float* x = nullptr;  // column `begin`
  size_t begin = 0, end = 0;  // begin a multiple of 32; end too, unless it is cols
  size_t cols = 0, padded = 0;
  ActivationFormat format = ActivationFormat::kBf16;
  std::byte* row = nullptr;  // its start, whatever `begin`: [activation_bytes(format, padded)]
};

struct TileKernels {
  // What BF16 and FP8 weights take.
  ActivationFormat wide = ActivationFormat::kBf16;
  // What FP4 weights take; and what they take that holds E4M3 exactly, kF32 where nothing does.
  ActivationFormat fp4 = ActivationFormat::kInt8, wide_fp4 = ActivationFormat::kF32;
  void (*matmul)(const MatmulArgs&) = nullptr;
  void (*narrow)(const NarrowArgs&) = nullptr;
  // Up to so many tokens it does not matter to matmul() how activations lie; more should lie evenly apart, from the start of a
  // line on.
  size_t scattered_tokens = SIZE_MAX;
};

}  // namespace nautile
