// Products of tiles with 256-bit vectors: FP4 by byte products (vpmaddubsw, vpdpbusd), FP8 and BF16 in float, 8 rows a vector.
#include <string.h>

#include "kernels/avx2/bytes.h"
#include "kernels/avx2/kernels.h"

namespace nautile::avx2 {
namespace {

constexpr size_t kAhead = 4096;            // bytes fetched early
constexpr size_t kFarAhead = 16 << 10;     // the same into the second-level cache, where a core has too few lines under way (kFar)
constexpr size_t kBlockTokens = 32;        // tokens that pass a tile before the next tile comes
constexpr size_t kOctets = kTileRows / 8;  // of rows in a tile

#include "kernels/formats.inc"

inline I load_octet(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const I*>(p));
}
inline void fetch(const std::byte* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}
// What a line comes with. Inlined by force: g++ 12 drops calls to functions that only fetch.
template <bool kFar>
[[gnu::always_inline]] inline void fetch_early(const std::byte* line) {
  fetch(line + kAhead);
  if (kFar) _mm_prefetch(reinterpret_cast<const char*>(line + kFarAhead), _MM_HINT_T1);
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

// Byte products take one unsigned and one signed side and add pairs to 16 bits, which four of them fill here: 24 x 127 x 2 x 4
// or 255 x 12 x 2 x 4.

// Twice the value of each E2M1 code, plus `added`.
inline I fp4_table(int added) {
  return _mm256_add_epi8(_mm256_broadcastsi128_si256(doubled_e2m1()), _mm256_set1_epi8(static_cast<char>(added)));
}

// What a group of 32 columns finds in a tile and in a row of activations.
struct Group {
  const std::byte *scales, *lines;
  size_t x, unit, offset, raised;  // places in a row
  Group(const std::byte* tile, size_t g, size_t groups)
      : scales(tile + g / 2 * (17 * 64) + g % 2 * 32),
        lines(tile + g / 2 * (17 * 64) + 64 + g % 2 * 512),
        x(g * 32),
        unit(groups * 32 + g * 4),
        offset(unit + groups * 4),
        raised(raised_place(groups * 32) + g * 32) {}
  template <bool kFar>
  void fetch_ahead() const {
    for (size_t line = 0; line < 8; ++line) fetch_early<kFar>(lines + 64 * line);
  }
};

// The codes of an octet of rows, 4 columns a vector.
inline void look_up(I table, const Group& group, size_t o, I codes[8]) {
  const I low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
  for (size_t q = 0; q < 4; ++q) {
    const I two = load_octet(group.lines + o / 2 * 256 + q * 64 + o % 2 * 32);
    codes[2 * q] = _mm256_shuffle_epi8(table, _mm256_and_si256(two, low));
    codes[2 * q + 1] = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(two, 4), low));
  }
}

// A tile times one token, whose group stays in registers while the octets pass.
template <Bytes kBytes, bool kFar>
__attribute__((noinline)) void int8_tile(const MatmulArgs& a, size_t tile, size_t token) {
  const size_t groups = padded_cols(a.weight.format, a.weight.cols) / 32;
  const std::byte* w = a.weight.data + tile * tile_bytes(a.weight.format, a.weight.cols);
  const std::byte* row = a.x[token];
  const I table = fp4_table(12);  // unsigned: the activations' offset takes 12 too many back
  V totals[kOctets] = {zero(), zero(), zero(), zero()};
  for (size_t g = 0; g < groups; ++g) {
    const Group group(w, g, groups);
    group.fetch_ahead<kFar>();
    I x[8];
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; ++i) x[i] = word_at(row + group.x + 4 * i);
    const I offset = word_at(row + group.offset);
    const V unit = _mm256_castsi256_ps(word_at(row + group.unit));
#pragma GCC unroll 4
    for (size_t o = 0; o < kOctets; ++o) {
      I codes[8];
      look_up(table, group, o, codes);
      const I sum = add_products<kBytes>(offset, codes, x);
      totals[o] = fma(_mm256_cvtepi32_ps(sum), mul(e8m0(group.scales + 8 * o), unit), totals[o]);
    }
  }
  alignas(32) float all[kTileRows];
  for (size_t o = 0; o < kOctets; ++o) store(all + 8 * o, totals[o]);
  put(a, tile, token, all);
}

