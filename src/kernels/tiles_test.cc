// Products of tiles: packing against the bytes in rows, every format against float64 on the narrowed activations, the
// same bits in every batch and row range, and the ends of the formats.
#include "kernels/tiles.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/amx/kernels.h"
#include "kernels/registry.h"
#include "tensor/formats.h"

using namespace nautile;

namespace {

struct Random {
  std::mt19937 engine{11};
  uint32_t bits() { return static_cast<uint32_t>(engine()); }
  float normal() { return std::normal_distribution<float>()(engine); }
};

// A matrix in rows (bytes from an odd address), in tiles, and as float64.
struct Matrix {
  WeightView rows, tiles;
  std::vector<std::byte> bytes, packed;
  std::vector<uint8_t> scales;
  std::vector<double> values;

  double scale(size_t r, size_t c) const {
    if (rows.format == WeightFormat::kFp4) return e8m0_to_f32(scales[r * (rows.cols / 32) + c / 32]);
    if (rows.format == WeightFormat::kFp8) return e8m0_to_f32(scales[r / 128 * ((rows.cols + 127) / 128) + c / 128]);
    return 1;
  }
  void pack() {
    packed.assign(tile_count(rows.rows) * tile_bytes(rows.format, rows.cols) + 1, std::byte{0xff});
    pack_tiles(rows, 0, tile_count(rows.rows), packed.data() + 1);
    tiles = rows;
    tiles.layout = WeightLayout::kTiles;
    tiles.data = packed.data() + 1;
    if (rows.format == WeightFormat::kFp4) tiles.scales = nullptr;
    values.resize(rows.rows * rows.cols);
    for (size_t r = 0; r < rows.rows; ++r) {
      for (size_t c = 0; c < rows.cols; ++c) {
        const std::byte* at = rows.data + r * rows.row_bytes();
        uint16_t half;
        double value = 0;
        switch (rows.format) {
          case WeightFormat::kFp4:
            value = e2m1_to_f32(static_cast<uint8_t>(static_cast<uint8_t>(at[c / 2]) >> (4 * (c % 2))));
            break;
          case WeightFormat::kFp8:
            value = e4m3_to_f32(static_cast<uint8_t>(at[c]));
            break;
          default:
            std::memcpy(&half, at + 2 * c, 2);
            value = bf16_to_f32(half);
        }
        values[r * rows.cols + c] = value * scale(r, c);
      }
    }
  }
};

// faint: how many of an FP8 matrix's random codes without an exponent stay so; none of them, a few, all (so that tiles have no
// list of them).
enum class Faint { kNone, kFew, kAll };

Matrix make_matrix(WeightFormat format, size_t rows, size_t cols, Random& random, Faint faint = Faint::kAll) {
  Matrix m;
  m.rows = {format, rows, cols, nullptr, nullptr, WeightLayout::kRows};
  m.bytes.resize(rows * m.rows.row_bytes() + 1);
  for (std::byte& b : m.bytes) {
    b = static_cast<std::byte>(random.bits());
    if (format != WeightFormat::kFp8) continue;
    if ((b & std::byte{0x7f}) == std::byte{0x7f}) b = std::byte{0x7e};  // no NaN
    const bool stays = faint == Faint::kAll || (faint == Faint::kFew && random.bits() % 128 == 0);
    if ((b & std::byte{0x78}) == std::byte{0} && !stays) b |= std::byte{0x40};
  }
  if (format == WeightFormat::kBf16) {
    for (size_t i = 1; i + 1 < m.bytes.size(); i += 2) {
      const uint16_t half = f32_to_bf16(random.normal());
      std::memcpy(&m.bytes[i], &half, 2);
    }
  }
  m.scales.resize(rows * (cols / 32 + 1) + 16);
  for (uint8_t& s : m.scales) s = static_cast<uint8_t>(119 + random.bits() % 12);
  m.scales[0] = 1;  // 2^-126: denormal weights
  m.rows.data = m.bytes.data() + 1;
  m.rows.scales = m.scales.data();
  m.pack();
  return m;
}

// Rows of activations in one format, with the values they stand for.
struct Inputs {
  ActivationFormat format;
  size_t cols, padded, stride;
  std::vector<std::byte> bytes;
  std::vector<double> values;  // [tokens, cols]
  std::vector<const std::byte*> rows;
};

Inputs make_inputs(const TileKernels& kernels, ActivationFormat format, const WeightView& weight, size_t tokens,
                   const std::vector<float>& x) {
  Inputs in;
  in.format = format;
  in.cols = weight.cols;
  in.padded = padded_cols(weight.format, weight.cols);
  in.stride = activation_bytes(format, in.padded) + 3;
  in.bytes.assign(tokens * in.stride, std::byte{0xff});
  for (size_t t = 0; t < tokens; ++t) {
    std::byte* row = in.bytes.data() + t * in.stride;
    // In two pieces, as the expert block writes them.
    const size_t middle = in.cols / 64 * 32;
    if (middle != 0) kernels.narrow({x.data() + t * in.cols, 0, middle, in.cols, in.padded, format, row});
    kernels.narrow({x.data() + t * in.cols + middle, middle, in.cols, in.cols, in.padded, format, row});
    in.rows.push_back(row);
    for (size_t c = 0; c < in.cols; ++c) {
      float scale = 0, value = 0;
      uint16_t half = 0;
      switch (format) {
        case ActivationFormat::kInt8:
        case ActivationFormat::kInt8AndBf16:
        case ActivationFormat::kInt8AndRaised:
          std::memcpy(&scale, row + in.padded + c / 32 * 4, 4);
          in.values.push_back(2.0 * static_cast<double>(scale) * static_cast<int8_t>(row[c]));
          break;
        case ActivationFormat::kBf16:
          std::memcpy(&half, row + 2 * c, 2);
          in.values.push_back(bf16_to_f32(half));
          break;
        case ActivationFormat::kBf16Eights:
          std::memcpy(&half, row + 2 * (c / 8 * 8 + (c % 2 == 0 ? c % 8 / 2 : 4 + c % 8 / 2)), 2);
          in.values.push_back(bf16_to_f32(half));
          break;
        case ActivationFormat::kF32:
        case ActivationFormat::kF32Padded:
          std::memcpy(&value, row + 4 * c, 4);
          in.values.push_back(value);
          break;
        case ActivationFormat::kF32Raised:
          std::memcpy(&value, row + 4 * c, 4);
          in.values.push_back(static_cast<double>(value) * 0x1p-60);
          break;
      }
    }
  }
  return in;
}

std::vector<float> product(const Kernels& kernels, const WeightView& weight, const Inputs& in, size_t first_token,
                           size_t tokens, size_t begin, size_t end) {
  std::vector<float> y(tokens * (end - begin), -1);
  std::vector<float*> rows;
  for (size_t t = 0; t < tokens; ++t) rows.push_back(y.data() + t * (end - begin));
  kernels.matmul({weight, in.format, in.rows.data() + first_token, rows.data(), begin, tokens, begin, end});
  return y;
}

// y [tokens, rows] of all tokens and rows, against float64.
void check_product(const Kernels& kernels, const Matrix& m, const Inputs& in, const std::vector<float>& y) {
  const size_t rows = m.rows.rows, cols = m.rows.cols;
  for (size_t i = 0; i < y.size(); ++i) {
    double sum = 0, size = 0;
    for (size_t k = 0; k < cols; ++k) {
      const double term = in.values[i / rows * cols + k] * m.values[i % rows * cols + k];
      sum += term;
      size += std::fabs(term);
    }
    REQUIRE_MESSAGE(std::fabs(y[i] - sum) <= 4e-6 * size + 1e-30, kernels.name);
  }
}

// The matrix unit's loops over its scalar twin.
const Kernels& twin() {
  static const Kernels table = [] {
    Kernels kernels;
    kernels.name = "amx twin";
    kernels.tiles = &amx::twin::tile_kernels();
    kernels.matmul = kernels.tiles->matmul;
    return kernels;
  }();
  return table;
}

std::vector<const Kernels*> tile_versions() {
  std::vector<const Kernels*> all;
  for (const Kernels* kernels : all_kernels()) {
    if (kernels->tiles == nullptr) continue;
    all.push_back(kernels);
    const bool bf16 = kernels->tiles->wide == ActivationFormat::kBf16;  // its instructions, which the twin needs
    if (bf16 && kernels->name == std::string_view("avx512")) all.push_back(&twin());
  }
  return all;
}

std::vector<ActivationFormat> inputs_of(const Kernels& kernels, WeightFormat format) {
  const TileKernels& tiles = *kernels.tiles;
  if (format != WeightFormat::kFp4) return {tiles.wide};
  if (tiles.wide_fp4 != ActivationFormat::kF32 && tiles.wide_fp4 != tiles.fp4) return {tiles.fp4, tiles.wide_fp4};
  return {tiles.fp4};
}

constexpr WeightFormat kFormats[] = {WeightFormat::kFp4, WeightFormat::kFp8, WeightFormat::kBf16};

}  // namespace

