// Products of tiles with AVX-512: FP4 by dot products of bytes (VNNI), looked up by byte permutations (VBMI); the other formats by a
// wide unit (wide.h).
#include <string.h>
#include <unistd.h>

#include "kernels/avx512/kernels.h"
#include "kernels/avx512/passes.h"

namespace nautile::avx512 {
namespace {

constexpr size_t kBlockBytes = 512 << 10;  // of activations, which stay in the second-level cache while the tiles pass
constexpr size_t kMostInt8 = 6;  // tokens in registers

Core this_core() {
  static const Core core = __builtin_cpu_is("intel") ? Core::kIntel
                           : sysconf(_SC_LEVEL1_DCACHE_SIZE) >= 48 << 10 ? Core::kZen5
                                                                        : Core::kZen4;
  return core;
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

// The first of several passes over a tile share in fetching the next one.
template <Core kCore>
void int8_tokens(const MatmulArgs& a, size_t tile) {
  constexpr size_t kNear = kCore == Core::kZen4 ? 2048 : 4096;
  for_passes<kMostInt8>(a.tokens, [&]<size_t T>(size_t token, size_t pass) {
    if (a.tokens <= kMostInt8) {
      int8_tile<T, int8_early(T, kCore), false>(a, tile, token);
    } else if (a.tokens <= 2 * kMostInt8) {
      int8_tile<T, Early{.near = kNear, .next_tile = 2}, false>(a, tile, token, pass);
    } else if (pass < 3) {
      int8_tile<T, Early{.near = kNear, .next_tile = 3}, false>(a, tile, token, pass);
    } else {
      int8_tile<T, Early{.near = kNear}, false>(a, tile, token);
    }
  });
}

void int8_tokens_any_scale(const MatmulArgs& a, size_t tile) {
  for_passes<kMostInt8>(a.tokens, [&]<size_t T>(size_t token, size_t) { int8_tile<T, Early{}, true>(a, tile, token); });
}

void int8_matmul(const MatmulArgs& a, size_t tile, bool any_scale, Core core) {
  if (any_scale) return int8_tokens_any_scale(a, tile);
  switch (core) {
    case Core::kZen4:
      return int8_tokens<Core::kZen4>(a, tile);
    case Core::kZen5:
      return int8_tokens<Core::kZen5>(a, tile);
    case Core::kIntel:
      return int8_tokens<Core::kIntel>(a, tile);
  }
}

template <void (*wide_tile)(const MatmulArgs&, size_t, Core)>
void matmul_in_tiles(const MatmulArgs& all) {
  const size_t row_bytes = activation_bytes(all.format, padded_cols(all.weight.format, all.weight.cols));
  constexpr size_t kUnit = kMostInt8 * kMostWide;  // whole passes
  const size_t block = kBlockBytes / row_bytes < kUnit ? kUnit : kBlockBytes / row_bytes / kUnit * kUnit;
  const bool int8 = all.format == ActivationFormat::kInt8;
  // Padding has scales of 2^-127: of all tiles where it is of columns, of the last where it is of rows.
  const bool any_scale = int8 && (all.weight.cols % 64 != 0 || unusual_activations(all));
  const Core core = this_core();
  MatmulArgs a = all;
  for (size_t token = 0; token < all.tokens; token += block, a.x += block, a.y += block) {
    a.tokens = all.tokens - token < block ? all.tokens - token : block;
    for (size_t tile = a.row_begin / kTileRows; tile < tile_count(a.row_end); ++tile) {
      int8 ? int8_matmul(a, tile, any_scale || (tile + 1) * kTileRows > a.weight.rows, core) : wide_tile(a, tile, core);
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

template <void (*narrow_wide)(const NarrowArgs&)>
void narrow(const NarrowArgs& a) {
  if (a.format != ActivationFormat::kInt8) return narrow_wide(a);
  const size_t end = a.end == a.cols ? a.padded : a.end, groups = a.padded / 32;
  for (size_t k = a.begin; k < end; k += 32) {
    V first, second;
    load_columns(a, k, first, second);
    narrow_group(first, second, a.row + k, a.row + a.padded + k / 8, a.row + a.padded + groups * 4 + k / 8);
  }
}

}  // namespace

const TileKernels& tile_kernels(bool bf16) {
  static const TileKernels with_bf16 = {ActivationFormat::kBf16, ActivationFormat::kInt8, ActivationFormat::kBf16,
                                        matmul_in_tiles<wide_tile_bf16>, narrow<narrow_bf16>};
  static const TileKernels floats = {ActivationFormat::kF32Padded, ActivationFormat::kInt8, ActivationFormat::kF32Padded,
                                     matmul_in_tiles<wide_tile_float>, narrow<narrow_float>};
  return bf16 ? with_bf16 : floats;
}

}  // namespace nautile::avx512