// A tile times several tokens, whose groups stay in registers while the octets pass, so codes come from memory: as the signed
// side, since only that may, with activations that have 128 added.
template <Bytes kBytes, bool kFar>
__attribute__((noinline)) void int8_tile(const MatmulArgs& a, size_t tile, size_t token, size_t tokens) {
  alignas(32) float totals[kBlockTokens][kTileRows];
  memset(totals, 0, tokens * sizeof totals[0]);
  const size_t groups = padded_cols(a.weight.format, a.weight.cols) / 32;
  const std::byte* w = a.weight.data + tile * tile_bytes(a.weight.format, a.weight.cols);
  const I table = fp4_table(0);
  for (size_t g = 0; g < groups; ++g) {
    const Group group(w, g, groups);
    group.fetch_ahead<kFar>();
    I codes[kOctets][8], bias[kOctets];  // bias: what 128 too many give
    V scale[kOctets];
    for (size_t o = 0; o < kOctets; ++o) {
      look_up(table, group, o, codes[o]);
      auto two = [&](size_t i) { return _mm256_add_epi8(codes[o][i], codes[o][i + 1]); };  // all eight: at most 96
      const I sum = _mm256_add_epi8(_mm256_add_epi8(two(0), two(2)), _mm256_add_epi8(two(4), two(6)));
      bias[o] = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(-128), sum), _mm256_set1_epi16(-1));
      scale[o] = e8m0(group.scales + 8 * o);
    }
    for (size_t t = 0; t < tokens; ++t) {
      const std::byte* row = a.x[token + t];
      I x[8];
#pragma GCC unroll 8
      for (size_t i = 0; i < 8; ++i) x[i] = word_at(row + group.raised + 4 * i);
      const V unit = _mm256_castsi256_ps(word_at(row + group.unit));
#pragma GCC unroll 4
      for (size_t o = 0; o < kOctets; ++o) {
        const I sum = add_products<kBytes>(bias[o], x, codes[o]);
        float* total = totals[t] + 8 * o;
        store(total, fma(_mm256_cvtepi32_ps(sum), mul(scale[o], unit), load(total)));
      }
    }
  }
  for (size_t t = 0; t < tokens; ++t) put(a, tile, token + t, totals[t]);
}

// ---- FP8 and BF16 x float -------------------------------------------------------------------------------------------

// E4M3 codes placed in a float are value * 2^-120. Activations are raised by half of that (kF32Raised), so that neither
// ordinary products nor small ones leave the range of normal numbers; the sum of 128 columns takes what is left.
constexpr float kRaise = 0x1p60f;

// Columns 4q and 4q + 1 (second: 4q + 2 and 4q + 3) of 8 rows, as the upper halves of floats. A block is 128 columns.
struct Fp8Columns {
  static constexpr size_t kLines = 2;  // a quad of columns
  static constexpr float kAfter = kRaise;
  template <bool kSecond>
  static inline I pair(const std::byte* block, size_t q, size_t octet) {
    const I codes = load_octet(block + q * 128 + octet * 32);
    return _mm256_and_si256(_mm256_srai_epi16(kSecond ? _mm256_slli_epi16(codes, 8) : codes, 4),
                            _mm256_set1_epi16(static_cast<short>(0x87f0)));
  }
};

struct Bf16Columns {
  static constexpr size_t kLines = 4;
  static constexpr float kAfter = 1 / kRaise;
  template <bool kSecond>
  static inline I pair(const std::byte* block, size_t q, size_t octet) {
    return load_octet(block + q * 256 + octet / 2 * 128 + (kSecond ? 64 : 0) + octet % 2 * 32);
  }
};

template <class Columns>
constexpr size_t kBlockBytes = 32 * Columns::kLines * 64;

// One column of a pair.
template <bool kUpper>
inline V column(I pair) {
  return _mm256_castsi256_ps(kUpper ? _mm256_and_si256(pair, _mm256_set1_epi32(static_cast<int>(0xffff0000u)))
                                    : _mm256_slli_epi32(pair, 16));
}

// The instruction itself, which adds to its register: g++ 12 picks other forms and then moves and spills the sums.
inline V add_product(V sum, V a, V b) {
  asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
  return sum;
}

// A value in all lanes; rows of activations may lie at any byte.
inline V all_of(const float* x) {
  return _mm256_broadcast_ss(x);
}

