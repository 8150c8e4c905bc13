// How the next token is chosen, as a caller states it. The rules and their order are in src/engine/sampler.h.
//
// Thread-safety: values. Source: spec chat.md 8, api.md 9.3, 9.4, 9.6.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "nautile/status.h"

namespace nautile {

using TokenId = int32_t;

struct SamplingParams {
  double temperature = 1.0;                // 0..2; 0 is greedy
  double top_p = 1.0;                      // 0..1; 0 is greedy
  int64_t top_k = 0;                       // 0 or -1: off
  double min_p = 0.0;                      // 0..1, relative to the most likely token
  double repetition_penalty = 1.0;         // (0, 2]: prompt and output
  double presence_penalty = 0.0;           // -2..2: output
  double frequency_penalty = 0.0;          // -2..2: output
  std::map<TokenId, double> logit_bias{};  // -100..100, added to the logit
  uint64_t seed = 0;
  int top_logprobs = -1;  // -1: none; 0..20: the token's own and so many of the most likely

  // kInvalidArgument naming the field; ids of logit_bias are held against the vocabulary's size.
  Status check(size_t vocabulary) const;
};

struct Logprob {
  TokenId id;
  float logprob;  // natural log, of the model's own distribution: before penalties, bias, mask and temperature
};

}  // namespace nautile
