// Every code of every format, and the published spot values and ties.
#include "tensor/formats.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tensor/quantise.h"

using namespace nautile;

namespace {

// The nearest value of a grid by brute force, ties to the even code: what rounding must mean.
template <class Decode>
uint8_t nearest(double x, int codes, Decode decode, float largest) {
  const double clamped = std::min<double>(std::max<double>(x, -largest), largest);
  int best = -1;
  for (int code = 0; code < codes; ++code) {
    const double value = decode(static_cast<uint8_t>(code));
    if (std::isnan(value) || std::isinf(value) || std::signbit(value) != std::signbit(x)) continue;
    if (best < 0) {
      best = code;
      continue;
    }
    const double gap = std::fabs(value - clamped), best_gap = std::fabs(decode(static_cast<uint8_t>(best)) - clamped);
    if (gap < best_gap || (gap == best_gap && code % 2 == 0)) best = code;
  }
  return static_cast<uint8_t>(best);
}

template <class Decode, class Encode>
void check_format(int codes, Decode decode, Encode encode, float largest) {
  std::vector<float> values;
  for (int code = 0; code < codes; ++code) {
    const float value = decode(static_cast<uint8_t>(code));
    if (std::isnan(value) || std::isinf(value)) continue;
    CHECK(encode(value) == code);
    values.push_back(value);
  }
  std::sort(values.begin(), values.end());
  for (size_t i = 0; i + 1 < values.size(); ++i) {
    const float a = values[i], b = values[i + 1], middle = (a + b) / 2;
    for (float x : {middle, std::nextafter(middle, a), std::nextafter(middle, b), a + (b - a) * 0.3f}) {
      if (x == 0) continue;
      CHECK_MESSAGE(encode(x) == nearest(x, codes, decode, largest), x);
    }
  }
  CHECK(decode(encode(largest * 4)) == largest);
  CHECK(decode(encode(-largest * 4)) == -largest);
}

}  // namespace

TEST_CASE("bf16: all 2^16 codes survive, rounding is to nearest even") {
  for (uint32_t code = 0; code < 65536; ++code) {
    const float value = bf16_to_f32(static_cast<uint16_t>(code));
    if (std::isnan(value)) {
      CHECK(std::isnan(bf16_to_f32(f32_to_bf16(value))));
      continue;
    }
    REQUIRE(f32_to_bf16(value) == code);
    if (std::isinf(value) || (code & 0x7fff) == 0x7f7f) continue;
    const float next = bf16_to_f32(static_cast<uint16_t>(code + 1));
    const float tie = static_cast<float>((static_cast<double>(value) + next) / 2);
    REQUIRE(f32_to_bf16(tie) == (code % 2 == 0 ? code : code + 1));
  }
  CHECK(std::isinf(round_bf16(3.4e38f)));
  CHECK(std::isnan(round_bf16(std::bit_cast<float>(0x7f800001u))));
}

TEST_CASE("e4m3, e5m2, e2m1: every code and every gap between codes") {
  check_format(256, e4m3_to_f32, f32_to_e4m3, 448.f);
  check_format(256, e5m2_to_f32, f32_to_e5m2, 57344.f);
  check_format(16, e2m1_to_f32, f32_to_e2m1, 6.f);
}

TEST_CASE("spot values of the specification") {
  CHECK(e4m3_to_f32(0x38) == 1.f);
  CHECK(e4m3_to_f32(0x01) == 0x1p-9f);
  CHECK(e4m3_to_f32(0x7e) == 448.f);
  CHECK(std::isnan(e4m3_to_f32(0x7f)));
  CHECK(std::isnan(e4m3_to_f32(0xff)));
  CHECK(std::isinf(e5m2_to_f32(0x7c)));
  CHECK(e8m0_to_f32(0) == 0x1p-127f);
  CHECK(e8m0_to_f32(127) == 1.f);
  CHECK(e8m0_to_f32(254) == 0x1p127f);
  CHECK(std::isnan(e8m0_to_f32(255)));
  for (auto [in, out] :
       {std::pair{0.25f, 0.f}, {0.75f, 1.f}, {1.25f, 1.f}, {1.75f, 2.f}, {2.5f, 2.f}, {3.5f, 4.f}, {5.f, 4.f}}) {
    CHECK(e2m1_to_f32(f32_to_e2m1(in)) == out);
    CHECK(e2m1_to_f32(f32_to_e2m1(-in)) == -out);
  }
  for (auto [in, out] :
       {std::pair{17.f, 16.f}, {19.f, 20.f}, {1.0625f, 1.f}, {1.1875f, 1.25f}, {0x1p-10f, 0.f}, {440.f, 448.f}}) {
    CHECK(e4m3_to_f32(f32_to_e4m3(in)) == out);
  }
}

