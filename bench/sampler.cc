// bench_sampler: drawing one token of V4's vocabulary, one thread, every version of the kernels that this CPU runs in turn.
//
//   build/release/bench/bench_sampler
//
// Microseconds a token, median of 15, at 129,280 logits: normal with a deviation of 2.5, and 20 that stand out.
#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <vector>

#include "engine/sampler.h"
#include "kernels/registry.h"
#include "sys/clock.h"

using namespace nautile;

int main() {
  constexpr size_t kVocabulary = 129280;
  constexpr int kRounds = 15;
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 2.5f);
  std::vector<std::vector<float>> logits(8, std::vector<float>(kVocabulary));
  for (auto& row : logits) {
    for (float& x : row) x = normal(random);
    for (int i = 0; i < 20; ++i) row[random() % kVocabulary] += 8;
  }
  std::vector<uint32_t> mask(kVocabulary / 32, ~0u);
  mask[3] = 5;

  struct Case {
    const char* name;
    SamplingParams params;
    bool masked = false;
  };
  const Case cases[] = {{"greedy", {.temperature = 0}},
                        {"greedy, masked", {.temperature = 0}, true},
                        {"temperature 1", {}},
                        {"temperature 1, masked", {}, true},
                        {"top_p 0.95", {.top_p = 0.95}},
                        {"top_k 20", {.top_k = 20}},
                        {"top_k 20, top_p 0.95", {.top_p = 0.95, .top_k = 20}},
                        {"min_p 0.05", {.min_p = 0.05}},
                        {"temperature 1, its logprob", {.top_logprobs = 0}},
                        {"temperature 1, 20 logprobs", {.top_logprobs = 20}}};
  std::vector<Sampler> samplers;
  fmt::print("{:<28}", "us a token");
  for (const std::string& isa : available_isas()) {
    samplers.emplace_back(*find_kernels(isa).value());
    fmt::print(" {:>8}", isa);
  }
  fmt::print("\n");
  const TokenHistory history;
  for (const Case& c : cases) {
    fmt::print("{:<28}", c.name);
    std::vector<std::vector<double>> took(samplers.size());
    for (int round = 0; round <= kRounds; ++round) {
      for (size_t s = 0; s < samplers.size(); ++s) {
        const double begin = seconds_now();
        const auto sample = samplers[s].sample(logits[round % 8], c.params, history, round,
                                               c.masked ? std::span<const uint32_t>(mask) : std::span<const uint32_t>());
        if (!sample.ok()) return 1;
        if (round > 0) took[s].push_back(1e6 * (seconds_now() - begin));
      }
    }
    for (std::vector<double>& of : took) {
      std::ranges::sort(of);
      fmt::print(" {:>8.1f}", of[of.size() / 2]);
    }
    fmt::print("\n");
  }
  return 0;
}
