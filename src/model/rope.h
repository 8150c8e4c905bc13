// Rotary positions (spec model.md 4.1): the last rope_dim values of a vector, as adjacent pairs, turned by
// Elements::rotate.
//
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/config.h"
#include "model/step.h"

namespace nautile {

// Angle per position of each pair, [rope_dim / 2]. `compressed` layers use compress_rope_theta with YaRN, window-only
// ones rope_theta as it is. There is no magnitude factor.
std::vector<float> rope_frequencies(const ModelConfig& config, bool compressed);

// cos, sin of one position: the product is rounded to float first, as the official code does. cos, sin: [pairs]
void rope_angles(std::span<const float> frequencies, int64_t position, float* cos, float* sin);

// The angles of every position, into a table that only grows.
void rope_table(std::span<const float> frequencies, std::span<const int64_t> positions, RopeTable& table);

}  // namespace nautile
