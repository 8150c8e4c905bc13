// Frequencies with YaRN, angles.
#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace nautile {

std::vector<float> rope_frequencies(const ModelConfig& config, bool compressed) {
  const double base = compressed ? config.compress_rope_theta : config.rope_theta;
  const double dim = config.rope_dim;
  std::vector<float> frequencies(static_cast<size_t>(config.rope_dim) / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = static_cast<float>(1 / std::pow(base, 2 * static_cast<double>(i) / dim));
  }
  if (!compressed) return frequencies;
  // YaRN: pairs that turn often within the original length stay, those that turn less than once are stretched.
  const RopeScaling& s = config.rope_scaling;
  auto pair_of_turns = [&](double turns) {
    return dim * std::log(s.original_max_positions / (2 * std::numbers::pi * turns)) / (2 * std::log(base));
  };
  const double low = std::max(std::floor(pair_of_turns(s.beta_fast)), 0.0);
  const double high = std::min(std::ceil(pair_of_turns(s.beta_slow)), dim - 1);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float ramp =
        static_cast<float>(std::clamp((static_cast<double>(i) - low) / std::max(high - low, 1e-3), 0.0, 1.0));
    const float f = frequencies[i];
    frequencies[i] = f / static_cast<float>(s.factor) * ramp + f * (1 - ramp);
  }
  return frequencies;
}

void rope_angles(std::span<const float> frequencies, int64_t position, float* cos, float* sin) {
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float angle = static_cast<float>(position) * frequencies[i];
    cos[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
    sin[i] = static_cast<float>(std::sin(static_cast<double>(angle)));
  }
}

void rope_table(std::span<const float> frequencies, std::span<const int64_t> positions, RopeTable& table) {
  const size_t pairs = frequencies.size();
  table.cos.resize(std::max(table.cos.size(), positions.size() * pairs));
  table.sin.resize(table.cos.size());
  for (size_t t = 0; t < positions.size(); ++t) {
    rope_angles(frequencies, positions[t], table.cos.data() + t * pairs, table.sin.data() + t * pairs);
  }
}

}  // namespace nautile
