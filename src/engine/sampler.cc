// Penalties, filters and the draw. Passes over the whole vocabulary are the kernels'; nothing sorts it.
#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace nautile {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr size_t kBlock = 1024;  // tokens whose weights are summed in float

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

Result<Sample> Sampler::sample(std::span<const float> logits, const SamplingParams& params, const TokenHistory& history,
                               uint64_t position, std::span<const uint32_t> allowed) {
  const size_t size = logits.size();
  if (!allowed.empty() && allowed.size() * 32 < size) {
    return Status(Code::kInternal, fmt::format("the mask has {} words for {} tokens", allowed.size(), size), "allowed");
  }
  logits_.resize(size);
  const float* from = logits.data();
  if (!history.counts().empty() || !params.logit_bias.empty()) {
    std::copy(logits.begin(), logits.end(), logits_.begin());
    penalise(params, history);
    from = logits_.data();
  }
  const Peak best = kernels_.elements.masked(from, allowed.empty() ? nullptr : allowed.data(), size, logits_.data());
  if (std::isnan(best.value)) {
    const auto broken = std::ranges::find_if(logits, [](float x) { return !(x < -kNever); });
    return Status(Code::kInternal, fmt::format("the logit of token {} is {}", broken - logits.begin(), *broken),
                  fmt::format("position {}", position),
                  "the weights or a kernel are broken; check the checkpoint with `nautile inspect`");
  }
  if (best.value == kNever) {
    return Status(Code::kInvalidArgument, "no token satisfies the constraints", fmt::format("position {}", position));
  }

  Sample made{static_cast<TokenId>(best.index), 0, {}};
  if (params.temperature > 0 && params.top_p > 0 && params.top_k != 1) {
    made.id = draw(params, best.value, random_unit(params.seed, position));
  }
  if (params.top_logprobs >= 0) {
    TokenScore score = this->score(logits, made.id, params.top_logprobs);
    made.logprob = score.logprob;
    made.top_logprobs = std::move(score.top);
  }
  return made;
}

// A logit that was finite stays so, whatever is asked for: only the model's own may be broken.
void Sampler::penalise(const SamplingParams& params, const TokenHistory& history) {
  constexpr double kMost = std::numeric_limits<float>::max();
  const auto changed = [&](TokenId id, const auto& change) {
    if (id < 0 || static_cast<size_t>(id) >= logits_.size()) return;
    float& logit = logits_[static_cast<size_t>(id)];
    if (std::isfinite(logit)) logit = static_cast<float>(std::clamp<double>(change(logit), -kMost, kMost));
  };
  for (const auto& [id, count] : history.counts()) {
    changed(id, [&, &count = count](double logit) {  // named again: clang 14 cannot capture a part of a pair
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
      if (count.in_output > 0) logit -= params.presence_penalty + params.frequency_penalty * count.in_output;
      return logit;
    });
  }
  for (const auto& [id, bias] : params.logit_bias) {
    changed(id, [&bias = bias](double logit) { return logit + bias; });
  }
}

// Of logits_, whose highest is `highest`. unit: in [0, 1).
TokenId Sampler::draw(const SamplingParams& params, float highest, double unit) {
  std::span<const float> from = logits_;
  const bool few = params.top_k > 0 && static_cast<size_t>(params.top_k) < logits_.size();
  if (few) {
    best_of(logits_, static_cast<size_t>(params.top_k));
    few_.clear();
    for (const TokenId id : chosen_) few_.push_back(logits_[static_cast<size_t>(id)]);
    from = few_;
  }
  double total = weigh(from, highest, params.temperature);
  if (params.top_p < 1) keep_top_p(from, params.top_p * total);
  if (params.min_p > 0) drop_below(static_cast<float>(params.min_p));
  if (params.top_p < 1 || params.min_p > 0) total = sum_blocks();
  const size_t drawn = draw_at(unit * total);
  return few ? chosen_[drawn] : static_cast<TokenId>(drawn);
}

// Fills weights_ and block_weights_; their sum.
double Sampler::weigh(std::span<const float> logits, float highest, double temperature) {
  // A temperature that is all but 0 still leaves differences finite.
  const float factor = static_cast<float>(std::min(1 / temperature, 1e30));
  weights_.resize(logits.size());
  block_weights_.clear();
  double total = 0;
  for (size_t i = 0; i < logits.size(); i += kBlock) {
    const size_t here = std::min(kBlock, logits.size() - i);
    total += block_weights_.emplace_back(
        kernels_.elements.exponentials(logits.data() + i, here, highest, factor, weights_.data() + i));
  }
  return total;
}

