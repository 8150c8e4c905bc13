// Products of tiles with the 512-bit dot-product instructions (VNNI, BF16) and byte permutations (VBMI).
#include <string.h>
#include <unistd.h>

#include "kernels/avx512/kernels.h"
#include "kernels/avx512/quads.h"

namespace nautile::avx512 {
namespace {

constexpr size_t kBlockBytes = 512 << 10;  // of activations, which stay in the second-level cache while the tiles pass
constexpr size_t kMostInt8 = 6, kMostWide = 8;  // tokens in registers

inline I broadcast4(const std::byte* p) {
  int value;
  memcpy(&value, p, 4);
  return _mm512_set1_epi32(value);
}
// Always inline: g++ 12 finds no effect in a function that only fetches, and drops calls to it.
[[gnu::always_inline]] inline void fetch_near(const std::byte* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}
[[gnu::always_inline]] inline void fetch_far(const std::byte* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
}

[[gnu::always_inline]] inline void fetch_to_write(const float* p) {
  __builtin_prefetch(p, 1);
}

// What each line comes with.
template <Early kEarly>
[[gnu::always_inline]] inline void fetch_early(const std::byte* line) {
  if (kEarly.near != 0) fetch_near(line + kEarly.near);
  if (kEarly.far != 0 && kEarly.step == 64) fetch_far(line + kEarly.far);
}

inline V dot_bf16(V sum, I w, I x) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
}

// The rows of a tile that are wanted, as masks of its halves, and where they go.
struct Rows {
  __mmask16 half[2];
  ptrdiff_t y;  // index of the tile's first row in a row of y; negative when only later rows are wanted
};

Rows wanted_rows(const MatmulArgs& a, size_t tile) {
  const size_t row = tile * kTileRows;
  const uint32_t after = a.row_end - row < kTileRows ? (1u << (a.row_end - row)) - 1 : ~0u;
  const uint32_t before = a.row_begin > row ? (1u << (a.row_begin - row)) - 1 : 0;
  const uint32_t mask = after & ~before;
  return {{static_cast<__mmask16>(mask), static_cast<__mmask16>(mask >> 16)},
          static_cast<ptrdiff_t>(row) - static_cast<ptrdiff_t>(a.y_first)};
}

// Whether the first-level cache has 48 KB or more (Zen 5) instead of 32 KB (Zen 4).
bool large_first_level() {
  static const bool large = sysconf(_SC_LEVEL1_DCACHE_SIZE) >= 48 << 10;
  return large;
}

// ---- FP4 x int8 -----------------------------------------------------------------------------------------------------

// Weights' scales are powers of two, so their products with activations' scales are additions to exponents, which leave the units
// that multiply to the dot products. That holds while the product is a normal number: codes and exponents within these.
// Anything else, NaN too, takes multiplications (kAnyScale): the same bits, where both can be had.
constexpr uint8_t kLeastScale = 64, kMostScale = 190;

template <bool kAnyScale>
inline I int8_scale(const std::byte* p) {
  if (kAnyScale) return bits(e8m0(p));
  const I code = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm512_slli_epi32(_mm512_sub_epi32(code, _mm512_set1_epi32(127)), 23);
}
template <bool kAnyScale>
inline V scaled(I weight, I x) {
  return kAnyScale ? _mm512_mul_ps(from_bits(weight), from_bits(x)) : from_bits(_mm512_add_epi32(weight, x));
}

// Of a line of scales, those that need kAnyScale.
inline __mmask64 unusual_codes(I codes) {
  const I from_least = _mm512_sub_epi8(codes, _mm512_set1_epi8(kLeastScale));
  return _mm512_cmpgt_epu8_mask(from_least, _mm512_set1_epi8(static_cast<char>(kMostScale - kLeastScale)));
}
// Whether scales of the activations do.
bool unusual_activations(const MatmulArgs& a) {
  const size_t padded = padded_cols(a.weight.format, a.weight.cols), groups = padded / 32;
  __mmask16 unusual = 0;
  for (size_t t = 0; t < a.tokens; ++t) {
    for (size_t g = 0; g < groups; g += 16) {
      const __mmask16 mask = groups - g < 16 ? static_cast<__mmask16>((1u << (groups - g)) - 1) : 0xffff;
      const I scale = _mm512_maskz_loadu_epi32(mask, a.x[t] + padded + 4 * g);
      const I from_least = _mm512_sub_epi32(scale, iset1(kLeastScale << 23));
      unusual |= _mm512_mask_cmpge_epu32_mask(mask, from_least, iset1((kMostScale - kLeastScale + 1) << 23));
    }
  }
  return unusual != 0;
}

// A tile times T tokens.
template <size_t T, Early kEarly, bool kAnyScale>
__attribute__((noinline)) void int8_tile(const MatmulArgs& a, size_t tile, size_t token, size_t pass = 0) {
  const size_t padded = padded_cols(a.weight.format, a.weight.cols);
  const size_t offsets = padded / 32 * 4;  // from a group's scale to its offset
  const size_t bytes = tile_bytes(a.weight.format, a.weight.cols);
  const std::byte* w = a.weight.data + tile * bytes;
  constexpr size_t kShares = kEarly.next_tile == 0 ? 1 : kEarly.next_tile;
  const std::byte* next_tile = w + bytes + pass * bytes / kShares;
  V total_a[T], total_b[T];
  const std::byte* x[T];
  for (size_t t = 0; t < T; ++t) {
    total_a[t] = total_b[t] = _mm512_setzero_ps();
    x[t] = a.x[token + t];
  }
  const Rows rows = wanted_rows(a, tile);
  if (T > 2) {
    for (size_t t = 0; t < T; ++t) {
      for (size_t h = 0; h < 2; ++h) fetch_to_write(a.y[token + t] + rows.y + 16 * h);
    }
  }
  const I table = load_line(kTables.fp4_unsigned);
  size_t scale_at = padded;
  __mmask64 unusual = 0;
  for (size_t k = 0; k < padded; k += 64, w += 17 * 64) {
    if (!kAnyScale) unusual = _kor_mask64(unusual, unusual_codes(load_line(w)));
    fetch_early<kEarly>(w);
    if (kEarly.step != 64) fetch_far(w + kEarly.far);
    if constexpr (kEarly.next_tile != 0) {
#pragma GCC unroll 9
      for (size_t line = 0; line * kShares < 17; ++line) fetch_far(next_tile + 64 * line);
      next_tile += 17 * 64 / kShares;
    }
#pragma GCC unroll 2
    for (size_t g = 0; g < 2; ++g, scale_at += 4) {
      I sum_a[T], sum_b[T];
#pragma GCC unroll 8
      for (size_t t = 0; t < T; ++t) sum_a[t] = sum_b[t] = broadcast4(x[t] + scale_at + offsets);
#pragma GCC unroll 4
      for (size_t q = 0; q < 4; ++q) {
        const std::byte* at = w + 64 + g * 512 + q * 64;
        // In the order of addresses, not of use: that is what the hardware's own prefetchers follow.
        fetch_early<kEarly>(w + (1 + g * 8 + 2 * q) * 64);
        fetch_early<kEarly>(w + (2 + g * 8 + 2 * q) * 64);
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
      const I scale_a = int8_scale<kAnyScale>(w + 32 * g), scale_b = int8_scale<kAnyScale>(w + 32 * g + 16);
#pragma GCC unroll 8
      for (size_t t = 0; t < T; ++t) {
        const I scale = broadcast4(x[t] + scale_at);
        total_a[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum_a[t]), scaled<kAnyScale>(scale_a, scale), total_a[t]);
        total_b[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum_b[t]), scaled<kAnyScale>(scale_b, scale), total_b[t]);
      }
    }
  }
  if (!kAnyScale && unusual != 0) return int8_tile<T, Early{}, true>(a, tile, token);
  for (size_t t = 0; t < T; ++t) {
    float* y = a.y[token + t] + rows.y;
    _mm512_mask_storeu_ps(y, rows.half[0], total_a[t]);
    _mm512_mask_storeu_ps(y + 16, rows.half[1], total_b[t]);
  }
}

