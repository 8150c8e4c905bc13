// Index scores of keys, and of queries, whose groups lie far apart: right, and the same bits for every other key whatever
// keys lie beside it.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/registry.h"
#include "tensor/formats.h"
#include "tensor/quantise.h"

using namespace nautile;

namespace {

// Random FP4 keys and queries of two tokens.
struct Scored {
  static constexpr size_t kHeads = 5, kCount = 83, kBlock = 32, kTokens = 2;
  IndexLayout layout;
  std::vector<std::byte> keys;
  std::vector<const std::byte*> blocks;
  std::vector<float> q, weights;

  Scored(size_t dim, std::mt19937& random) : layout{KvFormat::kPacked, dim} {
    keys.resize(kCount * layout.row_bytes());
    for (std::byte& b : keys) b = static_cast<std::byte>(random());
    for (size_t j = 0; j < kCount; ++j) {
      for (size_t g = 0; g < dim / 32; ++g) scale(j, g) = static_cast<std::byte>(120 + random() % 4);
    }
    for (size_t j = 0; j < kCount; j += kBlock) blocks.push_back(keys.data() + j * layout.row_bytes());
    q.resize(kTokens * kHeads * dim);
    weights.resize(kTokens * kHeads);
    for (float& v : q) v = std::normal_distribution<float>()(random);
    for (float& v : weights) v = std::normal_distribution<float>()(random);
    fp4_quantise(q.data(), q.size());
  }

  std::byte& scale(size_t j, size_t g) { return keys[j * layout.row_bytes() + layout.dim / 2 + g]; }

  std::vector<float> scores(const Kernels& kernels, bool round) const {
    std::vector<float> found(kTokens * kCount), scratch(index_scratch_floats(kHeads, layout.dim, kTokens));
    kernels.index_scores({layout, blocks.data(), kBlock, kCount, q.data(), weights.data(), kHeads, kTokens, round,
                          found.data(), kCount, scratch.data()});
    return found;
  }

  // Whether a score is that of float64.
  bool right(float score, size_t t, size_t j) {
    const size_t dim = layout.dim;
    double sum = 0, size = 0;
    for (size_t h = 0; h < kHeads; ++h) {
      double dot = 0;
      for (size_t i = 0; i < dim; ++i) {
        const auto pair = static_cast<uint8_t>(keys[j * layout.row_bytes() + i / 2]);
        const double value = static_cast<double>(e2m1_to_f32(static_cast<uint8_t>(pair >> (4 * (i % 2))))) *
                             e8m0_to_f32(static_cast<uint8_t>(scale(j, i / 32)));
        dot += value * q[(t * kHeads + h) * dim + i];
        size += std::fabs(value * q[(t * kHeads + h) * dim + i] * weights[t * kHeads + h]);
      }
      sum += weights[t * kHeads + h] * std::max(dot, 0.0);
    }
    return std::fabs(score - sum) <= 1e-6 * size;
  }
};

}  // namespace

TEST_CASE("index scores: a wide key beside narrow ones changes none of their bits and is right itself") {
  std::mt19937 random(3);
  for (const size_t dim : {size_t{32}, size_t{64}, size_t{128}}) {
    Scored s(dim, random);
    const size_t wide = 40;
    for (const std::string& isa : available_isas()) {
      const Kernels& kernels = *find_kernels(isa).value();
      for (const bool round : {false, true}) {
        s.scale(wide, 0) = std::byte{120};
        const std::vector<float> before = s.scores(kernels, round);
        for (const int range : {4, 8, 13, 14, 40}) {
          s.scale(wide, dim / 32 - 1) = static_cast<std::byte>(120 + range);
          const std::vector<float> after = s.scores(kernels, round);
          for (size_t i = 0; i < after.size(); ++i) {
            if (i % Scored::kCount != wide) CHECK_MESSAGE(after[i] == before[i], fmt::format("{} key {} dim {}", isa, i, dim));
          }
          if (round) continue;
          for (size_t t = 0; t < Scored::kTokens; ++t) {
            CHECK_MESSAGE(s.right(after[t * Scored::kCount + wide], t, wide), fmt::format("{} range {}", isa, range));
          }
        }
      }
    }
  }
}

TEST_CASE("index scores: queries of groups far apart, of zeros, and of values that are not FP4 are right") {
  std::mt19937 random(5);
  for (const size_t dim : {size_t{32}, size_t{128}}) {
    for (const int range : {1, 5, 13, 40}) {
      Scored s(dim, random);
      for (size_t i = 0; i < s.q.size(); ++i) {
        if (i / 32 % 3 == 0) s.q[i] = std::ldexp(s.q[i], range);
        if (i / 32 % 7 == 5) s.q[i] = 0;
      }
      if (range == 5) s.q[dim * Scored::kHeads + 3] = 1.2345f;  // in the second token alone
      for (const std::string& isa : available_isas()) {
        const std::vector<float> scores = s.scores(*find_kernels(isa).value(), false);
        for (size_t t = 0; t < Scored::kTokens; ++t) {
          for (size_t j = 0; j < Scored::kCount; ++j) {
            CHECK_MESSAGE(s.right(scores[t * Scored::kCount + j], t, j), fmt::format("{} range {} dim {} key {}", isa, range, dim, j));
          }
        }
      }
    }
  }
}
