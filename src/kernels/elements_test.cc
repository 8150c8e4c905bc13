// The element operations: every version against ref, at odd sizes and unaligned, with denormals, extremes and NaN. Those
// that are the same float operations must give the same bits; sums and e^x keep their bounds.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/registry.h"

using namespace nautile;

namespace {

// Values of every kind: normal, tiny, huge, denormal, zero of both signs, halfway cases of the small formats.
struct Values {
  std::mt19937 engine{5};
  float normal() { return std::normal_distribution<float>()(engine); }
  std::vector<float> normals(size_t count) {
    std::vector<float> x(count);
    for (float& v : x) v = normal();
    return x;
  }
  std::vector<float> any(size_t count, bool with_nan = false) {
    std::vector<float> x(count);
    for (float& v : x) {
      switch (engine() % 8) {
        case 0:
          v = std::ldexp(normal(), static_cast<int>(engine() % 40) - 20);
          break;
        case 1:
          v = std::ldexp(normal(), -130);
          break;
        case 2:
          v = engine() % 2 ? 0.f : -0.f;
          break;
        case 3:
          v = static_cast<float>(static_cast<int>(engine() % 33) - 16) / 4;
          break;
        case 4:
          v = with_nan && engine() % 4 == 0 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(normal(), 60);
          break;
        default:
          v = normal();
      }
    }
    return x;
  }
};

std::vector<const Kernels*> fast_versions() {
  std::vector<const Kernels*> all;
  for (const std::string& isa : available_isas()) {
    if (isa != "ref") all.push_back(find_kernels(isa).value());
  }
  return all;
}
const Elements& ref() {
  return find_kernels("ref").value()->elements;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (std::memcmp(&a[i], &b[i], 4) != 0) return false;
  }
  return a.size() == b.size();
}

// Runs `op` on copies of x, one float past an aligned address; true when both versions leave the same bits.
template <class Op>
bool same_in_place(const std::vector<float>& x, const Elements& a, const Elements& b, const Op& op) {
  std::vector<float> left(x.size() + 1), right = x;
  std::copy(x.begin(), x.end(), left.begin() + 1);
  op(a, left.data() + 1);
  op(b, right.data());
  left.erase(left.begin());
  return same_bits(left, right);
}

}  // namespace

TEST_CASE("rounding, rotation, FP8, FP4 and Hadamard give the same bits in every version") {
  Values values;
  for (const Kernels* kernels : fast_versions()) {
    const Elements& e = kernels->elements;
    INFO(kernels->name);
    for (size_t count : {1u, 7u, 16u, 33u, 128u, 448u, 1000u}) {
      for (int round = 0; round < 20; ++round) {
        const std::vector<float> x = values.any(count, true);
        CHECK(same_in_place(x, e, ref(), [&](const Elements& v, float* p) { v.round_bf16(p, count); }));
        for (size_t group : {64u, 128u}) {
          CHECK(same_in_place(x, e, ref(), [&](const Elements& v, float* p) { v.fp8_quantise(p, count, group); }));
          std::vector<uint8_t> a(count), b(count), sa(count / group + 1), sb(count / group + 1);
          e.fp8_encode(x.data(), count, group, a.data(), sa.data());
          ref().fp8_encode(x.data(), count, group, b.data(), sb.data());
          CHECK(a == b);
          CHECK(sa == sb);
        }
        if (count % 32 == 0) {
          CHECK(same_in_place(x, e, ref(), [&](const Elements& v, float* p) { v.fp4_quantise(p, count); }));
          std::vector<uint8_t> a(count / 2), b(count / 2), sa(count / 32), sb(count / 32);
          e.fp4_encode(x.data(), count, a.data(), sa.data());
          ref().fp4_encode(x.data(), count, b.data(), sb.data());
          CHECK(a == b);
          CHECK(sa == sb);
        }
        if (count % 2 == 0) {
          const std::vector<float> cos = values.normals(count / 2), sin = values.normals(count / 2),
                                   y = values.normals(count);
          for (bool inverse : {false, true}) {
            CHECK(same_in_place(y, e, ref(), [&](const Elements& v, float* p) {
              v.rotate(p, cos.data(), sin.data(), count / 2, inverse);
            }));
          }
        }
      }
    }
    for (size_t count : {1u, 2u, 4u, 8u, 16u, 32u, 128u, 256u}) {
      const std::vector<float> x = values.normals(count);
      CHECK(same_in_place(x, e, ref(), [&](const Elements& v, float* p) { v.hadamard(p, count); }));
    }
  }
}

