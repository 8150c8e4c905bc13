// Index keys whose groups lie far apart: whole numbers up to a factor of 2^13, and the same bits for every other key
// whatever keys lie beside it.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/registry.h"
#include "tensor/formats.h"
#include "tensor/quantise.h"

using namespace nautile;

TEST_CASE("index scores: a wide key beside narrow ones changes none of their bits and is right itself") {
  std::mt19937 random(3);
  for (const size_t dim : {size_t{32}, size_t{64}, size_t{128}}) {
    const IndexLayout layout{KvFormat::kPacked, dim};
    const size_t heads = 5, count = 83, block = 32, wide = 40;
    std::vector<std::byte> keys(count * layout.row_bytes());
    for (std::byte& b : keys) b = static_cast<std::byte>(random());
    auto scale = [&](size_t j, size_t g) -> std::byte& { return keys[j * layout.row_bytes() + dim / 2 + g]; };
    for (size_t j = 0; j < count; ++j) {
      for (size_t g = 0; g < dim / 32; ++g) scale(j, g) = static_cast<std::byte>(120 + random() % 4);
    }
    std::vector<const std::byte*> blocks;
    for (size_t j = 0; j < count; j += block) blocks.push_back(keys.data() + j * layout.row_bytes());
    std::vector<float> q(2 * heads * dim), weights(2 * heads);
    for (float& v : q) v = std::normal_distribution<float>()(random);
    for (float& v : weights) v = std::normal_distribution<float>()(random);
    fp4_quantise(q.data(), q.size());
    for (const std::string& isa : available_isas()) {
      const Kernels& kernels = *find_kernels(isa).value();
      for (const bool round : {false, true}) {
        auto score = [&] {
          std::vector<float> scores(2 * count), scratch(index_scratch_floats(heads, dim, 2));
          kernels.index_scores({layout, blocks.data(), block, count, q.data(), weights.data(), heads, 2, round,
                                scores.data(), count, scratch.data()});
          return scores;
        };
        scale(wide, 0) = std::byte{120};
        const std::vector<float> before = score();
        for (const int range : {4, 8, 13, 14, 40}) {
          scale(wide, dim / 32 - 1) = static_cast<std::byte>(120 + range);
          const std::vector<float> after = score();
          for (size_t i = 0; i < after.size(); ++i) {
            if (i % count != wide) CHECK_MESSAGE(after[i] == before[i], fmt::format("{} key {} dim {}", isa, i, dim));
          }
          if (round) continue;
          for (size_t t = 0; t < 2; ++t) {
            double sum = 0, size = 0;
            for (size_t h = 0; h < heads; ++h) {
              double dot = 0;
              for (size_t i = 0; i < dim; ++i) {
                const auto pair = static_cast<uint8_t>(keys[wide * layout.row_bytes() + i / 2]);
                const double value = static_cast<double>(e2m1_to_f32(static_cast<uint8_t>(pair >> (4 * (i % 2))))) *
                                     e8m0_to_f32(static_cast<uint8_t>(scale(wide, i / 32)));
                dot += value * q[(t * heads + h) * dim + i];
                size += std::fabs(value * q[(t * heads + h) * dim + i] * weights[t * heads + h]);
              }
              sum += weights[t * heads + h] * std::max(dot, 0.0);
            }
            CHECK_MESSAGE(std::fabs(after[t * count + wide] - sum) <= 1e-6 * size, fmt::format("{} range {}", isa, range));
          }
        }
      }
    }
  }
}