// ---- BF16 products --------------------------------------------------------------------------------------------------

// totals [2][T][16] += what the listed faint codes of a tile lack; x [T] rows.
template <size_t T>
__attribute__((noinline)) void add_faint(const std::byte* list, const uint8_t* scales, size_t padded, const std::byte* const* x,
                                         float (*totals)[T][16]) {
  uint32_t count, faint;
  memcpy(&count, list, 4);
  for (uint32_t i = 0; i < count; ++i) {
    memcpy(&faint, list + 4 + 4 * i, 4);
    const size_t col = faint >> 16, row = faint >> 8 & (kTileRows - 1);
    if (col >= padded) continue;  // a damaged file
    const __m128 error = _mm_set_ss(faint_error(faint, scales[col / 128]));
    float* total = totals[row / 16][0] + row % 16;
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t, total += 16) {
      uint16_t half;
      memcpy(&half, x[t] + 2 * col, 2);
      const __m128 value = _mm_castsi128_ps(_mm_insert_epi16(_mm_setzero_si128(), half, 1));
      _mm_store_ss(total, _mm_add_ss(_mm_load_ss(total), _mm_mul_ss(error, value)));
    }
  }
}

// A tile times T tokens. Where a block has two chains of sums, its even quads are one and its odd ones the other: side by side where
// registers allow both, since a chain is only as fast as the dot instruction's latency; else one after the other.
template <size_t T, class Quads, Early kEarly>
__attribute__((noinline)) void wide_tile(const MatmulArgs& a, size_t tile, size_t token, size_t pass = 0) {
  constexpr size_t kQuads = Quads::kCols / 4, kChains = Quads::kChains, kTogether = T <= 4 ? kChains : 1;
  alignas(64) float totals[2][T][16] = {}, even[2][T][16];  // not in registers: each is touched once a block
  const size_t padded = padded_cols(a.weight.format, a.weight.cols);
  const size_t bytes = tile_bytes(a.weight.format, a.weight.cols);
  const std::byte* w = a.weight.data + tile * bytes;
  const uint8_t* scales = a.weight.scales + tile * kTileRows / 128 * ((a.weight.cols + 127) / 128);
  constexpr size_t kLines = Quads::kLines;
  const Quads quads;
  const Rows rows = wanted_rows(a, tile);
  if (T > 4) {
    for (size_t t = 0; t < T; ++t) {
      for (size_t h = 0; h < 2; ++h) fetch_to_write(a.y[token + t] + rows.y + 16 * h);
    }
  }
  for (size_t k = 0; k < padded; k += Quads::kCols) {
    const std::byte* x[T];
    for (size_t t = 0; t < T; ++t) x[t] = a.x[token + t] + 2 * k;
    const std::byte* block = Quads::block(w, k);
    if constexpr (kEarly.step != 64) {
      for (size_t i = 0; i < kQuads * kLines * 64; i += kEarly.step) fetch_far(block + i + kEarly.far);
    }
    const std::byte* next_tile = w + bytes + (pass * bytes + static_cast<size_t>(block - w)) / Quads::kSpread;
#pragma GCC unroll 2
    for (size_t first = 0; first < kChains; first += kTogether) {
      V sum[kTogether][2][T];
#pragma GCC unroll 2
      for (size_t c = 0; c < kTogether; ++c) {
#pragma GCC unroll 8
        for (size_t t = 0; t < T; ++t) sum[c][0][t] = sum[c][1][t] = _mm512_setzero_ps();
      }
#pragma GCC unroll 2
      for (size_t next = first; next < kQuads; next += kChains) {
#pragma GCC unroll 2
        for (size_t c = 0; c < kTogether; ++c) {
          const size_t q = next + c;
#pragma GCC unroll 4
          for (size_t line = 0; line < kLines; ++line) fetch_early<kEarly>(block + (q * kLines + line) * 64);
          if (kEarly.next_tile != 0) {
#pragma GCC unroll 4
            for (size_t line = 0; line < kLines / Quads::kSpread; ++line, next_tile += 64) fetch_far(next_tile);
          }
          I first_a, second_a, first_b, second_b;
          quads.load(block, q, 0, first_a, second_a);
          quads.load(block, q, 1, first_b, second_b);
#pragma GCC unroll 8
          for (size_t t = 0; t < T; ++t) {
            const I values = broadcast4(x[t] + q * 8);
            sum[c][0][t] = dot_bf16(sum[c][0][t], first_a, values);
            sum[c][1][t] = dot_bf16(sum[c][1][t], first_b, values);
          }
#pragma GCC unroll 8
          for (size_t t = 0; t < T; ++t) {
            const I values = broadcast4(x[t] + q * 8 + 4);
            sum[c][0][t] = dot_bf16(sum[c][0][t], second_a, values);
            sum[c][1][t] = dot_bf16(sum[c][1][t], second_b, values);
          }
        }
      }
#pragma GCC unroll 2
      for (size_t h = 0; h < 2; ++h) {
        const V scale = Quads::scale(w, scales, k, h);
#pragma GCC unroll 8
        for (size_t t = 0; t < T; ++t) {
          V all = sum[0][h][t];
          if (first + kTogether < kChains) {
            _mm512_store_ps(even[h][t], all);
            continue;
          }
          if (kChains == 2) all = _mm512_add_ps(kTogether == 2 ? all : _mm512_load_ps(even[h][t]), sum[kTogether - 1][h][t]);
          const V total = _mm512_load_ps(totals[h][t]);
          _mm512_store_ps(totals[h][t], Quads::kScaled ? _mm512_fmadd_ps(all, scale, total) : _mm512_add_ps(total, all));
        }
      }
    }
  }
  if constexpr (Quads::kListsFaint) add_faint<T>(w + faint_list_place(padded), scales, padded, a.x + token, totals);
  for (size_t h = 0; h < 2; ++h) {
    for (size_t t = 0; t < T; ++t) {
      _mm512_mask_storeu_ps(a.y[token + t] + rows.y + 16 * h, rows.half[h], _mm512_load_ps(totals[h][t]));
    }
  }
}