TEST_CASE("every BF16 value and its neighbours quantise as in ref") {
  for (const Kernels* kernels : fast_versions()) {
    bool same = true;
    for (uint32_t half = 0; half < 0x10000; half += 16) {
      std::vector<float> x(32);
      for (uint32_t i = 0; i < 32; ++i) {
        const uint32_t bits = (half + i / 2) << 16 | (i % 2 == 0 ? 0u : 0x8000u);
        std::memcpy(&x[i], &bits, 4);
      }
      same &= same_in_place(x, kernels->elements, ref(), [&](const Elements& v, float* p) { v.fp8_quantise(p, 32, 64); });
      same &= same_in_place(x, kernels->elements, ref(), [&](const Elements& v, float* p) { v.fp4_quantise(p, 32); });
    }
    CHECK_MESSAGE(same, kernels->name);
  }
}

TEST_CASE("norms: within the rounding of their sum, weighted and not, in place") {
  Values values;
  for (const Kernels* kernels : fast_versions()) {
    for (size_t count : {1u, 5u, 16u, 100u, 512u, 4096u}) {
      for (float size : {1.f, 1e-12f, 1e12f}) {
        std::vector<float> x = values.normals(count), weight = values.normals(count), expected(count), out(count);
        for (float& v : x) v *= size;
        for (const float* w : {static_cast<const float*>(nullptr), static_cast<const float*>(weight.data())}) {
          ref().rms_norm(x.data(), w, count, 1e-6f, expected.data());
          kernels->elements.rms_norm(x.data(), w, count, 1e-6f, out.data());
          double worst = 0;
          for (size_t i = 0; i < count; ++i) {
            worst = std::max(worst, static_cast<double>(std::fabs(out[i] - expected[i])) / (std::fabs(expected[i]) + 1e-30));
          }
          CHECK_MESSAGE(worst < 1e-5, kernels->name << " " << count);
        }
        std::vector<float> in_place = x;
        kernels->elements.rms_norm(in_place.data(), weight.data(), count, 1e-6f, in_place.data());
        CHECK(same_bits(in_place, out));
      }
    }
  }
}

TEST_CASE("SwiGLU and pooling: e^x at both ends, any width, any number of candidates") {
  Values values;
  for (const Kernels* kernels : fast_versions()) {
    std::vector<float> gate, up;
    for (float x = -120; x < 120; x += 0.37f) {
      gate.push_back(x);
      up.push_back(1 + x / 50);
    }
    gate.push_back(-INFINITY);
    up.push_back(1.f);
    std::vector<float> out(gate.size()), expected(gate.size());
    for (float limit : {10.f, 1000.f}) {
      ref().swiglu(gate.data(), up.data(), gate.size(), limit, 0.7f, expected.data());
      kernels->elements.swiglu(gate.data(), up.data(), gate.size(), limit, 0.7f, out.data());
      for (size_t i = 0; i + 1 < gate.size(); ++i) {
        CHECK_MESSAGE(std::fabs(out[i] - expected[i]) <= 2e-6f * std::fabs(expected[i]) + 1e-37f,
                      fmt::format("{} gate {}", kernels->name, gate[i]));
      }
    }
    for (size_t width : {1u, 16u, 37u, 512u}) {
      for (size_t count : {1u, 4u, 8u, 128u}) {
        std::vector<std::vector<float>> rows;
        std::vector<const float*> kv, gates;
        for (size_t c = 0; c < 2 * count; ++c) {
          rows.push_back(values.normals(width));
          for (float& v : rows.back()) v *= c % 3 == 0 ? 40.f : 1.f;
        }
        for (size_t c = 0; c < count; ++c) {
          kv.push_back(rows[2 * c].data());
          gates.push_back(rows[2 * c + 1].data());
        }
        std::vector<float> a(width), b(width);
        kernels->elements.pool({kv.data(), gates.data(), count, width, a.data()});
        ref().pool({kv.data(), gates.data(), count, width, b.data()});
        for (size_t i = 0; i < width; ++i) {
          double size = 0;
          for (size_t c = 0; c < count; ++c) size = std::max(size, static_cast<double>(std::fabs(kv[c][i])));
          CHECK(std::fabs(a[i] - b[i]) <= 1e-5 * size);
        }
      }
    }
  }
}

