// Attention, index scores and top-k: every version against float64 within its stated bound, at odd sizes and unaligned,
// with denormal, extreme and NaN scales; and the promise that a result depends on its own query and rows alone.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/amx/kernels.h"
#include "kernels/registry.h"
#include "tensor/formats.h"
#include "tensor/quantise.h"

using namespace nautile;

namespace {

struct Random {
  std::mt19937 engine{11};
  float normal() { return std::normal_distribution<float>()(engine); }
  uint32_t bits() { return static_cast<uint32_t>(engine()); }
  std::vector<float> floats(size_t count) {
    std::vector<float> x(count);
    for (float& v : x) v = normal();
    return x;
  }
};

// Whether they use AVX-512's BF16 dot instruction, which the matrix unit's twin needs too.
bool runs_bf16_dots(const Kernels& kernels) {
  return kernels.tiles != nullptr && kernels.tiles->wide == ActivationFormat::kBf16;
}

// Those that run here, and the matrix unit's attention over its scalar twin.
std::vector<const Kernels*> versions() {
  std::vector<const Kernels*> all;
  for (const Kernels* kernels : all_kernels()) {
    all.push_back(kernels);
    if (kernels->name != std::string_view("avx512") || !runs_bf16_dots(*kernels)) continue;
    static const Kernels twin = [&] {
      Kernels table = *all.back();
      table.name = "amx twin";
      table.attend = amx::twin::attend;
      return table;
    }();
    all.push_back(&twin);
  }
  return all;
}

// Cache rows with their values; the bytes start one past an aligned address.
struct Rows {
  KvLayout kv;
  std::vector<std::byte> bytes;
  std::vector<float> values;  // [rows, head_dim]
  std::vector<const std::byte*> pointers;

  Rows(KvLayout layout, size_t count, Random& random) : kv(layout), bytes(count * layout.row_bytes() + 1) {
    for (size_t j = 0; j < count; ++j) {
      std::vector<float> row = random.floats(kv.head_dim);
      std::byte* at = bytes.data() + 1 + j * kv.row_bytes();
      if (kv.format == KvFormat::kF32) {
        std::memcpy(at, row.data(), kv.row_bytes());
      } else {
        auto* codes = reinterpret_cast<uint8_t*>(at);
        fp8_encode(row.data(), kv.nope(), 64, codes, codes + kv.nope() + 2 * kv.rope_dim);
        fp8_quantise(row.data(), kv.nope(), 64);
        for (size_t i = 0; i < kv.rope_dim; ++i) {
          const uint16_t half = f32_to_bf16(row[kv.nope() + i]);
          std::memcpy(codes + kv.nope() + 2 * i, &half, 2);
          row[kv.nope() + i] = bf16_to_f32(half);
        }
      }
      values.insert(values.end(), row.begin(), row.end());
      pointers.push_back(at);
    }
  }
};

// Attention of one head in float64; `weights`: the same with |values|, to measure errors by.
void softmax_sum(const Rows& rows, size_t count, const float* q, float sink, double scale, double* out, double* size) {
  const size_t dim = rows.kv.head_dim;
  std::vector<double> z(count);
  double most = sink;
  for (size_t j = 0; j < count; ++j) {
    for (size_t i = 0; i < dim; ++i) z[j] += static_cast<double>(q[i]) * rows.values[j * dim + i];
    z[j] *= scale;
    most = std::max(most, z[j]);
  }
  double total = std::exp(sink - most);
  for (double& v : z) total += v = std::exp(v - most);
  for (size_t i = 0; i < dim; ++i) {
    out[i] = size[i] = 0;
    for (size_t j = 0; j < count; ++j) {
      out[i] += z[j] / total * rows.values[j * dim + i];
      size[i] += z[j] / total * std::fabs(rows.values[j * dim + i]);
    }
  }
}

// Index keys in blocks with their values.
struct Keys {
  IndexLayout layout;
  size_t block_keys = 32, count;
  std::vector<std::byte> bytes;
  std::vector<float> values;  // [count, dim]
  std::vector<const std::byte*> blocks;

