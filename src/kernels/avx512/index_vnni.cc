// Index scores over FP4 keys with byte products. A key whose four groups have scales within a factor of 8 is 128 whole
// numbers up to 96 times one power of two, and a query likewise up to 127, so a dot product is exact in 32 bits; only
// its float and the sum over heads are rounded. Within a factor of 2^13 it still is when each group is summed by itself,
// of whole numbers up to 12, and shifted then: a tile with such a key goes that way, all of its keys to the same bits.
// Keys of a wider range, queries that are no bytes, and NaN scales go through float products.
#include <string.h>

#include "kernels/avx512/attention.h"
#include "kernels/avx512/lanes.h"

namespace nautile::avx512 {
namespace {

constexpr size_t kRowTile = 8;

#include "kernels/formats.inc"
#include "kernels/exp.inc"
#include "kernels/scores.inc"
#include "kernels/index.inc"

constexpr size_t kMaxDim = 128, kHeadTile = 4;
constexpr size_t kKeysAhead = 2 * kKeyTile;  // how far keys are fetched ahead: blocks lie anywhere

// A query's heads as bytes with 128 added, in the order that nibbles are unpacked in: of 8 columns the even ones, then
// the odd ones. Heads are padded to whole tiles with zeros.
struct Query {
  const uint8_t* bytes;  // [heads, dim]
  const float* weights;  // [heads] head weight, times the unit of the bytes unless rounding
  const float* units;    // [heads] value of 1 in the bytes
};

// Writes one head. False when its values are not whole numbers up to 127 times a power of two.
bool pack_head(const float* q, size_t dim, uint8_t* bytes, float* unit) {
  V most = zero();
  bool number = true;
  for (size_t i = 0; i < dim; i += kLanes) {
    number &= is_nan(load(q + i)) == 0;
    most = max(most, absolute(load(q + i)));
  }
  const float largest = reduce_max(most);
  *unit = 0;
  int exponent = 0;
  if (largest > 0) {
    uint32_t b;
    memcpy(&b, &largest, sizeof b);
    exponent = static_cast<int>(b >> 23) - 127 - 6;  // largest / 2^exponent is in [64, 128)
    if (exponent < -126 || exponent > 120) return false;
    *unit = float_of(static_cast<uint32_t>(exponent + 127) << 23);
  }
  const V inverse = largest > 0 ? set1(float_of(static_cast<uint32_t>(127 - exponent) << 23)) : zero();
  const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  bool whole = number;
  for (size_t i = 0; i < dim; i += kLanes) {
    const V x = mul(load(q + i), inverse);
    const I n = to_int(x);
    whole &= _mm512_cmp_ps_mask(_mm512_cvtepi32_ps(n), x, _CMP_NEQ_UQ) == 0;
    const __m128i b = _mm512_cvtepi32_epi8(iadd(n, iset1(128)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + i), _mm_shuffle_epi8(b, order));
  }
  return whole;
}

// 64 keys as bytes, four keys' columns a lane: tile[u][v] holds byte columns 4u .. 4u + 3 of keys 16v .. 16v + 15.
struct KeyTile {
  int8_t* bytes;        // [dim / 4, 4, 64]
  int32_t bias[64];     // -128 * sum of the key's bytes, which takes back the 128 of the query
  float units[64];      // value of 1 in the bytes
  uint64_t wide = 0;    // keys that are not whole numbers: their bytes are 0
  // When groups are summed by themselves: their own bias, and how far their sum goes to the left.
  int32_t group_bias[4][64], shifts[4][64];
};

// The instruction itself: around the intrinsic g++ 12 copies each accumulator twice a step, which costs a third.
inline I byte_dot(I acc, I unsigned_bytes, I signed_bytes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(unsigned_bytes), "v"(signed_bytes));
  return acc;
}

// Unpacks keys [begin, begin + count), count <= 16, into column `v` of the tile.
template <bool kGroups>
void unpack_keys(const IndexScoreArgs& a, size_t begin, size_t count, size_t v, KeyTile& tile) {
  const size_t dim = a.layout.dim, groups = dim / 32, row_bytes = a.layout.row_bytes();
  const std::byte* row = a.blocks[begin / a.block_keys] + begin % a.block_keys * row_bytes;
  const M columns = static_cast<M>((1u << dim / 8) - 1);
  V rows[16];
  int32_t scale_words[16] = {};
#pragma GCC unroll 16
  for (size_t j = 0; j < 16; ++j) {
    rows[j] = j < count ? _mm512_maskz_loadu_ps(columns, row + j * row_bytes) : zero();
  }
  for (size_t j = 0; j < count; ++j) {
    const std::byte* scales = row + j * row_bytes + dim / 2;
    if (groups == 4) {
      memcpy(&scale_words[j], scales, 4);
    } else {
      for (size_t g = 0; g < groups; ++g) scale_words[j] |= static_cast<int32_t>(scales[g]) << 8 * g;
    }
  }
  transpose(rows);
  const I scales = iload(scale_words);
  // Groups of zeros have no say in the key's range.
  I exponent[4];
  M used[4], nan = 0;
  I least = iset1(255), most = iset1(0);
  for (size_t g = 0; g < groups; ++g) {
    const I any = ior(ior(bits(rows[4 * g]), bits(rows[4 * g + 1])), ior(bits(rows[4 * g + 2]), bits(rows[4 * g + 3])));
    used[g] = _mm512_test_epi32_mask(any, iset1(0x77777777));
    exponent[g] = iand(_mm512_srlv_epi32(scales, iset1(static_cast<int>(8 * g))), iset1(255));
    nan = static_cast<M>(nan | _mm512_cmpeq_epi32_mask(exponent[g], iset1(255)));
    least = _mm512_mask_min_epi32(least, used[g], least, exponent[g]);
    most = _mm512_mask_max_epi32(most, used[g], most, exponent[g]);
  }
  const M wide = static_cast<M>((nan | _mm512_cmpgt_epi32_mask(isub(most, least), iset1(kGroups ? 13 : 3))) & ((1u << count) - 1));
  tile.wide |= static_cast<uint64_t>(wide) << 16 * v;
  // Byte of a nibble with its group's shift in bits 4 and 5.
  alignas(64) static constexpr int8_t kBytes[64] = {
      0, 1, 2, 3,  4,  6,  8,  12, 0, -1, -2, -3,  -4,  -6,  -8,  -12, 0, 2, 4, 6,  8,  12, 16, 24, 0, -2, -4, -6,  -8,  -12, -16, -24,
      0, 4, 8, 12, 16, 24, 32, 48, 0, -4, -8, -12, -16, -24, -32, -48, 0, 8, 16, 24, 32, 48, 64, 96, 0, -8, -16, -24, -32, -48, -64, -96};
  const I table = _mm512_load_si512(kBytes), low = iset1(0x0f0f0f0f), ones = _mm512_set1_epi8(1);
  I sum[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  for (size_t g = 0; g < groups; ++g) {
    const M plain = static_cast<M>(used[g] & ~wide);
    I shift = _mm512_maskz_sub_epi32(plain, exponent[g], least);
    if (kGroups) {
      istore(tile.shifts[g] + 16 * v, shift);
      shift = sum[0] = sum[1] = iset1(0);
    }
    shift = _mm512_mullo_epi32(shift, iset1(0x10101010));
    for (size_t d = 4 * g; d < 4 * g + 4; ++d) {
      const I nibbles = bits(rows[d]);
      const I even = _mm512_permutexvar_epi8(ior(iand(nibbles, low), shift), table);
      const I odd = _mm512_permutexvar_epi8(ior(iand(shift_right<4>(nibbles), low), shift), table);
      const I first = _mm512_maskz_mov_epi32(plain, even), second = _mm512_maskz_mov_epi32(plain, odd);
      sum[0] = byte_dot(sum[0], ones, first);
      sum[1] = byte_dot(sum[1], ones, second);
      _mm512_storeu_si512(tile.bytes + (2 * d) * 256 + v * 64, first);
      _mm512_storeu_si512(tile.bytes + (2 * d + 1) * 256 + v * 64, second);
    }
    if (kGroups) istore(tile.group_bias[g] + 16 * v, isub(iset1(0), shift_left<7>(iadd(sum[0], sum[1]))));
  }
  if (!kGroups) istore(tile.bias + 16 * v, isub(iset1(0), shift_left<7>(iadd(sum[0], sum[1]))));
  // The bytes are doubled values. A key of zeros has no range: any unit will do.
  const I unit = _mm512_mask_mov_epi32(shift_left<23>(least), _mm512_cmpeq_epi32_mask(least, iset1(0)), iset1(0x00400000));
  store(tile.units + 16 * v, mul(from_bits(_mm512_maskz_mov_epi32(_mm512_cmplt_epi32_mask(least, iset1(255)), unit)), set1(0.5f)));
}

// acc[i][v] += columns [4 * begin, 4 * end) of keys 16v .. 16v + 15 times those of head i of q.
inline void add_columns(const uint8_t* q, size_t dim, const int8_t* keys, size_t begin, size_t end,
                        I (&acc)[kHeadTile][4]) {
#ifndef __SANITIZE_ADDRESS__  // whose branches in the body make g++ refuse the annotation
#pragma GCC unroll 1
#endif
  for (size_t u = begin; u < end; ++u) {
    I key[4];
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; ++v) key[v] = _mm512_load_si512(keys + u * 256 + v * 64);
#pragma GCC unroll 4
    for (size_t i = 0; i < kHeadTile; ++i) {
      int word;
      memcpy(&word, q + i * dim + 4 * u, sizeof word);
      const I column = iset1(word);
#pragma GCC unroll 4
      for (size_t v = 0; v < 4; ++v) acc[i][v] = byte_dot(acc[i][v], column, key[v]);
    }
  }
}

// All of acc from `bias`, a vector of 64.
inline void begin_at(const int32_t* bias, I (&acc)[kHeadTile][4]) {
#pragma GCC unroll 4
  for (size_t v = 0; v < 4; ++v) {
    const I from = iload(bias + 16 * v);
#pragma GCC unroll 4
    for (size_t i = 0; i < kHeadTile; ++i) acc[i][v] = from;
  }
}

// Scores of the tile's 64 keys for one query.
template <bool kRound, bool kGroups>
void score_tile_bytes(const Query& query, size_t heads, size_t dim, const KeyTile& tile, float out[64]) {
  V score[4] = {zero(), zero(), zero(), zero()};
  for (size_t h = 0; h < heads; h += kHeadTile) {
    const uint8_t* q = query.bytes + h * dim;
    I acc[kHeadTile][4];
    if (kGroups) {
      alignas(64) int32_t sums[kHeadTile][4][kLanes] = {};  // registers are full
      for (size_t g = 0; g < dim / 32; ++g) {
        begin_at(tile.group_bias[g], acc);
        add_columns(q, dim, tile.bytes, 8 * g, 8 * g + 8, acc);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; ++v) {
          const I shift = iload(tile.shifts[g] + 16 * v);
#pragma GCC unroll 4
          for (size_t i = 0; i < kHeadTile; ++i) {
            istore(sums[i][v], iadd(iload(sums[i][v]), _mm512_sllv_epi32(acc[i][v], shift)));
          }
        }
      }
#pragma GCC unroll 4
      for (size_t i = 0; i < kHeadTile; ++i) {
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; ++v) acc[i][v] = iload(sums[i][v]);
      }
    } else {
      begin_at(tile.bias, acc);
      add_columns(q, dim, tile.bytes, 0, dim / 4, acc);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < kHeadTile; ++i) {
      const V weight = set1(query.weights[h + i]);
#pragma GCC unroll 4
      for (size_t v = 0; v < 4; ++v) {
        V dot = _mm512_cvtepi32_ps(_mm512_max_epi32(acc[i][v], _mm512_setzero_si512()));
        if (kRound) {
          dot = rounded_bf16(mul(mul(dot, set1(query.units[h + i])), load(tile.units + 16 * v)));
          score[v] = add(score[v], rounded_bf16(mul(weight, dot)));
        } else {
          score[v] = fma(weight, dot, score[v]);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (size_t v = 0; v < 4; ++v) {
    store(out + 16 * v, kRound ? rounded_bf16(score[v]) : mul(score[v], load(tile.units + 16 * v)));
  }
}

}  // namespace

void index_scores_vnni(const IndexScoreArgs& a) {
  const size_t dim = a.layout.dim;
  if (a.layout.format != KvFormat::kPacked || dim > kMaxDim) return float_index_scores(a);
  const size_t lanes = attend_lanes(a.heads), heads = (a.heads + kHeadTile - 1) / kHeadTile * kHeadTile;
  alignas(64) int8_t tile_bytes[kMaxDim * kKeyTile];
  KeyTile tile;
  tile.bytes = tile_bytes;
  // Queries lie at the start of the scratch, what float products need behind them.
  float* weights = aligned(a.scratch);                                   // [tokens, lanes]
  float* units = weights + a.tokens * lanes;                             // [tokens, lanes]
  float* flags = units + a.tokens * lanes;                               // [tokens], 1: whole
  auto* bytes = reinterpret_cast<uint8_t*>(aligned(flags + a.tokens));   // [tokens, heads, dim]
  float* q = aligned(reinterpret_cast<float*>(bytes + a.tokens * heads * dim));  // [dim, lanes]
  float* rows = q + dim * lanes;                                         // [kKeyTile, dim]
  float* s = rows + kKeyTile * dim;                                      // [kKeyTile, lanes]
  float* floats = s + kKeyTile * lanes;                                  // [kKeyTile]
  for (size_t t = 0; t < a.tokens; ++t) {
    bool whole = true;
    for (size_t h = 0; h < heads; ++h) {
      uint8_t* out = bytes + (t * heads + h) * dim;
      float& unit = units[t * lanes + h];
      if (h >= a.heads) {
        memset(out, 128, dim);
        unit = weights[t * lanes + h] = 0;
        continue;
      }
      whole &= pack_head(a.q + (t * a.heads + h) * dim, dim, out, &unit);
      weights[t * lanes + h] = a.weights[t * a.heads + h] * (a.round_bf16 ? 1.f : unit);
    }
    flags[t] = whole ? 1.f : 0.f;
  }
  for (size_t begin = 0; begin < a.count; begin += kKeyTile) {
    const size_t count = a.count - begin < kKeyTile ? a.count - begin : kKeyTile;
    tile.wide = 0;
    for (size_t key = begin + kKeysAhead; key < begin + kKeysAhead + kKeyTile && key < a.count; key += 16) {
      prefetch(a.blocks[key / a.block_keys] + key % a.block_keys * a.layout.row_bytes(), 16 * a.layout.row_bytes());
    }
    for (size_t v = 0; v < 4; ++v) {
      const size_t here = 16 * v < count ? (count - 16 * v < 16 ? count - 16 * v : 16) : 0;
      unpack_keys<false>(a, here == 0 ? begin : begin + 16 * v, here, v, tile);
    }
    const bool groups = tile.wide != 0;
    if (groups) {
      tile.wide = 0;
      for (size_t v = 0; v < 4; ++v) {
        const size_t here = 16 * v < count ? (count - 16 * v < 16 ? count - 16 * v : 16) : 0;
        unpack_keys<true>(a, here == 0 ? begin : begin + 16 * v, here, v, tile);
      }
    }
    bool decoded = false;
    for (size_t t = 0; t < a.tokens; ++t) {
      float* out = a.scores + t * a.stride + begin;
      const uint64_t wide = flags[t] != 0 ? tile.wide : ~uint64_t{0};
      if (flags[t] != 0) {
        const Query query = {bytes + t * heads * dim, weights + t * lanes, units + t * lanes};
        alignas(64) float scores[kKeyTile];
        const auto score = a.round_bf16 ? groups ? score_tile_bytes<true, true> : score_tile_bytes<true, false>
                           : groups     ? score_tile_bytes<false, true>
                                        : score_tile_bytes<false, false>;
        score(query, heads, dim, tile, scores);
        memcpy(out, scores, count * sizeof(float));
      }
      if (wide == 0) continue;
      if (!decoded) decode_keys(a, begin, count, rows);
      decoded = true;
      pack_queries<FloatUnit>(a.q + t * a.heads * dim, a.heads, dim, lanes, lanes, dim, q);
      score_keys(a, t, q, rows, count, s, floats);
      for (size_t j = 0; j < count; ++j) {
        if (wide >> j & 1) out[j] = floats[j];
      }
    }
  }
}

}  // namespace nautile::avx512
