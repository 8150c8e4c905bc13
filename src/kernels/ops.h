// The operations that cost time, as plain structs of arguments, and the table of functions for one instruction set.
//
// Contract of every operation, in every version:
// - an output element's sum is ordered by the shape alone: not by how many rows, tokens or threads share the call;
// - pointers to weights may be unaligned; so may activations;
// - no allocation, no lock, no exception. Thread-safety: calls on disjoint outputs may run at the same time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/elements.h"

namespace nautile {

// How a weight matrix [rows, cols] is stored (spec checkpoint.md section 6).
enum class WeightFormat {
  kF32,
  kBf16,
  kFp8,  // E4M3, one E8M0 scale per 128 x 128 tile: scales [ceil(rows/128), ceil(cols/128)]
  kFp4,  // E2M1, two a byte (even column low), one E8M0 scale per 32 columns: scales [rows, cols/32]
};

// In which order its bytes lie.
enum class WeightLayout {
  kRows,   // row after row, as in the checkpoint
  kTiles,  // 32 rows at a time, interleaved for the dot-product instructions (kernels/tiles.h)
};

// A matrix as it lies in memory. The bytes belong to the checkpoint, or to the Weights when they are tiles.
struct WeightView {
  WeightFormat format = WeightFormat::kF32;
  size_t rows = 0, cols = 0;
  const std::byte* data = nullptr;
  const uint8_t* scales = nullptr;  // FP4 tiles carry their own
  WeightLayout layout = WeightLayout::kRows;
  // Of tiles that lie on several memory nodes (model/node_rows.h): where tile 0 would be for the rows of each; no `data`.
  const std::byte* const* by_node = nullptr;

  // Inline in every file: the linker may keep one copy of what is not, and that one may have been compiled for another CPU
  // (tests/arch/isa_symbols.py).
  [[gnu::always_inline]] size_t row_bytes() const {
    switch (format) {
      case WeightFormat::kF32:
        return cols * 4;
      case WeightFormat::kBf16:
        return cols * 2;
      case WeightFormat::kFp8:
        return cols;
      case WeightFormat::kFp4:
        return cols / 2;
    }
    return 0;
  }
  // Bytes of the matrix with its scales, without a tile's padding.
  size_t bytes() const {
    const size_t tiles = (rows + 127) / 128 * ((cols + 127) / 128);
    return rows * row_bytes() + (format == WeightFormat::kFp8   ? tiles
                                 : format == WeightFormat::kFp4 ? rows * cols / 32
                                                                : 0);
  }
};

// How one row of activations is stored for a product. Rows for tiles are padded with zeros to padded_cols() of the
// weight (kernels/tiles.h).
enum class ActivationFormat {
  kF32,
  kF32Padded,  // for tiles
  kF32Raised,  // times 2^60, for E4M3 codes placed in floats, which are their values times 2^-120; from 2^68 on: infinity
  kBf16,  // nearest even; below 2^-126: zero
  kBf16Eights,  // the same, each eight columns in the order 0 2 4 6 1 3 5 7
  kInt8,  // codes, then for each 32 columns a float scale and an int32 -12 * (sum of the codes)
  kInt8AndRaised,  // kInt8; then, from raised_place() on, its codes with 128 added
  kInt8AndBf16,  // kInt8 with scales that are powers of two; then, from bf16_place() on, the same values as kBf16Eights
};

// y[t][r - y_first] = sum_k x[t][k] * w[r][k] for tokens t in [0, tokens) and rows r in [row_begin, row_end).
// Rows take kF32; which formats tiles take is for TileKernels to say.
struct MatmulArgs {
  WeightView weight;
  ActivationFormat format = ActivationFormat::kF32;
  const std::byte* const* x = nullptr;  // [tokens] rows
  float* const* y = nullptr;            // [tokens] rows of outputs
  size_t y_first = 0;                   // which row of the weight y[t][0] is
  size_t tokens = 0;
  size_t row_begin = 0, row_end = 0;
};

// How one row of the attention cache is stored. kF32: head_dim floats. kPacked: head_dim - rope_dim E4M3 codes,
// rope_dim BF16 values, then one E8M0 scale per 64 codes, padded to 8 (584 bytes at 512/64; spec checkpoint.md section
// 9).
enum class KvFormat { kF32, kPacked };

struct KvLayout {
  KvFormat format = KvFormat::kPacked;
  size_t head_dim = 0, rope_dim = 0;