TEST_CASE("route scores: both ends without overflow or loss, in between as the plain one, NaN and infinities kept") {
  for (const std::string& isa : available_isas()) {
    const Elements& e = find_kernels(isa).value()->elements;
    std::vector<float> x = {-100.f, -80.f, 0.f, 1e30f, 200.f, -INFINITY, INFINITY, NAN, -NAN};
    e.route_scores(x.data(), x.size());
    CHECK(x[0] > 0);
    CHECK(x[1] == doctest::Approx(std::exp(-40.0)).epsilon(1e-5));
    CHECK(x[2] == doctest::Approx(std::sqrt(std::log(2.0))).epsilon(2e-6));
    CHECK(x[3] == doctest::Approx(1e15).epsilon(2e-6));
    CHECK(x[4] == doctest::Approx(std::sqrt(200.0)).epsilon(2e-6));
    CHECK(x[5] == 0);
    CHECK(x[6] == INFINITY);
    CHECK((std::isnan(x[7]) && std::isnan(x[8])));
  }
  for (const Kernels* kernels : fast_versions()) {
    std::vector<float> x;
    for (float z = -105; z < 40; z += 0.0173f) x.push_back(z);
    std::vector<float> expected = x;
    ref().route_scores(expected.data(), expected.size());
    kernels->elements.route_scores(x.data(), x.size());
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      worst = std::max(worst, (std::fabs(static_cast<double>(x[i]) - static_cast<double>(expected[i])) - 4e-23) / static_cast<double>(expected[i]));
    }
    CHECK_MESSAGE(worst < 2e-6, kernels->name << " " << worst);
  }
}

TEST_CASE("mHC coefficients: the self-check vector of the specification, and any number of tokens like one") {
  std::vector<float> raw, base;
  for (int i = 0; i < 24; ++i) {
    raw.push_back(static_cast<float>((7 * i) % 11 - 5) / 4);
    base.push_back(static_cast<float>((5 * i) % 7 - 3) / 8);
  }
  const float scale[3] = {0.5f, 0.25f, 1.5f};
  const double expected[] = {0.2689424, 0.6224603, 0.4378245, 0.5926676, 1.2153263, 0.9687602, 1.0624187, 0.8146668,
                             0.1358101, 0.5331501, 0.1952284, 0.1358104, 0.2856347, 0.0181250, 0.4106048, 0.2856346,
                             0.1066770, 0.4187812, 0.3678634, 0.1066774, 0.4718771, 0.0299427, 0.0263025, 0.4718766};
  Values values;
  for (const std::string& isa : available_isas()) {
    const Elements& e = find_kernels(isa).value()->elements;
    float out[24];
    e.mixing({raw.data(), 1, 4, scale, base.data(), 20, 1e-6f, out, out + 4, out + 8, 24});
    for (int i = 0; i < 24; ++i) CHECK(out[i] == doctest::Approx(expected[i]).epsilon(i < 8 ? 2e-6 : 1e-5));
    for (size_t m : {1u, 2u, 4u, 8u}) {
      const size_t rows = 2 * m + m * m, tokens = 19;
      const std::vector<float> mixes = values.normals(tokens * rows), b = values.normals(rows);
      std::vector<float> all(tokens * rows), one(rows), plain(tokens * rows);
      auto run = [&](const Elements& v, size_t first, size_t count, float* to) {
        v.mixing({mixes.data() + first * rows, count, m, scale, b.data(), 20, 1e-6f, to, to + m, to + 2 * m, rows});
      };
      run(e, 0, tokens, all.data());
      run(ref(), 0, tokens, plain.data());
      for (size_t i = 0; i < all.size(); ++i) CHECK(all[i] == doctest::Approx(plain[i]).epsilon(2e-5));
      for (size_t t = 0; t < tokens; ++t) {
        run(e, t, 1, one.data());
        CHECK(std::memcmp(one.data(), all.data() + t * rows, rows * 4) == 0);
      }
    }
  }
}

