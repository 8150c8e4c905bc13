// The loops of the matrix unit's products, over a class Unit of eight tile registers; lines.h comes first.
//
// Registers: 0 to 3 sums of (token block b, half h) at 2 b + h, 4 and 5 activations of the token blocks, 6 and 7 the halves
// of a step of weights. A token block is up to 16 tokens; its registers have as many rows.
//
// While the unit multiplies a panel of weights, the vector units decode the next one, a product and a few lines in turns: a
// core looks ahead by some hundred instructions only.
//
// Order of sums: in the unit's own within 32 columns (even and odd ones apart, then together), these added one after
// another from zero along the row. It depends on the output's row and the token alone, since a row of a product sees one
// row of the first operand. FP4 with kInt8AndBf16: the 32 columns are exact, so AVX-512's bytes give the same bits.

constexpr size_t kBlockTokens = 16, kPairTokens = 2 * kBlockTokens;
constexpr size_t kGroupTokens = 128;  // for which weights are decoded once
constexpr size_t kPanelSteps = 4;     // two panels and what passes by stay in the first-level cache
constexpr size_t kPanelCols = kPanelSteps * kStepCols;

// Where in a matrix's tiles the next step to decode is. Never in memory: what a unit loads the compiler takes to be anywhere.
template <class Lines>
struct Cursor {
  const std::byte* weights;  // of the tile
  const uint8_t* scales;
  size_t k = 0, left;  // its first column; steps up to the panel's end
  Step* to;
  bool whole = true;  // none of the tile's scales was left out
  Lines lines = {};

  // Decodes a quarter of it, 0 to 3 in turn.
  template <size_t kPart>
  [[gnu::always_inline]] void part() {
    if (left == 0) return;
    whole &= lines.template decode<kPart>(weights, scales, k, *to);
    if constexpr (kPart != 3) return;
    k += kStepCols;
    ++to;
    --left;
  }
  void step() {
    part<0>();
    part<1>();
    part<2>();
    part<3>();
  }
};

// Some rows by AVX-512: few tokens, and weights whose scales do not fold. The bits are those of the unit: with scales that are
// powers of two a sum over 32 columns is exact in either, and is added to the total with one rounding.
inline void multiply_bytes(const MatmulArgs& all, size_t row_begin, size_t row_end) {
  MatmulArgs a = all;
  a.format = ActivationFormat::kInt8;
  a.row_begin = row_begin;
  a.row_end = row_end;
  avx512::tile_kernels(true).matmul(a);
}

inline const uint8_t* scales_of(const MatmulArgs& a, size_t tile) {
  return a.weight.scales == nullptr ? nullptr : a.weight.scales + tile * kTileRows / 128 * ((a.weight.cols + 127) / 128);
}

// The panel at hand times the activations of one or two token blocks, x[b] from their column k on. It is one of `passes` over
// this panel, through which the next one's decoding is spread.
template <size_t kBlocks, class Unit, class Lines>
[[gnu::always_inline]] inline void multiply_panel(Unit& unit, const Step* panel, size_t steps, const std::byte* const* x,
                                                  size_t stride, Cursor<Lines>& cursor, size_t pass, size_t passes) {
  for (size_t i = 0; i < steps; ++i) {
    const bool decodes = passes == 1 || i % passes == pass;
    unit.template load<4>(x[0] + i * 64, stride);
    unit.template load<6>(panel[i].lines[0], 64);
    unit.template dot<0, 4, 6>();
    if (decodes) cursor.template part<0>();
    unit.template load<7>(panel[i].lines[1], 64);
    unit.template dot<1, 4, 7>();
    if (decodes) cursor.template part<1>();
    if constexpr (kBlocks == 2) {
      unit.template load<5>(x[1] + i * 64, stride);
      unit.template dot<2, 5, 6>();
    }
    if (decodes) cursor.template part<2>();
    if constexpr (kBlocks == 2) unit.template dot<3, 5, 7>();
    if (decodes) cursor.template part<3>();
  }
}