  Keys(IndexLayout l, size_t n, Random& random) : layout(l), count(n), bytes(n * l.row_bytes() + 1) {
    for (size_t j = 0; j < count; ++j) set(j, random.floats(layout.dim));
    for (size_t j = 0; j < count; j += block_keys) blocks.push_back(row(j));
  }
  std::byte* row(size_t j) { return bytes.data() + 1 + j * layout.row_bytes(); }
  uint8_t* scales(size_t j) { return reinterpret_cast<uint8_t*>(row(j)) + layout.dim / 2; }
  void set(size_t j, std::vector<float> key) {
    if (layout.format == KvFormat::kF32) {
      std::memcpy(row(j), key.data(), layout.row_bytes());
    } else {
      fp4_encode(key.data(), layout.dim, reinterpret_cast<uint8_t*>(row(j)), scales(j));
    }
    values.resize(count * layout.dim);
    read(j);
  }
  // Takes the values from the bytes, after a test has changed those.
  void read(size_t j) {
    for (size_t i = 0; i < layout.dim; ++i) {
      float& value = values[j * layout.dim + i];
      if (layout.format == KvFormat::kF32) {
        std::memcpy(&value, row(j) + 4 * i, 4);
      } else {
        value = e2m1_to_f32(static_cast<uint8_t>(static_cast<uint8_t>(row(j)[i / 2]) >> (4 * (i % 2)))) *
                e8m0_to_f32(scales(j)[i / 32]);
      }
    }
  }
};

std::vector<float> index_scores(const Kernels& kernels, const Keys& keys, const std::vector<float>& q,
                                const std::vector<float>& weights, size_t heads, size_t tokens, size_t count,
                                bool round = false) {
  std::vector<float> scores(tokens * count), scratch(index_scratch_floats(heads, keys.layout.dim, tokens));
  kernels.index_scores({keys.layout, keys.blocks.data(), keys.block_keys, count, q.data(), weights.data(), heads,
                        tokens, round, scores.data(), count, scratch.data()});
  return scores;
}

}  // namespace

TEST_CASE("attend equals a float64 softmax with the sink, for every row format, precision and number of rows") {
  Random random;
  for (auto [dim, rope, heads] : {std::tuple{128u, 64u, 3u}, {96u, 32u, 17u}, {512u, 64u, 64u}, {72u, 8u, 5u}, {96u, 32u, 32u}}) {
    for (KvFormat format : {KvFormat::kF32, KvFormat::kPacked}) {
      const Rows rows({format, dim, rope}, 300, random);
      std::vector<float> q = random.floats(heads * dim), sink = random.floats(heads);
      round_bf16(q.data(), q.size());  // as the official policy has them
      sink[0] = 30.f;
      const float scale = 1.f / std::sqrt(static_cast<float>(dim));
      for (const Kernels* kernels : versions()) {
        for (AttendPrecision precision : {AttendPrecision::kFloat, AttendPrecision::kFast, AttendPrecision::kOfficial}) {
          // Rounding a weight to BF16 moves it by 2^-9 of itself.
          const double bound = precision == AttendPrecision::kFloat ? 2e-5 : 0x1p-8;
          for (size_t count : {0u, 1u, 63u, 128u, 129u, 300u}) {
            std::vector<float> out(heads * dim), scratch(attend_scratch_floats(heads, dim));
            kernels->attend({rows.kv, rows.pointers.data(), count, q.data(), sink.data(), heads, scale, precision,
                             out.data(), scratch.data()});
            double worst = 0;
            for (size_t h = 0; h < heads; ++h) {
              std::vector<double> expected(dim), size(dim);
              softmax_sum(rows, count, q.data() + h * dim, sink[h], scale, expected.data(), size.data());
              for (size_t i = 0; i < dim; ++i) {
                worst = std::max(worst, std::fabs(out[h * dim + i] - expected[i]) / (size[i] + 1e-30));
              }
            }
            CHECK_MESSAGE(worst <= bound, fmt::format("{} dim {} rows {} precision {}", kernels->name, dim, count,
                                                      static_cast<int>(precision)));
          }
        }
      }
    }
  }
}

