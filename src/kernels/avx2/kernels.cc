// AVX2 with FMA: 8 floats a vector.
#include "kernels/avx2/kernels.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/avx2/attention.h"
#include "kernels/avx2/elements.h"

namespace nautile::avx2 {
namespace {

constexpr const char* kName = "avx2";
constexpr size_t kLanes = 8;
constexpr size_t kManyTokens = 2, kManyRows = 1, kOneRows = 2;  // register tiles: tokens x rows, and rows for one token
using V = __m256;

inline V zero() {
  return _mm256_setzero_ps();
}
inline V set1(float x) {
  return _mm256_set1_ps(x);
}
inline V load(const float* p) {
  return _mm256_loadu_ps(p);
}
inline void store(float* p, V x) {
  _mm256_storeu_ps(p, x);
}
inline V mul(V a, V b) {
  return _mm256_mul_ps(a, b);
}
inline V add(V a, V b) {
  return _mm256_add_ps(a, b);
}
inline V fma(V a, V b, V c) {
  return _mm256_fmadd_ps(a, b, c);
}

// Halves are added to halves, so the order of the sum is fixed.
inline float reduce(V x) {
  const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}

inline V load_bf16(const void* p) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))), 16));
}

// The bits of E4M3 placed in a float: value * 2^-120, subnormals included; NaN for its NaN codes.
inline V e4m3_bits(const void* p) {
  const __m256i code = _mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
  const __m256i all = _mm256_set1_epi32(static_cast<int>(0x87f00000u));
  const __m256i placed = _mm256_and_si256(_mm256_slli_epi32(code, 20), all);
  const __m256i nan = _mm256_cmpeq_epi32(_mm256_or_si256(placed, _mm256_set1_epi32(INT32_MIN)), all);
  return _mm256_castsi256_ps(_mm256_or_si256(placed, nan));
}

// 8 E2M1 values times 2 * half_scale from eight codes in the low bytes: a table of the doubled values.
inline V e2m1_values(__m128i codes, V half_scale) {
  const __m128i doubled = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
  return mul(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_shuffle_epi8(doubled, codes))), half_scale);
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

#include "kernels/vector.inc"

// After what it is made of.
#include "kernels/rows.inc"

void matmul(const MatmulArgs& a) {
  a.weight.layout == WeightLayout::kTiles ? tile_kernels().matmul(a) : matmul_in_rows(a);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels table = {kName, matmul, attend,     index_scores,   dot,
                                axpy,  top_k,  elements(), &tile_kernels()};
  return table;
}

}  // namespace nautile::avx2
