// A tile of FP8, BF16 or, for the reference policy, FP4 times many tokens, for units that take BF16 weights: the loops over a class
// Unit, which says what an activation is and how a vector of weights meets it (wide_bf16.cc, wide_float.cc).
// Needs AVX-512 F, BW, VL, DQ and VBMI.
#pragma once

#include "kernels/avx512/passes.h"

// In an unnamed namespace, as in quads.h.
namespace nautile::avx512 {
namespace {

// totals [2][T][16] += what the listed faint codes of a tile lack; x [T] rows.
template <size_t T, class Unit>
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
      _mm_store_ss(total, _mm_add_ss(_mm_load_ss(total), _mm_mul_ss(error, Unit::value(x[t], col))));
    }
  }
}

// A tile times T tokens. Where a block has two chains of sums, its even quads are one and its odd ones the other: side by side where
// registers allow both, since a chain is only as fast as the dot instruction's latency; else one after the other.
template <size_t T, class Unit, class Quads, Early kEarly>
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
    for (size_t t = 0; t < T; ++t) x[t] = a.x[token + t] + Unit::kBytes * k;
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
#pragma GCC unroll 4
          for (size_t part = 0; part < Unit::kParts; ++part) {
            const I w_a = Unit::weights(first_a, second_a, part), w_b = Unit::weights(first_b, second_b, part);
#pragma GCC unroll 8
            for (size_t t = 0; t < T; ++t) {
              const I values = broadcast4(x[t] + (q * Unit::kParts + part) * 4);
              sum[c][0][t] = Unit::multiply(sum[c][0][t], w_a, values);
              sum[c][1][t] = Unit::multiply(sum[c][1][t], w_b, values);
            }
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
  if constexpr (Quads::kListsFaint) add_faint<T, Unit>(w + faint_list_place(padded), scales, padded, a.x + token, totals);
  for (size_t h = 0; h < 2; ++h) {
    for (size_t t = 0; t < T; ++t) {
      _mm512_mask_storeu_ps(a.y[token + t] + rows.y + 16 * h, rows.half[h], _mm512_load_ps(totals[h][t]));
    }
  }
}

// A tile times all tokens. The first of several passes share in fetching the next tile, which the first would else wait for
// alone: into the second-level cache, since the first does not hold a tile.
template <class Unit, class Quads, Core kCore>
void wide_tokens(const MatmulArgs& a, size_t tile) {
  for_passes<kMostWide>(a.tokens, [&]<size_t T>(size_t token, size_t pass) {
    constexpr size_t kNear = Quads::near(kCore);
    if (a.tokens <= kMostWide) {
      wide_tile<T, Unit, Quads, Quads::early(T, kCore)>(a, tile, token);
    } else if (pass < Quads::kSpread) {
      wide_tile<T, Unit, Quads, Early{.near = kNear, .next_tile = Quads::kSpread}>(a, tile, token, pass);
    } else {
      wide_tile<T, Unit, Quads, Early{.near = kNear}>(a, tile, token);
    }
  });
}

// Whether a tile of FP8 has a list of its faint codes.
inline bool lists_faint(const MatmulArgs& a, size_t tile) {
  const size_t padded = padded_cols(a.weight.format, a.weight.cols);
  uint32_t count;
  memcpy(&count, a.weight.data + tile * tile_bytes(a.weight.format, a.weight.cols) + faint_list_place(padded), 4);
  return count <= faint_room(padded);
}

// Calls f<Quads>() with how a tile is decoded.
template <class F>
inline void with_quads(const MatmulArgs& a, size_t tile, F&& f) {
  switch (a.weight.format) {
    case WeightFormat::kFp4:
      return f.template operator()<Fp4Quads>();
    case WeightFormat::kFp8:
      return lists_faint(a, tile) ? f.template operator()<Fp8Quads>() : f.template operator()<Fp8AnyQuads>();
    case WeightFormat::kBf16:
      return f.template operator()<Bf16Quads>();
    case WeightFormat::kF32:
      return;
  }
}

}  // namespace
}  // namespace nautile::avx512
