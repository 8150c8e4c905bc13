// From the lines of packed weights (kernels/tiles.h) to what dot instructions take. A line feeds 16 rows of a vector of
// those, or of the matrix unit's second operand: pairs of BF16 or fours of bytes of 16 rows of weights.
// Needs AVX-512 F, BW, VL, DQ and VBMI.
#pragma once

#include "kernels/avx512/kernels.h"
#include "kernels/avx512/lanes.h"

// In an unnamed namespace: each file has its own, compiled with its own flags.
namespace nautile::avx512 {
namespace {

inline I load_line(const void* p) {
  return _mm512_loadu_si512(p);
}

// 16 E8M0 bytes as floats: 0 is the subnormal 2^-127, 255 NaN.
inline V e8m0(const std::byte* p) {
  const I code = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const I bits = _mm512_max_epi32(_mm512_slli_epi32(code, 23), _mm512_set1_epi32(0x00400000));
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(code, _mm512_set1_epi32(255));
  return _mm512_castsi512_ps(_mm512_mask_or_epi32(bits, nan, bits, _mm512_set1_epi32(0x00400000)));
}
inline V e8m0_all(uint8_t code) {
  const uint32_t bits = code == 255 ? 0x7fc00000u : code == 0 ? 0x00400000u : static_cast<uint32_t>(code) << 23;
  return from_bits(iset1(static_cast<int>(bits)));
}

// The BF16 value of an E2M1 code.
constexpr uint16_t bf16_of_e2m1(unsigned code) {
  constexpr uint16_t kValues[8] = {0, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0};
  return static_cast<uint16_t>(kValues[code & 7] | (code & 8) << 12);
}
// Twice its value.
constexpr int twice_e2m1(unsigned code) {
  constexpr int kValues[8] = {0, 1, 2, 3, 4, 6, 8, 12};
  return code & 8 ? -kValues[code & 7] : kValues[code & 7];
}

// What each code becomes, for byte permutations, which look at 7 or 6 bits of an index: the upper and lower bytes of its
// BF16, twice an E2M1 value, and that plus 12, so that it is unsigned.
struct ByteTables {
  alignas(64) uint8_t fp8_high[128], fp8_low[128], fp4_high[64], fp4_low[64], fp4_twice[64], fp4_unsigned[64];
};
constexpr ByteTables make_tables() {
  ByteTables t = {};
  for (unsigned code = 0; code < 128; ++code) {
    t.fp8_high[code] = static_cast<uint8_t>(bf16_of_e4m3(code) >> 8);
    t.fp8_low[code] = static_cast<uint8_t>(bf16_of_e4m3(code) & 255);
  }
  for (unsigned code = 0; code < 64; ++code) {
    t.fp4_high[code] = static_cast<uint8_t>(bf16_of_e2m1(code & 15) >> 8);
    t.fp4_low[code] = static_cast<uint8_t>(bf16_of_e2m1(code & 15) & 255);
    t.fp4_twice[code] = static_cast<uint8_t>(twice_e2m1(code & 15));
    t.fp4_unsigned[code] = static_cast<uint8_t>(twice_e2m1(code & 15) + 12);
  }
  return t;
}
constexpr ByteTables kTables = make_tables();

// What is fetched early while a tile passes, each line or only some. What the hardware's prefetchers keep up with by themselves
// (few instructions a line) is best left to them: they stop at the end of a page, so a line now and then has them at work on the
// next one, and more than that is in their way. With more tokens a core does not look as far ahead as memory is
// away. docs/matrix-products.md has what was measured: on a Zen 4, whose first-level cache is small, on a Zen 5, whose prefetchers do
// less, and on an Intel core, which by itself has too few lines under way for its memory: far ahead into the second level, then near
// into the first.
struct Early {
  size_t near = 0;         // bytes ahead, every line into the first-level cache; 0: none
  size_t far = 0;          // the same into the second-level one,
  size_t step = 64;        // one line in so many bytes (of FP4, if not all, one in 17 lines)
  size_t next_tile = 0;    // into the second-level one, a share of the next tile: 1 / next_tile
};

// Of FP4 by bytes, tiles of up to kMostInt8 tokens.
constexpr Early int8_early(size_t tokens, Core core) {
  if (core == Core::kIntel) return {.near = 4096, .far = 16 << 10};
  if (core == Core::kZen5) return {.near = 8192, .far = 24 << 10, .step = 17 * 64};
  return tokens <= 2 ? Early{.far = 24 << 10, .step = 17 * 64} : Early{.far = 8192};
}

// How columns 4q, 4q + 1 and 4q + 2, 4q + 3 of half h of a block become two vectors of 16 rows' BF16 pairs. A block is
// what has one scale a row.
//
// E4M3 by shifts: a code in the upper byte of a word, shifted right by 4, has its exponent and mantissa where BF16 has
// them; 112 in the exponent's upper bits makes it 2^-8 of its value. Faint codes, which have no leading one, become
// 2^-15 (1 + mantissa / 8): what they lack is faint_error(), by the tile's list.
struct Fp8Quads {
  static constexpr size_t kCols = 128, kLines = 2;  // of a block; lines a quad
  static constexpr size_t kSpread = 2;              // passes over a tile that share in fetching the next one
  static constexpr size_t kChains = 2;              // of sums in a block
  static constexpr bool kListsFaint = true, kScaled = true;
  I mask = _mm512_set1_epi16(static_cast<short>(0x87f0)), exponent = _mm512_set1_epi16(112 << 7);