// What a block of 128 columns of a tile is multiplied with.
inline float block_scale(const MatmulArgs& a, size_t tile, size_t k, size_t padded) {
  if (a.weight.format != WeightFormat::kFp8) return 1;
  return scale_of(a.weight.scales[tile * kTileRows / 128 * (padded / 128) + k / 128]);
}
template <class Columns>
inline void add_block(float* total, V sum, float scale) {
  store(total, fma(mul(sum, set1(Columns::kAfter)), set1(scale), load(total)));
}

// sums += a pair of columns, 4q and 4q + 1 or the second, of octets [first, first + O) of a block times those of T tokens.
template <class Columns, bool kSecond, size_t T, size_t O>
inline void add_columns(const std::byte* block, size_t q, size_t first, const float* (&x)[T], V (&sums)[T][O]) {
  const size_t at = 4 * q + 2 * kSecond;
  if constexpr (T <= 2) {  // the values stay in registers while the octets pass
    V value[T][2];
#pragma GCC unroll 2
    for (size_t t = 0; t < T; ++t) {
      value[t][0] = all_of(x[t] + at);
      value[t][1] = all_of(x[t] + at + 1);
    }
#pragma GCC unroll 4
    for (size_t o = 0; o < O; ++o) {
      const I pair = Columns::template pair<kSecond>(block, q, first + o);
      const V w[2] = {column<false>(pair), column<true>(pair)};
#pragma GCC unroll 2
      for (size_t i = 0; i < 2; ++i) {
#pragma GCC unroll 2
        for (size_t t = 0; t < T; ++t) sums[t][o] = add_product(sums[t][o], w[i], value[t][i]);
      }
    }
  } else {  // the weights of a column do while the tokens pass
    I pair[O];
#pragma GCC unroll 4
    for (size_t o = 0; o < O; ++o) pair[o] = Columns::template pair<kSecond>(block, q, first + o);
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; ++i) {
      V w[O];
#pragma GCC unroll 4
      for (size_t o = 0; o < O; ++o) w[o] = i == 0 ? column<false>(pair[o]) : column<true>(pair[o]);
#pragma GCC unroll 4
      for (size_t t = 0; t < T; ++t) {
        const V value = all_of(x[t] + at + i);
#pragma GCC unroll 4
        for (size_t o = 0; o < O; ++o) sums[t][o] = add_product(sums[t][o], w[o], value);
      }
    }
  }
}

// A tile for T tokens, decoded in registers, O octets of rows at a time.
template <size_t T, size_t O, class Columns, bool kFar>
__attribute__((noinline)) void float_tile(const MatmulArgs& a, size_t tile, size_t token) {
  alignas(32) float totals[T][kTileRows] = {};
  const size_t padded = padded_cols(a.weight.format, a.weight.cols);
  const std::byte* block = a.weight.data + tile * tile_bytes(a.weight.format, a.weight.cols);
  for (size_t k = 0; k < padded; k += 128, block += kBlockBytes<Columns>) {
    const float scale = block_scale(a, tile, k, padded);
    const float* x[T];
    for (size_t t = 0; t < T; ++t) x[t] = reinterpret_cast<const float*>(a.x[token + t]) + k;
    for (size_t first = 0; first < kOctets; first += O) {
      V sums[T][O];
      for (size_t t = 0; t < T; ++t) {
        for (size_t o = 0; o < O; ++o) sums[t][o] = zero();
      }
      for (size_t q = 0; q < 32; ++q) {
        if (first == 0) {
          for (size_t line = 0; line < Columns::kLines; ++line) fetch_early<kFar>(block + (q * Columns::kLines + line) * 64);
        }
        add_columns<Columns, false>(block, q, first, x, sums);
        add_columns<Columns, true>(block, q, first, x, sums);
      }
#pragma GCC unroll 4
      for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 4
        for (size_t o = 0; o < O; ++o) add_block<Columns>(totals[t] + 8 * (first + o), sums[t][o], scale);
      }
    }
  }
  for (size_t t = 0; t < T; ++t) put(a, tile, token + t, totals[t]);
}

// Lines that are to be fetched a quad of columns, each `step` bytes on.
struct Ahead {
  const std::byte* at;
  size_t step;
};

