// Index scores over FP4 keys with byte products. A group of 32 columns of a key is whole numbers up to 12 times a power of
// two, and one of a query, once it is FP4, whole numbers up to 15 times another: their product is exact in 16 bits, and what
// is left to floats is the sum over groups and heads. Queries that are no such numbers, and keys that are not packed, go
// through float products.
#include <string.h>

#include "kernels/avx2/attention.h"
#include "kernels/avx2/bytes.h"

namespace nautile::avx2 {
namespace {

constexpr size_t kRowTile = 4;

#include "kernels/formats.inc"
#include "kernels/exp.inc"
#include "kernels/scores.inc"
#include "kernels/index.inc"

constexpr size_t kGroup = 32, kMaxGroups = 4, kMaxDim = kGroup * kMaxGroups;
constexpr size_t kKeysAhead = 2 * kKeyTile;  // how far keys are fetched ahead: blocks lie anywhere
constexpr int kOffset = 16;                  // added to a query's bytes, so that they are unsigned

// A token's heads: bytes of 8 columns in the order that nibbles are unpacked in, the even ones, then the odd ones.
struct Query {
  const uint8_t* bytes;  // [heads, dim]
  const float* units;    // [heads, groups] value of 1 in the bytes, halved: those of keys are doubled
  const float* weights;  // [heads]
};

// Writes one group of a head. False when its values are not whole numbers up to 15 times a power of two.
bool pack_group(const float* q, uint8_t* bytes, float* half_unit) {
  V most = zero();
  bool number = true;
  for (size_t i = 0; i < kGroup; i += kLanes) {
    number &= _mm256_movemask_ps(is_nan(load(q + i))) == 0;
    most = max(most, absolute(load(q + i)));
  }
  const float largest = reduce_max(most);
  float inverse = 0;
  *half_unit = 0;
  if (number && largest > 0) {
    uint32_t b;
    memcpy(&b, &largest, sizeof b);
    const int exponent = static_cast<int>(b >> 23) - 127 - 3;  // largest / 2^exponent is in [8, 16)
    if (exponent < -125 || exponent > 120) return false;
    *half_unit = float_of(static_cast<uint32_t>(exponent + 126) << 23);
    inverse = float_of(static_cast<uint32_t>(127 - exponent) << 23);
  }
  const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  for (size_t i = 0; i < kGroup; i += 16) {
    I n[2];
    for (size_t v = 0; v < 2; ++v) {
      const V x = mul(load(q + i + v * kLanes), set1(inverse));
      n[v] = to_int(x);
      number &= _mm256_movemask_ps(_mm256_cmp_ps(_mm256_cvtepi32_ps(n[v]), x, _CMP_NEQ_UQ)) == 0;
      n[v] = iadd(n[v], iset1(kOffset));
    }
    const I halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(n[0], n[1]), 0xd8);
    const __m128i b = _mm_packus_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + i), _mm_shuffle_epi8(b, order));
  }
  return number;
}

constexpr size_t kOctets = 4;  // of keys, one a lane, that pass a query together

struct Keys {
  I codes[kMaxGroups][kOctets][8];  // doubled values of 4 columns of each key
  I bias[kMaxGroups][kOctets];      // -kOffset * sum of the key's codes
  V scales[kMaxGroups][kOctets];
};

// Unpacks keys [begin, begin + count), count <= 8, to octet o.
void unpack_keys(const IndexScoreArgs& a, size_t begin, size_t count, size_t o, Keys& keys) {
  const size_t dim = a.layout.dim, row_bytes = a.layout.row_bytes(), words = dim / 8;
  const std::byte* rows[8];
  for (size_t j = 0; j < count; ++j) {
    const size_t key = begin + j;
    rows[j] = a.blocks[key / a.block_keys] + key % a.block_keys * row_bytes;
  }
  const I doubled = _mm256_broadcastsi128_si256(doubled_e2m1());
  const I low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1), offsets = _mm256_set1_epi8(kOffset);
  for (size_t first = 0; first < words; first += kLanes) {
    V r[kLanes];
    const size_t here = words - first < kLanes ? words - first : kLanes;
    for (size_t j = 0; j < kLanes; ++j) {
      r[j] = j < count ? load_part(reinterpret_cast<const float*>(rows[j] + 4 * first), here) : zero();
    }
    transpose(r);
    for (size_t w = 0; w < here; w += 4) {
      I* codes = keys.codes[(first + w) / 4][o];
      I sum = iset1(0);
      for (size_t i = 0; i < 4; ++i) {
        const I nibbles = bits(r[w + i]);
        codes[2 * i] = _mm256_shuffle_epi8(doubled, iand(nibbles, low));
        codes[2 * i + 1] = _mm256_shuffle_epi8(doubled, iand(_mm256_srli_epi16(nibbles, 4), low));
        sum = _mm256_add_epi16(sum, _mm256_add_epi16(_mm256_maddubs_epi16(offsets, codes[2 * i]),
                                                     _mm256_maddubs_epi16(offsets, codes[2 * i + 1])));
      }
      keys.bias[(first + w) / 4][o] = isub(iset1(0), _mm256_madd_epi16(sum, ones));
    }
  }
  alignas(32) float scales[kMaxGroups][kLanes] = {};
  for (size_t j = 0; j < count; ++j) {
    for (size_t g = 0; g < dim / kGroup; ++g) scales[g][j] = scale_of(static_cast<uint8_t>(rows[j][dim / 2 + g]));
  }
  for (size_t g = 0; g < dim / kGroup; ++g) keys.scales[g][o] = load(scales[g]);
}