TEST_CASE("tiles give what float64 gives, the same bits for any tokens and rows together") {
  Random random;
  for (const auto& [format, faint] : {std::pair{WeightFormat::kFp4, Faint::kAll}, {WeightFormat::kBf16, Faint::kAll},
                                      {WeightFormat::kFp8, Faint::kAll}, {WeightFormat::kFp8, Faint::kFew}}) {
    for (auto [rows, cols] : {std::pair{1u, 32u}, {40u, 96u}, {131u, 416u}, {64u, 1184u}, {200u, 160u}}) {
      if (format != WeightFormat::kFp4) cols += 5;
      const Matrix m = make_matrix(format, rows, cols, random, faint);
      const size_t tokens = 29;
      std::vector<float> x(tokens * cols);
      for (float& v : x) v = random.normal() * std::exp2(static_cast<float>(random.bits() % 8));
      for (const Kernels* kernels : tile_versions()) {
        for (const ActivationFormat input : inputs_of(*kernels, format)) {
          const Inputs in = make_inputs(*kernels->tiles, input, m.tiles, tokens, x);
          const std::vector<float> y = product(*kernels, m.tiles, in, 0, tokens, 0, rows);
          check_product(*kernels, m, in, y);
          for (size_t together : {1u, 2u, 3u, 4u, 5u, 7u, 8u, 13u}) {
            for (size_t begin = 0; begin < rows; begin += 37) {
              const size_t end = std::min<size_t>(rows, begin + 37);
              const size_t first = together % 3;
              const std::vector<float> part = product(*kernels, m.tiles, in, first, together, begin, end);
              for (size_t t = 0; t < together; ++t) {
                REQUIRE(std::memcmp(part.data() + t * (end - begin), y.data() + (first + t) * rows + begin,
                                    (end - begin) * 4) == 0);
              }
            }
          }
        }
      }
    }
  }
}

