// AVX-512 (F, BW, VL, DQ): 16 floats a vector.
#include "kernels/avx512/kernels.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/avx512/attention.h"
#include "kernels/avx512/elements.h"

namespace nautile::avx512 {
namespace {

constexpr const char* kName = "avx512";
constexpr size_t kLanes = 16;
constexpr size_t kManyTokens = 4, kManyRows = 3, kOneRows = 4;  // register tiles: tokens x rows, and rows for one token
using V = __m512;

inline V zero() {
  return _mm512_setzero_ps();
}
inline V set1(float x) {
  return _mm512_set1_ps(x);
}
inline V load(const float* p) {
  return _mm512_loadu_ps(p);
}
inline void store(float* p, V x) {
  _mm512_storeu_ps(p, x);
}
inline V mul(V a, V b) {
  return _mm512_mul_ps(a, b);
}
inline V add(V a, V b) {
  return _mm512_add_ps(a, b);
}
inline V fma(V a, V b, V c) {
  return _mm512_fmadd_ps(a, b, c);
}

// Halves are added to halves, so the order of the sum is fixed.
inline float reduce(V x) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}

inline V load_bf16(const void* p) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p))), 16));
}

// The bits of E4M3 placed in a float: value * 2^-120, subnormals included; NaN for its NaN codes.
inline V e4m3_bits(const void* p) {
  const __m512i code = _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  const __m512i all = _mm512_set1_epi32(static_cast<int>(0x87f00000u));
  const __m512i placed = _mm512_and_si512(_mm512_slli_epi32(code, 20), all);
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(_mm512_or_si512(placed, _mm512_set1_epi32(INT32_MIN)), all);
  return _mm512_castsi512_ps(_mm512_mask_or_epi32(placed, nan, placed, _mm512_set1_epi32(0x7fc00000)));
}

// 32 E2M1 values times `scale` from 16 bytes, in column order. A table index looks at four bits only, so the other
// nibble may stay where it is.
inline void load_e2m1(const void* p, float scale, V out[2]) {
  const __m512 table =
      mul(_mm512_setr_ps(0.f, 0.5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 6.f, -0.f, -0.5f, -1.f, -1.5f, -2.f, -3.f, -4.f, -6.f),
          set1(scale));
  const __m256i bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  const __m256i codes = _mm256_or_si256(bytes, _mm256_slli_epi16(bytes, 4));
  out[0] = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm256_castsi256_si128(codes)), table);
  out[1] = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm256_extracti128_si256(codes, 1)), table);
}

#include "kernels/vector.inc"

// After what it is made of.
#include "kernels/rows.inc"

void matmul(const MatmulArgs& a) {
  a.weight.layout == WeightLayout::kTiles ? tile_kernels().matmul(a) : matmul_in_rows(a);
}

}  // namespace

const Kernels& kernels(bool dot_products) {
  static const Kernels table = {kName, matmul, attend_bf16, index_scores_vnni, dot,
                                axpy,  top_k,  elements(),  &tile_kernels()};
  static const Kernels plain = {kName, matmul, attend, index_scores, dot, axpy, top_k, elements()};
  return dot_products ? table : plain;
}

}  // namespace nautile::avx512