// out[j] = score of key j for one token.
template <Bytes kBytes, bool kRound>
void score_bytes(const Query& query, size_t heads, size_t groups, const Keys& keys, float out[kOctets * kLanes]) {
  V score[kOctets] = {zero(), zero(), zero(), zero()};
  const uint8_t* bytes = query.bytes;
  const float* units = query.units;
  for (size_t h = 0; h < heads; ++h) {
    V dot[kOctets] = {zero(), zero(), zero(), zero()};
#pragma GCC unroll 1
    for (size_t g = 0; g < groups; ++g, bytes += kGroup, ++units) {
      I q[8];
#pragma GCC unroll 8
      for (size_t i = 0; i < 8; ++i) q[i] = word_at(bytes + 4 * i);
      const V unit = set1(*units);
#pragma GCC unroll 4
      for (size_t o = 0; o < kOctets; ++o) {
        const I sum = add_products<kBytes, true>(keys.bias[g][o], q, keys.codes[g][o]);
        dot[o] = fma(mul(_mm256_cvtepi32_ps(sum), keys.scales[g][o]), unit, dot[o]);
      }
    }
    const V weight = set1(query.weights[h]);
#pragma GCC unroll 4
    for (size_t o = 0; o < kOctets; ++o) {
      if (kRound) {
        score[o] = add(score[o], rounded_bf16(mul(weight, max(zero(), rounded_bf16(dot[o])))));
      } else {
        score[o] = fma(weight, max(zero(), dot[o]), score[o]);
      }
    }
  }
  for (size_t o = 0; o < kOctets; ++o) store(out + o * kLanes, kRound ? rounded_bf16(score[o]) : score[o]);
}

template <Bytes kBytes>
void index_scores_in_bytes(const IndexScoreArgs& a) {
  const size_t dim = a.layout.dim;
  if (a.layout.format != KvFormat::kPacked || dim > kMaxDim) return float_index_scores(a);
  const size_t lanes = attend_lanes(a.heads), groups = dim / kGroup;
  float* units = aligned(a.scratch);                                              // [tokens, heads, groups]
  float* whole = units + a.tokens * a.heads * groups;                             // [tokens] 1: bytes
  auto* bytes = reinterpret_cast<uint8_t*>(aligned(whole + a.tokens));            // [tokens, heads, dim]
  float* q = aligned(reinterpret_cast<float*>(bytes + a.tokens * a.heads * dim));  // [dim, lanes], for float products
  float* rows = q + dim * lanes;                                                  // [kKeyTile, dim], the same
  float* s = rows + kKeyTile * dim;                                               // [kKeyTile, lanes]
  for (size_t t = 0; t < a.tokens; ++t) {
    bool fits = true;
    for (size_t i = 0; i < a.heads * groups; ++i) {
      const size_t at = t * a.heads * groups + i;
      fits &= pack_group(a.q + at * kGroup, bytes + at * kGroup, units + at);
    }
    whole[t] = fits ? 1.f : 0.f;
  }
  for (size_t begin = 0; begin < a.count; begin += kKeyTile) {
    const size_t count = a.count - begin < kKeyTile ? a.count - begin : kKeyTile;
    for (size_t key = begin + kKeysAhead; key < begin + kKeysAhead + kKeyTile && key < a.count; key += 16) {
      prefetch(a.blocks[key / a.block_keys] + key % a.block_keys * a.layout.row_bytes(), 16 * a.layout.row_bytes());
    }
    for (size_t first = 0; first < count; first += kOctets * kLanes) {
      const size_t here = count - first < kOctets * kLanes ? count - first : kOctets * kLanes;
      Keys keys;
      for (size_t o = 0; o < kOctets; ++o) {
        const size_t j = first + o * kLanes, left = j < count ? count - j : 0;
        unpack_keys(a, begin + j, left < kLanes ? left : kLanes, o, keys);
      }
      for (size_t t = 0; t < a.tokens; ++t) {
        if (whole[t] == 0) continue;
        const Query query = {bytes + t * a.heads * dim, units + t * a.heads * groups, a.weights + t * a.heads};
        alignas(32) float scores[kOctets * kLanes];
        a.round_bf16 ? score_bytes<kBytes, true>(query, a.heads, groups, keys, scores)
                     : score_bytes<kBytes, false>(query, a.heads, groups, keys, scores);
        memcpy(a.scores + t * a.stride + begin + first, scores, here * sizeof(float));
      }
    }
    bool decoded = false;
    for (size_t t = 0; t < a.tokens; ++t) {
      if (whole[t] != 0) continue;
      if (!decoded) decode_keys(a, begin, count, rows);
      decoded = true;
      pack_queries<FloatUnit>(a.q + t * a.heads * dim, a.heads, dim, lanes, lanes, dim, q);
      score_keys(a, t, q, rows, count, s, a.scores + t * a.stride + begin);
    }
  }
}

}  // namespace

void index_scores(const IndexScoreArgs& a) {
  index_scores_in_bytes<Bytes::kPairs>(a);
}
void index_scores_dots(const IndexScoreArgs& a) {
  index_scores_in_bytes<Bytes::kDots>(a);
}

}  // namespace nautile::avx2
