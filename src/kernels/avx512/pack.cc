// Packing with 512-bit vectors: a line each.
#include <immintrin.h>
#include <string.h>

#include "kernels/avx512/kernels.h"

namespace nautile::avx512 {
namespace {

using I = __m512i;

inline I zero() {
  return _mm512_setzero_si512();
}
inline I all16(int x) {
  return _mm512_set1_epi16(static_cast<short>(x));
}
inline I low_words(I a, I b) {
  return _mm512_unpacklo_epi32(a, b);
}
inline I high_words(I a, I b) {
  return _mm512_unpackhi_epi32(a, b);
}
inline I low_pairs(I a, I b) {
  return _mm512_unpacklo_epi64(a, b);
}
inline I high_pairs(I a, I b) {
  return _mm512_unpackhi_epi64(a, b);
}
inline I both(I a, I b) {
  return _mm512_and_si512(a, b);
}
inline I either_not_both(I a, I b) {
  return _mm512_xor_si512(a, b);
}
inline I right4(I x) {
  return _mm512_srli_epi16(x, 4);
}
inline I left4(I x) {
  return _mm512_slli_epi16(x, 4);
}
inline I add8(I a, I b) {
  return _mm512_add_epi8(a, b);
}
inline I max8(I a, I b) {
  return _mm512_max_epu8(a, b);
}
inline __m128i load16(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline I rows_apart(const std::byte* p, size_t stride) {
  const I two = _mm512_inserti32x4(_mm512_castsi128_si512(load16(p)), load16(p + stride), 1);
  return _mm512_inserti32x4(_mm512_inserti32x4(two, load16(p + 2 * stride), 2), load16(p + 3 * stride), 3);
}
inline void store(std::byte* p, I x) {
  _mm512_storeu_si512(p, x);
}
// The same order in every 16 bytes.
inline I shuffle(I x, __m128i order) {
  return _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(order));
}
inline bool any8(I x, int code) {
  return _mm512_cmpeq_epi8_mask(x, _mm512_set1_epi8(static_cast<char>(code))) != 0;
}
// Word g of every 16 bytes together.
inline I by_group(I x) {
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), x);
}

#include "kernels/pack.inc"

}  // namespace

bool pack_half(const HalfTile& h) {
  return pack(h);
}

}  // namespace nautile::avx512
