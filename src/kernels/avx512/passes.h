// What the loops over tiles share: fetches, the rows of a tile that are wanted, and tokens cut into passes.
// Needs AVX-512 F.
#pragma once

#include <string.h>

#include "kernels/avx512/quads.h"

// In an unnamed namespace, as in quads.h.
namespace nautile::avx512 {
namespace {

constexpr size_t kMostWide = 8;  // tokens of a wide product in registers

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

// The rows of a tile that are wanted, as masks of its halves, and where they go.
struct Rows {
  __mmask16 half[2];
  ptrdiff_t y;  // index of the tile's first row in a row of y; negative when only later rows are wanted
};

inline Rows wanted_rows(const MatmulArgs& a, size_t tile) {
  const size_t row = tile * kTileRows;
  const uint32_t after = a.row_end - row < kTileRows ? (1u << (a.row_end - row)) - 1 : ~0u;
  const uint32_t before = a.row_begin > row ? (1u << (a.row_begin - row)) - 1 : 0;
  const uint32_t mask = after & ~before;
  return {{static_cast<__mmask16>(mask), static_cast<__mmask16>(mask >> 16)},
          static_cast<ptrdiff_t>(row) - static_cast<ptrdiff_t>(a.y_first)};
}

// Columns [k, k + 32) of what narrow() is given, zeros beyond its end.
inline void load_columns(const NarrowArgs& a, size_t k, V& first, V& second) {
  const size_t left = a.end > k ? a.end - k : 0;
  const __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;
  const float* from = a.x + (k - a.begin);
  first = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
  second = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), from + 16);
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

}  // namespace
}  // namespace nautile::avx512