// Up to kGroupTokens tokens, whose BF16 values start at byte x_at of their rows. `evenly`: these lie as far apart as the first
// two; registers load them there.
template <size_t kBlocks, class Unit, class Lines>
__attribute__((noinline)) void multiply_group(Unit& unit, const MatmulArgs& a, size_t x_at, bool evenly) {
  constexpr size_t kSecond = kBlockTokens * kTileRows;
  alignas(64) float sums[kGroupTokens][kTileRows];
  alignas(64) std::byte gathered[kPairTokens][kPanelCols * 2];
  Step panels[2][kPanelSteps];
  const size_t padded = padded_cols(Lines::kFormat, a.weight.cols), bytes = tile_bytes(Lines::kFormat, a.weight.cols);
  const size_t pairs = (a.tokens + kPairTokens - 1) / kPairTokens;
  const size_t rows = a.tokens < kPairTokens ? a.tokens : kPairTokens;  // tokens of a pair
  const size_t stride = !evenly ? sizeof gathered[0] : a.tokens > 1 ? static_cast<size_t>(a.x[1] - a.x[0]) : 0;
  const auto steps_of = [&](size_t k) { return padded - k < kPanelCols ? (padded - k) / kStepCols : kPanelSteps; };
  const size_t first_tile = a.row_begin / kTileRows, end_tile = tile_count(a.row_end);
  size_t turn = 0;  // which panel is at hand
  Cursor<Lines> cursor = {};
  const auto enter = [&](size_t tile) {
    cursor.weights = a.weight.data + tile * bytes;
    cursor.scales = scales_of(a, tile);
    cursor.k = 0;
    cursor.left = steps_of(0);
    cursor.whole = true;
  };
  unit.configure(rows < kBlockTokens ? rows : kBlockTokens, kBlocks == 2 ? rows - kBlockTokens : 1);
  enter(first_tile);
  cursor.to = panels[0];
  while (cursor.left != 0) cursor.step();
  for (size_t tile = first_tile; tile < end_tile; ++tile) {
    bool whole = true;
    for (size_t k = 0; k < padded; k += kPanelCols, turn ^= 1) {
      const size_t steps = steps_of(k);
      const bool last = k + steps * kStepCols == padded;
      whole = cursor.whole;
      if (!last) {
        cursor.left = steps_of(cursor.k);
      } else if (tile + 1 < end_tile) {
        enter(tile + 1);
      }
      cursor.to = panels[turn ^ 1];
      for (size_t pair = 0; pair < pairs; ++pair) {
        // The last pair reaches back, so that it is full.
        const size_t first = (pair + 1) * kPairTokens <= a.tokens ? pair * kPairTokens : a.tokens - rows;
        const size_t at = x_at + 2 * k;
        const std::byte* x[2] = {a.x[first] + at, kBlocks == 2 ? a.x[first + kBlockTokens] + at : nullptr};
        if (!evenly) {
          for (size_t t = 0; t < rows; ++t) memcpy(gathered[t], a.x[first + t] + at, steps * 64);
          x[0] = gathered[0];
          x[1] = gathered[kBlockTokens];
        }
        float* sum = sums[pair * kPairTokens];
        if (k == 0) {
          unit.template zero<0>();
          unit.template zero<1>();
          if constexpr (kBlocks == 2) {
            unit.template zero<2>();
            unit.template zero<3>();
          }
        } else if (kBlocks == 2 && pairs > 1) {
          unit.template load<0>(sum, sizeof sums[0]);
          unit.template load<1>(sum + 16, sizeof sums[0]);
          unit.template load<2>(sum + kSecond, sizeof sums[0]);
          unit.template load<3>(sum + kSecond + 16, sizeof sums[0]);
        }
        multiply_panel<kBlocks>(unit, panels[turn], steps, x, stride, cursor, pair, pairs);
        if (!last && pairs == 1) continue;  // they stay
        unit.template store<0>(sum, sizeof sums[0]);
        unit.template store<1>(sum + 16, sizeof sums[0]);
        if constexpr (kBlocks == 2) {
          unit.template store<2>(sum + kSecond, sizeof sums[0]);
          unit.template store<3>(sum + kSecond + 16, sizeof sums[0]);
        }
      }
      while (cursor.left != 0) cursor.step();
    }
    const size_t row = tile * kTileRows, begin = row < a.row_begin ? a.row_begin : row;
    const size_t end = row + kTileRows < a.row_end ? row + kTileRows : a.row_end;
    if (!whole && a.format == ActivationFormat::kInt8AndBf16) {
      multiply_bytes(a, begin, end);
      continue;
    }
    for (size_t t = 0; t < a.tokens; ++t) {
      // Of a pair that reaches back, the last tokens are the new ones.
      float* total = sums[pairs > 1 && t / kPairTokens == pairs - 1 ? t + pairs * kPairTokens - a.tokens : t];
      if (!whole) add_rest<Lines>(a.weight.data + tile * bytes, scales_of(a, tile), padded, a.x[t] + x_at, total);
      memcpy(a.y[t] + (begin - a.y_first), total + (begin - row), (end - begin) * sizeof(float));
    }
  }
}

template <class Unit, class Lines>
void multiply(const MatmulArgs& all, size_t x_at = 0) {
  Unit unit;
  MatmulArgs a = all;
  for (size_t token = 0; token < all.tokens; token += kGroupTokens, a.x += kGroupTokens, a.y += kGroupTokens) {
    a.tokens = all.tokens - token < kGroupTokens ? all.tokens - token : kGroupTokens;
    bool evenly = true;
    for (size_t t = 2; t < a.tokens; ++t) evenly &= a.x[t] - a.x[t - 1] == a.x[1] - a.x[0];
    a.tokens > kBlockTokens ? multiply_group<2, Unit, Lines>(unit, a, x_at, evenly)
                            : multiply_group<1, Unit, Lines>(unit, a, x_at, evenly);
  }
  unit.release();
}

// Up to so many tokens AVX-512 is faster with bytes.
constexpr size_t kFewTokens = 6;

template <class Unit>
void matmul_in_tiles(const MatmulArgs& a) {
  switch (a.weight.format) {
    case WeightFormat::kFp4:
      if (a.format != ActivationFormat::kInt8AndBf16) return multiply<Unit, Fp4Lines>(a);
      return a.tokens <= kFewTokens ? multiply_bytes(a, a.row_begin, a.row_end)
                                    : multiply<Unit, Fp4Lines>(a, bf16_place(padded_cols(a.weight.format, a.weight.cols)));
    case WeightFormat::kFp8:
      return multiply<Unit, Fp8Lines>(a);
    case WeightFormat::kBf16:
      return multiply<Unit, Bf16Lines>(a);
    case WeightFormat::kF32:
      return;
  }
}