TEST_CASE("every FP8 and FP4 code is right in tiles, at every size of scale, subnormals included") {
  for (const WeightFormat format : {WeightFormat::kFp4, WeightFormat::kFp8}) {
    const size_t codes = format == WeightFormat::kFp4 ? 16 : 256, cols = 32;
    for (const uint8_t scale : {0, 1, 63, 64, 100, 127, 190, 191, 200, 245, 255}) {
      Random random;
      Matrix m = make_matrix(format, codes, cols, random);
      std::fill(m.scales.begin(), m.scales.end(), scale);
      for (size_t r = 0; r < codes; ++r) {
        const auto code = static_cast<uint8_t>(format == WeightFormat::kFp4 ? r | r << 4 : r);
        std::memset(m.bytes.data() + 1 + r * m.rows.row_bytes(), code, m.rows.row_bytes());
      }
      m.pack();
      std::vector<float> x(cols, 0.f);
      x[9] = 1;
      for (const Kernels* kernels : tile_versions()) {
        for (const ActivationFormat input : inputs_of(*kernels, format)) {
          const Inputs in = make_inputs(*kernels->tiles, input, m.tiles, 1, x);
          const std::vector<float> y = product(*kernels, m.tiles, in, 0, 1, 0, codes);
          for (size_t r = 0; r < codes; ++r) {
            const double exact = m.values[r * cols + 9] * in.values[9];
            // AVX2 tiles know no NaN code of E4M3: pack_tiles() finds those. NaN scales count everywhere.
            if (scale != 255 && std::isnan(exact) && input == ActivationFormat::kF32Raised) continue;
            if (std::isnan(exact)) {
              CHECK(std::isnan(y[r]));
            } else {
              // Where the product of both scales is subnormal, its rounding counts once for each unit of the codes.
              CHECK_MESSAGE(std::fabs(y[r] - exact) <= 2e-7 * std::fabs(exact) + 5e-42,
                            kernels->name << " code " << r << " scale " << int{scale});
            }
          }
        }
      }
    }
  }
}