  size_t nope() const { return head_dim - rope_dim; }
  size_t row_bytes() const {
    if (format == KvFormat::kF32) return head_dim * 4;
    return nope() + 2 * rope_dim + ((nope() + 63) / 64 + 7) / 8 * 8;
  }
};

// What the products and weights of an attention may be rounded to.
enum class AttendPrecision {
  kFloat,     // nothing
  kFast,      // queries and weights to BF16, where the instruction set multiplies BF16
  kOfficial,  // weights to BF16, as the official kernel does (the queries are BF16 already); they are relative to the
              // maximum over all rows and the sink (official: over the blocks so far, in an order of its own)
};

// Attention of one token: heads x rows scores, one softmax with the sink in the denominator, weighted sum of the same
// rows (K = V). Rows are taken in the order given, in blocks of kAttendBlock with a running maximum.
struct AttendArgs {
  KvLayout kv;
  const std::byte* const* rows = nullptr;  // [row_count]
  size_t row_count = 0;
  const float* q = nullptr;     // [heads, head_dim]
  const float* sink = nullptr;  // [heads]
  size_t heads = 0;
  float scale = 0;  // of a score
  AttendPrecision precision = AttendPrecision::kFloat;
  float* out = nullptr;      // [heads, head_dim]
  float* scratch = nullptr;  // attend_scratch_floats(heads, head_dim)
};
inline constexpr size_t kAttendBlock = 128;
constexpr size_t attend_lanes(size_t heads) {
  return (heads + 15) / 16 * 16;
}
constexpr size_t attend_padded(size_t head_dim) {
  return (head_dim + 31) / 32 * 32;
}
constexpr size_t attend_scratch_floats(size_t heads, size_t head_dim) {
  const size_t lanes = attend_lanes(heads), padded = attend_padded(head_dim);
  return (lanes + kAttendBlock + heads) * padded + (2 * kAttendBlock + 3) * lanes + 16;
}

// How one index key is stored. kF32: dim floats. kPacked: dim / 2 bytes of E2M1, then dim / 32 E8M0 scales (68 at 128).
struct IndexLayout {
  KvFormat format = KvFormat::kPacked;
  size_t dim = 0;
  size_t row_bytes() const { return format == KvFormat::kF32 ? dim * 4 : dim / 2 + dim / 32; }
};

// scores[t][j] = sum_h weights[t][h] * relu(q[t][h] . key[j]) for a few tokens over `count` keys. Keys lie in blocks of
// block_keys (a multiple of 16); key j in block j / block_keys. A score depends on its own query and key alone.
struct IndexScoreArgs {
  IndexLayout layout;
  const std::byte* const* blocks = nullptr;
  size_t block_keys = 0, count = 0;
  const float* q = nullptr;        // [tokens, heads, dim]
  const float* weights = nullptr;  // [tokens, heads]
  size_t heads = 0, tokens = 0;
  bool round_bf16 = false;  // round dot, product and sum to BF16, as the official code does
  float* scores = nullptr;  // [tokens, stride]
  size_t stride = 0;
  float* scratch = nullptr;  // index_scratch_floats(heads, dim, tokens)
};
inline constexpr size_t kKeyTile = 64;
constexpr size_t index_scratch_floats(size_t heads, size_t dim, size_t tokens) {
  const size_t lanes = attend_lanes(heads), padded = attend_padded(dim);
  return (lanes * tokens + lanes / 4 + 2 * kKeyTile) * padded + kKeyTile * (lanes + 4) + 4 * lanes * tokens + 64;
}

// The indices of the k best of scores[0..count), ascending: higher first, lower index on ties, NaN as -infinity.
// k < count. Exact, without sorting.
struct TopKArgs {
  const float* scores = nullptr;
  size_t count = 0, k = 0;
  int32_t* chosen = nullptr;   // [k]
  int32_t* scratch = nullptr;  // top_k_scratch(count, k)
};
constexpr size_t top_k_scratch(size_t count, size_t k) {
  return 2 * (count + 16) + 4 * k + 64;
}

struct TileKernels;  // kernels/tiles.h

// One instruction set's functions.
struct Kernels {
  const char* name = "";
  void (*matmul)(const MatmulArgs&) = nullptr;
  void (*attend)(const AttendArgs&) = nullptr;
  void (*index_scores)(const IndexScoreArgs&) = nullptr;
  // sum x[i] * y[i]
  float (*dot)(const float* x, const float* y, size_t count) = nullptr;
  // y[i] += a * x[i]
  void (*axpy)(float a, const float* x, float* y, size_t count) = nullptr;
  void (*top_k)(const TopKArgs&) = nullptr;
  Elements elements;
  // How this instruction set multiplies tiles; null where it has rows only.
  const TileKernels* tiles = nullptr;
};

}  // namespace nautile
