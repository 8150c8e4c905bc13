// Products of tiles with the 512-bit dot-product instructions (VNNI, BF16) and byte permutations (VBMI).
#include <immintrin.h>
#include <string.h>

#include "kernels/avx512/kernels.h"

namespace nautile::avx512 {
namespace {

using V = __m512;
using I = __m512i;

constexpr size_t kFewTokens = 16;      // up to so many, weights are decoded from memory to registers for each 4 of them
constexpr size_t kPanelCols = 512;     // above, once to a panel of 32 x 512 BF16 that stays in the first-level cache
constexpr size_t kTokenBlock = 512;    // tokens whose activations of those columns stay in the second-level cache
constexpr size_t kAhead = 4096;        // bytes fetched early

inline I load_line(const void* p) {
  return _mm512_loadu_si512(p);
}
inline I broadcast4(const std::byte* p) {
  int value;
  memcpy(&value, p, 4);
  return _mm512_set1_epi32(value);
}
inline I broadcast8(const std::byte* p) {
  long long value;
  memcpy(&value, p, 8);
  return _mm512_set1_epi64(value);
}
inline void fetch(const std::byte* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
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
  return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(bits)));
}

inline V dot_bf16(V sum, I w, I x) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
}

// ---- FP4 x int8 -----------------------------------------------------------------------------------------------------

// Twice the value of each E2M1 code, plus 12 so that it is unsigned, four times over: a permutation looks at six bits.
alignas(64) constexpr uint8_t kFp4Table[64] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0,
                                               12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0,
                                               12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0,
                                               12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

// A tile times T tokens: totals[t][32].
template <size_t T>
__attribute__((noinline)) void fp4_tile(const std::byte* w, size_t padded, const std::byte* const* rows, float* totals) {
  const I table = load_line(kFp4Table);
  V total_a[T], total_b[T];
  const std::byte* x[T];
  for (size_t t = 0; t < T; ++t) {
    total_a[t] = total_b[t] = _mm512_setzero_ps();
    x[t] = rows[t];
  }
  const size_t offsets = padded / 32 * 4;  // from a group's scale to its offset
  size_t scale_at = padded;
  for (size_t k = 0; k < padded; k += 64, w += 17 * 64) {
    fetch(w + kAhead);
#pragma GCC unroll 2
    for (size_t g = 0; g < 2; ++g, scale_at += 4) {
      I sum_a[T], sum_b[T];
#pragma GCC unroll 8
      for (size_t t = 0; t < T; ++t) sum_a[t] = sum_b[t] = broadcast4(x[t] + scale_at + offsets);
#pragma GCC unroll 4
      for (size_t q = 0; q < 4; ++q) {
        const std::byte* at = w + 64 + g * 512 + q * 64;
        fetch(at + kAhead);
        fetch(at + kAhead + 256);
        const I line_a = load_line(at), line_b = load_line(at + 256);
        const I low_a = _mm512_permutexvar_epi8(line_a, table), low_b = _mm512_permutexvar_epi8(line_b, table);
        const I high_a = _mm512_permutexvar_epi8(_mm512_srli_epi16(line_a, 4), table);
        const I high_b = _mm512_permutexvar_epi8(_mm512_srli_epi16(line_b, 4), table);
#pragma GCC unroll 8
        for (size_t t = 0; t < T; ++t) {
          const I low = broadcast4(x[t] + k + g * 32 + q * 8), high = broadcast4(x[t] + k + g * 32 + q * 8 + 4);
          sum_a[t] = _mm512_dpbusd_epi32(sum_a[t], low_a, low);
          sum_b[t] = _mm512_dpbusd_epi32(sum_b[t], low_b, low);
          sum_a[t] = _mm512_dpbusd_epi32(sum_a[t], high_a, high);
          sum_b[t] = _mm512_dpbusd_epi32(sum_b[t], high_b, high);
        }
      }
      const V scale_a = e8m0(w + 32 * g), scale_b = e8m0(w + 32 * g + 16);
#pragma GCC unroll 8
      for (size_t t = 0; t < T; ++t) {
        const V scale = _mm512_castsi512_ps(broadcast4(x[t] + scale_at));
        total_a[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum_a[t]), _mm512_mul_ps(scale_a, scale), total_a[t]);
        total_b[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum_b[t]), _mm512_mul_ps(scale_b, scale), total_b[t]);
      }
    }
  }
  for (size_t t = 0; t < T; ++t) {
    _mm512_storeu_ps(totals + t * kTileRows, total_a[t]);
    _mm512_storeu_ps(totals + t * kTileRows + 16, total_b[t]);
  }
}

