// A vector of kLanes values: floats (V), 32-bit integers (I), lane masks (M).
// Needs AVX2 and FMA.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// In an unnamed namespace: each file has its own, compiled with its own flags.
namespace nautile::avx2 {
namespace {

constexpr size_t kLanes = 8;
using V = __m256;
using I = __m256i;
using M = __m256;

inline V zero() {
  return _mm256_setzero_ps();
}
inline V set1(float x) {
  return _mm256_set1_ps(x);
}
inline I iset1(int x) {
  return _mm256_set1_epi32(x);
}
inline V load(const float* p) {
  return _mm256_loadu_ps(p);
}
inline void store(float* p, V x) {
  _mm256_storeu_ps(p, x);
}
inline I first_lanes(size_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
// The first count < kLanes values; zero beyond.
inline V load_part(const float* p, size_t count) {
  return _mm256_maskload_ps(p, first_lanes(count));
}
inline void store_part(float* p, size_t count, V x) {
  _mm256_maskstore_ps(p, first_lanes(count), x);
}
inline V add(V a, V b) {
  return _mm256_add_ps(a, b);
}
inline V sub(V a, V b) {
  return _mm256_sub_ps(a, b);
}
inline V mul(V a, V b) {
  return _mm256_mul_ps(a, b);
}
inline V div(V a, V b) {
  return _mm256_div_ps(a, b);
}
inline V root(V a) {
  return _mm256_sqrt_ps(a);
}
inline V fma(V a, V b, V c) {
  return _mm256_fmadd_ps(a, b, c);
}
// Of two values of which the first is NaN, the second: max(NaN, x) = min(NaN, x) = x; max(x, NaN) = NaN.
inline V max(V a, V b) {
  return _mm256_max_ps(a, b);
}
inline V min(V a, V b) {
  return _mm256_min_ps(a, b);
}
inline V absolute(V a) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.f), a);
}
inline V round_even(V a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline M less(V a, V b) {
  return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}
inline M is_nan(V a) {
  return _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
}
// b where the mask is set, else a
inline V blend(V a, V b, M m) {
  return _mm256_blendv_ps(a, b, m);
}

// Bit i: lane i.
inline M lanes_of(uint32_t bits) {
  const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), each), each));
}
inline I bits(V a) {
  return _mm256_castps_si256(a);
}
inline V from_bits(I a) {
  return _mm256_castsi256_ps(a);
}
inline I iadd(I a, I b) {
  return _mm256_add_epi32(a, b);
}
inline I isub(I a, I b) {
  return _mm256_sub_epi32(a, b);
}
inline I iand(I a, I b) {
  return _mm256_and_si256(a, b);
}
inline I ior(I a, I b) {
  return _mm256_or_si256(a, b);
}
inline I ixor(I a, I b) {
  return _mm256_xor_si256(a, b);
}
inline I iload(const int32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline void istore(int32_t* p, I a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a);
}
// Bit i: lane i of a is greater than that of b.
inline uint32_t greater_mask(I a, I b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b))));
}
template <int kBits>
inline I shift_left(I a) {
  return _mm256_slli_epi32(a, kBits);
}
template <int kBits>
inline I shift_right(I a) {
  return _mm256_srli_epi32(a, kBits);
}
template <int kBits>
inline I shift_right_signed(I a) {
  return _mm256_srai_epi32(a, kBits);
}
inline I to_int(V a) {
  return _mm256_cvtps_epi32(a);
}
// a * 2^n for whole n in [-250, 250], with gradual underflow: in two steps, neither of which leaves the exponents.
inline V scale_by(V a, V n) {
  const I whole = to_int(n), first = shift_right_signed<1>(whole), second = isub(whole, first);
  const V by_first = from_bits(shift_left<23>(iadd(first, iset1(127))));
  return mul(mul(a, by_first), from_bits(shift_left<23>(iadd(second, iset1(127)))));
}
// The word at p, which may be any address, in all lanes.
inline I word_at(const void* p) {
  int word;
  memcpy(&word, p, sizeof word);
  return iset1(word);
}
// The low byte of each lane.
inline void store_bytes(uint8_t* p, I a) {
  const I pick = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1,
                                  -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const I picked = _mm256_shuffle_epi8(a, pick);
  const int low = _mm256_extract_epi32(picked, 0), high = _mm256_extract_epi32(picked, 4);
  memcpy(p, &low, 4);
  memcpy(p + 4, &high, 4);
}
// The low half of each lane.
inline void store_halves(void* p, I a) {
  const I packed = _mm256_packus_epi32(iand(a, iset1(0xffff)), _mm256_setzero_si256());
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
}

