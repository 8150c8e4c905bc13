// The matrix unit in plain code, after Intel's definition of its instructions (Software Developer's Manual, volume 2):
// eight registers of rows and bytes a row, zero beyond them, TDPBF16PS. For tests.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace nautile::amx {
namespace {

// A fault of the real unit (#GP, #UD): registers not configured, or shapes that do not fit.
void demand(bool fits) {
  if (!fits) abort();
}

class ScalarUnit {
 public:
  void configure(int i, size_t rows, size_t row_bytes) {
    demand(rows >= 1 && rows <= 16 && row_bytes >= 4 && row_bytes <= 64 && row_bytes % 4 == 0);
    tiles_[i] = {};
    tiles_[i].rows = rows;
    tiles_[i].row_bytes = row_bytes;
  }
  void release() {
    for (Tile& tile : tiles_) tile = {};
  }

  void zero(int i) {
    Tile& tile = configured(i);
    memset(tile.bytes, 0, sizeof tile.bytes);
  }
  void load(int i, const void* from, size_t stride) {
    Tile& tile = configured(i);
    memset(tile.bytes, 0, sizeof tile.bytes);
    for (size_t r = 0; r < tile.rows; ++r) {
      memcpy(tile.bytes[r], static_cast<const char*>(from) + r * stride, tile.row_bytes);
    }
  }
  void store(int i, void* to, size_t stride) {
    Tile& tile = configured(i);
    for (size_t r = 0; r < tile.rows; ++r) {
      memcpy(static_cast<char*>(to) + r * stride, tile.bytes[r], tile.row_bytes);
    }
  }

  // sum += a * b
  void dot(int sum_tile, int a_tile, int b_tile) {
    demand(sum_tile != a_tile && sum_tile != b_tile && a_tile != b_tile);
    Tile &sum = configured(sum_tile), &a = configured(a_tile), &b = configured(b_tile);
    demand(sum.rows == a.rows && sum.row_bytes == b.row_bytes && a.row_bytes / 4 == b.rows);
    dot_bf16(sum, a, b);
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

}  // namespace
}  // namespace nautile::amx
