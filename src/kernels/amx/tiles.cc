// Products of tiles by the matrix unit: its registers by intrinsics.
#include <string.h>

#include "kernels/amx/kernels.h"
#include "kernels/avx512/attention.h"
#include "kernels/avx512/kernels.h"
#include "kernels/avx512/quads.h"

namespace nautile::amx {
namespace {

constexpr size_t kAhead = 4096;  // bytes fetched early

#include "kernels/amx/lines.h"

// The configuration of the registers as LDTILECFG reads it: palette 1 has eight of up to 16 rows of 64 bytes.
struct alignas(64) Configuration {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(Configuration) == 64);

// The intrinsics put the register's number into the instruction's text: it must be a digit in the source.
#define NAUTILE_EACH_TILE(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
#define NAUTILE_EACH_PRODUCT(DO) DO(0, 4, 6) DO(1, 4, 7) DO(2, 5, 6) DO(3, 5, 7)

// The registers of this thread.
class Unit {
 public:
  // Tokens of the two blocks.
  void configure(size_t first_rows, size_t second_rows) {
    Configuration c = {};
    c.palette = 1;
    for (int i = 0; i < 8; ++i) {
      c.row_bytes[i] = 64;
      c.rows[i] = static_cast<uint8_t>(i < 2 || i == 4 ? first_rows : i < 6 ? second_rows : 16);
    }
    written(&c);
    _tile_loadconfig(&c);
  }
  void release() { _tile_release(); }

  template <int kTile>
  void zero() {
#define NAUTILE_ZERO(N) \
  if constexpr (kTile == N) _tile_zero(N);
    NAUTILE_EACH_TILE(NAUTILE_ZERO)
  }
  template <int kTile>
  void load(const void* from, size_t stride) {
    written(from);
#define NAUTILE_LOAD(N) \
  if constexpr (kTile == N) _tile_loadd(N, from, stride);
    NAUTILE_EACH_TILE(NAUTILE_LOAD)
  }
  template <int kTile>
  void store(void* to, size_t stride) {
#define NAUTILE_STORE(N) \
  if constexpr (kTile == N) _tile_stored(N, to, stride);
    NAUTILE_EACH_TILE(NAUTILE_STORE)
  }
  // kSum += kFirst * kSecond
  template <int kSum, int kFirst, int kSecond>
  void dot() {
#define NAUTILE_DOT(S, F, W) \
  if constexpr (kSum == S && kFirst == F && kSecond == W) _tile_dpbf16ps(S, F, W);
    NAUTILE_EACH_PRODUCT(NAUTILE_DOT)
  }

 private:
  // g++ 12 does not tell its optimiser that tile loads read memory.
  static void written(const void* p) { asm volatile("" : : "r"(p) : "memory"); }
};

#include "kernels/amx/products.h"
#include "kernels/amx/narrow.h"
#include "kernels/amx/attend.inc"

void matmul(const MatmulArgs& a) {
  a.weight.layout == WeightLayout::kTiles ? matmul_in_tiles<Unit>(a) : avx512::kernels(avx512::Products::kBf16).matmul(a);
}

Kernels make_kernels() {
  static const TileKernels tiles = {ActivationFormat::kBf16, ActivationFormat::kInt8AndBf16, ActivationFormat::kBf16Eights,
                                     matmul_in_tiles<Unit>, narrow, kFewTokens};
  Kernels table = avx512::kernels(avx512::Products::kBf16);
  table.name = "amx";
  table.matmul = matmul;
  table.tiles = &tiles;
  table.attend = attend_in_tiles<Unit>;
  return table;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels table = make_kernels();
  return table;
}

}  // namespace nautile::amx
