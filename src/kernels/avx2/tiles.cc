// Products of tiles with 256-bit vectors: FP4 by byte products (vpmaddubsw), FP8 and BF16 in float, 8 rows a vector.
#include <string.h>

#include "kernels/avx2/kernels.h"
#include "kernels/avx2/lanes.h"

namespace nautile::avx2 {
namespace {

constexpr size_t kAhead = 2048;           // bytes fetched early
constexpr size_t kBlockTokens = 32;       // tokens that pass a tile before the next tile comes
constexpr size_t kOctets = kTileRows / 8;  // of rows in a tile

#include "kernels/formats.inc"

inline I load_octet(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const I*>(p));
}
inline void fetch(const std::byte* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}
inline int int_at(const std::byte* p) {
  int value;
  memcpy(&value, p, 4);
  return value;
}
inline float float_at(const std::byte* p) {
  float value;
  memcpy(&value, p, 4);
  return value;
}

// 8 E8M0 bytes as floats: 0 is the subnormal 2^-127, 255 NaN.
inline V e8m0(const std::byte* p) {
  const I code = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const I bits = _mm256_max_epi32(_mm256_slli_epi32(code, 23), _mm256_set1_epi32(0x00400000));
  const I nan = _mm256_and_si256(_mm256_cmpeq_epi32(code, _mm256_set1_epi32(255)), _mm256_set1_epi32(0x00400000));
  return _mm256_castsi256_ps(_mm256_or_si256(bits, nan));
}

// Copies the wanted ones of a tile's 32 totals to y.
inline void put(const MatmulArgs& a, size_t tile, size_t token, const float* totals) {
  const size_t row = tile * kTileRows;
  const size_t begin = row < a.row_begin ? a.row_begin : row;
  const size_t end = row + kTileRows < a.row_end ? row + kTileRows : a.row_end;
  memcpy(a.y[token] + (begin - a.y_first), totals + (begin - row), (end - begin) * sizeof(float));
}

// ---- FP4 x int8 -----------------------------------------------------------------------------------------------------

// Twice the value of each E2M1 code, plus 12: at most 24, so that four byte products of two fit 16 bits.
inline I fp4_table() {
  return _mm256_broadcastsi128_si256(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
}

void int8_tile(const MatmulArgs& a, size_t tile, size_t token, size_t tokens) {
  alignas(32) float totals[kBlockTokens][kTileRows];
  memset(totals, 0, tokens * sizeof totals[0]);
  const size_t padded = padded_cols(a.weight.format, a.weight.cols), groups = padded / 32;
  const std::byte* w = a.weight.data + tile * tile_bytes(a.weight.format, a.weight.cols);
  const I table = fp4_table(), low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  for (size_t group = 0; group < groups; ++group) {
    const std::byte* scales = w + group / 2 * (17 * 64) + group % 2 * 32;
    const std::byte* lines = w + group / 2 * (17 * 64) + 64 + group % 2 * 512;
    for (size_t line = 0; line < 8; ++line) fetch(lines + 64 * line + kAhead);
    for (size_t octet = 0; octet < kOctets; ++octet) {
      I codes[8];
#pragma GCC unroll 4
      for (size_t q = 0; q < 4; ++q) {
        const I pair = load_octet(lines + octet / 2 * 256 + q * 64 + octet % 2 * 32);
        codes[2 * q] = _mm256_shuffle_epi8(table, _mm256_and_si256(pair, low));
        codes[2 * q + 1] = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(pair, 4), low));
      }
      const V scale = e8m0(scales + 8 * octet);
      for (size_t t = 0; t < tokens; ++t) {
        const std::byte* row = a.x[token + t];
        const std::byte* x = row + group * 32;
        const std::byte* x_scale = row + padded + group * 4;
        auto dot = [&](size_t i) { return _mm256_maddubs_epi16(codes[i], _mm256_set1_epi32(int_at(x + 4 * i))); };
        const I first = _mm256_add_epi16(_mm256_add_epi16(dot(0), dot(1)), _mm256_add_epi16(dot(2), dot(3)));
        const I second = _mm256_add_epi16(_mm256_add_epi16(dot(4), dot(5)), _mm256_add_epi16(dot(6), dot(7)));
        const I sum = _mm256_add_epi32(_mm256_add_epi32(_mm256_madd_epi16(first, ones), _mm256_madd_epi16(second, ones)),
                                       _mm256_set1_epi32(int_at(x_scale + groups * 4)));
        float* total = totals[t] + 8 * octet;
        _mm256_store_ps(total, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum),
                                               _mm256_mul_ps(scale, _mm256_set1_ps(float_at(x_scale))),
                                               _mm256_load_ps(total)));
      }
    }
  }
  for (size_t t = 0; t < tokens; ++t) put(a, tile, token + t, totals[t]);
}

// ---- FP8 and BF16 x float -------------------------------------------------------------------------------------------

