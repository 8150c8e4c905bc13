// Filters against computed probabilities, the distribution of draws, and logits that must be refused.
#include "engine/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <random>

#include "kernels/registry.h"

using namespace nautile;

namespace {

const TokenHistory kNoHistory;
const Kernels& kernels() {
  return *find_kernels("auto").value();
}

// The probability of each token after temperature, computed the plain way.
std::vector<double> softmax(const std::vector<float>& logits, double temperature = 1) {
  std::vector<double> p;
  double total = 0;
  for (float logit : logits) total += p.emplace_back(std::exp(logit / temperature));
  for (double& x : p) x /= total;
  return p;
}

// Pearson's chi-square of 20,000 draws against `expected` (zero where a token must never come), and its degrees of
// freedom.
std::pair<double, int> chi_square(const std::vector<float>& logits, const SamplingParams& params,
                                  const std::vector<double>& expected) {
  constexpr int kDraws = 20000;
  Sampler sampler(kernels());
  std::vector<int> seen(logits.size());
  for (int i = 0; i < kDraws; ++i) ++seen[sampler.sample(logits, params, kNoHistory, i).value().id];
  double sum = 0;
  int cells = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double wanted = expected[i] * kDraws;
    if (wanted == 0) {
      CHECK(seen[i] == 0);
      continue;
    }
    sum += (seen[i] - wanted) * (seen[i] - wanted) / wanted;
    ++cells;
  }
  return {sum, cells - 1};
}

// 99.9% point of chi-square, by Wilson and Hilferty.
double limit(int freedom) {
  const double v = 2.0 / (9.0 * freedom);
  return freedom * std::pow(1 - v + 3.0902 * std::sqrt(v), 3);
}

std::vector<double> renormalised(std::vector<double> p, double least) {
  double total = 0;
  for (double& x : p) total += x = x >= least ? x : 0;
  for (double& x : p) x /= total;
  return p;
}

TokenId pick(const std::vector<float>& logits, const SamplingParams& params, const TokenHistory& history = kNoHistory,
             std::span<const uint32_t> allowed = {}) {
  Sampler sampler(kernels());
  return sampler.sample(logits, params, history, 0, allowed).value().id;
}

}  // namespace

TEST_CASE("Philox gives its published values") {
  CHECK(random_unit(0, 0) == static_cast<double>(0x6627e8d5e169c58dull >> 11) * 0x1p-53);
  CHECK(random_unit(UINT64_MAX, UINT64_MAX, UINT64_MAX) == static_cast<double>(0x408f276d41c83b0eull >> 11) * 0x1p-53);
  CHECK(random_unit(1, 2) != random_unit(2, 1));
}

TEST_CASE("draws follow the distribution") {
  const std::vector<float> logits = {1.0f, 0.2f, 2.5f, -1.0f, 0.2f, 1.7f, 0.0f, -0.5f};
  SamplingParams params{.seed = 42};
  auto [plain, freedom] = chi_square(logits, params, softmax(logits));
  CHECK(plain < limit(freedom));
  params.temperature = 0.5;
  CHECK(chi_square(logits, params, softmax(logits, 0.5)).first < limit(freedom));
  params.temperature = 1;
  params.top_k = 3;
  auto [top_k, k_freedom] = chi_square(logits, params, renormalised(softmax(logits), softmax(logits)[0]));
  CHECK(k_freedom == 2);
  CHECK(top_k < limit(k_freedom));
  params.top_k = 0;
  params.top_p = 0.8;  // 0.497 + 0.223 + 0.111 is the first sum to reach 0.8
  auto [top_p, p_freedom] = chi_square(logits, params, renormalised(softmax(logits), softmax(logits)[0]));
  CHECK(p_freedom == 2);
  CHECK(top_p < limit(p_freedom));
  params.top_p = 1;
  params.min_p = 0.2;
  auto [min_p, m_freedom] = chi_square(logits, params, renormalised(softmax(logits), 0.2 * softmax(logits)[2]));
  CHECK(min_p < limit(m_freedom));
  // Another seed is another sequence; the test would notice a wrong distribution.
  CHECK(chi_square(logits, {.temperature = 1.3, .seed = 42}, softmax(logits)).first > limit(freedom));
}