// Calls f<T>() with T = count.
template <size_t T, class F>
inline void with_tokens(size_t count, F&& f) {
  if constexpr (T > 1) {
    if (count < T) return with_tokens<T - 1>(count, f);
  }
  f.template operator()<T>();
}

// Cuts the tokens into as few and as even passes as registers allow: f<T>(first token, pass).
template <size_t kMost, class F>
inline void for_passes(size_t tokens, F&& f) {
  const size_t passes = (tokens + kMost - 1) / kMost;
  for (size_t pass = 0; pass < passes; ++pass) {
    const size_t token = tokens * pass / passes;
    with_tokens<kMost>(tokens * (pass + 1) / passes - token, [&]<size_t T>() { f.template operator()<T>(token, pass); });
  }
}

// A tile times all tokens. The first of several passes share in fetching the next tile, which the first would else wait for
// alone: into the second-level cache, since the first does not hold a tile.
template <class Quads, bool kLarge>
void wide_tokens(const MatmulArgs& a, size_t tile) {
  for_passes<kMostWide>(a.tokens, [&]<size_t T>(size_t token, size_t pass) {
    constexpr size_t kNear = Quads::near(kLarge);
    if (a.tokens <= kMostWide) {
      wide_tile<T, Quads, Quads::early(T, kLarge)>(a, tile, token);
    } else if (pass < Quads::kSpread) {
      wide_tile<T, Quads, Early{.near = kNear, .next_tile = Quads::kSpread}>(a, tile, token, pass);
    } else {
      wide_tile<T, Quads, Early{.near = kNear}>(a, tile, token);
    }
  });
}