double Sampler::sum_blocks() {
  constexpr size_t kSums = 16;
  double total = 0;
  for (size_t b = 0; b < block_weights_.size(); ++b) {
    const auto block = std::span(weights_).subspan(b * kBlock).first(std::min(kBlock, weights_.size() - b * kBlock));
    float sums[kSums] = {};
    size_t i = 0;
    for (; i + kSums <= block.size(); i += kSums) {
      for (size_t j = 0; j < kSums; ++j) sums[j] += block[i + j];
    }
    for (; i < block.size(); ++i) sums[0] += block[i];
    total += block_weights_[b] = std::accumulate(sums, sums + kSums, 0.f);
  }
  return total;
}

// Where the sum of the weights so far first is above `wanted`; the last possible place if rounding leaves none.
size_t Sampler::draw_at(double wanted) const {
  size_t last = 0;
  double before = 0, sum = 0;
  for (size_t b = 0; b < block_weights_.size() && sum <= wanted; sum += block_weights_[b++]) {
    if (block_weights_[b] == 0) continue;
    last = b;
    before = sum;
  }
  const size_t begin = last * kBlock, end = std::min(begin + kBlock, weights_.size());
  size_t place = begin;
  sum = before;
  for (size_t i = begin; i < end && sum <= wanted; ++i) {
    if (weights_[i] == 0) continue;
    sum += weights_[i];
    place = i;
  }
  return place;
}

void Sampler::drop_below(float least) {
  for (float& weight : weights_) weight = weight >= least ? weight : 0;
}

// Leaves the fewest of the most likely whose weights reach `wanted`. Nothing is sorted but the bucket of sizes in which they
// do; there are 16 between a weight and its double.
void Sampler::keep_top_p(std::span<const float> logits, double wanted) {
  constexpr int kShift = 19;
  const auto bucket = [](float weight) { return std::bit_cast<uint32_t>(weight) >> kShift; };
  buckets_.assign(bucket(1) + 1, 0);
  for (const float weight : weights_) buckets_[bucket(weight)] += weight;
  uint32_t last = bucket(1);
  double sum = 0;
  for (; last > 0 && sum + buckets_[last] < wanted; --last) sum += buckets_[last];

  drop_below(std::bit_cast<float>(last << kShift));
  const float above = std::bit_cast<float>((last + 1) << kShift);
  edge_.clear();
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] < above && weights_[i] > 0) edge_.push_back(static_cast<uint32_t>(i));
  }
  std::ranges::sort(edge_, [&](uint32_t a, uint32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  for (const uint32_t i : edge_) {
    if (sum >= wanted) {
      weights_[i] = 0;
    } else {
      sum += weights_[i];
    }
  }
}

// chosen_ becomes the k best of the logits, ascending. k < logits.size().
void Sampler::best_of(std::span<const float> logits, size_t k) {
  chosen_.resize(k);
  scratch_.resize(std::max(scratch_.size(), top_k_scratch(logits.size(), k)));
  kernels_.top_k({logits.data(), logits.size(), k, chosen_.data(), scratch_.data()});
}

TokenScore Sampler::score(std::span<const float> logits, TokenId id, int top) {
  logits_.resize(logits.size());
  const float highest = kernels_.elements.masked(logits.data(), nullptr, logits.size(), logits_.data()).value;
  const double log_total = highest + std::log(weigh(logits, highest, 1));
  const auto logprob = [&](TokenId token) { return static_cast<float>(logits[static_cast<size_t>(token)] - log_total); };
  TokenScore score{logprob(id), {}};
  if (top <= 0) return score;
  if (static_cast<size_t>(top) < logits.size()) {
    best_of(logits, static_cast<size_t>(top));
  } else {
    chosen_.resize(logits.size());
    std::iota(chosen_.begin(), chosen_.end(), 0);
  }
  std::ranges::stable_sort(chosen_, std::greater(), [&](int32_t token) { return logits[static_cast<size_t>(token)]; });
  for (const int32_t token : chosen_) score.top.push_back({token, logprob(token)});
  return score;
}

}  // namespace nautile