// The draw worked out in double, by sorting everything. Empty where a boundary lies within a millionth of the draw.
std::optional<TokenId> plain_draw(const std::vector<float>& logits, const SamplingParams& params, uint64_t position) {
  constexpr double kClose = 2e-6;
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(), [&](TokenId id) { return logits[id]; });
  if (params.top_k > 0 && params.top_k < std::ssize(order)) order.resize(params.top_k);
  const auto weight = [&](TokenId id) { return std::exp((logits[id] - logits[order[0]]) / params.temperature); };
  double total = 0, sum = 0;
  for (const TokenId id : order) total += weight(id);
  size_t kept = order.size();
  for (size_t i = 0; i < order.size() && params.top_p < 1; ++i) {
    sum += weight(order[i]) / total;
    if (std::abs(sum - params.top_p) < kClose) return {};
    if (sum >= params.top_p) {
      kept = i + 1;
      break;
    }
  }
  order.resize(kept);
  for (const TokenId id : order) {
    if (params.min_p > 0 && std::abs(weight(id) - params.min_p) < kClose) return {};
  }
  std::erase_if(order, [&](TokenId id) { return weight(id) < params.min_p; });
  std::ranges::sort(order);
  total = 0, sum = 0;
  for (const TokenId id : order) total += weight(id);
  const double unit = random_unit(params.seed, position);
  for (const TokenId id : order) {
    sum += weight(id) / total;
    if (std::abs(sum - unit) < kClose) return {};
    if (sum > unit) return id;
  }
  return {};
}

TEST_CASE("draws are those of a sort of everything in double") {
  std::mt19937 random(8);
  int compared = 0;
  for (const std::string& isa : available_isas()) {
    Sampler sampler(*find_kernels(isa).value());
    for (int round = 0; round < 1500; ++round) {
      const size_t size = round % 50 == 0 ? 20000 : 1 + random() % 3000;
      std::normal_distribution<float> normal(0, round % 2 ? 4.f : 0.7f);
      std::vector<float> logits(size);
      for (float& x : logits) {
        x = normal(random);
        if (round % 3 == 0) x = std::round(x * 2) / 2;  // many equals
        if (random() % 16 == 0) x = -std::numeric_limits<float>::infinity();
      }
      logits[random() % size] = 1;
      constexpr double kTemperatures[] = {1, 0.6, 1.7, 0.01}, kTopP[] = {1, 0.95, 0.5, 0.999, 0.01};
      const int64_t top_k[] = {0, -1, 5, 40, 700, static_cast<int64_t>(size) + 3};
      const SamplingParams params{.temperature = kTemperatures[random() % 4],
                                  .top_p = kTopP[random() % 5],
                                  .top_k = top_k[random() % 6],
                                  .min_p = random() % 3 == 0 ? 0.02 : 0,
                                  .seed = random()};
      const auto expected = plain_draw(logits, params, round);
      const TokenId drawn = sampler.sample(logits, params, kNoHistory, round).value().id;
      CHECK(std::isfinite(logits[drawn]));
      if (!expected) continue;
      ++compared;
      CHECK_MESSAGE(drawn == *expected, isa << ": " << size << " tokens, temperature " << params.temperature << ", top_p "
                                            << params.top_p << ", top_k " << params.top_k << ", min_p " << params.min_p);
    }
  }
  CHECK(compared > 1000);
}