// Whether a tile of FP8 has a list of its faint codes.
bool lists_faint(const MatmulArgs& a, size_t tile) {
  const size_t padded = padded_cols(a.weight.format, a.weight.cols);
  uint32_t count;
  memcpy(&count, a.weight.data + tile * tile_bytes(a.weight.format, a.weight.cols) + faint_list_place(padded), 4);
  return count <= faint_room(padded);
}

template <bool kLarge>
void int8_tokens(const MatmulArgs& a, size_t tile) {
  for_passes<kMostInt8>(a.tokens, [&]<size_t T>(size_t token, size_t pass) {
    constexpr Early kSmall = T <= 2 ? Early{.far = 24 << 10, .step = 17 * 64} : Early{.far = 8192};
    constexpr Early kAlone = kLarge ? Early{.near = 8192, .far = 24 << 10, .step = 17 * 64} : kSmall;
    if (!kLarge || a.tokens <= kMostInt8) {
      int8_tile<T, kAlone, false>(a, tile, token);
    } else if (a.tokens <= 2 * kMostInt8) {
      int8_tile<T, Early{.near = 4096, .next_tile = 2}, false>(a, tile, token, pass);
    } else if (pass < 3) {
      int8_tile<T, Early{.near = 4096, .next_tile = 3}, false>(a, tile, token, pass);
    } else {
      int8_tile<T, Early{.near = 4096}, false>(a, tile, token);
    }
  });
}

