// Penalties, filters and the draw. Candidates shrink from step to step; nothing sorts the whole vocabulary.
#include "text/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

namespace nautile {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();
// The nucleus is looked for among this many of the best first, then among four times as many, and so on.
constexpr size_t kFirstNucleus = 64;

Status outside(const char* name, double value, const char* range) {
  return {Code::kInvalidArgument, fmt::format("{} is {}, but must be {}", name, value, range), name};
}

// Philox 4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = 0xD2511F53ull * counter[0];
    const uint64_t b = 0xCD9E8D57ull * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

}  // namespace

double random_unit(uint64_t seed, uint64_t position, uint64_t stream) {
  const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
  const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  const auto words = philox({low(position), high(position), low(stream), high(stream)}, {low(seed), high(seed)});
  const uint64_t bits = static_cast<uint64_t>(words[0]) << 32 | words[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

Status SamplingParams::check(size_t vocabulary) const {
  // Written so that NaN fails as well.
  if (!(temperature >= 0 && temperature <= 2)) return outside("temperature", temperature, "from 0 to 2");
  if (!(top_p >= 0 && top_p <= 1)) return outside("top_p", top_p, "from 0 to 1");
  if (top_k < -1) return outside("top_k", static_cast<double>(top_k), "-1, 0 (both: off) or more");
  if (!(min_p >= 0 && min_p <= 1)) return outside("min_p", min_p, "from 0 to 1");
  if (!(repetition_penalty > 0 && repetition_penalty <= 2)) {
    return outside("repetition_penalty", repetition_penalty, "above 0 and at most 2");
  }
  if (!(std::abs(presence_penalty) <= 2)) return outside("presence_penalty", presence_penalty, "from -2 to 2");
  if (!(std::abs(frequency_penalty) <= 2)) return outside("frequency_penalty", frequency_penalty, "from -2 to 2");
  for (const auto& [id, bias] : logit_bias) {
    const std::string where = fmt::format("logit_bias[{}]", id);
    if (id < 0 || static_cast<size_t>(id) >= vocabulary) {
      return {Code::kInvalidArgument, fmt::format("the id is not in the vocabulary of {}", vocabulary), where};
    }
    if (!(std::abs(bias) <= 100)) return outside(where.c_str(), bias, "from -100 to 100");
  }
  if (top_logprobs < -1 || top_logprobs > 20) return outside("top_logprobs", top_logprobs, "from 0 to 20");
  return {};
}

TokenScore score_token(std::span<const float> logits, TokenId id, int top) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float logit : logits) total += std::exp(logit - highest);
  const double log_total = highest + std::log(total);
  auto logprob = [&](TokenId token) { return static_cast<float>(logits[static_cast<size_t>(token)] - log_total); };
  TokenScore score{logprob(id), {}};
  if (top <= 0) return score;
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto wanted = order.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(top, logits.size()));
  std::partial_sort(order.begin(), wanted, order.end(), [&](TokenId a, TokenId b) {
    const float la = logits[static_cast<size_t>(a)], lb = logits[static_cast<size_t>(b)];
    return la != lb ? la > lb : a < b;
  });
  for (auto it = order.begin(); it != wanted; ++it) score.top.push_back({*it, logprob(*it)});
  return score;
}

