// Packing with 256-bit vectors: a line in two.
#include <immintrin.h>
#include <string.h>

#include "kernels/avx2/kernels.h"

namespace nautile::avx2 {
namespace {

using I = __m256i;

inline I zero() {
  return _mm256_setzero_si256();
}
inline I all16(int x) {
  return _mm256_set1_epi16(static_cast<short>(x));
}
inline I low_words(I a, I b) {
  return _mm256_unpacklo_epi32(a, b);
}
inline I high_words(I a, I b) {
  return _mm256_unpackhi_epi32(a, b);
}
inline I low_pairs(I a, I b) {
  return _mm256_unpacklo_epi64(a, b);
}
inline I high_pairs(I a, I b) {
  return _mm256_unpackhi_epi64(a, b);
}
inline I both(I a, I b) {
  return _mm256_and_si256(a, b);
}
inline I either_not_both(I a, I b) {
  return _mm256_xor_si256(a, b);
}
inline I right4(I x) {
  return _mm256_srli_epi16(x, 4);
}
inline I left4(I x) {
  return _mm256_slli_epi16(x, 4);
}
inline I add8(I a, I b) {
  return _mm256_add_epi8(a, b);
}
inline I max8(I a, I b) {
  return _mm256_max_epu8(a, b);
}
inline I rows_apart(const std::byte* p, size_t stride) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
                                 _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + stride)), 1);
}
inline void store(std::byte* p, I x) {
  _mm256_storeu_si256(reinterpret_cast<I*>(p), x);
}
// The same order in every 16 bytes.
inline I shuffle(I x, __m128i order) {
  return _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(order));
}
inline bool any8(I x, int code) {
  return _mm256_movemask_epi8(_mm256_cmpeq_epi8(x, _mm256_set1_epi8(static_cast<char>(code)))) != 0;
}
// Word g of every 16 bytes together.
inline I by_group(I x) {
  return _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

#include "kernels/pack.inc"

}  // namespace

bool pack_half(const HalfTile& h) {
  return pack(h);
}

}  // namespace nautile::avx2
