// The matrix unit in plain code, after Intel's definition of its instructions (Software Developer's Manual, volume 2):
// registers of rows and bytes a row, rows beyond them zero, TDPBF16PS and TDPBSSD. For tests.
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/amx/kernels.h"
#include "kernels/avx512/kernels.h"

namespace nautile::amx::twin {
namespace {

constexpr size_t kAhead = 0;

#include "kernels/amx/lines.h"

// A fault of the real unit (#GP, #UD): registers not configured, or shapes that do not fit.
void demand(bool fits) {
  if (!fits) abort();
}

class Unit {
 public:
  void configure(size_t rows, size_t row_bytes, size_t second_rows) {
    demand(rows >= 1 && rows <= 16 && second_rows >= 1 && second_rows <= 16);
    demand(row_bytes >= 4 && row_bytes <= 64 && row_bytes % 4 == 0);
    for (size_t i = 0; i < 8; ++i) {
      tiles_[i] = {};
      tiles_[i].rows = i < 6 ? rows : second_rows;
      tiles_[i].row_bytes = i == 4 || i == 5 ? row_bytes : 64;
    }
  }
  void release() {
    for (Tile& tile : tiles_) tile = {};
  }

  template <int kTile>
  void zero() {
    Tile& tile = configured(kTile);
    memset(tile.bytes, 0, sizeof tile.bytes);
  }
  template <int kTile>
  void load(const void* from, size_t stride) {
    Tile& tile = configured(kTile);
    memset(tile.bytes, 0, sizeof tile.bytes);
    for (size_t r = 0; r < tile.rows; ++r) {
      memcpy(tile.bytes[r], static_cast<const char*>(from) + r * stride, tile.row_bytes);
    }
  }
  template <int kTile>
  void store(void* to, size_t stride) {
    Tile& tile = configured(kTile);
    for (size_t r = 0; r < tile.rows; ++r) {
      memcpy(static_cast<char*>(to) + r * stride, tile.bytes[r], tile.row_bytes);
    }
  }

  template <bool kInt8, int kSum, int kFirst, int kSecond>
  void dot() {
    static_assert(kSum != kFirst && kSum != kSecond && kFirst != kSecond);  // #UD
    Tile &sum = configured(kSum), &a = configured(kFirst), &b = configured(kSecond);
    demand(sum.rows == a.rows && sum.row_bytes == b.row_bytes && a.row_bytes / 4 == b.rows);
    kInt8 ? dot_bytes(sum, a, b) : dot_bf16(sum, a, b);
  }

 private:
  struct Tile {
    size_t rows = 0, row_bytes = 0;
    unsigned char bytes[16][64] = {};
  };

  Tile& configured(int i) {
    demand(tiles_[i].rows != 0);
    return tiles_[i];
  }

  static void dot_bytes(Tile& sum, const Tile& a, const Tile& b) {
    for (size_t m = 0; m < sum.rows; ++m) {
      for (size_t k = 0; k < a.row_bytes / 4; ++k) {
        for (size_t n = 0; n < sum.row_bytes / 4; ++n) {
          int32_t total;
          memcpy(&total, sum.bytes[m] + 4 * n, 4);
          for (size_t i = 0; i < 4; ++i) {
            total += static_cast<signed char>(a.bytes[m][4 * k + i]) * static_cast<signed char>(b.bytes[k][4 * n + i]);
          }
          memcpy(sum.bytes[m] + 4 * n, &total, 4);
        }
      }
    }
  }

  // Denormal inputs and results count as zero with their sign.
  static float flushed(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7f800000u) == 0) bits &= 0x80000000u;
    memcpy(&x, &bits, 4);
    return x;
  }
  static float bf16(const unsigned char* p) {
    uint16_t half;
    memcpy(&half, p, 2);
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float x;
    memcpy(&x, &bits, 4);
    return flushed(x);
  }

  // The even columns' products in one sum, the odd columns' in another, both from zero and fused; their sum is added to
  // what was there.
  static void dot_bf16(Tile& sum, const Tile& a, const Tile& b) {
    for (size_t m = 0; m < sum.rows; ++m) {
      for (size_t n = 0; n < sum.row_bytes / 4; ++n) {
        float even = 0, odd = 0, total;
        for (size_t k = 0; k < a.row_bytes / 4; ++k) {
          even = flushed(__builtin_fmaf(bf16(a.bytes[m] + 4 * k), bf16(b.bytes[k] + 4 * n), even));
          odd = flushed(__builtin_fmaf(bf16(a.bytes[m] + 4 * k + 2), bf16(b.bytes[k] + 4 * n + 2), odd));
        }
        memcpy(&total, sum.bytes[m] + 4 * n, 4);
        total = flushed(flushed(total) + flushed(even + odd));
        memcpy(sum.bytes[m] + 4 * n, &total, 4);
      }
    }
  }

  Tile tiles_[8];
};

#include "kernels/amx/products.h"

}  // namespace

void products(const MatmulArgs& args) {
  unit_products<Unit>(args);
}

const TileKernels& tile_kernels() {
  static const TileKernels table = {ActivationFormat::kBf16, true, matmul_in_tiles<Unit>, avx512::tile_kernels().narrow};
  return table;
}

}  // namespace nautile::amx::twin