  static constexpr Early early(size_t tokens, Core core) {
    if (core == Core::kIntel) return {.near = 4096, .far = 16 << 10};
    if (core == Core::kZen5 && tokens <= 4) return {.near = 8192, .far = 16 << 10, .step = 1024};
    if (core == Core::kZen5) return {.near = 6144, .far = 24 << 10};
    if (tokens == 1) return {.far = 16 << 10, .step = 4096};
    if (tokens == 2) return {.near = 6144, .far = 12 << 10, .step = 512};
    if (tokens == 3) return {.near = 2048, .far = 16 << 10};
    if (tokens == 4) return {.near = 3072, .far = 16 << 10};
    return {.near = 3072, .far = 8192};
  }
  static constexpr size_t near(Core core) { return core == Core::kZen4 ? 3072 : 4096; }  // when a tile comes from the second-level cache
  inline I placed(I code) const {
    return _mm512_ternarylogic_epi32(_mm512_srai_epi16(code, 4), mask, exponent, 0xea);  // (a & b) | c
  }
  inline void load(const std::byte* block, size_t q, size_t h, I& first, I& second) const {
    const I code = load_line(block + q * 128 + h * 64);
    first = placed(code);
    second = placed(_mm512_slli_epi16(code, 8));
  }
  static const std::byte* block(const std::byte* tile, size_t k) { return tile + k * kTileRows; }
  static V scale(const std::byte*, const uint8_t* scales, size_t k, size_t) {
    return e8m0_all(static_cast<uint8_t>(scales[k / 128] + 8));
  }
};

// What the value of a faint code has more than 2^8 times what shifts make of it, -+(8 - mantissa) / 1,024, times its scale.
inline float faint_error(uint32_t code, uint32_t scale) {
  constexpr float kErrors[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 8, 7, 6, 5, 4, 3, 2, 1};
  const uint32_t bits = scale << 23;
  return kErrors[(code & 7) | (code >> 4 & 8)] * 0x1p-10f * __builtin_bit_cast(float, bits != 0 ? bits : 0x00400000u);
}

// E4M3 by tables, whatever the code: for tiles without a list.
struct Fp8AnyQuads : Fp8Quads {
  static constexpr bool kListsFaint = false;
  I high0 = load_line(kTables.fp8_high), high1 = load_line(kTables.fp8_high + 64);
  I low0 = load_line(kTables.fp8_low), low1 = load_line(kTables.fp8_low + 64);
  I sign = _mm512_set1_epi8(static_cast<char>(0x80)), upper = _mm512_set1_epi16(static_cast<short>(0xff00));