TEST_CASE("every E4M3 code of a stored row is right at every size of its scale") {
  Random random;
  const size_t nope = 256, dim = nope + 64;
  for (const Kernels* kernels : versions()) {
    for (const AttendPrecision precision : {AttendPrecision::kFloat, AttendPrecision::kFast}) {
      Rows rows({KvFormat::kPacked, dim, 64}, 1, random);
      std::vector<float> q(dim, 0.f), sink = {-1e30f}, out(dim), scratch(attend_scratch_floats(1, dim));
      const auto run = [&] {
        kernels->attend({rows.kv, rows.pointers.data(), 1, q.data(), sink.data(), 1, 1.f, precision, out.data(), scratch.data()});
      };
      std::byte* row = rows.bytes.data() + (rows.pointers[0] - rows.bytes.data());
      for (const int scale : {0, 1, 7, 9, 10, 11, 60, 127, 200, 245, 246, 247, 250, 254}) {
        double exact[nope];
        for (size_t i = 0; i < nope; ++i) {
          exact[i] = static_cast<double>(e4m3_to_f32(static_cast<uint8_t>(i))) * std::exp2(scale - 127);
          const bool fits = std::fabs(exact[i]) < 0x1p127;  // NaN does not
          if (!fits) exact[i] = 0;
          row[i] = static_cast<std::byte>(fits ? i : 0);
        }
        for (size_t i = 0; i < nope / 64; ++i) row[nope + 128 + i] = static_cast<std::byte>(scale);
        run();
        for (size_t i = 0; i < nope; ++i) {
          // The BF16 instruction takes values below 2^-126 for zero.
          const bool right = out[i] == exact[i] || (std::fabs(exact[i]) < 0x1p-126 && std::fabs(out[i]) <= 0x1p-126f);
          CHECK_MESSAGE(right, fmt::format("{} code {} scale {}: {}", kernels->name, i, scale, out[i]));
        }
        row[77] = std::byte{0x7f};
        run();
        CHECK(std::isnan(out[77]));
        row[77] = std::byte{0xff};
        run();
        CHECK(std::isnan(out[77]));
      }
    }
  }
}

TEST_CASE("a head's attention is the same bits whichever heads share the call") {
  Random random;
  const size_t dim = 128, heads = 21;
  const Rows rows({KvFormat::kPacked, dim, 64}, 200, random);
  const std::vector<float> q = random.floats(heads * dim), sink = random.floats(heads);
  for (const Kernels* kernels : versions()) {
    std::vector<float> out(heads * dim), scratch(attend_scratch_floats(heads, dim)), alone(dim);
    auto run = [&](size_t first, size_t count, float* to) {
      kernels->attend({rows.kv, rows.pointers.data(), 200, q.data() + first * dim, sink.data() + first, count, 0.1f,
                       AttendPrecision::kFast, to, scratch.data()});
    };
    run(0, heads, out.data());
    for (size_t h = 0; h < heads; ++h) {
      run(h, 1, alone.data());
      CHECK(std::memcmp(alone.data(), out.data() + h * dim, dim * 4) == 0);
    }
  }
}

TEST_CASE("attend: scores of any size, denormal and huge scales, a NaN scale stays in its heads' sums") {
  Random random;
  const size_t dim = 128, heads = 2;
  for (const Kernels* kernels : versions()) {
    for (AttendPrecision precision : {AttendPrecision::kFloat, AttendPrecision::kFast, AttendPrecision::kOfficial}) {
      std::vector<float> out(heads * dim), scratch(attend_scratch_floats(heads, dim));
      const std::vector<float> q = random.floats(heads * dim), sink = {-1e30f, 0.f};
      auto run = [&](const Rows& rows, float scale) {
        kernels->attend({rows.kv, rows.pointers.data(), rows.pointers.size(), q.data(), sink.data(), heads, scale,
                         precision, out.data(), scratch.data()});
      };
      Rows rows({KvFormat::kPacked, dim, 64}, 70, random);
      run(rows, 1e6f);  // one row takes all, whatever the others are
      for (float x : out) CHECK(std::isfinite(x));
      for (size_t j = 0; j < 70; ++j) rows.bytes[1 + j * rows.kv.row_bytes() + 64 + 128] = std::byte{0};  // 2^-127
      run(rows, 0.1f);
      for (size_t h = 0; h < heads; ++h) {
        for (size_t i = 0; i < 64; ++i) CHECK(std::fabs(out[h * dim + i]) < 1e-35f);
      }
      for (size_t j = 0; j < 70; ++j) rows.bytes[1 + j * rows.kv.row_bytes() + 64 + 128] = std::byte{200};  // 2^73
      run(rows, 1e-24f);
      for (float x : out) CHECK(std::isfinite(x));
      rows.bytes[1 + 3 * rows.kv.row_bytes() + 64 + 128] = std::byte{255};
      run(rows, 1e-24f);
      CHECK(std::isnan(out[0]));
      CHECK(std::isnan(out[dim]));
    }
  }
}