TEST_CASE("logprobs of every version are those of a plain sum in double") {
  std::mt19937 random(9);
  std::normal_distribution<float> normal(0, 3);
  for (const std::string& isa : available_isas()) {
    Sampler sampler(*find_kernels(isa).value());
    for (const size_t size : {1u, 5u, 21u, 1536u, 129280u}) {
      std::vector<float> logits(size);
      for (float& x : logits) x = std::round(normal(random) * 4) / 4;
      double total = 0;
      for (const float x : logits) total += std::exp(static_cast<double>(x));
      const TokenId id = static_cast<TokenId>(random() % size);
      const TokenScore score = sampler.score(logits, id, 20);
      CHECK(score.logprob == doctest::Approx(logits[id] - std::log(total)).epsilon(1e-6));
      REQUIRE(score.top.size() == std::min<size_t>(size, 20));
      std::vector<TokenId> order(size);
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, std::greater(), [&](TokenId t) { return logits[t]; });
      for (size_t i = 0; i < score.top.size(); ++i) CHECK(score.top[i].id == order[i]);
    }
  }
}

TEST_CASE("top-p over a real vocabulary keeps exactly the nucleus") {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(129280);
  for (float& logit : logits) logit = normal(random);
  const std::vector<double> p = softmax(logits);
  for (const double top_p : {0.1, 0.5, 0.95, 0.999}) {
    std::vector<double> sorted = p;
    std::sort(sorted.rbegin(), sorted.rend());
    double sum = 0;
    size_t nucleus = 0;
    while (sum < top_p) sum += sorted[nucleus++];
    Sampler sampler(kernels());
    size_t different = 0;
    double lowest = 1;
    for (int position = 0; position < 40; ++position) {
      const TokenId id = sampler.sample(logits, {.top_p = top_p, .seed = 3}, kNoHistory, position).value().id;
      lowest = std::min(lowest, p[id]);
      different += p[id] < sorted[nucleus - 1] * (1 - 1e-9);
    }
    CHECK(different == 0);
    if (top_p == 0.999) CHECK(lowest < sorted[100]);
  }
}

TEST_CASE("the same seed and position give the same token, whatever came before") {
  std::vector<float> logits(500, 0.0f);
  Sampler used(kernels()), fresh(kernels());
  for (uint64_t i = 0; i < 20; ++i) (void)used.sample(logits, {.top_p = 0.5, .seed = 9}, kNoHistory, i);
  CHECK(used.sample(logits, {.seed = 7}, kNoHistory, 1000).value().id ==
        fresh.sample(logits, {.seed = 7}, kNoHistory, 1000).value().id);
  CHECK(fresh.sample(logits, {.seed = 7}, kNoHistory, 1).value().id !=
        fresh.sample(logits, {.seed = 8}, kNoHistory, 1).value().id);
}

TEST_CASE("greedy takes the lowest id among equals") {
  const std::vector<float> logits = {1, 3, 2, 3};
  CHECK(pick(logits, {.temperature = 0}) == 1);
  CHECK(pick(logits, {.top_p = 0}) == 1);
  CHECK(pick(logits, {.top_k = 1}) == 1);
  CHECK(pick(logits, {.temperature = 1e-300}) % 2 == 1);  // no overflow; one of the two best
}

TEST_CASE("penalties, bias and mask, in that order") {
  const std::vector<float> logits = {2.0f, 1.9f, -1.0f, 0.0f};
  TokenHistory history;
  history.add_prompt(std::vector<TokenId>{0});
  CHECK(pick(logits, {.temperature = 0, .presence_penalty = 1}, history) == 0);  // the prompt does not count
  CHECK(pick(logits, {.temperature = 0, .repetition_penalty = 1.2}, history) == 1);
  history.add_output(0);
  CHECK(pick(logits, {.temperature = 0, .presence_penalty = 0.2}, history) == 1);
  CHECK(pick(logits, {.temperature = 0, .frequency_penalty = 0.06}, history) == 0);
  history.add_output(0);
  CHECK(pick(logits, {.temperature = 0, .frequency_penalty = 0.06}, history) == 1);
  CHECK(pick(logits, {.temperature = 0, .logit_bias = {{0, -100}, {1, -1}, {3, 1}}}) == 3);
  const uint32_t mask[] = {0b1100};
  CHECK(pick(logits, {.temperature = 0}, kNoHistory, mask) == 3);
  CHECK(pick(logits, {.temperature = 0, .logit_bias = {{3, -100}, {0, 100}}}, kNoHistory, mask) == 2);
  // A negative logit is made more negative by the repetition penalty.
  TokenHistory two;
  two.add_output(2);
  CHECK(pick({-2.0f, -9.0f, -1.9f, -9.0f}, {.temperature = 0, .repetition_penalty = 1.5}, two) == 0);
}

