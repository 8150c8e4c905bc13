// E4M3, E5M2 and E2M1 encoders and decoders.
#include "tensor/formats.h"

#include <algorithm>
#include <cmath>

namespace nautile {
namespace {

// Decodes sign | exponent | mantissa with the given widths and bias; specials are the caller's.
constexpr float decode_small(uint8_t byte, int mantissa_bits, int bias) {
  const int exponent = (byte & 0x7f) >> mantissa_bits;
  const int mantissa = byte & ((1 << mantissa_bits) - 1);
  const float sign = byte & 0x80 ? -1.f : 1.f;
  const int power = (exponent == 0 ? 1 : exponent) - bias - mantissa_bits;
  const int whole = exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits);
  const float scale = std::bit_cast<float>(static_cast<uint32_t>(power + 127) << 23);
  return sign * static_cast<float>(whole) * scale;
}

constexpr std::array<float, 256> make_e4m3() {
  std::array<float, 256> values{};
  for (int byte = 0; byte < 256; ++byte) {
    values[static_cast<size_t>(byte)] =
        (byte & 0x7f) == 0x7f ? std::bit_cast<float>(0x7fc00000u) : decode_small(static_cast<uint8_t>(byte), 3, 7);
  }
  return values;
}
constexpr std::array<float, 256> kE4m3 = make_e4m3();

// Rounds |value| (finite, not over the largest) to the grid of a format whose smallest normal is 2^min_exponent.
uint8_t encode_small(float magnitude, int mantissa_bits, int min_exponent) {
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude = m * 2^exponent, 0.5 <= m < 1
  const int power = std::max(exponent - 1, min_exponent);
  // Units of the last place; nearbyint rounds ties to even in the default mode.
  const int units = static_cast<int>(std::nearbyint(std::ldexp(magnitude, mantissa_bits - power)));
  // For normals units is 2^m .. 2^(m+1); carrying over into the exponent is what the addition does.
  const int biased = power - min_exponent;
  return static_cast<uint8_t>((biased << mantissa_bits) + units);
}

}  // namespace

const std::array<float, 256>& e4m3_values() {
  return kE4m3;
}
float e4m3_to_f32(uint8_t byte) {
  return kE4m3[byte];
}

uint8_t f32_to_e4m3(float value) {
  if (std::isnan(value)) return 0x7f;
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const float magnitude = std::fabs(value);
  if (magnitude >= 448.f) return sign | 0x7e;
  if (magnitude == 0) return sign;
  return sign | encode_small(magnitude, 3, -6);
}

float e5m2_to_f32(uint8_t byte) {
  if ((byte & 0x7c) == 0x7c) {
    if (byte & 3) return std::bit_cast<float>(0x7fc00000u);
    return byte & 0x80 ? -INFINITY : INFINITY;
  }
  return decode_small(byte, 2, 15);
}

uint8_t f32_to_e5m2(float value) {
  if (std::isnan(value)) return 0x7f;
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const float magnitude = std::fabs(value);
  if (std::isinf(value)) return sign | 0x7c;
  if (magnitude >= 57344.f) return sign | 0x7b;
  if (magnitude == 0) return sign;
  return sign | encode_small(magnitude, 2, -14);
}

uint8_t f32_to_e2m1(float value) {
  if (std::isnan(value)) return 0;
  const uint8_t sign = std::signbit(value) ? 8 : 0;
  const float magnitude = std::fabs(value);
  if (magnitude >= 6.f) return sign | 7;
  if (magnitude == 0) return sign;
  return sign | encode_small(magnitude, 1, 0);
}

}  // namespace nautile
