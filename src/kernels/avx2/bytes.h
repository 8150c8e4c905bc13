// Products of unsigned by signed bytes: by AVX2's pairs, or by the dot instruction of 256 bits (AVX-VNNI). Their sums are exact, so the
// bits are the same.
#pragma once

#include "kernels/avx2/lanes.h"

// In an unnamed namespace: each file has its own, compiled with its own flags.
namespace nautile::avx2 {
namespace {

enum class Bytes { kPairs, kDots };

// sum + the products of eight vectors, in fours. Of pairs four must fit 16 bits, or eight with `kSmall`.
template <Bytes kBytes, bool kSmall = false>
inline I add_products(I sum, const I (&unsigned_bytes)[8], const I (&signed_bytes)[8]) {
  if constexpr (kBytes == Bytes::kDots) {
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; ++i) asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(unsigned_bytes[i]), "x"(signed_bytes[i]));
    return sum;
  }
  const auto two = [&](size_t i) {
    return _mm256_add_epi16(_mm256_maddubs_epi16(unsigned_bytes[i], signed_bytes[i]),
                            _mm256_maddubs_epi16(unsigned_bytes[i + 1], signed_bytes[i + 1]));
  };
  const I ones = _mm256_set1_epi16(1);
  const I first = _mm256_add_epi16(two(0), two(2)), second = _mm256_add_epi16(two(4), two(6));
  if (kSmall) return iadd(_mm256_madd_epi16(_mm256_add_epi16(first, second), ones), sum);
  return iadd(iadd(_mm256_madd_epi16(first, ones), _mm256_madd_epi16(second, ones)), sum);
}

}  // namespace
}  // namespace nautile::avx2
