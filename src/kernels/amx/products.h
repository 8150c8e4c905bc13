// The loops of the matrix unit's products, over a class Unit of eight tile registers; lines.h comes first.
//
// Registers: 0 to 3 sums of (token block b, half h) at 2 b + h, 4 and 5 activations of the token blocks, 6 and 7 the halves
// of a tile of weights. A token block is up to 16 tokens; its registers have as many rows.
//
// Order of sums: with BF16, a step is 32 columns, in the unit's own order (even and odd columns apart, then together);
// kScaleCols / 32 steps are added one after another from zero, then total += scale * sum. It depends on the output's row
// and the token alone, since a row of a product sees one row of the first operand. With bytes a step is 32 columns and
// exact, and what follows are the operations of AVX-512: the same bits.

constexpr size_t kBlockTokens = 16, kGroupTokens = 128;  // tokens a register; tokens for which weights are decoded once

// Up to 16 tokens' activations, as the unit loads them, and which of them are new: the last block of a group reaches back
// so that it is full, and what another block has counted is left alone.
struct TokenBlock {
  size_t first = 0, fresh = 0;
};

template <class Unit, class Lines, size_t kBlocks>
inline void add_products(Unit& unit, const typename Lines::Decoded& panel, const std::byte* const* x, size_t x_stride,
                         const std::byte* const* x_scales, const TokenBlock* blocks, size_t rows,
                         float (*totals)[kTileRows]) {
  constexpr size_t kSteps = Lines::kScaleCols / 32, kStepBytes = Lines::kInt8 ? 32 : 64;
  alignas(64) float sums[2 * kBlocks][kBlockTokens][16];  // as integers with bytes
  for (size_t part = 0; part < Lines::kCols / Lines::kScaleCols; ++part) {
    unit.template zero<0>();
    unit.template zero<1>();
    if constexpr (kBlocks == 2) {
      unit.template zero<2>();
      unit.template zero<3>();
    }
    for (size_t i = part * kSteps; i < (part + 1) * kSteps; ++i) {
      unit.template load<4>(x[0] + i * kStepBytes, x_stride);
      unit.template load<6>(panel.lines[0][i], 64);
      unit.template dot<Lines::kInt8, 0, 4, 6>();
      unit.template load<7>(panel.lines[1][i], 64);
      unit.template dot<Lines::kInt8, 1, 4, 7>();
      if constexpr (kBlocks == 2) {
        unit.template load<5>(x[1] + i * kStepBytes, x_stride);
        unit.template dot<Lines::kInt8, 2, 5, 6>();
        unit.template dot<Lines::kInt8, 3, 5, 7>();
      }
    }
    unit.template store<0>(sums[0], 64);
    unit.template store<1>(sums[1], 64);
    if constexpr (kBlocks == 2) {
      unit.template store<2>(sums[2], 64);
      unit.template store<3>(sums[3], 64);
    }
    for (size_t b = 0; b < kBlocks; ++b) {
      for (size_t t = blocks[b].fresh; t < rows; ++t) {
        float* total = totals[blocks[b].first + t];
        for (size_t h = 0; h < 2; ++h) {
          __m512 sum, scale = panel.scales[h][part];
          if constexpr (Lines::kInt8) {
            float of_token;
            memcpy(&of_token, x_scales[blocks[b].first + t] + 4 * part, 4);
            sum = _mm512_cvtepi32_ps(avx512::load_line(sums[2 * b + h][t]));
            scale = _mm512_mul_ps(scale, _mm512_set1_ps(of_token));
          } else {
            sum = _mm512_load_ps(sums[2 * b + h][t]);
          }
          _mm512_store_ps(total + 16 * h, _mm512_fmadd_ps(sum, scale, _mm512_load_ps(total + 16 * h)));
        }
      }
    }
  }
}

