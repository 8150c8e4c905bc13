// From the lines of packed weights (kernels/tiles.h) to rows of a tile register. A line feeds 16 rows of a dot instruction,
// which is what a row of the matrix unit's second operand is: pairs of BF16 or fours of bytes of 16 columns of the result.
// So a decoded line is a tile row as it stands, and no second packing is needed.
//
// Included inside the anonymous namespace of each user. Needs AVX-512 with VBMI.

// What of a tile of weights is decoded at a time: kCols columns of both halves, `kRowsAStep` rows of a register for each
// 32 columns.
template <size_t kCols, size_t kRowsAStep, size_t kScaleCols>
struct Panel {
  alignas(64) std::byte lines[2][kCols / 32][kRowsAStep][64];
  __m512 scales[2][kCols / kScaleCols];
};

inline __m512i line_at(const void* p) {
  return _mm512_loadu_si512(p);
}
inline void put_line(std::byte* to, __m512i line) {
  _mm512_store_si512(to, line);
}
inline void fetch(const std::byte* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

// 16 E8M0 bytes as floats: 0 is the subnormal 2^-127, 255 NaN.
inline __m512 scales_at(const std::byte* p) {
  const __m512i code = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m512i bits = _mm512_max_epi32(_mm512_slli_epi32(code, 23), _mm512_set1_epi32(0x00400000));
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(code, _mm512_set1_epi32(255));
  return _mm512_castsi512_ps(_mm512_mask_or_epi32(bits, nan, bits, _mm512_set1_epi32(0x00400000)));
}

// The BF16 value of an E4M3 code without its sign; 127 is NaN.
constexpr uint16_t bf16_of_e4m3(unsigned code) {
  unsigned exponent = code >> 3, mantissa = code & 7;
  if (code == 127) return 0x7fc0;
  if (code == 0) return 0;
  if (exponent == 0) {
    exponent = 1;
    while ((mantissa & 8) == 0) {
      mantissa <<= 1;
      --exponent;
    }
  }
  return static_cast<uint16_t>((exponent + 120) << 7 | (mantissa & 7) << 4);
}
// Of an E2M1 code.
constexpr uint16_t bf16_of_e2m1(unsigned code) {
  constexpr uint16_t kValues[8] = {0, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0};
  return static_cast<uint16_t>(kValues[code & 7] | (code & 8) << 12);
}
// Twice its value.
constexpr int8_t twice_e2m1(unsigned code) {
  constexpr int8_t kValues[8] = {0, 1, 2, 3, 4, 6, 8, 12};
  return static_cast<int8_t>(code & 8 ? -kValues[code & 7] : kValues[code & 7]);
}

// Upper and lower bytes of what each code becomes, for byte permutations; those look at 7 or 6 bits of an index.
struct ByteTables {
  alignas(64) uint8_t fp8_high[128], fp8_low[128], fp4_high[64], fp4_low[64], fp4_twice[64];
};
constexpr ByteTables make_tables() {
  ByteTables t = {};
  for (unsigned code = 0; code < 128; ++code) {
    t.fp8_high[code] = static_cast<uint8_t>(bf16_of_e4m3(code) >> 8);
    t.fp8_low[code] = static_cast<uint8_t>(bf16_of_e4m3(code) & 255);
  }
  for (unsigned code = 0; code < 64; ++code) {
    t.fp4_high[code] = static_cast<uint8_t>(bf16_of_e2m1(code & 15) >> 8);
    t.fp4_low[code] = static_cast<uint8_t>(bf16_of_e2m1(code & 15) & 255);
    t.fp4_twice[code] = static_cast<uint8_t>(twice_e2m1(code & 15));
  }
  return t;
}
constexpr ByteTables kTables = make_tables();

// How one format is decoded and multiplied: kCols columns at a time, one scale a row for each kScaleCols of them.
struct Fp8Lines {
  static constexpr size_t kCols = 128, kScaleCols = 128, kRowsAStep = 16;
  static constexpr bool kInt8 = false;
  using Decoded = Panel<kCols, kRowsAStep, kScaleCols>;
  static const std::byte* at(const std::byte* tile, size_t k) { return tile + k * kTileRows; }

  static inline void decode(const std::byte* block, const uint8_t* scales, size_t k, Decoded& out) {
    const __m512i high0 = line_at(kTables.fp8_high), high1 = line_at(kTables.fp8_high + 64);
    const __m512i low0 = line_at(kTables.fp8_low), low1 = line_at(kTables.fp8_low + 64);
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    for (size_t q = 0; q < kCols / 4; ++q) {
      for (size_t h = 0; h < 2; ++h) {
        const std::byte* from = block + q * 128 + h * 64;
        fetch(from + kAhead);
        const __m512i code = line_at(from);
        const __m512i high =
            _mm512_ternarylogic_epi32(_mm512_permutex2var_epi8(high0, code, high1), code, sign, 0xf8);
        const __m512i low = _mm512_permutex2var_epi8(low0, code, low1);
        std::byte* to = out.lines[h][q / 8][q % 8 * 2];
        put_line(to, _mm512_unpacklo_epi8(low, high));
        put_line(to + 64, _mm512_unpackhi_epi8(low, high));
      }
    }
    const uint8_t code = scales[k / 128];
    const uint32_t bits = code == 255 ? 0x7fc00000u : code == 0 ? 0x00400000u : static_cast<uint32_t>(code) << 23;
    out.scales[0][0] = out.scales[1][0] = _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(bits)));
  }
};

