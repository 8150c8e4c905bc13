// Number formats of the checkpoint, one value at a time: BF16, E4M3FN, E5M2, E2M1, E8M0 (spec checkpoint.md section 6).
//
// Rounding is to nearest, ties to even; finite values that are too large saturate, as the official quantisers clamp.
// Thread-safety: pure functions.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace nautile {

constexpr float bf16_to_f32(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// NaN stays a (quiet) NaN; overflow goes to infinity as in IEEE.
constexpr uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x0040u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

constexpr float round_bf16(float value) {
  return bf16_to_f32(f32_to_bf16(value));
}

// 2^(byte - 127); 0xFF is NaN, 0 is the subnormal 2^-127.
constexpr float e8m0_to_f32(uint8_t byte) {
  if (byte == 0xff) return std::bit_cast<float>(0x7fc00000u);
  return std::bit_cast<float>(byte == 0 ? 0x00400000u : static_cast<uint32_t>(byte) << 23);
}

// Codes 0..15; only the low four bits are looked at.
inline constexpr std::array<float, 16> kE2m1 = {0.f,  0.5f,  1.f,  1.5f,  2.f,  3.f,  4.f,  6.f,
                                                -0.f, -0.5f, -1.f, -1.5f, -2.f, -3.f, -4.f, -6.f};
constexpr float e2m1_to_f32(uint8_t code) {
  return kE2m1[code & 15u];
}
uint8_t f32_to_e2m1(float value);  // NaN becomes 0

float e4m3_to_f32(uint8_t byte);  // 0x7F and 0xFF are NaN, 0x7E is 448
uint8_t f32_to_e4m3(float value);  // saturates to 448, infinity too; NaN becomes 0x7F
float e5m2_to_f32(uint8_t byte);
uint8_t f32_to_e5m2(float value);  // saturates to 57344; infinity stays infinity, NaN becomes 0x7F

// All 256 values of E4M3FN, for kernels that look them up.
const std::array<float, 256>& e4m3_values();

}  // namespace nautile
