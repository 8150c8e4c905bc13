// From the lines of packed weights to rows of a tile register, included inside the anonymous namespace of each user after
// kernels/avx512/quads.h.
//
// What a dot instruction takes for 16 rows is what a row of the matrix unit's second operand is: pairs of BF16 of 16 rows
// of weights. Their scales are powers of two, so they go into the BF16 values, exactly: sums then need no scaling, and may
// stay in the unit over a whole row. A scale outside 2^-64 .. 2^63 would not fit; no checkpoint has one. Its weights
// count as zero here; add_rest() brings them in by plain code, or bytes take the tile (products.h).

constexpr size_t kStepCols = 32;  // of a product of the unit

// A step of weights: a register for each half of a tile.
struct Step {
  alignas(64) std::byte lines[2][16][64];
};

constexpr unsigned kLeastScale = 127 - 64, kMostScale = 127 + 63;
constexpr bool folds(uint8_t scale) {
  return scale >= kLeastScale && scale <= kMostScale;
}

inline void put_line(std::byte* to, __m512i line) {
  _mm512_store_si512(to, line);
}
inline void fetch(const std::byte* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}
inline float bf16_value(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
inline float e8m0_value(uint8_t code) {
  return _mm512_cvtss_f32(avx512::e8m0_all(code));
}

// Each format: decode<kPart>() writes a quarter of a step of columns from k on, 0 to 3 in turn, and returns whether its scales
// fold; scale_code() and value() are those of row r, column c of a tile; x_place() is where a column's activation stands.

struct Fp8Lines {
  static constexpr WeightFormat kFormat = WeightFormat::kFp8;
  static constexpr size_t kScaleCols = 128;

  // Upper and lower bytes of the BF16 of each code without its sign, times each scale that folds; then all zero.
  struct Tables {
    alignas(64) uint8_t high[128], low[128];
  };
  struct AllTables {
    Tables of[kMostScale - kLeastScale + 2];
  };
  static constexpr AllTables make_tables() {
    AllTables all = {};
    for (unsigned scale = kLeastScale; scale <= kMostScale; ++scale) {
      for (unsigned code = 1; code < 128; ++code) {
        const unsigned value = code == 127 ? avx512::bf16_of_e4m3(127) : avx512::bf16_of_e4m3(code) + (scale << 7) - (127 << 7);
        all.of[scale - kLeastScale].high[code] = static_cast<uint8_t>(value >> 8);
        all.of[scale - kLeastScale].low[code] = static_cast<uint8_t>(value & 255);
      }
    }
    return all;
  }
  static const AllTables kTables;

  __m512i high0, high1, low0, low1, sign = _mm512_set1_epi8(static_cast<char>(0x80));
  __m512i upper = _mm512_set1_epi16(static_cast<int16_t>(0xff00));  // bytes of words

  template <size_t kPart>
  [[gnu::always_inline]] bool decode(const std::byte* tile, const uint8_t* scales, size_t k, Step& out) {
    const uint8_t scale = scales[k / kScaleCols];
    if constexpr (kPart == 0) {
      const Tables& t = kTables.of[folds(scale) ? scale - kLeastScale : kMostScale - kLeastScale + 1];
      high0 = avx512::load_line(t.high);
      high1 = avx512::load_line(t.high + 64);
      low0 = avx512::load_line(t.low);
      low1 = avx512::load_line(t.low + 64);
    }
    const std::byte* from = tile + k * kTileRows + kPart * 256;
#pragma GCC unroll 2
    for (size_t q = 2 * kPart; q < 2 * kPart + 2; ++q) {
#pragma GCC unroll 2
      for (size_t h = 0; h < 2; ++h, from += 64) {
        fetch(from + kAhead);
        const __m512i code = avx512::load_line(from);
        const __m512i high =
            _mm512_ternarylogic_epi32(_mm512_permutex2var_epi8(high0, code, high1), code, sign, 0xf8);
        // The lower bytes stand at each other's places, so that one instruction joins a pair with its upper bytes.
        const __m512i low = _mm512_permutex2var_epi8(low0, _mm512_shldi_epi16(code, code, 8), low1);
        put_line(out.lines[h][2 * q], _mm512_ternarylogic_epi32(upper, high, low, 0xca));
        put_line(out.lines[h][2 * q + 1], _mm512_shldi_epi16(high, low, 8));
      }
    }
    return folds(scale);
  }

  static uint8_t scale_code(const std::byte*, const uint8_t* scales, size_t, size_t c) { return scales[c / kScaleCols]; }
  static float value(const std::byte* tile, size_t r, size_t c) {
    const auto code = static_cast<uint8_t>(tile[fp8_place(r, c)]);
    return bf16_value(static_cast<uint16_t>(avx512::bf16_of_e4m3(code & 127) | (code & 128) << 8));
  }
  static constexpr size_t x_place(size_t c) { return c; }
};
constexpr Fp8Lines::AllTables Fp8Lines::kTables = Fp8Lines::make_tables();

struct Bf16Lines {
  static constexpr WeightFormat kFormat = WeightFormat::kBf16;
  static constexpr size_t kScaleCols = 128;

  template <size_t kPart>
  [[gnu::always_inline]] bool decode(const std::byte* tile, const uint8_t*, size_t k, Step& out) {
    const std::byte* from = tile + 2 * k * kTileRows + kPart * 512;
#pragma GCC unroll 2
    for (size_t q = 2 * kPart; q < 2 * kPart + 2; ++q) {
#pragma GCC unroll 4
      for (size_t i = 0; i < 4; ++i, from += 64) {
        fetch(from + kAhead);
        put_line(out.lines[i / 2][2 * q + i % 2], avx512::load_line(from));
      }
    }
    return true;
  }
  static uint8_t scale_code(const std::byte*, const uint8_t*, size_t, size_t) { return 127; }
  static float value(const std::byte*, size_t, size_t) { return 0; }
  static constexpr size_t x_place(size_t c) { return c; }
};

// A line has four codes in each 16 bits: columns 0, 4, 1, 5 of eight, and 2, 6, 3, 7 in the next. So what its low nibbles of
// even bytes become are the pairs of columns 0 and 2 of 16 rows, and further ones 4 and 6, 1 and 3, 5 and 7: the order of
// kBf16Eights.
struct Fp4Lines {
  static constexpr WeightFormat kFormat = WeightFormat::kFp4;
  static constexpr size_t kScaleCols = 32;

  // The bytes of the BF16 of each code times 2^64, from which a subtraction that saturates takes 64 exponents less those of
  // the scale. Zero is the least number that it knows, -0, and so stays zero. Four times: the upper bits of an index are
  // the next code's.
  struct Table {
    alignas(64) uint8_t high[64], low[64], swap[64];
  };
  static constexpr Table make_table() {
    Table t = {};
    for (unsigned i = 0; i < 64; ++i) {
      const unsigned value = (i & 7) == 0 ? 0x8000 : avx512::bf16_of_e2m1(i & 15) + (64 << 7);
      t.high[i] = static_cast<uint8_t>(value >> 8);
      t.low[i] = static_cast<uint8_t>(value & 255);
      t.swap[i] = static_cast<uint8_t>((i & 15) ^ 1);
    }
    return t;
  }
  static const Table kTable;

  __m512i high = avx512::load_line(kTable.high), low = avx512::load_line(kTable.low);
  __m512i swap = avx512::load_line(kTable.swap);  // the bytes of a word
  __m512i upper = _mm512_set1_epi16(static_cast<int16_t>(0xff00));

  template <size_t kPart>
  [[gnu::always_inline]] bool decode(const std::byte* tile, const uint8_t*, size_t k, Step& out) {
    const std::byte* block = tile + k / 64 * (17 * 64);
    if constexpr (kPart % 2 == 1) return true;  // a half at a time: its scales serve it all
    constexpr size_t kHalf = kPart / 2;
    const std::byte* codes = block + k % 64 + 16 * kHalf;  // of its scales
    const std::byte* from = block + 64 + k % 64 * 16 + kHalf * 256;
    std::byte* to = out.lines[kHalf][0];
    if (kPart == 0 && k % 64 == 0) fetch(block + kAhead);
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    const __m512i scale = _mm512_cvtepu8_epi32(bytes), words = _mm512_or_si512(scale, _mm512_slli_epi32(scale, 16));
    const __m512i less = _mm512_slli_epi16(_mm512_sub_epi16(_mm512_set1_epi16(127 + 64), words), 7);
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i, from += 64, to += 256) {
      fetch(from + kAhead);
      const __m512i word = avx512::load_line(from), next = _mm512_srli_epi16(word, 4);
      const __m512i high0 = _mm512_permutexvar_epi8(word, high), high1 = _mm512_permutexvar_epi8(next, high);
      // The lower bytes stand at each other's places, so that one instruction joins a pair with its upper bytes.
      const __m512i low0 = _mm512_permutexvar_epi8(_mm512_shuffle_epi8(word, swap), low);
      const __m512i low1 = _mm512_permutexvar_epi8(_mm512_shldi_epi16(word, word, 4), low);
      put_line(to, _mm512_subs_epi16(_mm512_shldi_epi16(high0, low0, 8), less));
      put_line(to + 64, _mm512_subs_epi16(_mm512_shldi_epi16(high1, low1, 8), less));
      put_line(to + 128, _mm512_subs_epi16(_mm512_ternarylogic_epi32(upper, high0, low0, 0xca), less));
      put_line(to + 192, _mm512_subs_epi16(_mm512_ternarylogic_epi32(upper, high1, low1, 0xca), less));
    }
    const __mmask16 bad = _mm_cmpgt_epu8_mask(_mm_sub_epi8(bytes, _mm_set1_epi8(kLeastScale)),
                                              _mm_set1_epi8(kMostScale - kLeastScale));
    if (bad != 0) clear_rows(bad, out.lines[kHalf][0]);
    return bad == 0;
  }
  __attribute__((noinline)) static void clear_rows(__mmask16 rows, std::byte* lines) {
    for (size_t i = 0; i < 16; ++i) _mm512_mask_storeu_epi32(lines + 64 * i, rows, _mm512_setzero_si512());
  }

  static uint8_t scale_code(const std::byte* tile, const uint8_t*, size_t r, size_t c) {
    return static_cast<uint8_t>(tile[c / 64 * (17 * 64) + c % 64 / 32 * 32 + r]);
  }
  static float value(const std::byte* tile, size_t r, size_t c) {
    const std::byte* at =
        tile + c / 64 * (17 * 64) + 64 + c % 64 / 32 * 512 + r / 16 * 256 + c % 32 / 8 * 64 + r % 16 * 4 + c % 4;
    return bf16_value(avx512::bf16_of_e2m1(static_cast<unsigned>(*at) >> (c % 8 / 4 * 4) & 15));
  }
  static constexpr size_t x_place(size_t c) { return c / 8 * 8 + (c % 2 == 0 ? c % 8 / 2 : 4 + c % 8 / 2); }
};
constexpr Fp4Lines::Table Fp4Lines::kTable = Fp4Lines::make_table();

// What decode() left out of a tile, for one token: x is its row; total [kTileRows].
template <class Lines>
__attribute__((noinline)) void add_rest(const std::byte* tile, const uint8_t* scales, size_t cols, const std::byte* x,
                                        float* total) {
  for (size_t k = 0; k < cols; k += Lines::kScaleCols) {
    for (size_t r = 0; r < kTileRows; ++r) {
      const uint8_t code = Lines::scale_code(tile, scales, r, k);
      if (folds(code)) continue;
      float sum = 0;
      for (size_t c = k; c < k + Lines::kScaleCols; ++c) {
        uint16_t half;
        memcpy(&half, x + 2 * Lines::x_place(c), 2);
        sum += Lines::value(tile, r, c) * bf16_value(half);
      }
      total[r] += e8m0_value(code) * sum;
    }
  }
}