// totals[t] += the products of T tokens with 128 columns of 16 rows, decoded. Not inline: g++ 12 would spill.
template <size_t T, class Columns>
__attribute__((noinline)) void panel_tokens(const float* panel, const std::byte* const* rows, size_t k, float scale, Ahead ahead,
                                            float (*totals)[kTileRows]) {
  const float* x[T];
  V sums[T][2];
  for (size_t t = 0; t < T; ++t) {
    x[t] = reinterpret_cast<const float*>(rows[t]) + k;
    sums[t][0] = sums[t][1] = zero();
  }
  for (size_t q = 0; q < 128; q += 4) {
    for (size_t line = 0; line < Columns::kLines / 2; ++line, ahead.at += ahead.step) fetch(ahead.at);
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      const V first = load(panel + 16 * (q + i)), second = load(panel + 16 * (q + i) + 8);
#pragma GCC unroll 6
      for (size_t t = 0; t < T; ++t) {
        const V value = all_of(x[t] + q + i);
        sums[t][0] = add_product(sums[t][0], first, value);
        sums[t][1] = add_product(sums[t][1], second, value);
      }
    }
  }
#pragma GCC unroll 6
  for (size_t t = 0; t < T; ++t) {
    add_block<Columns>(totals[t], sums[t][0], scale);
    add_block<Columns>(totals[t] + 8, sums[t][1], scale);
  }
}

constexpr size_t kPanelTokens = 6;  // whose sums fit in registers

// A tile for up to kBlockTokens tokens: 16 rows of a block are decoded once for all of them.
template <class Columns>
__attribute__((noinline)) void panel_tile(const MatmulArgs& a, size_t tile, size_t token, size_t tokens) {
  alignas(32) float totals[kBlockTokens][kTileRows];
  alignas(32) float panel[128 * 16];
  memset(totals, 0, tokens * sizeof totals[0]);
  const size_t padded = padded_cols(a.weight.format, a.weight.cols);
  const std::byte* block = a.weight.data + tile * tile_bytes(a.weight.format, a.weight.cols);
  const size_t passes = (tokens + kPanelTokens - 1) / kPanelTokens;
  for (size_t k = 0; k < padded; k += 128, block += kBlockBytes<Columns>) {
    const float scale = block_scale(a, tile, k, padded);
    for (size_t half = 0; half < 2; ++half) {
      for (size_t q = 0; q < 32; ++q) {
        float* to = panel + 64 * q;
#pragma GCC unroll 2
        for (size_t o = 0; o < 2; ++o) {
          const I first = Columns::template pair<false>(block, q, 2 * half + o);
          const I second = Columns::template pair<true>(block, q, 2 * half + o);
          store(to + 8 * o, column<false>(first));
          store(to + 8 * o + 16, column<true>(first));
          store(to + 8 * o + 32, column<false>(second));
          store(to + 8 * o + 48, column<true>(second));
        }
      }
      for (size_t pass = 0; pass < passes; ++pass) {
        const size_t t = tokens * pass / passes, count = tokens * (pass + 1) / passes - t;
        float(*to)[kTileRows] = reinterpret_cast<float(*)[kTileRows]>(totals[t] + 16 * half);
        // The first tokens fetch the half of the next block; the others a line that is there.
        const Ahead ahead = pass == 0 ? Ahead{block + (2 + half) * (kBlockBytes<Columns> / 2), 64}
                                      : Ahead{reinterpret_cast<const std::byte*>(panel), 0};
        const std::byte* const* rows = a.x + token + t;
        switch (count) {
          case 6:
            panel_tokens<6, Columns>(panel, rows, k, scale, ahead, to);
            break;
          case 5:
            panel_tokens<5, Columns>(panel, rows, k, scale, ahead, to);
            break;
          case 4:
            panel_tokens<4, Columns>(panel, rows, k, scale, ahead, to);
            break;
          default:
            panel_tokens<3, Columns>(panel, rows, k, scale, ahead, to);
            break;
        }
      }
    }
  }
  for (size_t t = 0; t < tokens; ++t) put(a, tile, token + t, totals[t]);
}

template <class Columns, bool kFar>
void float_tokens(const MatmulArgs& a, size_t tile, size_t token, size_t tokens) {
  switch (tokens) {
    case 1:
      return float_tile<1, 4, Columns, kFar>(a, tile, token);
    case 2:
      return float_tile<2, 4, Columns, kFar>(a, tile, token);
    case 3:
      return float_tile<3, 2, Columns, kFar>(a, tile, token);
    case 4:
      return float_tile<4, 2, Columns, kFar>(a, tile, token);
    default:
      return panel_tile<Columns>(a, tile, token, tokens);
  }
}

