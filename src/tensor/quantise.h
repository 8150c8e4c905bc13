// The value-changing roundings that DeepSeek-V4 was trained with (spec checkpoint.md section 7): fp8q, fp4q, Hadamard.
//
// The *_encode forms write codes and E8M0 scale bytes; the in-place forms leave code * scale, which is exact in BF16.
// Inputs are rounded to BF16 first, as the official kernels take BF16. Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nautile {

// E8M0 byte of 2^ceil(log2(max(absmax, 1e-4) / 448)): the power-of-two scale of an E4M3 group.
uint8_t fp8_scale(float absmax);
// E8M0 byte of 2^ceil(log2(max(absmax, 6 * 2^-126) / 6)): the scale of an E2M1 group.
uint8_t fp4_scale(float absmax);

// count values in groups of `group` (the last may be shorter); codes [count], scales [ceil(count / group)].
void fp8_encode(const float* values, size_t count, size_t group, uint8_t* codes, uint8_t* scales);
void fp8_quantise(float* values, size_t count, size_t group);

// Groups of 32, count a multiple of 32; codes packed two a byte, even index in the low nibble: [count / 2].
void fp4_encode(const float* values, size_t count, uint8_t* codes, uint8_t* scales);
void fp4_quantise(float* values, size_t count);

// values <- H values / sqrt(count), Walsh-Hadamard in natural (Sylvester) order; count a power of two.
void hadamard(float* values, size_t count);

// Each to the nearest BF16, in place.
void round_bf16(float* values, size_t count);

}  // namespace nautile