// E4M3 codes placed in a float are value * 2^-120. Half of that is taken back before the sum, so that neither ordinary
// activations nor small ones leave the range of normal numbers, half after it.
constexpr float kHalfBack = 0x1p60f;

// For each 4 columns of 8 rows: how their products are added to `sums`, and how 128 columns' sums become 8 rows'.
struct Fp8Octets {
  static constexpr size_t kSums = 2, kLines = 2;
  static constexpr float kAfter = kHalfBack;
  struct Input {
    V even, odd;  // columns 0 0 2 2, 1 1 3 3, in both halves
  };
  static inline Input input(const float* x) {
    const V four = _mm256_mul_ps(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(x)), _mm256_set1_ps(kHalfBack));
    return {_mm256_moveldup_ps(four), _mm256_movehdup_ps(four)};
  }
  struct Weights {
    V byte[4];
  };
  static inline Weights load(const std::byte* block, size_t q, size_t octet) {
    const I codes = load_octet(block + q * 128 + octet * 32), mask = _mm256_set1_epi32(static_cast<int>(0x87f00000u));
    auto place = [&](I top) { return _mm256_castsi256_ps(_mm256_and_si256(_mm256_srai_epi32(top, 4), mask)); };
    return {{place(_mm256_slli_epi32(codes, 24)), place(_mm256_slli_epi32(codes, 16)), place(_mm256_slli_epi32(codes, 8)),
             place(codes)}};
  }
  static inline void multiply(const Weights& w, const Input& in, V sums[2]) {
    sums[0] = _mm256_fmadd_ps(w.byte[1], in.odd, _mm256_fmadd_ps(w.byte[0], in.even, sums[0]));  // rows 0 and 2 of four
    sums[1] = _mm256_fmadd_ps(w.byte[3], in.odd, _mm256_fmadd_ps(w.byte[2], in.even, sums[1]));  // rows 1 and 3
  }
  static inline V rows(const V sums[2]) {
    const V even = _mm256_add_ps(sums[0], _mm256_permute_ps(sums[0], 0x4e));
    const V odd = _mm256_add_ps(sums[1], _mm256_permute_ps(sums[1], 0x4e));
    return _mm256_unpacklo_ps(even, odd);
  }
};

struct Bf16Octets {
  static constexpr size_t kSums = 1, kLines = 4;
  static constexpr float kAfter = 1;
  struct Input {
    V column[4];
  };
  static inline Input input(const float* x) {
    return {{_mm256_broadcast_ss(x), _mm256_broadcast_ss(x + 1), _mm256_broadcast_ss(x + 2), _mm256_broadcast_ss(x + 3)}};
  }
  struct Weights {
    V column[4];
  };
  static inline Weights load(const std::byte* block, size_t q, size_t octet) {
    const std::byte* at = block + q * 256 + octet / 2 * 128 + octet % 2 * 32;
    const I first = load_octet(at), second = load_octet(at + 64), mask = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return {{_mm256_castsi256_ps(_mm256_slli_epi32(first, 16)), _mm256_castsi256_ps(_mm256_and_si256(first, mask)),
             _mm256_castsi256_ps(_mm256_slli_epi32(second, 16)), _mm256_castsi256_ps(_mm256_and_si256(second, mask))}};
  }
  static inline void multiply(const Weights& w, const Input& in, V sums[1]) {
#pragma GCC unroll 4
    for (size_t c = 0; c < 4; ++c) sums[0] = _mm256_fmadd_ps(w.column[c], in.column[c], sums[0]);
  }
  static inline V rows(const V sums[1]) { return sums[0]; }
};

// A tile for T tokens, O octets of rows at a time.
template <size_t T, size_t O, class Octets>
__attribute__((noinline)) void float_tile(const MatmulArgs& a, size_t tile, size_t token) {
  alignas(32) float totals[T][kTileRows] = {};
  const size_t padded = padded_cols(a.weight.format, a.weight.cols);
  const size_t block_bytes = tile_bytes(a.weight.format, a.weight.cols) / (padded / 128);
  const std::byte* block = a.weight.data + tile * tile_bytes(a.weight.format, a.weight.cols);
  for (size_t k = 0; k < padded; k += 128, block += block_bytes) {
    float scale = Octets::kAfter;
    if (a.weight.format == WeightFormat::kFp8) {
      scale = scale_of(a.weight.scales[tile * kTileRows / 128 * (padded / 128) + k / 128]);
    }
    const float* x[T];
    for (size_t t = 0; t < T; ++t) x[t] = reinterpret_cast<const float*>(a.x[token + t]) + k;
    for (size_t first = 0; first < kOctets; first += O) {
      V sums[T][O][Octets::kSums];
#pragma GCC unroll 4
      for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 4
        for (size_t o = 0; o < O; ++o) {
          for (size_t i = 0; i < Octets::kSums; ++i) sums[t][o][i] = _mm256_setzero_ps();
        }
      }
      for (size_t q = 0; q < 32; ++q) {
        if (first == 0) {
          for (size_t line = 0; line < Octets::kLines; ++line) fetch(block + (q * Octets::kLines + line) * 64 + kAhead);
        }
        typename Octets::Input in[T];
#pragma GCC unroll 4
        for (size_t t = 0; t < T; ++t) in[t] = Octets::input(x[t] + 4 * q);
#pragma GCC unroll 4
        for (size_t o = 0; o < O; ++o) {
          const typename Octets::Weights w = Octets::load(block, q, first + o);
#pragma GCC unroll 4
          for (size_t t = 0; t < T; ++t) Octets::multiply(w, in[t], sums[t][o]);
        }
      }
#pragma GCC unroll 4
      for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 4
        for (size_t o = 0; o < O; ++o) {
          const V sum = _mm256_mul_ps(Octets::rows(sums[t][o]), _mm256_set1_ps(Octets::kAfter));
          float* total = totals[t] + 8 * (first + o);
          _mm256_store_ps(total, _mm256_fmadd_ps(sum, _mm256_set1_ps(scale), _mm256_load_ps(total)));
        }
      }
    }
  }
  for (size_t t = 0; t < T; ++t) put(a, tile, token + t, totals[t]);
}