void int8_tokens_any_scale(const MatmulArgs& a, size_t tile) {
  for_passes<kMostInt8>(a.tokens, [&]<size_t T>(size_t token, size_t) { int8_tile<T, Early{}, true>(a, tile, token); });
}

template <bool kLarge>
void matmul_tile(const MatmulArgs& a, size_t tile, bool any_scale) {
  switch (a.weight.format) {
    case WeightFormat::kFp4:
      if (a.format != ActivationFormat::kInt8) return wide_tokens<Fp4Quads, kLarge>(a, tile);
      return any_scale ? int8_tokens_any_scale(a, tile) : int8_tokens<kLarge>(a, tile);
    case WeightFormat::kFp8:
      return lists_faint(a, tile) ? wide_tokens<Fp8Quads, kLarge>(a, tile) : wide_tokens<Fp8AnyQuads, kLarge>(a, tile);
    case WeightFormat::kBf16:
      return wide_tokens<Bf16Quads, kLarge>(a, tile);
    case WeightFormat::kF32:
      return;
  }
}

void matmul_in_tiles(const MatmulArgs& all) {
  const size_t row_bytes = activation_bytes(all.format, padded_cols(all.weight.format, all.weight.cols));
  constexpr size_t kUnit = kMostInt8 * kMostWide;  // whole passes
  const size_t block = kBlockBytes / row_bytes < kUnit ? kUnit : kBlockBytes / row_bytes / kUnit * kUnit;
  // Padding has scales of 2^-127: of all tiles where it is of columns, of the last where it is of rows.
  const bool any_scale = all.format == ActivationFormat::kInt8 && (all.weight.cols % 64 != 0 || unusual_activations(all));
  MatmulArgs a = all;
  for (size_t token = 0; token < all.tokens; token += block, a.x += block, a.y += block) {
    a.tokens = all.tokens - token < block ? all.tokens - token : block;
    for (size_t tile = a.row_begin / kTileRows; tile < tile_count(a.row_end); ++tile) {
      const bool any = any_scale || (tile + 1) * kTileRows > a.weight.rows;
      large_first_level() ? matmul_tile<true>(a, tile, any) : matmul_tile<false>(a, tile, any);
    }
  }
}

// ---- Activations ----------------------------------------------------------------------------------------------------

// 32 values as codes, a scale that undoes them (halved: the weights are doubled), and -12 times their sum.
inline void narrow_group(V first, V second, std::byte* codes, std::byte* scale, std::byte* offset) {
  const __mmask16 nan = static_cast<__mmask16>(_mm512_cmp_ps_mask(first, first, _CMP_UNORD_Q) |
                                               _mm512_cmp_ps_mask(second, second, _CMP_UNORD_Q));
  const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(first), _mm512_abs_ps(second)));
  const bool zero = !(most > 0x1p-100f);  // as good as, and so any scale will do
  const float unit = nan != 0 ? __builtin_nanf("") : zero ? 1 : most / 127 * 0.5f;
  const V inverse = _mm512_set1_ps(zero ? 0 : 127 / most);
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
  static const TileKernels table = {ActivationFormat::kBf16, ActivationFormat::kInt8, ActivationFormat::kBf16,
                                     matmul_in_tiles, narrow};
  return table;
}

}  // namespace nautile::avx512