// Rows that are wanted, of one tile and up to kGroupTokens tokens.
template <class Unit, class Lines>
inline void multiply_tile(Unit& unit, const MatmulArgs& a, size_t tile, bool evenly) {
  const size_t padded = padded_cols(a.weight.format, a.weight.cols);
  const std::byte* weights = a.weight.data + tile * tile_bytes(a.weight.format, a.weight.cols);
  const uint8_t* scales =
      a.weight.scales == nullptr ? nullptr
                                 : a.weight.scales + tile * kTileRows / 128 * ((a.weight.cols + 127) / 128);
  constexpr size_t kPanelBytes = Lines::kCols * (Lines::kInt8 ? 1 : 2);  // of a token's activations
  const size_t rows = a.tokens < kBlockTokens ? a.tokens : kBlockTokens;
  alignas(64) float totals[kGroupTokens][kTileRows];
  alignas(64) std::byte gathered[2][kBlockTokens][kPanelBytes];
  typename Lines::Decoded panel;
  const std::byte* x_scales[kGroupTokens];
  memset(totals, 0, a.tokens * sizeof totals[0]);
  for (size_t k = 0; k < padded; k += Lines::kCols) {
    Lines::decode(weights, scales, k, panel);
    const size_t x_at = k * (Lines::kInt8 ? 1 : 2);
    if (Lines::kInt8) {
      for (size_t t = 0; t < a.tokens; ++t) x_scales[t] = a.x[t] + padded + k / 32 * 4;
    }
    for (size_t token = 0; token < a.tokens; token += 2 * kBlockTokens) {
      const size_t left = a.tokens - token, count = left > kBlockTokens ? 2 : 1;
      TokenBlock blocks[2];
      const std::byte* x[2] = {};
      for (size_t b = 0; b < count; ++b) {
        const size_t wanted = token + b * kBlockTokens;
        blocks[b].first = wanted + rows > a.tokens ? a.tokens - rows : wanted;
        blocks[b].fresh = wanted - blocks[b].first;
        x[b] = a.x[blocks[b].first] + x_at;
        if (evenly) continue;
        for (size_t t = 0; t < rows; ++t) memcpy(gathered[b][t], a.x[blocks[b].first + t] + x_at, kPanelBytes);
        x[b] = gathered[b][0];
      }
      const size_t stride = !evenly ? kPanelBytes : a.tokens > 1 ? static_cast<size_t>(a.x[1] - a.x[0]) : 0;
      count == 2 ? add_products<Unit, Lines, 2>(unit, panel, x, stride, x_scales, blocks, rows, totals)
                 : add_products<Unit, Lines, 1>(unit, panel, x, stride, x_scales, blocks, rows, totals);
    }
  }
  const size_t row = tile * kTileRows, begin = row < a.row_begin ? a.row_begin : row;
  const size_t end = row + kTileRows < a.row_end ? row + kTileRows : a.row_end;
  for (size_t t = 0; t < a.tokens; ++t) {
    memcpy(a.y[t] + (begin - a.y_first), totals[t] + (begin - row), (end - begin) * sizeof(float));
  }
}

template <class Unit, class Lines>
__attribute__((noinline)) void multiply(const MatmulArgs& all) {
  Unit unit;
  MatmulArgs a = all;
  for (size_t token = 0; token < all.tokens; token += kGroupTokens, a.x += kGroupTokens, a.y += kGroupTokens) {
    a.tokens = all.tokens - token < kGroupTokens ? all.tokens - token : kGroupTokens;
    const size_t rows = a.tokens < kBlockTokens ? a.tokens : kBlockTokens;
    unit.configure(rows, Lines::kInt8 ? 32 : 64, Lines::kRowsAStep);
    bool evenly = true;  // apart: then registers load them where they lie
    for (size_t t = 2; t < a.tokens; ++t) evenly &= a.x[t] - a.x[t - 1] == a.x[1] - a.x[0];
    for (size_t tile = a.row_begin / kTileRows; tile < tile_count(a.row_end); ++tile) {
      multiply_tile<Unit, Lines>(unit, a, tile, evenly);
    }
  }
  unit.release();
}

template <class Unit>
void unit_products(const MatmulArgs& a) {
  switch (a.weight.format) {
    case WeightFormat::kFp4:
      return a.format == ActivationFormat::kInt8 ? multiply<Unit, Fp4ByteLines>(a) : multiply<Unit, Fp4Lines>(a);
    case WeightFormat::kFp8:
      return multiply<Unit, Fp8Lines>(a);
    case WeightFormat::kBf16:
      return multiply<Unit, Bf16Lines>(a);
    case WeightFormat::kF32:
      return;
  }
}

// Byte products of fewer tokens go to AVX-512, which gives the same bits. By counting (docs/design/kernels.md) the unit's
// loads, stores and products for 32 x 32 weights cost what 11 tokens cost there.
constexpr size_t kFewBytes = 12;

template <class Unit>
void matmul_in_tiles(const MatmulArgs& a) {
  a.format == ActivationFormat::kInt8 && a.tokens < kFewBytes ? avx512::tile_kernels().matmul(a)
                                                              : unit_products<Unit>(a);
}