TEST_CASE("index scores: ReLU a head, signed weights, both key formats, several tokens, any count") {
  Random random;
  for (KvFormat format : {KvFormat::kF32, KvFormat::kPacked}) {
    for (auto [dim, heads] : {std::pair{64u, 5u}, {128u, 64u}, {32u, 1u}, {160u, 6u}}) {
      Keys keys({format, dim}, 150, random);
      const size_t tokens = 3;
      std::vector<float> q = random.floats(tokens * heads * dim);
      const std::vector<float> weights = random.floats(tokens * heads);
      if (format == KvFormat::kPacked) fp4_quantise(q.data(), q.size());
      for (const Kernels* kernels : versions()) {
        for (size_t count : {1u, 16u, 17u, 33u, 64u, 150u}) {
          const std::vector<float> scores = index_scores(*kernels, keys, q, weights, heads, tokens, count);
          double worst = 0;
          for (size_t t = 0; t < tokens; ++t) {
            for (size_t j = 0; j < count; ++j) {
              double score = 0, size = 0;
              for (size_t h = 0; h < heads; ++h) {
                double sum = 0;
                for (size_t i = 0; i < dim; ++i) {
                  const double term = static_cast<double>(q[(t * heads + h) * dim + i]) * keys.values[j * dim + i];
                  sum += term;
                  size += std::fabs(weights[t * heads + h] * term);
                }
                score += weights[t * heads + h] * std::max(sum, 0.0);
              }
              worst = std::max(worst, std::fabs(scores[t * count + j] - score) / (size + 1e-30));
            }
          }
          CHECK_MESSAGE(worst <= 1e-5, fmt::format("{} dim {} count {}", kernels->name, dim, count));
          // One token over a part of the keys gives the same bits.
          const std::vector<float> one(q.begin() + heads * dim, q.begin() + 2 * heads * dim),
              w(weights.begin() + heads, weights.begin() + 2 * heads);
          const std::vector<float> alone = index_scores(*kernels, keys, one, w, heads, 1, (count + 1) / 2);
          CHECK(std::memcmp(alone.data(), scores.data() + count, alone.size() * 4) == 0);
        }
      }
    }
  }
}

