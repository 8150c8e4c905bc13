// Activations for the matrix unit, included inside the anonymous namespace of each user.

// 32 BF16 values in the order of kBf16Eights.
inline __m512i in_eights(__m512i values) {
  alignas(64) static constexpr uint16_t kOrder[32] = {0,  2,  4,  6,  1,  3,  5,  7,  8,  10, 12, 14, 9,  11, 13, 15,
                                                      16, 18, 20, 22, 17, 19, 21, 23, 24, 26, 28, 30, 25, 27, 29, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), values);
}

// A power of two of which `most` is 64 to 127.5 (less when it is below 2^-54: that is zero then); NaN if it is not finite.
inline float unit_of(float most) {
  if (!(most <= 3.4e38f)) return __builtin_nanf("");
  if (most < 0x1p-54f) return 0x1p-60f;
  const float larger = most * (64 / 63.75f);
  uint32_t bits;
  memcpy(&bits, &larger, 4);
  bits = (bits & 0x7f800000u) - (6u << 23);
  float unit;
  memcpy(&unit, &bits, 4);
  return unit;
}

// kInt8AndBf16
void narrow_both(const NarrowArgs& a) {
  const size_t end = a.end == a.cols ? a.padded : a.end;
  for (size_t k = a.begin; k < end; k += 32) {
    const size_t left = a.end > k ? a.end - k : 0;
    const __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;
    const float* from = a.x + (k - a.begin);
    const __m512 first = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
    const __m512 second = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), from + 16);
    const __mmask16 nan = static_cast<__mmask16>(_mm512_cmp_ps_mask(first, first, _CMP_UNORD_Q) |
                                                 _mm512_cmp_ps_mask(second, second, _CMP_UNORD_Q));
    const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(first), _mm512_abs_ps(second)));
    const float unit = unit_of(nan != 0 ? __builtin_nanf("") : most), half = unit * 0.5f;
    const __m512 inverse = _mm512_set1_ps(1 / unit), back = _mm512_set1_ps(unit);
    const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(first, inverse));
    const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(second, inverse));
    const int correction = -12 * _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(a.row + k), _mm512_cvtsepi32_epi8(low));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(a.row + k + 16), _mm512_cvtsepi32_epi8(high));
    memcpy(a.row + a.padded + k / 8, &half, 4);
    memcpy(a.row + a.padded + a.padded / 8 + k / 8, &correction, 4);
    const __m512i values =
        reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_mul_ps(_mm512_cvtepi32_ps(high), back),
                                                      _mm512_mul_ps(_mm512_cvtepi32_ps(low), back)));
    _mm512_storeu_si512(a.row + bf16_place(a.padded) + 2 * k, in_eights(values));
  }
}

void narrow(const NarrowArgs& a) {
  if (a.format == ActivationFormat::kInt8AndBf16) return narrow_both(a);
  NarrowArgs plain = a;
  if (a.format == ActivationFormat::kBf16Eights) plain.format = ActivationFormat::kBf16;
  avx512::tile_kernels(true).narrow(plain);
  if (a.format != ActivationFormat::kBf16Eights) return;
  const size_t end = a.end == a.cols ? a.padded : a.end;
  for (size_t k = a.begin; k < end; k += 32) {
    std::byte* at = a.row + 2 * k;
    _mm512_storeu_si512(at, in_eights(_mm512_loadu_si512(at)));
  }
}