// ---- BF16 products --------------------------------------------------------------------------------------------------

// The upper and the lower byte of the BF16 value of each E4M3 code without its sign; 127 is NaN.
struct ByteTables {
  alignas(64) uint8_t high[128], low[128];
};
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
constexpr ByteTables make_fp8_tables() {
  ByteTables t = {};
  for (unsigned code = 0; code < 128; ++code) {
    t.high[code] = static_cast<uint8_t>(bf16_of_e4m3(code) >> 8);
    t.low[code] = static_cast<uint8_t>(bf16_of_e4m3(code) & 255);
  }
  return t;
}
constexpr ByteTables kFp8Tables = make_fp8_tables();

// Sources give quad q of half h of a block as two vectors of BF16 pairs: rows 4i, 4i + 1 and rows 4i + 2, 4i + 3.
struct Fp8Quads {
  static constexpr size_t kQuads = 32, kLines = 2;  // a block of 128 columns; lines a quad
  const std::byte* at;
  I high0 = load_line(kFp8Tables.high), high1 = load_line(kFp8Tables.high + 64);
  I low0 = load_line(kFp8Tables.low), low1 = load_line(kFp8Tables.low + 64);
  I sign = _mm512_set1_epi8(static_cast<char>(0x80));

  explicit Fp8Quads(const std::byte* block) : at(block) {}
  inline void load(size_t q, size_t h, I& first, I& second) const {
    const I code = load_line(at + q * 128 + h * 64);
    const I high = _mm512_ternarylogic_epi32(_mm512_permutex2var_epi8(high0, code, high1), code, sign, 0xf8);
    const I low = _mm512_permutex2var_epi8(low0, code, low1);
    first = _mm512_unpacklo_epi8(low, high);
    second = _mm512_unpackhi_epi8(low, high);
  }
};

struct Bf16Quads {
  static constexpr size_t kQuads = 32, kLines = 4;
  const std::byte* at;
  explicit Bf16Quads(const std::byte* block) : at(block) {}
  inline void load(size_t q, size_t h, I& first, I& second) const {
    first = load_line(at + q * 256 + h * 128);
    second = load_line(at + q * 256 + h * 128 + 64);
  }
};

alignas(64) constexpr uint8_t kFp4High[64] = {
    0,    0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, 0x80, 0xbf, 0xbf, 0xbf, 0xc0, 0xc0, 0xc0, 0xc0,
    0,    0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, 0x80, 0xbf, 0xbf, 0xbf, 0xc0, 0xc0, 0xc0, 0xc0,
    0,    0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, 0x80, 0xbf, 0xbf, 0xbf, 0xc0, 0xc0, 0xc0, 0xc0,
    0,    0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, 0x80, 0xbf, 0xbf, 0xbf, 0xc0, 0xc0, 0xc0, 0xc0};
alignas(64) constexpr uint8_t kFp4Low[64] = {
    0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0, 0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0,
    0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0, 0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0,
    0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0, 0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0,
    0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0, 0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0};

// 32 columns of FP4, for the reference policy: E4M3 activations are exact in BF16, not in int8.
struct Fp4Quads {
  static constexpr size_t kQuads = 8, kLines = 1;
  const std::byte* at;
  I high_table = load_line(kFp4High), low_table = load_line(kFp4Low);
  explicit Fp4Quads(const std::byte* group) : at(group) {}
  inline void load(size_t q, size_t h, I& first, I& second) const {
    I code = load_line(at + h * 256 + q / 2 * 64);
    if (q % 2 == 1) code = _mm512_srli_epi16(code, 4);
    const I high = _mm512_permutexvar_epi8(code, high_table), low = _mm512_permutexvar_epi8(code, low_table);
    first = _mm512_unpacklo_epi8(low, high);
    second = _mm512_unpackhi_epi8(low, high);
  }
};