// AVX-512 adds the exponents of FP4's scales to those of the activations' while both are usual, and multiplies them else.
TEST_CASE("an extreme scale of FP4 or of an activation is right, and changes no bit of other rows and tokens") {
  Random random;
  const size_t rows = 96, cols = 128, tokens = 7;
  Matrix m = make_matrix(WeightFormat::kFp4, rows, cols, random);
  m.scales[0] = 120;
  m.pack();
  std::vector<float> x(tokens * cols);
  for (float& v : x) v = random.normal();
  std::fill(x.begin() + 64, x.begin() + 96, 0.f);
  const size_t odd_row = 45, odd_token = 3;
  for (const Kernels* kernels : tile_versions()) {
    for (const ActivationFormat input : inputs_of(*kernels, WeightFormat::kFp4)) {
      const Inputs in = make_inputs(*kernels->tiles, input, m.tiles, tokens, x);
      const std::vector<float> usual = product(*kernels, m.tiles, in, 0, tokens, 0, rows);
      check_product(*kernels, m, in, usual);
      const auto same = [&](const std::vector<float>& y, size_t but_row, size_t but_token) {
        for (size_t t = 0; t < tokens; ++t) {
          for (size_t r = 0; r < rows; ++r) {
            if (r == but_row || t == but_token) continue;
            REQUIRE_MESSAGE(std::memcmp(&y[t * rows + r], &usual[t * rows + r], 4) == 0, kernels->name << " " << r << " " << t);
          }
        }
      };
      for (const uint8_t scale : {0, 1, 63, 64, 190, 191, 220}) {
        Matrix with = m;
        with.rows.data = with.bytes.data() + 1;
        with.rows.scales = with.scales.data();
        with.scales[odd_row * (cols / 32) + 2] = scale;
        with.pack();
        const std::vector<float> y = product(*kernels, with.tiles, in, 0, tokens, 0, rows);
        check_product(*kernels, with, in, y);
        same(y, odd_row, tokens);
      }
      for (const float size : {0x1p-126f, 0x1p-98f, 0x1p-63f, 0x1p-62f, 0x1p-55f, 0x1p60f, 0x1p63f, 0x1p64f, 0x1p100f, 0x1p119f}) {
        std::vector<float> with = x;
        for (size_t c = 32; c < 64; ++c) with[odd_token * cols + c] *= size;
        const Inputs other = make_inputs(*kernels->tiles, input, m.tiles, tokens, with);
        const std::vector<float> y = product(*kernels, m.tiles, other, 0, tokens, 0, rows);
        check_product(*kernels, m, other, y);
        same(y, rows, odd_token);
      }
    }
  }
}

TEST_CASE("a faint code among others is right at every place, for any tokens together") {
  Random random;
  const size_t rows = 45, cols = 261, tokens = 11;
  Matrix m = make_matrix(WeightFormat::kFp8, rows, cols, random, Faint::kNone);
  const std::vector<std::byte> plain = m.bytes;
  std::vector<float> x(tokens * cols);
  for (float& v : x) v = random.normal();
  for (size_t turn = 0; turn < 64; ++turn) {
    m.bytes = plain;
    m.rows.data = m.bytes.data() + 1;
    for (size_t i = turn; i < rows * cols; i += 1601) {
      m.bytes[1 + i] = static_cast<std::byte>((turn + i / 1601) % 8 | (turn / 8 % 2) << 7);
      for (size_t t = 0; t < tokens; ++t) x[t * cols + i % cols] = static_cast<float>(200 + t);  // it counts
    }
    m.pack();
    uint32_t count = 0;
    std::memcpy(&count, m.tiles.data + faint_list_place(padded_cols(WeightFormat::kFp8, cols)), 4);
    REQUIRE(count >= 1);
    REQUIRE(count != kNoList);
    for (const Kernels* kernels : tile_versions()) {
      const Inputs in = make_inputs(*kernels->tiles, kernels->tiles->wide, m.tiles, tokens, x);
      const std::vector<float> y = product(*kernels, m.tiles, in, 0, tokens, 0, rows);
      check_product(*kernels, m, in, y);
      for (size_t t = 0; t < tokens; ++t) {
        const std::vector<float> alone = product(*kernels, m.tiles, in, t, 1, 0, rows);
        REQUIRE(std::memcmp(alone.data(), y.data() + t * rows, rows * 4) == 0);
      }
    }
  }
}

TEST_CASE("int8 activations: extremes keep their scale, zeros stay zero, NaN and infinity are not hidden") {
  for (const Kernels* kernels : tile_versions()) {
    const TileKernels& tiles = *kernels->tiles;
    if (tiles.fp4 != ActivationFormat::kInt8 && tiles.fp4 != ActivationFormat::kInt8AndRaised) continue;
    const WeightView shape{WeightFormat::kFp4, 32, 64, nullptr, nullptr, WeightLayout::kTiles};
    std::vector<float> x(64, 0.f);
    x[3] = 3e38f;
    x[40] = 1e-30f;
    x[41] = -0.5e-30f;
    const Inputs in = make_inputs(tiles, tiles.fp4, shape, 1, x);
    CHECK(in.values[3] == doctest::Approx(3e38).epsilon(1e-6));
    CHECK(in.values[4] == 0);
    CHECK(in.values[40] == doctest::Approx(1e-30).epsilon(1e-6));
    CHECK(in.values[41] == doctest::Approx(-0.5e-30).epsilon(1e-2));

    Random random;
    const Matrix m = make_matrix(WeightFormat::kFp4, 5, 64, random);
    for (const float bad : {std::nanf(""), HUGE_VALF}) {
      std::fill(x.begin(), x.end(), 1.f);
      x[50] = bad;
      const Inputs with = make_inputs(tiles, tiles.fp4, m.tiles, 1, x);
      for (const float y : product(*kernels, m.tiles, with, 0, 1, 0, 5)) CHECK(!std::isfinite(y));
    }
  }
}