TEST_CASE("index scores of keys and queries of every range: zeros, wide scales, NaN, and rounding as official") {
  Random random;
  const size_t dim = 128, heads = 7, count = 96;
  Keys keys({KvFormat::kPacked, dim}, count, random);
  for (size_t j = 0; j < count; ++j) {
    for (size_t g = 0; g < 4; ++g) {
      if (j % 4 == 1) keys.scales(j)[g] = static_cast<uint8_t>(120 + random.bits() % 4);    // as wide as whole numbers go
      if (j % 4 == 2) keys.scales(j)[g] = static_cast<uint8_t>(100 + random.bits() % 40);   // wider
      if (j % 8 == 3) std::memset(keys.row(j) + 16 * g, g == 1 ? 0x88 : 0x21, 16);          // a group of -0
    }
    if (j % 8 == 7) std::memset(keys.row(j), 0, dim / 2);
    keys.read(j);
  }
  for (bool wide_query : {false, true}) {
    std::vector<float> q = random.floats(heads * dim);
    if (wide_query) {
      for (size_t i = 0; i < 32; ++i) q[i] *= 1e4f;
    }
    fp4_quantise(q.data(), q.size());
    std::fill(q.begin() + dim, q.begin() + 2 * dim, 0.f);  // a head of zeros
    std::vector<float> weights = random.floats(heads);
    for (const Kernels* kernels : versions()) {
      const std::vector<float> plain = index_scores(*find_kernels("ref").value(), keys, q, weights, heads, 1, count);
      const std::vector<float> scores = index_scores(*kernels, keys, q, weights, heads, 1, count);
      for (size_t j = 0; j < count; ++j) {
        double size = 0;
        for (size_t h = 0; h < heads; ++h) {
          for (size_t i = 0; i < dim; ++i) {
            size += std::fabs(static_cast<double>(weights[h]) * q[h * dim + i] * keys.values[j * dim + i]);
          }
        }
        CHECK_MESSAGE(std::fabs(scores[j] - plain[j]) <= 1e-6 * size, fmt::format("{} key {}", kernels->name, j));
      }
      // Rounded to BF16 at each step, a last bit may differ where the float sum before it does.
      round_bf16(weights.data(), heads);
      const std::vector<float> official = index_scores(*kernels, keys, q, weights, heads, 1, count, true);
      const std::vector<float> expected =
          index_scores(*find_kernels("ref").value(), keys, q, weights, heads, 1, count, true);
      for (size_t j = 0; j < count; ++j) {
        double size = 0;
        for (size_t h = 0; h < heads; ++h) {
          double sum = 0;
          for (size_t i = 0; i < dim; ++i) sum += static_cast<double>(q[h * dim + i]) * keys.values[j * dim + i];
          size += std::fabs(weights[h] * std::max(sum, 0.0));
        }
        CHECK_MESSAGE(std::fabs(official[j] - expected[j]) <= 0x1p-7 * size + 1e-30, fmt::format("{} key {}", kernels->name, j));
        CHECK(round_bf16(official[j]) == official[j]);
      }
    }
  }
  keys.scales(5)[2] = 255;
  const std::vector<float> q(heads * dim, 1.f), weights(heads, 1.f);
  for (const Kernels* kernels : versions()) {
    const std::vector<float> scores = index_scores(*kernels, keys, q, weights, heads, 1, count);
    CHECK(std::isnan(scores[5]));
    CHECK(std::isfinite(scores[4]));
  }
}

TEST_CASE("top-k is exact, breaks ties downwards and never picks NaN before a number") {
  Random random;
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  auto check = [&](const std::vector<float>& scores, size_t k) {
    std::vector<int32_t> expected(scores.size());
    std::iota(expected.begin(), expected.end(), 0);
    auto value = [&](int32_t i) { return std::isnan(scores[i]) ? -infinity : scores[i]; };
    std::stable_sort(expected.begin(), expected.end(), [&](int32_t i, int32_t j) { return value(i) > value(j); });
    expected.resize(k);
    std::sort(expected.begin(), expected.end());
    for (const Kernels* kernels : versions()) {
      std::vector<int32_t> chosen(k), scratch(top_k_scratch(scores.size(), k));
      kernels->top_k({scores.data(), scores.size(), k, chosen.data(), scratch.data()});
      CHECK_MESSAGE(chosen == expected, fmt::format("{} {} of {}", kernels->name, k, scores.size()));
    }
  };
  check({1, 3, nan, 3, 2, 3, -1}, 2);
  check({1, 3, nan, 3, 2, 3, -1}, 6);
  check({-0.f, 0.f, -0.f, 0.f, -1}, 3);
  check({infinity, -infinity, nan, nan, -infinity, 1}, 4);
  for (size_t count : {2u, 15u, 17u, 100u, 1000u, 5000u, 40000u}) {
    for (size_t k : {size_t{1}, size_t{3}, size_t{16}, size_t{512}, count - 1}) {
      if (k >= count) continue;
      std::vector<float> scores = random.floats(count);
      check(scores, k);
      for (size_t i = 0; i < count; i += 3) scores[i] = nan;
      check(scores, k);
      std::sort(scores.begin(), scores.end(), [&](float a, float b) { return (std::isnan(a) ? -infinity : a) < (std::isnan(b) ? -infinity : b); });
      check(scores, k);
      for (float& x : scores) x = std::floor(x * 2);  // ties everywhere
      check(scores, k);
      std::fill(scores.begin(), scores.end(), 1.5f);
      check(scores, k);
    }
  }
}