TEST_CASE("quantisers: scales at and around powers of two, and the worked vectors") {
  CHECK(fp8_scale(1.f) == 127 - 8);
  CHECK(fp8_scale(3.5f) == 127 - 7);
  CHECK(fp8_scale(448.f) == 127);
  CHECK(fp8_scale(449.f) == 128);
  CHECK(fp8_scale(0.f) == 105);
  CHECK(fp4_scale(6.f) == 127);
  CHECK(fp4_scale(6.1f) == 128);
  CHECK(fp4_scale(1.f) == 125);
  CHECK(fp4_scale(0.f) == 1);

  const float x[4] = {1.f, -2.f, 0.30078125f, 100.f};
  uint8_t codes[4], scale;
  fp8_encode(x, 4, 128, codes, &scale);
  CHECK(scale == 125);
  CHECK((codes[0] == 0x48 && codes[1] == 0xd0 && codes[2] == 0x3a && codes[3] == 0x7c));
  float y[4] = {1.f, -2.f, 0.30078125f, 100.f};
  fp8_quantise(y, 4, 128);
  CHECK((y[0] == 1.f && y[1] == -2.f && y[2] == 0.3125f && y[3] == 96.f));

  float block[32] = {0.125f, -0.25f, 0.75f, 1.5f};
  uint8_t packed[16], block_scale;
  fp4_encode(block, 32, packed, &block_scale);
  CHECK(block_scale == 125);
  CHECK((packed[0] == 0xa1 && packed[1] == 0x75));
}

TEST_CASE("encode and in-place quantisation give the same values; a second pass changes nothing") {
  std::vector<float> x(160), codes_value(160);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = std::sin(static_cast<float>(i * i)) * std::exp2(static_cast<float>(i % 11) - 5);
  std::vector<uint8_t> codes(160), scales(3), nibbles(80), nibble_scales(5);
  fp8_encode(x.data(), 160, 64, codes.data(), scales.data());
  std::vector<float> q = x;
  fp8_quantise(q.data(), 160, 64);
  for (size_t i = 0; i < 160; ++i) CHECK(q[i] == e4m3_to_f32(codes[i]) * e8m0_to_f32(scales[i / 64]));
  std::vector<float> again = q;
  fp8_quantise(again.data(), 160, 64);
  CHECK(again == q);
  fp4_encode(x.data(), 160, nibbles.data(), nibble_scales.data());
  q = x;
  fp4_quantise(q.data(), 160);
  for (size_t i = 0; i < 160; ++i) {
    CHECK(q[i] ==
          e2m1_to_f32(static_cast<uint8_t>(nibbles[i / 2] >> (4 * (i % 2)))) * e8m0_to_f32(nibble_scales[i / 32]));
  }
}

TEST_CASE("hadamard is the Sylvester matrix and its own inverse") {
  for (size_t unit : {0u, 1u, 5u, 127u}) {
    std::vector<float> x(128, 0.f);
    x[unit] = 1;
    hadamard(x.data(), 128);
    for (size_t i = 0; i < 128; ++i) {
      const float sign = __builtin_popcount(static_cast<unsigned>(i & unit)) % 2 ? -1.f : 1.f;
      CHECK(x[i] == doctest::Approx(sign * 0.08838834764f));
    }
    hadamard(x.data(), 128);
    CHECK(x[unit] == doctest::Approx(1.f));
  }
}
