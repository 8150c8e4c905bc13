// fp8q, fp4q and the Hadamard transform.
#include "tensor/quantise.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "tensor/formats.h"

namespace nautile {
namespace {

// ceil(log2(value)) + 127 of a positive normal fp32, from its bits.
uint8_t ceil_log2_biased(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint8_t>((bits >> 23) + ((bits & 0x7fffffu) != 0));
}

// 2^-e for the E8M0 byte of 2^e; 1 <= byte <= 253 for every scale made here.
float inverse_scale(uint8_t byte) {
  return e8m0_to_f32(static_cast<uint8_t>(254 - byte));
}

float absmax_bf16(const float* values, size_t count) {
  float most = 0;
  for (size_t i = 0; i < count; ++i) most = std::max(most, std::fabs(round_bf16(values[i])));
  return most;
}

}  // namespace

uint8_t fp8_scale(float absmax) {
  return ceil_log2_biased(std::max(absmax, 1e-4f) * std::bit_cast<float>(0x3b124925u));  // 1/448
}

uint8_t fp4_scale(float absmax) {
  const float floor = 6.f * std::bit_cast<float>(0x00800000u);  // 6 * 2^-126
  return std::max<uint8_t>(1, ceil_log2_biased(std::max(absmax, floor) * std::bit_cast<float>(0x3e2aaaabu)));  // 1/6
}

void fp8_encode(const float* values, size_t count, size_t group, uint8_t* codes, uint8_t* scales) {
  for (size_t begin = 0; begin < count; begin += group) {
    const size_t size = std::min(group, count - begin);
    const uint8_t scale = fp8_scale(absmax_bf16(values + begin, size));
    const float inverse = inverse_scale(scale);
    for (size_t i = begin; i < begin + size; ++i) codes[i] = f32_to_e4m3(round_bf16(values[i]) * inverse);
    scales[begin / group] = scale;
  }
}

void fp8_quantise(float* values, size_t count, size_t group) {
  for (size_t begin = 0; begin < count; begin += group) {
    const size_t size = std::min(group, count - begin);
    const uint8_t scale = fp8_scale(absmax_bf16(values + begin, size));
    const float inverse = inverse_scale(scale), factor = e8m0_to_f32(scale);
    for (size_t i = begin; i < begin + size; ++i) {
      values[i] = e4m3_to_f32(f32_to_e4m3(round_bf16(values[i]) * inverse)) * factor;
    }
  }
}

void fp4_encode(const float* values, size_t count, uint8_t* codes, uint8_t* scales) {
  for (size_t begin = 0; begin < count; begin += 32) {
    const uint8_t scale = fp4_scale(absmax_bf16(values + begin, 32));
    const float inverse = inverse_scale(scale);
    for (size_t i = begin; i < begin + 32; i += 2) {
      const uint8_t low = f32_to_e2m1(round_bf16(values[i]) * inverse);
      const uint8_t high = f32_to_e2m1(round_bf16(values[i + 1]) * inverse);
      codes[i / 2] = static_cast<uint8_t>(low | high << 4);
    }
    scales[begin / 32] = scale;
  }
}

void fp4_quantise(float* values, size_t count) {
  for (size_t begin = 0; begin < count; begin += 32) {
    const uint8_t scale = fp4_scale(absmax_bf16(values + begin, 32));
    const float inverse = inverse_scale(scale), factor = e8m0_to_f32(scale);
    for (size_t i = begin; i < begin + 32; ++i) {
      values[i] = e2m1_to_f32(f32_to_e2m1(round_bf16(values[i]) * inverse)) * factor;
    }
  }
}

void hadamard(float* values, size_t count) {
  for (size_t half = 1; half < count; half *= 2) {
    for (size_t base = 0; base < count; base += 2 * half) {
      for (size_t i = base; i < base + half; ++i) {
        const float a = values[i], b = values[i + half];
        values[i] = a + b;
        values[i + half] = a - b;
      }
    }
  }
  const float factor = 1.f / std::sqrt(static_cast<float>(count));
  for (size_t i = 0; i < count; ++i) values[i] *= factor;
}

void round_bf16(float* values, size_t count) {
  for (size_t i = 0; i < count; ++i) values[i] = round_bf16(values[i]);
}

}  // namespace nautile
