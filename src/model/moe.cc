// Routing, then each expert once over all the tokens that chose it.
#include "model/moe.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/quantise.h"

namespace nautile {

float route_score(float logit) {
  return std::sqrt(logit > 20 ? logit : std::log1p(std::exp(logit)));
}

void choose_experts(const float* scores, const float* bias, size_t experts, size_t k, float route_scale, int* chosen,
                    float* weights, bool given) {
  if (!given) {
    // K is small: insertion into a short list ordered by biased score. NaN never compares greater, so it is never
    // chosen before a number.
    float best[64];
    size_t held = 0;
    for (size_t e = 0; e < experts; ++e) {
      const float value = scores[e] + (bias != nullptr ? bias[e] : 0.f);
      size_t at = held;
      while (at > 0 && value > best[at - 1]) --at;
      if (at >= k) continue;
      held = std::min(held + 1, k);
      for (size_t i = held - 1; i > at; --i) {
        best[i] = best[i - 1];
        chosen[i] = chosen[i - 1];
      }
      best[at] = value;
      chosen[at] = static_cast<int>(e);
    }
  }
  std::sort(chosen, chosen + k);
  float sum = 1e-20f;
  for (size_t i = 0; i < k; ++i) sum += scores[chosen[i]];
  for (size_t i = 0; i < k; ++i) weights[i] = scores[chosen[i]] / sum * route_scale;
}

void MoeLayer::route(Step& step, const Moe& moe, const float* x) {
  const size_t tokens = step.count(), experts = moe.gate.rows, k = static_cast<size_t>(step.config.experts_per_token);
  float* scores = scores_.floats(tokens * experts);
  linear_(step, moe.gate, x, moe.gate.cols, tokens, scores, experts, Rounding::kNone);
  chosen_.resize(tokens * k);
  weights_.resize(tokens * k);
  step.pool.for_range(tokens, 1, [&](int, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      for (size_t e = 0; e < experts; ++e) scores[t * experts + e] = route_score(scores[t * experts + e]);
      const bool given = moe.tid2eid != nullptr;
      if (given) {
        for (size_t i = 0; i < k; ++i) {
          chosen_[t * k + i] = moe.table_entry(step.tokens[t], static_cast<int>(i), static_cast<int>(k));
        }
      }
      choose_experts(scores + t * experts, moe.bias.empty() ? nullptr : moe.bias.data(), experts, k,
                     static_cast<float>(step.config.route_scale), chosen_.data() + t * k, weights_.data() + t * k,
                     given);
    }
  });
  of_expert_.resize(experts);
  for (auto& list : of_expert_) list.clear();
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t i = 0; i < k; ++i) of_expert_[static_cast<size_t>(chosen_[t * k + i])].push_back({t, i});
  }
}

// out = weight * silu(min(gate, limit)) * clamp(up, -limit, limit), rounded before w2.
void MoeLayer::swiglu(Step& step, const float* gate, const float* up, const float* weights, size_t rows, size_t width,
                      float* out) {
  const float limit = static_cast<float>(step.config.swiglu_limit);
  step.pool.for_range(rows, 1, [&](int, size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      const float weight = weights != nullptr ? weights[r] : 1.f;
      for (size_t i = r * width; i < (r + 1) * width; ++i) {
        const float g = std::min(gate[i], limit), u = std::clamp(up[i], -limit, limit);
        out[i] = weight * (g / (1 + std::exp(-g)) * u);
      }
      if (step.policy.round_bf16) round_bf16(out + r * width, width);
    }
  });
}

void MoeLayer::operator()(Step& step, const Moe& moe, const float* x, float* y) {
  const size_t tokens = step.count(), d = moe.gate.cols, k = static_cast<size_t>(step.config.experts_per_token);
  route(step, moe, x);
  float* slots = slots_.floats(tokens * k * d);  // each chosen expert's output: [tokens, K, D]
  for (size_t e = 0; e < moe.experts.size(); ++e) {
    const std::vector<Assignment>& mine = of_expert_[e];
    if (mine.empty()) continue;
    ++experts_read_;
    const Expert& expert = moe.experts[e];
    const size_t n = mine.size(), inter = expert.w1.rows;
    float* in = gathered_.floats(n * d);
    float* row_weights = row_weights_.floats(n);
    for (size_t i = 0; i < n; ++i) {
      std::memcpy(in + i * d, x + mine[i].token * d, d * sizeof(float));
      row_weights[i] = weights_[mine[i].token * k + mine[i].slot];
    }
    float *gate = gate_.floats(n * inter), *up = up_.floats(n * inter), *act = act_.floats(n * inter);
    linear_(step, expert.w1, in, d, n, gate, inter, Rounding::kOfficial);
    linear_(step, expert.w3, in, d, n, up, inter, Rounding::kOfficial);
    swiglu(step, gate, up, row_weights, n, inter, act);
    linear_(step, expert.w2, act, inter, n, in, d, Rounding::kOfficial);
    for (size_t i = 0; i < n; ++i) {
      std::memcpy(slots + (mine[i].token * k + mine[i].slot) * d, in + i * d, d * sizeof(float));
    }
  }
  const size_t inter = moe.shared.w1.rows;
  float *gate = gate_.floats(tokens * inter), *up = up_.floats(tokens * inter), *act = act_.floats(tokens * inter);
  float* shared = shared_.floats(tokens * d);
  linear_(step, moe.shared.w1, x, d, tokens, gate, inter, Rounding::kOfficial);
  linear_(step, moe.shared.w3, x, d, tokens, up, inter, Rounding::kOfficial);
  swiglu(step, gate, up, nullptr, tokens, inter, act);
  linear_(step, moe.shared.w2, act, inter, tokens, shared, d, Rounding::kOfficial);
  // Routed experts in ascending id (their slots are sorted), the shared one last.
  step.pool.for_range(tokens, 1, [&](int, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      float* out = y + t * d;
      std::memcpy(out, slots + t * k * d, d * sizeof(float));
      for (size_t i = 1; i < k; ++i) step.kernels.axpy(1.f, slots + (t * k + i) * d, out, d);
      step.kernels.axpy(1.f, shared + t * d, out, d);
      if (step.policy.round_bf16) round_bf16(out, d);
    }
  });
}

}  // namespace nautile