template <class Octets>
void float_tokens(const MatmulArgs& a, size_t tile, size_t token, size_t tokens) {
  for (; tokens >= 4; tokens -= 4, token += 4) float_tile<4, 1, Octets>(a, tile, token);
  for (; tokens >= 2; tokens -= 2, token += 2) float_tile<2, 2, Octets>(a, tile, token);
  if (tokens != 0) float_tile<1, kOctets, Octets>(a, tile, token);
}

void matmul_in_tiles(const MatmulArgs& a) {
  for (size_t token = 0; token < a.tokens; token += kBlockTokens) {
    const size_t tokens = a.tokens - token < kBlockTokens ? a.tokens - token : kBlockTokens;
    for (size_t tile = a.row_begin / kTileRows; tile < tile_count(a.row_end); ++tile) {
      switch (a.weight.format) {
        case WeightFormat::kFp4:
          int8_tile(a, tile, token, tokens);
          break;
        case WeightFormat::kFp8:
          float_tokens<Fp8Octets>(a, tile, token, tokens);
          break;
        case WeightFormat::kBf16:
          float_tokens<Bf16Octets>(a, tile, token, tokens);
          break;
        case WeightFormat::kF32:
          break;
      }
    }
  }
}

// ---- Activations ----------------------------------------------------------------------------------------------------

// 32 values as codes, a scale that undoes them (halved: the weights are doubled), and -12 times their sum.
void narrow_group(const float* x, std::byte* codes, std::byte* scale, std::byte* offset) {
  const V sign = _mm256_set1_ps(-0.f);
  V most8 = _mm256_setzero_ps(), nan = _mm256_setzero_ps();
  for (size_t i = 0; i < 32; i += 8) {
    const V value = _mm256_loadu_ps(x + i);
    most8 = _mm256_max_ps(most8, _mm256_andnot_ps(sign, value));
    nan = _mm256_or_ps(nan, _mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  }
  const float most = reduce_max(most8);
  const float unit = _mm256_movemask_ps(nan) != 0 ? __builtin_nanf("") : most / 127 * 0.5f;
  const V inverse = _mm256_set1_ps(most > 0x1p-100f ? 127 / most : 0);
  I part[4];
  for (size_t i = 0; i < 4; ++i) part[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse));
  // Saturating packs work on 128-bit halves; the permutation puts their fours in order.
  const I packed = _mm256_permutevar8x32_epi32(
      _mm256_packs_epi16(_mm256_packs_epi32(part[0], part[1]), _mm256_packs_epi32(part[2], part[3])),
      _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<I*>(codes), packed);
  int sum = 0;
  for (size_t i = 0; i < 32; ++i) sum += static_cast<signed char>(codes[i]);
  const int correction = -12 * sum;
  memcpy(scale, &unit, 4);
  memcpy(offset, &correction, 4);
}

void narrow(const NarrowArgs& a) {
  const size_t end = a.end == a.cols ? a.padded : a.end, groups = a.padded / 32;
  if (a.format != ActivationFormat::kInt8) {
    memcpy(a.row + 4 * a.begin, a.x, (a.end - a.begin) * 4);
    memset(a.row + 4 * a.end, 0, (end - a.end) * 4);
    return;
  }
  for (size_t k = a.begin; k < end; k += 32) {
    float values[32] = {};
    const size_t left = a.end > k ? a.end - k : 0;
    memcpy(values, a.x + (k - a.begin), (left < 32 ? left : 32) * 4);
    narrow_group(values, a.row + k, a.row + a.padded + k / 8, a.row + a.padded + groups * 4 + k / 8);
  }
}

}  // namespace

const TileKernels& tile_kernels() {
  static const TileKernels table = {ActivationFormat::kF32, ActivationFormat::kInt8, ActivationFormat::kF32, matmul_in_tiles,
                                     narrow};
  return table;
}

}  // namespace nautile::avx2