Result<Sample> Sampler::sample(std::span<const float> logits, const SamplingParams& params, const TokenHistory& history,
                               uint64_t position, std::span<const uint32_t> allowed) {
  const size_t size = logits.size();
  if (!allowed.empty() && allowed.size() * 32 < size) {
    return Status(Code::kInternal, fmt::format("the mask has {} words for {} tokens", allowed.size(), size), "allowed");
  }
  logits_.assign(logits.begin(), logits.end());
  for (size_t i = 0; i < size; ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
      return Status(Code::kInternal, fmt::format("the logit of token {} is {}", i, logits[i]),
                    fmt::format("position {}", position),
                    "the weights or a kernel are broken; check the checkpoint with `nautile inspect`");
    }
  }

  Sample made;
  const auto chosen = [&](TokenId id) -> Sample {
    made.id = id;
    if (params.top_logprobs >= 0) {
      TokenScore score = score_token(logits, id, params.top_logprobs);
      made.logprob = score.logprob;
      made.top_logprobs = std::move(score.top);
    }
    return std::move(made);
  };

  if (params.repetition_penalty != 1 || params.presence_penalty != 0 || params.frequency_penalty != 0) {
    for (const auto& [id, count] : history.counts()) {
      if (id < 0 || static_cast<size_t>(id) >= size) continue;
      double& logit = logits_[id];
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
      if (count.in_output > 0) logit -= params.presence_penalty + params.frequency_penalty * count.in_output;
    }
  }
  for (const auto& [id, bias] : params.logit_bias) {
    if (id >= 0 && static_cast<size_t>(id) < size) logits_[id] += bias;
  }
  if (!allowed.empty()) {
    for (size_t i = 0; i < size; ++i) {
      if (!(allowed[i / 32] >> (i % 32) & 1)) logits_[i] = kNever;
    }
  }
  const auto best = std::max_element(logits_.begin(), logits_.end());  // the first of equals
  if (best == logits_.end() || *best == kNever) {
    return Status(Code::kInvalidArgument, "no token satisfies the constraints", fmt::format("position {}", position));
  }
  if (params.temperature == 0 || params.top_p == 0 || params.top_k == 1) {
    return chosen(static_cast<TokenId>(best - logits_.begin()));
  }

  // Logits relative to the best, so that nothing overflows however low the temperature.
  const double highest = *best;
  candidates_.clear();
  for (size_t i = 0; i < size; ++i) {
    if (logits_[i] != kNever)
      candidates_.push_back({(logits_[i] - highest) / params.temperature, static_cast<TokenId>(i)});
  }
  if (params.top_k > 0) keep_top_k(static_cast<size_t>(params.top_k));
  if (params.top_p < 1) keep_top_p(params.top_p, size);
  if (params.min_p > 0) {
    const double least = std::log(params.min_p);
    std::erase_if(candidates_, [&](const Candidate& c) { return c.logit < least; });
  }
  std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  double total = 0;
  for (const Candidate& c : candidates_) total += std::exp(c.logit);
  const double wanted = random_unit(params.seed, position) * total;
  double sum = 0;
  TokenId last = candidates_.front().id;
  for (const Candidate& c : candidates_) {
    const double weight = std::exp(c.logit);
    if (weight == 0) continue;
    sum += weight;
    last = c.id;
    if (sum > wanted) break;
  }
  return chosen(last);
}

namespace {
constexpr auto kBetter = [](const auto& a, const auto& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
};
}  // namespace

void Sampler::keep_top_k(size_t k) {
  if (k >= candidates_.size()) return;
  std::nth_element(candidates_.begin(), candidates_.begin() + k, candidates_.end(), kBetter);
  candidates_.resize(k);
}

// The smallest set of the most likely tokens that holds top_p of the probability.
void Sampler::keep_top_p(double top_p, size_t vocabulary) {
  double total = 0;
  for (const Candidate& c : candidates_) total += std::exp(c.logit);
  // Tokens this unlikely hold less than 1 - top_p even together, so none of them is needed.
  const double least = std::log((1 - top_p) * total / static_cast<double>(vocabulary));
  std::erase_if(candidates_, [&](const Candidate& c) { return c.logit < least; });
  const double wanted = top_p * total;
  double sum = 0;
  size_t done = 0;
  for (size_t until = kFirstNucleus; done < candidates_.size(); until *= 4) {
    const size_t end = std::min(until, candidates_.size());
    if (end < candidates_.size()) {
      std::nth_element(candidates_.begin() + done, candidates_.begin() + end, candidates_.end(), kBetter);
    }
    std::sort(candidates_.begin() + done, candidates_.begin() + end, kBetter);
    for (; done < end; ++done) {
      sum += std::exp(candidates_[done].logit);
      if (sum >= wanted) {
        candidates_.resize(done + 1);
        return;
      }
    }
  }
}

}  // namespace nautile
