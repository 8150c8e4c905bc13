// Wide products with float multiply-adds: one column of 16 rows at once, and no rounding of activations. For CPUs without the BF16 dot
// instruction and for Intel's, where it goes at half the rate of these.
#include "kernels/avx512/kernels.h"
#include "kernels/avx512/wide.h"

namespace nautile::avx512 {
namespace {

struct FloatUnit {
  static constexpr size_t kBytes = 4, kParts = 4;  // of an activation; vectors of weights in a quad of columns
  // A pair of BF16 holds the even column below the odd one.
  static inline I weights(I first, I second, size_t part) {
    const I pair = part < 2 ? first : second;
    return part % 2 == 0 ? _mm512_slli_epi32(pair, 16) : _mm512_and_si512(pair, iset1(static_cast<int>(0xffff0000u)));
  }
  static inline V multiply(V sum, I w, I x) { return _mm512_fmadd_ps(from_bits(w), from_bits(x), sum); }
  static inline __m128 value(const std::byte* row, size_t col) {
    float x;
    memcpy(&x, row + kBytes * col, kBytes);
    return _mm_set_ss(x);
  }
};

}  // namespace

void wide_tile_float(const MatmulArgs& a, size_t tile, Core) {
  wide_matmul<FloatUnit, Core::kIntel>(a, tile);
}

void narrow_float(const NarrowArgs& a) {
  memcpy(a.row + 4 * a.begin, a.x, 4 * (a.end - a.begin));
  if (a.end == a.cols) memset(a.row + 4 * a.end, 0, 4 * (a.padded - a.end));
}

}  // namespace nautile::avx512