TEST_CASE("a penalty without measure breaks no logit") {
  TokenHistory history;
  history.add_output(1);
  history.add_output(2);
  const std::vector<float> logits = {5.0f, 2.0f, 1.0f};
  for (const double penalty : {1e-300, 5e-324}) {
    CHECK(pick(logits, {.temperature = 0, .repetition_penalty = penalty}, history) == 1);
    const TokenId drawn = pick(logits, {.repetition_penalty = penalty}, history);
    CHECK(drawn != 0);
  }
  const float inf = std::numeric_limits<float>::infinity();
  CHECK(pick({5, -inf, -inf}, {.repetition_penalty = 1e-300}, history) == 0);
  Sampler sampler(kernels());
  CHECK(sampler.sample(std::vector<float>{5, inf, 1}, {.repetition_penalty = 2}, history, 0).status().code() == Code::kInternal);
}

TEST_CASE("logprobs are of the model's own distribution") {
  const std::vector<float> logits = {1.0f, 3.0f, 3.0f, -std::numeric_limits<float>::infinity()};
  Sampler sampler(kernels());
  const Sample made =
      sampler.sample(logits, {.temperature = 0, .logit_bias = {{0, 50}}, .top_logprobs = 2}, kNoHistory, 0).value();
  const double total = std::log(std::exp(1.0) + 2 * std::exp(3.0));
  CHECK(made.id == 0);
  CHECK(made.logprob == doctest::Approx(1.0 - total));
  REQUIRE(made.top_logprobs.size() == 2);
  CHECK(made.top_logprobs[0].id == 1);
  CHECK(made.top_logprobs[1].id == 2);
  CHECK(made.top_logprobs[0].logprob == doctest::Approx(3.0 - total));
}

TEST_CASE("bad logits, empty masks and bad parameters are errors") {
  Sampler sampler(kernels());
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const auto code = [&](const std::vector<float>& logits, std::span<const uint32_t> mask = {}) {
    return sampler.sample(logits, {}, kNoHistory, 3, mask).status().code();
  };
  CHECK(code({0, nan}) == Code::kInternal);
  CHECK(code({0, inf}) == Code::kInternal);
  CHECK(code({0, -inf}) == Code::kOk);
  CHECK(code({-inf, -inf}) == Code::kInvalidArgument);
  CHECK(code({}) == Code::kInvalidArgument);
  const uint32_t none[] = {0};
  CHECK(code({1, 2}, none) == Code::kInvalidArgument);
  CHECK(code(std::vector<float>(40, 0.0f), none) == Code::kInternal);

  const auto named = [](const SamplingParams& params) { return params.check(100).where(); };
  CHECK(SamplingParams{}.check(100).ok());
  CHECK(named({.temperature = -1}) == "temperature");
  CHECK(named({.temperature = std::numeric_limits<double>::quiet_NaN()}) == "temperature");
  CHECK(named({.top_p = 1.1}) == "top_p");
  CHECK(named({.top_k = -2}) == "top_k");
  CHECK(named({.min_p = 2}) == "min_p");
  CHECK(named({.repetition_penalty = 0}) == "repetition_penalty");
  CHECK(named({.presence_penalty = 3}) == "presence_penalty");
  CHECK(named({.frequency_penalty = -3}) == "frequency_penalty");
  CHECK(named({.logit_bias = {{100, 1}}}) == "logit_bias[100]");
  CHECK(named({.logit_bias = {{1, 101}}}) == "logit_bias[1]");
  CHECK(named({.top_logprobs = 21}) == "top_logprobs");
}
