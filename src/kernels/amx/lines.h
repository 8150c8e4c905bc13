// From the lines of packed weights to rows of a tile register, included inside the anonymous namespace of each user after
// kernels/avx512/quads.h. What a dot instruction takes for 16 rows is what a row of the matrix unit's second operand is:
// pairs of BF16 or fours of bytes of 16 columns of the result. So a decoded line is a tile row as it stands, and no second
// packing is needed.

// What of a tile of weights is decoded at a time: kCols columns of both halves, `kRowsAStep` rows of a register for each
// 32 columns.
template <size_t kCols, size_t kRowsAStep, size_t kScaleCols>
struct Panel {
  alignas(64) std::byte lines[2][kCols / 32][kRowsAStep][64];
  __m512 scales[2][kCols / kScaleCols];
};

inline void put_line(std::byte* to, __m512i line) {
  _mm512_store_si512(to, line);
}
inline void fetch(const std::byte* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

// How one format is decoded and multiplied: kCols columns at a time, one scale a row for each kScaleCols of them.
template <class Quads, size_t kColumns>
struct WideLines {
  static constexpr size_t kCols = kColumns, kScaleCols = Quads::kCols, kRowsAStep = 16;
  static constexpr bool kInt8 = false;
  using Decoded = Panel<kCols, kRowsAStep, kScaleCols>;

  static inline void decode(const std::byte* tile, const uint8_t* scales, size_t k, Decoded& out) {
    const Quads quads;
    for (size_t part = 0; part < kCols / kScaleCols; ++part, k += kScaleCols) {
      const std::byte* block = Quads::block(tile, k);
      for (size_t q = 0; q < kScaleCols / 4; ++q) {
        for (size_t line = 0; line < Quads::kLines; ++line) fetch(block + (q * Quads::kLines + line) * 64 + kAhead);
        for (size_t h = 0; h < 2; ++h) {
          __m512i first, second;
          quads.load(block, q, h, first, second);
          std::byte* to = out.lines[h][part * kScaleCols / 32 + q / 8][q % 8 * 2];
          put_line(to, first);
          put_line(to + 64, second);
        }
      }
      for (size_t h = 0; h < 2; ++h) out.scales[h][part] = Quads::scale(tile, scales, k, h);
    }
  }
};
using Fp8Lines = WideLines<avx512::Fp8Quads, 128>;
using Bf16Lines = WideLines<avx512::Bf16Quads, 128>;
using Fp4Lines = WideLines<avx512::Fp4Quads, 64>;

// Doubled, so that they are whole: the scale of an activation is halved (narrow() of avx512).
struct Fp4ByteLines {
  static constexpr size_t kCols = 64, kScaleCols = 32, kRowsAStep = 8;
  static constexpr bool kInt8 = true;
  using Decoded = Panel<kCols, kRowsAStep, kScaleCols>;

  static inline void decode(const std::byte* tile, const uint8_t*, size_t k, Decoded& out) {
    const std::byte* block = tile + k / 64 * (17 * 64);
    const __m512i table = avx512::load_line(avx512::kTables.fp4_twice);
    fetch(block + kAhead);
    for (size_t g = 0; g < 2; ++g) {
      for (size_t h = 0; h < 2; ++h) {
        for (size_t line = 0; line < 4; ++line) {
          const std::byte* from = block + 64 + g * 512 + h * 256 + line * 64;
          fetch(from + kAhead);
          const __m512i code = avx512::load_line(from);
          std::byte* to = out.lines[h][g][line * 2];
          put_line(to, _mm512_permutexvar_epi8(code, table));
          put_line(to + 64, _mm512_permutexvar_epi8(_mm512_srli_epi16(code, 4), table));
        }
        out.scales[h][g] = avx512::e8m0(block + 32 * g + 16 * h);
      }
    }
  }
};
