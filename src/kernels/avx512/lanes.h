// A vector of kLanes values: floats (V), 32-bit integers (I), lane masks (M).
// Needs AVX-512 F, BW, VL, DQ.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

// In an unnamed namespace: each file has its own, compiled with its own flags.
namespace nautile::avx512 {
namespace {

constexpr size_t kLanes = 16;
using V = __m512;
using I = __m512i;
using M = __mmask16;

inline V zero() {
  return _mm512_setzero_ps();
}
inline V set1(float x) {
  return _mm512_set1_ps(x);
}
inline I iset1(int x) {
  return _mm512_set1_epi32(x);
}
inline V load(const float* p) {
  return _mm512_loadu_ps(p);
}
inline void store(float* p, V x) {
  _mm512_storeu_ps(p, x);
}
inline M first_lanes(size_t count) {
  return static_cast<M>((1u << count) - 1);
}
// The first count < kLanes values; zero beyond.
inline V load_part(const float* p, size_t count) {
  return _mm512_maskz_loadu_ps(first_lanes(count), p);
}
inline void store_part(float* p, size_t count, V x) {
  _mm512_mask_storeu_ps(p, first_lanes(count), x);
}
inline V add(V a, V b) {
  return _mm512_add_ps(a, b);
}
inline V sub(V a, V b) {
  return _mm512_sub_ps(a, b);
}
inline V mul(V a, V b) {
  return _mm512_mul_ps(a, b);
}
inline V div(V a, V b) {
  return _mm512_div_ps(a, b);
}
inline V root(V a) {
  return _mm512_sqrt_ps(a);
}
inline V fma(V a, V b, V c) {
  return _mm512_fmadd_ps(a, b, c);
}
// Of two values of which the first is NaN, the second: max(NaN, x) = min(NaN, x) = x; max(x, NaN) = NaN.
inline V max(V a, V b) {
  return _mm512_max_ps(a, b);
}
inline V min(V a, V b) {
  return _mm512_min_ps(a, b);
}
inline V absolute(V a) {
  return _mm512_abs_ps(a);
}
inline V round_even(V a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// a * 2^n for whole n, with gradual underflow.
inline V scale_by(V a, V n) {
  return _mm512_scalef_ps(a, n);
}
inline M less(V a, V b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
inline M is_nan(V a) {
  return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
}
// b where the mask is set, else a
inline V blend(V a, V b, M m) {
  return _mm512_mask_blend_ps(m, a, b);
}

// Bit i: lane i.
inline M lanes_of(uint32_t bits) {
  return static_cast<M>(bits);
}
inline I bits(V a) {
  return _mm512_castps_si512(a);
}
inline V from_bits(I a) {
  return _mm512_castsi512_ps(a);
}
inline I iadd(I a, I b) {
  return _mm512_add_epi32(a, b);
}
inline I isub(I a, I b) {
  return _mm512_sub_epi32(a, b);
}
inline I iand(I a, I b) {
  return _mm512_and_si512(a, b);
}
inline I ior(I a, I b) {
  return _mm512_or_si512(a, b);
}
inline I ixor(I a, I b) {
  return _mm512_xor_si512(a, b);
}
inline I iload(const int32_t* p) {
  return _mm512_loadu_si512(p);
}
inline void istore(int32_t* p, I a) {
  _mm512_storeu_si512(p, a);
}
// Bit i: lane i of a is greater than that of b.
inline uint32_t greater_mask(I a, I b) {
  return _mm512_cmpgt_epi32_mask(a, b);
}
template <int kBits>
inline I shift_left(I a) {
  return _mm512_slli_epi32(a, kBits);
}
template <int kBits>
inline I shift_right(I a) {
  return _mm512_srli_epi32(a, kBits);
}
template <int kBits>
inline I shift_right_signed(I a) {
  return _mm512_srai_epi32(a, kBits);
}
inline I to_int(V a) {
  return _mm512_cvtps_epi32(a);
}
// The low byte of each lane.
inline void store_bytes(uint8_t* p, I a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
}
// The low half of each lane.
inline void store_halves(void* p, I a) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a));
}

// Halves are added to halves, so the order of the sum is fixed.
inline float reduce(V x) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}
// The largest lane; no lane may be NaN.
inline float reduce_max(V x) {
  return _mm512_reduce_max_ps(x);
}

