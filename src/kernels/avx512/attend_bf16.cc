// Attention with the BF16 dot instruction: two values a unit. Rows in the packed format are BF16 exactly (E4M3 times a
// power of two), but for values below 2^-126, which the instruction takes for zero.
#include <string.h>

#include "kernels/avx512/attention.h"
#include "kernels/avx512/lanes.h"

namespace nautile::avx512 {
namespace {

constexpr size_t kRowTile = 8, kColumnTile = 4;

#include "kernels/formats.inc"
#include "kernels/exp.inc"
#include "kernels/scores.inc"
#include "kernels/attend.inc"

// 32 floats as 16 units.
inline V packed(V low, V high) {
  return from_bits(reinterpret_cast<I>(_mm512_cvtne2ps_pbh(high, low)));
}

struct Bf16Unit {
  static constexpr size_t kPack = 2;
  // The instruction itself: around the intrinsic g++ 12 copies accumulators.
  static inline V multiply(V acc, V a, V b) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
  }
  static inline V load_units(const float* row, size_t begin, size_t dim) {
    return packed(FloatUnit::load_units(row, begin, dim), FloatUnit::load_units(row, begin + kLanes, dim));
  }
  static void decode_row(const KvLayout& kv, const std::byte* row, size_t padded, float* out) {
    const size_t nope = kv.nope();  // a multiple of 64
    const std::byte* rope = row + nope;
    const std::byte* scales = rope + 2 * kv.rope_dim;
    for (size_t i = 0; i < nope; i += 2 * kLanes) {
      const float scale = scale_of(static_cast<uint8_t>(scales[i / 64]));
      store(out + i / 2, packed(e4m3_times(e4m3_bits(row + i), scale), e4m3_times(e4m3_bits(row + i + kLanes), scale)));
    }
    memcpy(out + nope / 2, rope, 2 * kv.rope_dim);
    memset(reinterpret_cast<char*>(out) + 2 * kv.head_dim, 0, 2 * (padded - kv.head_dim));
  }
  // Rows j and j + 1 of s become one row of pairs.
  static void pack_weights(const float* s, size_t lanes, size_t packs, float* p) {
    for (size_t j = 0; j < packs; ++j) {
      for (size_t h = 0; h < lanes; h += kLanes) {
        const V first = load(s + 2 * j * lanes + h), second = load(s + (2 * j + 1) * lanes + h);
        store(p + j * lanes + h, interleaved(packed(first, second)));
      }
    }
  }
  static void pack_values(const float* k, size_t padded, size_t packs, float* v) {
    const size_t units = padded / 2;
    for (size_t j = 0; j < packs; ++j) {
      for (size_t u = 0; u < units; u += kLanes) {
        const I first = bits(load(k + 2 * j * units + u)), second = bits(load(k + (2 * j + 1) * units + u));
        store(v + j * padded + 2 * u, from_bits(_mm512_permutex2var_epi16(first, load_order(kLowPairs), second)));
        store(v + j * padded + 2 * u + kLanes, from_bits(_mm512_permutex2var_epi16(first, load_order(kHighPairs), second)));
      }
    }
  }

 private:
  static inline I load_order(const uint16_t* order) { return _mm512_loadu_si512(order); }
  // Halves 0 .. 15 are the first value of each pair, 16 .. 31 the second.
  static inline V interleaved(V x) { return from_bits(_mm512_permutexvar_epi16(load_order(kHalves), bits(x))); }
  static constexpr uint16_t kHalves[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                           8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  static constexpr uint16_t kLowPairs[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                             8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  static constexpr uint16_t kHighPairs[32] = {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
                                              24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63};
};

}  // namespace

void attend_bf16(const AttendArgs& args) {
  if (args.precision == AttendPrecision::kFloat || args.kv.format != KvFormat::kPacked) {
    attend_with<FloatUnit>(args);
  } else {
    attend_with<Bf16Unit>(args);
  }
}

}  // namespace nautile::avx512