// Halves are added to halves, so the order of the sum is fixed.
inline float reduce(V x) {
  const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}
// The largest lane; no lane may be NaN.
inline float reduce_max(V x) {
  const __m128 quarter = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 pair = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_max_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}

inline V load_bf16(const void* p) {
  return from_bits(shift_left<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)))));
}
// The bits of E4M3 placed in a float: value * 2^-120, subnormals included; NaN for its NaN codes.
inline V e4m3_bits(const void* p) {
  const __m256i code = _mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
  const __m256i all = _mm256_set1_epi32(static_cast<int>(0x87f00000u));
  const __m256i placed = _mm256_and_si256(_mm256_slli_epi32(code, 20), all);
  const __m256i nan = _mm256_cmpeq_epi32(_mm256_or_si256(placed, _mm256_set1_epi32(INT32_MIN)), all);
  return _mm256_castsi256_ps(_mm256_or_si256(placed, nan));
}
// Twice the value of each E2M1 code.
inline __m128i doubled_e2m1() {
  return _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
}
// 8 E2M1 values times 2 * half_scale from eight codes in the low bytes.
inline V e2m1_values(__m128i codes, V half_scale) {
  return mul(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_shuffle_epi8(doubled_e2m1(), codes))), half_scale);
}
// 32 E2M1 values times `scale` from 16 bytes, in column order.
inline void load_e2m1(const void* p, float scale, V out[4]) {
  const V half = mul(set1(scale), set1(0.5f));
  const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(p));
  const __m128i low = _mm_and_si128(bytes, _mm_set1_epi8(15));
  const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(15));
  const __m128i first = _mm_unpacklo_epi8(low, high), second = _mm_unpackhi_epi8(low, high);
  out[0] = e2m1_values(first, half);
  out[1] = e2m1_values(_mm_srli_si128(first, 8), half);
  out[2] = e2m1_values(second, half);
  out[3] = e2m1_values(_mm_srli_si128(second, 8), half);
}

inline M less_equal(V a, V b) {
  return _mm256_cmp_ps(a, b, _CMP_LE_OQ);
}
inline M equal(I a, I b) {
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b));
}
// a + 1 where the mask is set.
inline I count_if(I a, M m) {
  return _mm256_sub_epi32(a, _mm256_castps_si256(m));
}
// The values of E2M1 codes 0 .. 7.
inline V e2m1_values_of(I codes) {
  return _mm256_permutevar8x32_ps(_mm256_setr_ps(0.f, 0.5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 6.f), codes);
}
// -0 in the lanes 0, 2, ... or 1, 3, ..., 0 elsewhere.
inline V negative_even() {
  return _mm256_castsi256_ps(_mm256_set1_epi64x(0x80000000ll));
}
inline V negative_odd() {
  return _mm256_castsi256_ps(_mm256_set1_epi64x(static_cast<long long>(0x8000000000000000ull)));
}

// Pairs (a, b): b, a.
inline V swap_pairs(V x) {
  return _mm256_permute_ps(x, 0xb1);
}
// p[0], p[0], p[1], p[1], ... of kLanes / 2 values.
inline V load_doubled(const float* p) {
  const V half = _mm256_castps128_ps256(_mm_loadu_ps(p));
  return _mm256_permutevar8x32_ps(half, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}
// Lane i and lane i ^ kDistance, kDistance a power of two below kLanes.
template <int kDistance>
inline V swap_lanes(V x) {
  if constexpr (kDistance == 1) return _mm256_permute_ps(x, 0xb1);
  if constexpr (kDistance == 2) return _mm256_permute_ps(x, 0x4e);
  if constexpr (kDistance == 4) return _mm256_permute2f128_ps(x, x, 1);
}

// Rows become columns.
inline void transpose(V r[kLanes]) {
  V t[8], u[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    r[c] = _mm256_permute2f128_ps(u[c], u[c + 4], 0x20);
    r[c + 4] = _mm256_permute2f128_ps(u[c], u[c + 4], 0x31);
  }
}

}  // namespace
}  // namespace nautile::avx2