inline V load_bf16(const void* p) {
  return from_bits(shift_left<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)))));
}
// The bits of E4M3 placed in a float: value * 2^-120, subnormals included; NaN for its NaN codes.
inline V e4m3_bits(const void* p) {
  const __m512i code = _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  const __m512i all = _mm512_set1_epi32(static_cast<int>(0x87f00000u));
  const __m512i placed = _mm512_and_si512(_mm512_slli_epi32(code, 20), all);
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(_mm512_or_si512(placed, _mm512_set1_epi32(INT32_MIN)), all);
  return _mm512_castsi512_ps(_mm512_mask_or_epi32(placed, nan, placed, _mm512_set1_epi32(0x7fc00000)));
}
// The BF16 value of an E4M3 code without its sign; 127 is NaN.
constexpr uint16_t bf16_of_e4m3(unsigned code) {
  unsigned exponent = code >> 3, mantissa = code & 7;
  if (code == 127) return 0x7fc0;
  if (code == 0) return 0;
  if (exponent == 0) {
    exponent = 1;
    while ((mantissa & 8) == 0) {
      mantissa <<= 1;
      --exponent;
    }
  }
  return static_cast<uint16_t>((exponent + 120) << 7 | (mantissa & 7) << 4);
}
// 32 E2M1 values times `scale` from 16 bytes, in column order. A table index looks at four bits only, so the other nibble
// may stay where it is.
inline void load_e2m1(const void* p, float scale, V out[2]) {
  const V table =
      mul(_mm512_setr_ps(0.f, 0.5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 6.f, -0.f, -0.5f, -1.f, -1.5f, -2.f, -3.f, -4.f, -6.f),
          set1(scale));
  const __m256i bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  const __m256i codes = _mm256_or_si256(bytes, _mm256_slli_epi16(bytes, 4));
  out[0] = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm256_castsi256_si128(codes)), table);
  out[1] = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm256_extracti128_si256(codes, 1)), table);
}

inline M less_equal(V a, V b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ);
}
inline M equal(I a, I b) {
  return _mm512_cmpeq_epi32_mask(a, b);
}
// a + 1 where the mask is set.
inline I count_if(I a, M m) {
  return _mm512_mask_add_epi32(a, m, a, _mm512_set1_epi32(1));
}
// The values of E2M1 codes 0 .. 7.
inline V e2m1_values_of(I codes) {
  return _mm512_permutexvar_ps(codes, _mm512_setr_ps(0.f, 0.5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 6.f, 0, 0, 0, 0, 0, 0, 0, 0));
}
// -0 in the lanes 0, 2, ... or 1, 3, ..., 0 elsewhere.
inline V negative_even() {
  return _mm512_castsi512_ps(_mm512_set1_epi64(0x80000000ll));
}
inline V negative_odd() {
  return _mm512_castsi512_ps(_mm512_set1_epi64(static_cast<long long>(0x8000000000000000ull)));
}

// Pairs (a, b): b, a.
inline V swap_pairs(V x) {
  return _mm512_permute_ps(x, 0xb1);
}
// p[0], p[0], p[1], p[1], ... of kLanes / 2 values.
inline V load_doubled(const float* p) {
  const V half = _mm512_castps256_ps512(_mm256_loadu_ps(p));
  return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), half);
}
// Lane i and lane i ^ kDistance, kDistance a power of two below kLanes.
template <int kDistance>
inline V swap_lanes(V x) {
  if constexpr (kDistance == 1) return _mm512_permute_ps(x, 0xb1);
  if constexpr (kDistance == 2) return _mm512_permute_ps(x, 0x4e);
  if constexpr (kDistance == 4) return _mm512_shuffle_f32x4(x, x, 0xb1);
  if constexpr (kDistance == 8) return _mm512_shuffle_f32x4(x, x, 0x4e);
}

// Rows become columns.
inline void transpose(V r[kLanes]) {
  V t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // r[i + c]: column 4q + c of rows i .. i + 3, in quarter q
    r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
    r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
    r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const V low = _mm512_shuffle_f32x4(r[c], r[c + 4], 0x88), high = _mm512_shuffle_f32x4(r[c], r[c + 4], 0xdd);
    const V low2 = _mm512_shuffle_f32x4(r[c + 8], r[c + 12], 0x88), high2 = _mm512_shuffle_f32x4(r[c + 8], r[c + 12], 0xdd);
    t[c] = _mm512_shuffle_f32x4(low, low2, 0x88);
    t[c + 8] = _mm512_shuffle_f32x4(low, low2, 0xdd);
    t[c + 4] = _mm512_shuffle_f32x4(high, high2, 0x88);
    t[c + 12] = _mm512_shuffle_f32x4(high, high2, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

}  // namespace
}  // namespace nautile::avx512