TEST_CASE("logits: masks, their peak, what is no logit, and exponentials") {
  Values values;
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const Kernels* kernels : fast_versions()) {
    const Elements& e = kernels->elements;
    INFO(kernels->name);
    for (size_t count : {1u, 7u, 8u, 16u, 31u, 33u, 100u, 1024u, 1536u, 4099u}) {
      INFO(count);
      for (int round = 0; round < 30; ++round) {
        std::vector<float> x = values.any(count);
        if (round % 3 == 0) {
          for (float& v : x) v = static_cast<float>(static_cast<int>(v));  // many equals, zeros of both signs
        }
        if (round % 5 == 0) x[values.engine() % count] = -inf;
        std::vector<uint32_t> allowed((count + 31) / 32);
        for (uint32_t& word : allowed) word = values.engine() & values.engine();
        if (round == 7) std::fill(allowed.begin(), allowed.end(), 0);
        for (const uint32_t* mask : {static_cast<const uint32_t*>(nullptr), static_cast<const uint32_t*>(allowed.data())}) {
          std::vector<float> a(count), b(count + 1, 5.f);
          const Peak expected = ref().masked(x.data(), mask, count, a.data());
          const Peak peak = e.masked(x.data(), mask, count, b.data());
          CHECK(b.back() == 5.f);
          b.pop_back();
          CHECK(same_bits(a, b));
          CHECK(peak.value == expected.value);
          CHECK(peak.index == expected.index);
          std::vector<float> in_place = x;
          CHECK(e.masked(in_place.data(), mask, count, in_place.data()).index == expected.index);
          CHECK(same_bits(in_place, a));
          for (const float strange : {nan, -nan, inf}) {
            std::vector<float> with = x, out(count);
            with[values.engine() % count] = strange;
            CHECK(std::isnan(e.masked(with.data(), mask, count, out.data()).value));
            CHECK(std::isnan(ref().masked(with.data(), mask, count, out.data()).value));
          }
          if (expected.value == -inf) continue;
          std::vector<float> p(count), q(count + 1, 5.f);
          for (float factor : {1.f, 0.5f, 3.f, 1e30f}) {
            const float plain = ref().exponentials(a.data(), count, expected.value, factor, p.data());
            const float sum = e.exponentials(a.data(), count, expected.value, factor, q.data());
            CHECK(q[count] == 5.f);
            CHECK(sum == doctest::Approx(plain).epsilon(1e-5));
            bool close = true;
            for (size_t i = 0; i < count; ++i) {
              close &= std::fabs(p[i] - q[i]) <= 5e-7f * p[i] + 1e-37f;
              if (a[i] == -inf) close &= q[i] == 0;
            }
            CHECK(close);
            CHECK(q[expected.index] == 1);
          }
        }
      }
    }
  }
}

TEST_CASE("stream sums and mixes, any width and number of streams") {
  Values values;
  for (const Kernels* kernels : fast_versions()) {
    for (size_t m : {1u, 2u, 4u, 8u}) {
      for (size_t width : {3u, 16u, 100u, 512u}) {
        std::vector<float> x = values.normals(m * width), y = values.normals(width), post = values.normals(m),
                           comb = values.normals(m * m), a(width), b(width);
        kernels->elements.collapse(post.data(), m, x.data(), width, a.data());
        ref().collapse(post.data(), m, x.data(), width, b.data());
        for (size_t i = 0; i < width; ++i) CHECK(std::fabs(a[i] - b[i]) < 1e-5f);
        std::vector<float> z = x;
        kernels->elements.expand(post.data(), comb.data(), m, y.data(), width, x.data());
        ref().expand(post.data(), comb.data(), m, y.data(), width, z.data());
        for (size_t i = 0; i < x.size(); ++i) CHECK(std::fabs(x[i] - z[i]) < 2e-5f);
      }
    }
  }
}