template <Bytes kBytes, bool kFar>
void matmul_tile(const MatmulArgs& a, size_t tile, size_t token, size_t tokens) {
  switch (a.weight.format) {
    case WeightFormat::kFp4:
      return tokens == 1 ? int8_tile<kBytes, kFar>(a, tile, token) : int8_tile<kBytes, kFar>(a, tile, token, tokens);
    case WeightFormat::kFp8:
      return float_tokens<Fp8Columns, kFar>(a, tile, token, tokens);
    case WeightFormat::kBf16:
      return float_tokens<Bf16Columns, kFar>(a, tile, token, tokens);
    case WeightFormat::kF32:
      return;
  }
}

template <Bytes kBytes>
void matmul_in_tiles(const MatmulArgs& a) {
  static const bool far = __builtin_cpu_is("intel");
  for (size_t token = 0; token < a.tokens; token += kBlockTokens) {
    const size_t tokens = a.tokens - token < kBlockTokens ? a.tokens - token : kBlockTokens;
    for (size_t tile = a.row_begin / kTileRows; tile < tile_count(a.row_end); ++tile) {
      far ? matmul_tile<kBytes, true>(a, tile, token, tokens) : matmul_tile<kBytes, false>(a, tile, token, tokens);
    }
  }
}

// ---- Activations ----------------------------------------------------------------------------------------------------

// 32 values as codes, and again with 128 added, a scale that undoes them (halved: the weights are doubled), and -12 times their
// sum.
void narrow_group(const float* x, std::byte* codes, std::byte* raised, std::byte* scale, std::byte* offset) {
  V most8 = zero();
  bool nan = false;
  for (size_t i = 0; i < 32; i += 8) {
    nan |= _mm256_movemask_ps(is_nan(load(x + i))) != 0;
    most8 = max(most8, absolute(load(x + i)));
  }
  const float most = reduce_max(most8);
  const float unit = nan ? __builtin_nanf("") : most / 127 * 0.5f;
  const V inverse = set1(most > 0x1p-100f ? 127 / most : 0);
  I part[4];
  for (size_t i = 0; i < 4; ++i) part[i] = to_int(mul(load(x + 8 * i), inverse));
  // Saturating packs work on 128-bit halves; the permutation puts their fours in order.
  const I packed = _mm256_permutevar8x32_epi32(
      _mm256_packs_epi16(_mm256_packs_epi32(part[0], part[1]), _mm256_packs_epi32(part[2], part[3])),
      _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<I*>(codes), packed);
  _mm256_storeu_si256(reinterpret_cast<I*>(raised), ixor(packed, _mm256_set1_epi8(-128)));
  int sum = 0;
  for (size_t i = 0; i < 32; ++i) sum += static_cast<signed char>(codes[i]);
  const int correction = -12 * sum;
  memcpy(scale, &unit, 4);
  memcpy(offset, &correction, 4);
}

// Times 2^60, zeros from a.end to `end`.
void write_raised(const NarrowArgs& a, size_t end) {
  float* to = reinterpret_cast<float*>(a.row);
  const V raise = set1(kRaise);
  size_t k = a.begin;
  for (; k + kLanes <= a.end; k += kLanes) store(to + k, mul(load(a.x + (k - a.begin)), raise));
  if (k < a.end) store_part(to + k, a.end - k, mul(load_part(a.x + (k - a.begin), a.end - k), raise));
  memset(a.row + 4 * a.end, 0, (end - a.end) * sizeof(float));
}

void narrow(const NarrowArgs& a) {
  const size_t end = a.end == a.cols ? a.padded : a.end, groups = a.padded / 32;
  if (a.format != ActivationFormat::kInt8AndRaised) {
    write_raised(a, end);
    return;
  }
  for (size_t k = a.begin; k < end; k += 32) {
    float values[32] = {};
    const size_t left = a.end > k ? a.end - k : 0;
    memcpy(values, a.x + (k - a.begin), (left < 32 ? left : 32) * 4);
    narrow_group(values, a.row + k, a.row + raised_place(a.padded) + k, a.row + a.padded + k / 8, a.row + a.padded + groups * 4 + k / 8);
  }
}

}  // namespace

const TileKernels& tile_kernels(bool dots) {
  using enum ActivationFormat;
  static const TileKernels pairs = {kF32Raised, kInt8AndRaised, kF32, matmul_in_tiles<Bytes::kPairs>, narrow};
  static const TileKernels with_dots = {kF32Raised, kInt8AndRaised, kF32, matmul_in_tiles<Bytes::kDots>, narrow};
  return dots ? with_dots : pairs;
}

}  // namespace nautile::avx2