  inline void load(const std::byte* block, size_t q, size_t h, I& first, I& second) const {
    const I code = load_line(block + q * 128 + h * 64);
    const I high = _mm512_ternarylogic_epi32(_mm512_permutex2var_epi8(high0, code, high1), code, sign, 0xf8);
    const I low = _mm512_permutex2var_epi8(low0, code, low1);
    first = _mm512_ternarylogic_epi32(upper, high, _mm512_srli_epi16(low, 8), 0xca);  // upper ? high : low
    second = _mm512_ternarylogic_epi32(upper, _mm512_slli_epi16(high, 8), low, 0xca);
  }
  static V scale(const std::byte*, const uint8_t* scales, size_t k, size_t) { return e8m0_all(scales[k / 128]); }
};

struct Bf16Quads {
  static constexpr size_t kCols = 128, kLines = 4, kSpread = 2, kChains = 1;
  static constexpr bool kListsFaint = false, kScaled = false;
  static constexpr size_t near(Core) { return 0; }
  static constexpr Early early(size_t tokens, Core core) {
    if (core == Core::kIntel) return {.near = 4096, .far = 16 << 10};
    if (core == Core::kZen5) return {.near = 8192};
    return {.far = 8192, .step = tokens <= 6 ? size_t{4096} : size_t{64}};
  }
  inline void load(const std::byte* block, size_t q, size_t h, I& first, I& second) const {
    first = load_line(block + q * 256 + h * 128);
    second = load_line(block + q * 256 + h * 128 + 64);
  }
  static const std::byte* block(const std::byte* tile, size_t k) { return tile + 2 * k * kTileRows; }
  static V scale(const std::byte*, const uint8_t*, size_t, size_t) { return _mm512_set1_ps(1); }
};

// For the reference policy: E4M3 activations are exact in BF16, not in int8.
struct Fp4Quads {
  static constexpr size_t kCols = 32, kLines = 1, kSpread = 1, kChains = 1;
  static constexpr bool kListsFaint = false, kScaled = true;
  I high_table = load_line(kTables.fp4_high), low_table = load_line(kTables.fp4_low);

  static constexpr size_t near(Core) { return 0; }
  static constexpr Early early(size_t tokens, Core core) {
    if (core == Core::kIntel) return {.near = 4096, .far = 16 << 10};
    return tokens <= 4 ? Early{.near = 4096} : core == Core::kZen5 ? Early{.near = 8192} : Early{.far = 8192};
  }
  inline void load(const std::byte* block, size_t q, size_t h, I& first, I& second) const {
    I code = load_line(block + h * 256 + q / 2 * 64);
    if (q % 2 == 1) code = _mm512_srli_epi16(code, 4);
    const I high = _mm512_permutexvar_epi8(code, high_table), low = _mm512_permutexvar_epi8(code, low_table);
    const V two = _mm512_castsi512_ps(_mm512_unpacklo_epi8(low, high));   // rows 4i and 4i + 1, both pairs
    const V next = _mm512_castsi512_ps(_mm512_unpackhi_epi8(low, high));  // rows 4i + 2 and 4i + 3
    first = _mm512_castps_si512(_mm512_shuffle_ps(two, next, 0x88));
    second = _mm512_castps_si512(_mm512_shuffle_ps(two, next, 0xdd));
  }
  static const std::byte* block(const std::byte* tile, size_t k) { return tile + k / 64 * (17 * 64) + 64 + k % 64 * 16; }
  static V scale(const std::byte* tile, const uint8_t*, size_t k, size_t h) {
    return e8m0(tile + k / 64 * (17 * 64) + k % 64 + 16 * h);
  }
};

}  // namespace
}  // namespace nautile::avx512
