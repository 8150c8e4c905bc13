// Wide products with float multiply-adds: one column of 16 rows at once, and no rounding of activations. For CPUs without the BF16 dot
// instruction and for Intel's, where it goes at half the rate of these.
#include "kernels/avx512/kernels.h"
#include "kernels/avx512/wide.h"

namespace nautile::avx512 {
namespace {

struct FloatUnit {
  static constexpr size_t kBytes = 4, kParts = 4;  // of an activation; vectors of weights in a quad of columns
  // A pair of BF16 holds the even column below the odd one.
  static inline I weights(I first, I second, size_t part) {
    const I pair = part < 2 ? first : second;
    return part % 2 == 0 ? _mm512_slli_epi32(pair, 16) : _mm512_and_si512(pair, iset1(static_cast<int>(0xffff0000u)));
  }
  // The instruction itself: around the intrinsic g++ 12 copies sums.
  static inline V multiply(V sum, I w, I x) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
  }
  static inline __m128 value(const std::byte* row, size_t col) {
    float x;
    memcpy(&x, row + kBytes * col, kBytes);
    return _mm_set_ss(x);
  }
};

// ---- Many tokens: a block of 32 rows decoded once, to floats in the first-level cache -------------------------------

constexpr size_t kPanelTokens = 96, kPanelCols = 128;  // that share a decoded block; of a block at most
constexpr size_t kAhead = 12 << 10;                     // how far weights are fetched ahead, into the second-level cache

// Columns in the order in which wide_tile() adds them: those of the even quads of a block, then those of the odd ones, where it has
// two chains. panel [kCols][2][16].
template <class Quads>
inline void decode_panel(const Quads& quads, const std::byte* block, float* panel) {
  constexpr size_t kQuads = Quads::kCols / 4, kChains = Quads::kChains;
  for (size_t chain = 0; chain < kChains; ++chain) {
    for (size_t q = chain; q < kQuads; q += kChains, panel += 4 * 32) {
#pragma GCC unroll 2
      for (size_t h = 0; h < 2; ++h) {
        I first, second;
        quads.load(block, q, h, first, second);
#pragma GCC unroll 4
        for (size_t part = 0; part < 4; ++part) {
          _mm512_store_si512(panel + 32 * part + 16 * h, FloatUnit::weights(first, second, part));
        }
      }
    }
  }
}

// totals [T][32] += a block's scale times the panel's product with T tokens, from column k of their rows on. Meanwhile a share
// of a block of weights is fetched from `ahead`.
template <size_t T, class Quads, bool kFetches>
__attribute__((noinline)) void multiply_panel(const float* panel, const std::byte* const* rows, size_t k, V scale_a, V scale_b,
                                              const std::byte* ahead, float* totals) {
  constexpr size_t kQuads = Quads::kCols / 4, kChains = Quads::kChains;
  const std::byte* x[T];
  for (size_t t = 0; t < T; ++t) x[t] = rows[t] + 4 * k;
  V sum[2][T];
  alignas(64) float before[2][T][16];
#pragma GCC unroll 2
  for (size_t chain = 0; chain < kChains; ++chain) {
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) sum[0][t] = sum[1][t] = _mm512_setzero_ps();
#pragma GCC unroll 1
    for (size_t q = chain; q < kQuads; q += kChains, panel += 4 * 32) {
      if (kFetches) {
#pragma GCC unroll 4
        for (size_t line = 0; line < Quads::kLines / Quads::kSpread; ++line, ahead += 64) fetch_far(ahead);
      }
#pragma GCC unroll 4
      for (size_t part = 0; part < 4; ++part) {
        const I w_a = load_line(panel + 32 * part), w_b = load_line(panel + 32 * part + 16);
#pragma GCC unroll 8
        for (size_t t = 0; t < T; ++t) {
          const I value = broadcast4(x[t] + 16 * q + 4 * part);
          sum[0][t] = FloatUnit::multiply(sum[0][t], w_a, value);
          sum[1][t] = FloatUnit::multiply(sum[1][t], w_b, value);
        }
      }
    }
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
      for (size_t h = 0; h < 2; ++h) {
        if (chain + 1 < kChains) {
          _mm512_store_ps(before[h][t], sum[h][t]);
          continue;
        }
        const V all = kChains == 2 ? _mm512_add_ps(_mm512_load_ps(before[h][t]), sum[h][t]) : sum[h][t];
        float* total = totals + 32 * t + 16 * h;
        const V now = _mm512_load_ps(total);
        _mm512_store_ps(total, Quads::kScaled ? _mm512_fmadd_ps(all, h == 0 ? scale_a : scale_b, now) : _mm512_add_ps(now, all));
      }
    }
  }
}

// A tile times tokens [begin, end).
template <class Quads>
void panel_tile(const MatmulArgs& a, size_t tile, size_t begin, size_t end) {
  alignas(64) float totals[kPanelTokens * 32], panel[kPanelCols * 32];
  memset(totals, 0, (end - begin) * 32 * sizeof(float));
  const size_t padded = padded_cols(a.weight.format, a.weight.cols);
  const std::byte* w = a.weight.data + tile * tile_bytes(a.weight.format, a.weight.cols);
  const uint8_t* scales = a.weight.scales + tile * kTileRows / 128 * ((a.weight.cols + 127) / 128);
  const Quads quads;
  for (size_t k = 0; k < padded; k += Quads::kCols) {
    decode_panel(quads, Quads::block(w, k), panel);
    const V scale_a = Quads::scale(w, scales, k, 0), scale_b = Quads::scale(w, scales, k, 1);
    const std::byte* ahead = Quads::block(w, k) + kAhead;
    constexpr size_t kShare = Quads::kLines / Quads::kSpread * 64 * (Quads::kCols / 4);
    for_passes<kMostWide>(end - begin, [&]<size_t T>(size_t token, size_t pass) {
      const auto multiply = pass < Quads::kSpread ? multiply_panel<T, Quads, true> : multiply_panel<T, Quads, false>;
      multiply(panel, a.x + begin + token, k, scale_a, scale_b, ahead + pass * kShare, totals + 32 * token);
    });
  }
  const Rows rows = wanted_rows(a, tile);
  for (size_t t = begin; t < end; ++t) {
    float* total = totals + 32 * (t - begin);
    if constexpr (Quads::kListsFaint) {
      add_faint<1, FloatUnit>(w + faint_list_place(padded), scales, padded, a.x + t, reinterpret_cast<float(*)[1][16]>(total));
    }
    for (size_t h = 0; h < 2; ++h) {
      _mm512_mask_storeu_ps(a.y[t] + rows.y + 16 * h, rows.half[h], _mm512_load_ps(total + 16 * h));
    }
  }
}

}  // namespace

void wide_tile_float(const MatmulArgs& a, size_t tile, Core) {
  with_quads(a, tile, [&]<class Quads>() {
    if (a.tokens <= kMostWide) {
      return with_tokens<kMostWide>(a.tokens, [&]<size_t T>() {
        wide_tile<T, FloatUnit, Quads, Quads::early(T, Core::kIntel)>(a, tile, 0);
      });
    }
    for (size_t t = 0; t < a.tokens; t += kPanelTokens) {
      panel_tile<Quads>(a, tile, t, a.tokens - t < kPanelTokens ? a.tokens : t + kPanelTokens);
    }
  });
}

void narrow_float(const NarrowArgs& a) {
  memcpy(a.row + 4 * a.begin, a.x, 4 * (a.end - a.begin));
  if (a.end == a.cols) memset(a.row + 4 * a.end, 0, 4 * (a.padded - a.end));
}

}  // namespace nautile::avx512