TEST_CASE("tokens that do not lie evenly, and more than one group of them, change no bit") {
  Random random;
  for (const WeightFormat format : kFormats) {
    const size_t rows = 37, cols = format == WeightFormat::kFp4 ? 96 : 131, tokens = 150;
    const Matrix m = make_matrix(format, rows, cols, random);
    std::vector<float> x(tokens * cols);
    for (float& v : x) v = random.normal();
    for (const Kernels* kernels : tile_versions()) {
      for (const ActivationFormat input : inputs_of(*kernels, format)) {
        INFO(kernels->name);
        Inputs in = make_inputs(*kernels->tiles, input, m.tiles, tokens, x);
        const std::vector<float> y = product(*kernels, m.tiles, in, 0, tokens, 0, rows);
        std::vector<size_t> order(tokens);
        for (size_t t = 0; t < tokens; ++t) order[t] = t * 77 % tokens;
        Inputs mixed = in;
        for (size_t t = 0; t < tokens; ++t) mixed.rows[t] = in.rows[order[t]];
        for (const size_t together : {size_t{2}, size_t{12}, size_t{17}, size_t{31}, size_t{33}, size_t{129}, tokens}) {
          const std::vector<float> part = product(*kernels, m.tiles, mixed, 0, together, 0, rows);
          for (size_t t = 0; t < together; ++t) {
            REQUIRE(std::memcmp(part.data() + t * rows, y.data() + order[t] * rows, rows * 4) == 0);
          }
        }
      }
    }
  }
}

TEST_CASE("bytes with scales that are powers of two: near the value, the same in BF16, NaN and infinity are not hidden") {
  Random random;
  const size_t cols = 160, tokens = 40;
  const Matrix m = make_matrix(WeightFormat::kFp4, 5, cols, random);
  std::vector<float> x(tokens * cols);
  for (float& v : x) v = random.normal() * std::exp2(static_cast<float>(random.bits() % 40) - 20);
  for (size_t c = 0; c < 32; ++c) x[c] = 0;
  x[32] = 127.5f;
  x[64] = 127.51f;
  x[96] = 1e-17f;
  x[128] = 1e17f;
  for (const Kernels* kernels : tile_versions()) {
    if (kernels->tiles->fp4 != ActivationFormat::kInt8AndBf16) continue;
    const Inputs in = make_inputs(*kernels->tiles, ActivationFormat::kInt8AndBf16, m.tiles, tokens, x);
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t group = 0; group < cols; group += 32) {
        double most = 0;
        for (size_t c = group; c < group + 32; ++c) most = std::max(most, std::fabs(static_cast<double>(x[t * cols + c])));
        for (size_t c = group; c < group + 32; ++c) {
          const double value = in.values[t * cols + c];
          CHECK(std::fabs(x[t * cols + c] - value) <= most / 127.5);  // half of a unit, which is at most most / 63.75
          uint16_t half;
          std::memcpy(&half, in.rows[t] + bf16_place(in.padded) + 2 * (c / 8 * 8 + (c % 2 == 0 ? c % 8 / 2 : 4 + c % 8 / 2)), 2);
          CHECK(static_cast<double>(bf16_to_f32(half)) == value);
        }
      }
    }
    for (const float bad : {std::nanf(""), HUGE_VALF}) {
      std::vector<float> with(x.begin(), x.begin() + 16 * static_cast<std::ptrdiff_t>(cols));
      for (size_t t = 0; t < 16; ++t) with[t * cols + 50] = bad;
      const Inputs inputs = make_inputs(*kernels->tiles, ActivationFormat::kInt8AndBf16, m.tiles, 16, with);
      for (const size_t count : {size_t{1}, size_t{16}}) {
        for (const float y : product(*kernels, m.tiles, inputs, 0, count, 0, 5)) CHECK(!std::isfinite(y));
      }
    }
  }
}