// totals[t][32] += scale * (one block of T tokens); x[t] + byte is the block's first column.
template <size_t T, class Quads>
inline __attribute__((always_inline)) void bf16_block(const Quads quads, const std::byte* const* rows, size_t byte,
                                                      V scale_a, V scale_b, float* totals, size_t ahead) {
  V sum[2][2][T];
  const std::byte* x[T];
  for (size_t t = 0; t < T; ++t) {
    x[t] = rows[t] + byte;
    for (size_t h = 0; h < 2; ++h) sum[h][0][t] = sum[h][1][t] = _mm512_setzero_ps();
  }
#pragma GCC unroll 1
  for (size_t q = 0; q < Quads::kQuads; q += 2) {
#pragma GCC unroll 2
    for (size_t odd = 0; odd < 2; ++odd) {
      if (ahead != 0) {
#pragma GCC unroll 4
        for (size_t line = 0; line < Quads::kLines; ++line) {
          fetch(quads.at + ((q + odd) * Quads::kLines + line) * 64 + ahead);
        }
      }
#pragma GCC unroll 2
      for (size_t h = 0; h < 2; ++h) {
        I first, second;
        quads.load(q + odd, h, first, second);
#pragma GCC unroll 8
        for (size_t t = 0; t < T; ++t) {
          const I values = broadcast8(x[t] + (q + odd) * 8);
          sum[h][0][t] = dot_bf16(sum[h][0][t], first, values);
          sum[h][1][t] = dot_bf16(sum[h][1][t], second, values);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
    for (size_t h = 0; h < 2; ++h) {
      // Each row's two chains stand in neighbouring lanes.
      const V rows16 = _mm512_add_ps(_mm512_shuffle_ps(sum[h][0][t], sum[h][1][t], 0x88),
                                     _mm512_shuffle_ps(sum[h][0][t], sum[h][1][t], 0xdd));
      float* to = totals + t * kTileRows + h * 16;
      _mm512_storeu_ps(to, _mm512_fmadd_ps(rows16, h == 0 ? scale_a : scale_b, _mm512_loadu_ps(to)));
    }
  }
}

// A tile whose weights go from memory to the products without a stop.
template <size_t T>
__attribute__((noinline)) void fp8_tile(const std::byte* w, size_t padded, const uint8_t* scales,
                                        const std::byte* const* x, float* totals) {
  memset(totals, 0, T * kTileRows * sizeof(float));
  for (size_t k = 0; k < padded; k += 128) {
    const V scale = e8m0_all(scales[k / 128]);
    bf16_block<T>(Fp8Quads(w + k * kTileRows), x, 2 * k, scale, scale, totals, kAhead);
  }
}
template <size_t T>
__attribute__((noinline)) void bf16_tile(const std::byte* w, size_t padded, const std::byte* const* x, float* totals) {
  memset(totals, 0, T * kTileRows * sizeof(float));
  const V one = _mm512_set1_ps(1);
  for (size_t k = 0; k < padded; k += 128) {
    bf16_block<T>(Bf16Quads(w + 2 * k * kTileRows), x, 2 * k, one, one, totals, kAhead);
  }
}
template <size_t T>
__attribute__((noinline)) void fp4_wide_tile(const std::byte* w, size_t padded, const std::byte* const* x,
                                             float* totals) {
  memset(totals, 0, T * kTileRows * sizeof(float));
  for (size_t k = 0; k < padded; k += 64, w += 17 * 64) {
    for (size_t g = 0; g < 2; ++g) {
      bf16_block<T>(Fp4Quads(w + 64 + g * 512), x, 2 * (k + 32 * g), e8m0(w + 32 * g), e8m0(w + 32 * g + 16), totals,
                    kAhead);
    }
  }
}

// Runs f<T> with T = count.
template <size_t T, class F>
inline void with_tokens(size_t count, F&& f) {
  if constexpr (T > 1) {
    if (count < T) return with_tokens<T - 1>(count, f);
  }
  f.template operator()<T>();
}

// One tile for all tokens, `most` at a time: their shares are as even as can be. Rows outside [row_begin, row_end) are
// computed and dropped.
template <size_t kMost, class F>
inline void direct_tile(const MatmulArgs& a, size_t tile, F&& run) {
  alignas(64) float totals[kMost * kTileRows];
  const size_t passes = (a.tokens + kMost - 1) / kMost;
  const size_t row = tile * kTileRows;
  const size_t begin = row < a.row_begin ? a.row_begin : row;
  const size_t end = row + kTileRows < a.row_end ? row + kTileRows : a.row_end;
  for (size_t pass = 0; pass < passes; ++pass) {
    const size_t token = a.tokens * pass / passes, count = a.tokens * (pass + 1) / passes - token;
    with_tokens<kMost>(count, [&]<size_t T>() { run.template operator()<T>(a.x + token, totals); });
    for (size_t t = 0; t < count; ++t) {
      memcpy(a.y[token + t] + (begin - a.y_first), totals + t * kTileRows + (begin - row), (end - begin) * sizeof(float));
    }
  }
}

// Many tokens: [k, k + kPanelCols) of a whole tile, decoded once.
template <size_t T>
__attribute__((noinline)) void panel_tokens(const std::byte* panel, size_t blocks, const uint8_t* scales,
                                            const std::byte* const* x, size_t byte, bool first, float* const* y,
                                            size_t row) {
  alignas(64) float totals[T * kTileRows];
  for (size_t t = 0; t < T; ++t) {
    for (size_t h = 0; h < 2; ++h) {
      _mm512_store_ps(totals + t * kTileRows + h * 16,
                      first ? _mm512_setzero_ps() : _mm512_loadu_ps(y[t] + row + h * 16));
    }
  }
  for (size_t b = 0; b < blocks; ++b) {
    const V scale = scales != nullptr ? e8m0_all(scales[b]) : _mm512_set1_ps(1);
    bf16_block<T>(Bf16Quads(panel + b * 128 * kTileRows * 2), x, byte + b * 256, scale, scale, totals, 0);
  }
  for (size_t t = 0; t < T; ++t) {
    for (size_t h = 0; h < 2; ++h) _mm512_storeu_ps(y[t] + row + h * 16, _mm512_load_ps(totals + t * kTileRows + h * 16));
  }
}

void panel_tile(const MatmulArgs& a, size_t tile) {
  constexpr size_t kMost = 6;
  alignas(64) std::byte panel[kPanelCols * kTileRows * 2];
  const size_t padded = padded_cols(a.weight.format, a.weight.cols);
  const std::byte* w = a.weight.data + tile * tile_bytes(a.weight.format, a.weight.cols);
  const bool fp8 = a.weight.format == WeightFormat::kFp8;
  const uint8_t* scales = fp8 ? a.weight.scales + tile * kTileRows / 128 * (padded / 128) : nullptr;
  for (size_t k = 0; k < padded; k += kPanelCols) {
    const size_t cols = padded - k < kPanelCols ? padded - k : kPanelCols;
    const std::byte* from = w + 2 * k * kTileRows;
    if (fp8) {
      const Fp8Quads quads(w + k * kTileRows);
      std::byte* to = panel;
      for (size_t q = 0; q < cols / 4; ++q) {
        fetch(quads.at + q * 128 + kAhead);
        fetch(quads.at + q * 128 + 64 + kAhead);
        for (size_t h = 0; h < 2; ++h, to += 128) {
          I first, second;
          quads.load(q, h, first, second);
          _mm512_store_si512(to, first);
          _mm512_store_si512(to + 64, second);
        }
      }
      from = panel;
    }
    const size_t passes = (a.tokens + kMost - 1) / kMost;
    for (size_t pass = 0; pass < passes; ++pass) {
      const size_t token = a.tokens * pass / passes, count = a.tokens * (pass + 1) / passes - token;
      with_tokens<kMost>(count, [&]<size_t T>() {
        panel_tokens<T>(from, cols / 128, fp8 ? scales + k / 128 : nullptr, a.x + token, 2 * k, k == 0, a.y + token,
                        tile * kTileRows - a.y_first);
      });
    }
  }
}

void matmul_in_tiles(const MatmulArgs& a) {
  const WeightView& weight = a.weight;
  const size_t padded = padded_cols(weight.format, weight.cols), bytes = tile_bytes(weight.format, weight.cols);
  if (weight.format != WeightFormat::kFp4 && a.tokens > kTokenBlock) {
    MatmulArgs block = a;
    for (size_t token = 0; token < a.tokens; token += kTokenBlock, block.x += kTokenBlock, block.y += kTokenBlock) {
      block.tokens = a.tokens - token < kTokenBlock ? a.tokens - token : kTokenBlock;
      matmul_in_tiles(block);
    }
    return;
  }
  for (size_t tile = a.row_begin / kTileRows; tile < tile_count(a.row_end); ++tile) {
    const std::byte* w = weight.data + tile * bytes;
    const size_t row = tile * kTileRows;
    const bool whole = row >= a.row_begin && row + kTileRows <= a.row_end;
    if (weight.format == WeightFormat::kFp4) {
      if (a.format == ActivationFormat::kInt8) {
        direct_tile<6>(a, tile, [&]<size_t T>(const std::byte* const* x, float* y) { fp4_tile<T>(w, padded, x, y); });
      } else {
        direct_tile<4>(a, tile, [&]<size_t T>(const std::byte* const* x, float* y) { fp4_wide_tile<T>(w, padded, x, y); });
      }
    } else if (a.tokens > kFewTokens && whole) {
      panel_tile(a, tile);
    } else if (weight.format == WeightFormat::kFp8) {
      const uint8_t* scales = weight.scales + row / 128 * (padded / 128);
      direct_tile<4>(a, tile, [&]<size_t T>(const std::byte* const* x, float* y) { fp8_tile<T>(w, padded, scales, x, y); });
    } else {
      direct_tile<4>(a, tile, [&]<size_t T>(const std::byte* const* x, float* y) { bf16_tile<T>(w, padded, x, y); });
    }
  }
}

// ---- Activations ----------------------------------------------------------------------------------------------------

// 32 values as codes, a scale that undoes them (halved: the weights are doubled), and -12 times their sum.
inline void narrow_group(V first, V second, std::byte* codes, std::byte* scale, std::byte* offset) {
  const __mmask16 nan = static_cast<__mmask16>(_mm512_cmp_ps_mask(first, first, _CMP_UNORD_Q) |
                                               _mm512_cmp_ps_mask(second, second, _CMP_UNORD_Q));
  const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(first), _mm512_abs_ps(second)));
  const float unit = nan != 0 ? __builtin_nanf("") : most / 127 * 0.5f;
  const V inverse = _mm512_set1_ps(most > 0x1p-100f ? 127 / most : 0);
  const __m128i low = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(first, inverse)));
  const __m128i high = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(second, inverse)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), low);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16), high);
  const int sum = _mm512_reduce_add_epi32(_mm512_add_epi32(_mm512_cvtepi8_epi32(low), _mm512_cvtepi8_epi32(high)));
  const int correction = -12 * sum;
  memcpy(scale, &unit, 4);
  memcpy(offset, &correction, 4);
}

void narrow(const NarrowArgs& a) {
  const size_t end = a.end == a.cols ? a.padded : a.end, groups = a.padded / 32;
  if (a.format == ActivationFormat::kF32) {
    memcpy(a.row + 4 * a.begin, a.x, (a.end - a.begin) * 4);
    memset(a.row + 4 * a.end, 0, (end - a.end) * 4);
    return;
  }
  for (size_t k = a.begin; k < end; k += 32) {
    const size_t left = a.end > k ? a.end - k : 0;
    const __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;
    const float* from = a.x + (k - a.begin);
    const V first = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
    const V second = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), from + 16);
    if (a.format == ActivationFormat::kInt8) {
      narrow_group(first, second, a.row + k, a.row + a.padded + k / 8, a.row + a.padded + groups * 4 + k / 8);
    } else {
      _mm512_storeu_si512(a.row + 2 * k, reinterpret_cast<I>(_mm512_cvtne2ps_pbh(second, first)));
    }
  }
}

}  // namespace

const TileKernels& tile_kernels() {
  static const TileKernels table = {ActivationFormat::kBf16, true, matmul_in_tiles, narrow};
  return table;
}

}  // namespace nautile::avx512
