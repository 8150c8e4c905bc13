// The small parts against the published vectors and against double precision.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "kernels/registry.h"
#include "model/moe.h"
#include "model/rope.h"

using namespace nautile;

namespace {

ModelConfig flash_rope() {
  ModelConfig c;
  c.rope_dim = 64;
  c.rope_theta = 10000;
  c.compress_rope_theta = 160000;
  return c;
}

}  // namespace

TEST_CASE("rope frequencies of both profiles") {
  const std::vector<float> swa = rope_frequencies(flash_rope(), false), csa = rope_frequencies(flash_rope(), true);
  for (auto [i, f] :
       {std::pair{0, 1.f}, {1, 0.749894202f}, {8, 0.100000001f}, {16, 0.00999999978f}, {31, 0.000133352150f}}) {
    CHECK(swa[static_cast<size_t>(i)] == doctest::Approx(f).epsilon(2e-7));
  }
  for (auto [i, f] : {std::pair{0, 1.f},
                      {1, 0.687656045f},
                      {8, 0.0500000007f},
                      {15, 0.00363553851f},
                      {16, 0.00226562493f},
                      {17, 0.00139680132f},
                      {20, 0.000296977785f},
                      {24, 1.95312532e-05f},
                      {25, 5.37231244e-06f},
                      {31, 5.6805294e-07f}}) {
    CHECK(csa[static_cast<size_t>(i)] == doctest::Approx(f).epsilon(3e-7));
  }
}

TEST_CASE("rotation turns adjacent pairs and back") {
  const std::vector<float> f = rope_frequencies(flash_rope(), true);
  for (int64_t position : {0, 1, 77, 1048575}) {
    std::vector<float> cos(32), sin(32), x(64);
    for (size_t i = 0; i < 64; ++i) x[i] = std::sin(static_cast<float>(i));
    const std::vector<float> original = x;
    rope_angles(f, position, cos.data(), sin.data());
    const Elements& elements = find_kernels("auto").value()->elements;
    elements.rotate(x.data(), cos.data(), sin.data(), 32, false);
    const double angle = static_cast<float>(static_cast<float>(position) * f[3]);
    CHECK(x[6] == doctest::Approx(original[6] * std::cos(angle) - original[7] * std::sin(angle)).epsilon(1e-5));
    elements.rotate(x.data(), cos.data(), sin.data(), 32, true);
    for (size_t i = 0; i < 64; ++i) CHECK(x[i] == doctest::Approx(original[i]).epsilon(1e-5));
  }
}

TEST_CASE("experts: biased choice, unbiased weights, lower id on ties, ascending order") {
  const float scores[] = {0.5f, 2.f, 0.5f, 1.f, 0.25f};
  int chosen[3];
  float weights[3];
  choose_experts(scores, nullptr, 5, 3, 1.5f, chosen, weights, false);
  CHECK((chosen[0] == 0 && chosen[1] == 1 && chosen[2] == 3));
  CHECK(weights[1] == doctest::Approx(2 / 3.5 * 1.5));
  const float bias[] = {0, 0, 0, 0, 100.f};
  choose_experts(scores, bias, 5, 2, 2.5f, chosen, weights, false);
  CHECK((chosen[0] == 1 && chosen[1] == 4));
  CHECK(weights[1] == doctest::Approx(0.25 / 2.25 * 2.5));
  int table[] = {4, 2};
  choose_experts(scores, nullptr, 5, 2, 1.f, table, weights, true);
  CHECK((table[0] == 2 && table[1] == 4));
  CHECK(weights[0] == doctest::Approx(2.0 / 3));
}
