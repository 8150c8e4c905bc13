// Wide products with the BF16 dot instruction: two columns of 16 rows at once. For AMD's CPUs; on Intel's it goes at half the rate of
// a float multiply-add (wide_float.cc).
#include "kernels/avx512/kernels.h"
#include "kernels/avx512/wide.h"

namespace nautile::avx512 {
namespace {

struct Bf16Dot {
  static constexpr size_t kBytes = 2, kParts = 2;  // of an activation; vectors of weights in a quad of columns
  static inline I weights(I first, I second, size_t part) { return part == 0 ? first : second; }
  static inline V multiply(V sum, I w, I x) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
  }
  static inline __m128 value(const std::byte* row, size_t col) {
    uint16_t half;
    memcpy(&half, row + kBytes * col, kBytes);
    return _mm_castsi128_ps(_mm_insert_epi16(_mm_setzero_si128(), half, 1));
  }
};

}  // namespace

void wide_tile_bf16(const MatmulArgs& a, size_t tile, Core core) {
  with_quads(a, tile, [&]<class Quads>() {
    core == Core::kZen4 ? wide_tokens<Bf16Dot, Quads, Core::kZen4>(a, tile) : wide_tokens<Bf16Dot, Quads, Core::kZen5>(a, tile);
  });
}

void narrow_bf16(const NarrowArgs& a) {
  const size_t end = a.end == a.cols ? a.padded : a.end;
  for (size_t k = a.begin; k < end; k += 32) {
    V first, second;
    load_columns(a, k, first, second);
    _mm512_storeu_si512(a.row + 2 * k, reinterpret_cast<I>(_mm512_cvtne2ps_pbh(second, first)));
  }
}

}  // namespace nautile::avx512