struct Bf16Lines {
  static constexpr size_t kCols = 128, kScaleCols = 128, kRowsAStep = 16;
  static constexpr bool kInt8 = false;
  using Decoded = Panel<kCols, kRowsAStep, kScaleCols>;
  static const std::byte* at(const std::byte* tile, size_t k) { return tile + 2 * k * kTileRows; }

  // The two lines of a half stand together, the halves in turn: copying puts a half's 16 lines in a row.
  static inline void decode(const std::byte* block, const uint8_t*, size_t, Decoded& out) {
    for (size_t q = 0; q < kCols / 4; ++q) {
      for (size_t h = 0; h < 2; ++h) {
        const std::byte* from = block + q * 256 + h * 128;
        fetch(from + kAhead);
        fetch(from + kAhead + 64);
        std::byte* to = out.lines[h][q / 8][q % 8 * 2];
        put_line(to, line_at(from));
        put_line(to + 64, line_at(from + 64));
      }
    }
    out.scales[0][0] = out.scales[1][0] = _mm512_set1_ps(1);
  }
};

// For the reference policy: E4M3 activations are exact in BF16, not in int8.
struct Fp4Lines {
  static constexpr size_t kCols = 64, kScaleCols = 32, kRowsAStep = 16;
  static constexpr bool kInt8 = false;
  using Decoded = Panel<kCols, kRowsAStep, kScaleCols>;
  static const std::byte* at(const std::byte* tile, size_t k) { return tile + k / 64 * (17 * 64); }

  static inline void decode(const std::byte* block, const uint8_t*, size_t, Decoded& out) {
    const __m512i high_table = line_at(kTables.fp4_high), low_table = line_at(kTables.fp4_low);
    fetch(block + kAhead);
    for (size_t g = 0; g < 2; ++g) {
      for (size_t h = 0; h < 2; ++h) {
        for (size_t line = 0; line < 4; ++line) {
          const std::byte* from = block + 64 + g * 512 + h * 256 + line * 64;
          fetch(from + kAhead);
          __m512i code = line_at(from);
          for (size_t nibble = 0; nibble < 2; ++nibble, code = _mm512_srli_epi16(code, 4)) {
            const __m512i high = _mm512_permutexvar_epi8(code, high_table);
            const __m512i low = _mm512_permutexvar_epi8(code, low_table);
            // Rows 4i and 4i + 1, both pairs; rows 4i + 2 and 4i + 3.
            const __m512 two = _mm512_castsi512_ps(_mm512_unpacklo_epi8(low, high));
            const __m512 next = _mm512_castsi512_ps(_mm512_unpackhi_epi8(low, high));
            std::byte* to = out.lines[h][g][line * 4 + nibble * 2];
            put_line(to, _mm512_castps_si512(_mm512_shuffle_ps(two, next, 0x88)));
            put_line(to + 64, _mm512_castps_si512(_mm512_shuffle_ps(two, next, 0xdd)));
          }
        }
        out.scales[h][g] = scales_at(block + 32 * g + 16 * h);
      }
    }
  }
};

// Doubled, so that they are whole: the scale of an activation is halved (narrow() of avx512).
struct Fp4ByteLines {
  static constexpr size_t kCols = 64, kScaleCols = 32, kRowsAStep = 8;
  static constexpr bool kInt8 = true;
  using Decoded = Panel<kCols, kRowsAStep, kScaleCols>;
  static const std::byte* at(const std::byte* tile, size_t k) { return tile + k / 64 * (17 * 64); }

  static inline void decode(const std::byte* block, const uint8_t*, size_t, Decoded& out) {
    const __m512i table = line_at(kTables.fp4_twice);
    fetch(block + kAhead);
    for (size_t g = 0; g < 2; ++g) {
      for (size_t h = 0; h < 2; ++h) {
        for (size_t line = 0; line < 4; ++line) {
          const std::byte* from = block + 64 + g * 512 + h * 256 + line * 64;
          fetch(from + kAhead);
          const __m512i code = line_at(from);
          std::byte* to = out.lines[h][g][line * 2];
          put_line(to, _mm512_permutexvar_epi8(code, table));
          put_line(to + 64, _mm512_permutexvar_epi8(_mm512_srli_epi16(code, 4), table));
        }
        out.scales[h][g] = scales_at(block + 32 * g + 16 * h);
      }
    }
  }
};
