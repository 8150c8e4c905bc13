// The sampler: logits and parameters to the next token, the same token every time.
//
// Order, as in vLLM and Hugging Face: repetition, presence and frequency penalties; logit bias; the mask of allowed
// tokens; temperature; top-k; top-p (of what top-k left); min-p. Then one draw by inverse cumulative distribution over
// the kept tokens in ascending order of id, accumulated in double. Temperature 0 or top_p 0 takes the highest logit,
// the lowest id among equals, and draws nothing. The draw is random_unit(seed, position): it depends on nothing else,
// so batch mates, chunking and speculation do not change it. Thread-safety: a Sampler holds working memory and belongs
// to one thread; the result is a pure function of the arguments. Source: spec chat.md 8, api.md 9.3, 9.4, 9.6.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "nautile/sampling.h"

namespace nautile {

// Which tokens a sequence holds, for the penalties. Kept up to date token by token.
class TokenHistory {
 public:
  struct Count {
    bool in_prompt = false;
    uint32_t in_output = 0;
  };
  void add_prompt(std::span<const TokenId> ids) {
    for (const TokenId id : ids) counts_[id].in_prompt = true;
  }
  void add_output(TokenId id) { ++counts_[id].in_output; }
  const std::unordered_map<TokenId, Count>& counts() const { return counts_; }

 private:
  std::unordered_map<TokenId, Count> counts_;
};

// A token's place in the model's own distribution.
struct TokenScore {
  float logprob = 0;
  std::vector<Logprob> top;  // the most likely, descending; the lower id first among equals
};
// top: how many of the most likely. Precondition: 0 <= id < logits.size(), logits without NaN.
TokenScore score_token(std::span<const float> logits, TokenId id, int top);

struct Sample {
  TokenId id = -1;
  float logprob = 0;                  // as in Logprob; set if logprobs are asked for
  std::vector<Logprob> top_logprobs;  // descending; the lower id first among equals
};

class Sampler {
 public:
  // logits: [vocabulary]. allowed: one bit a token, 32 to a word, lowest bit first; empty allows all (a grammar fills
  // it). position: of the token to be drawn, counted from the start of the sequence.
  // kInternal for a NaN or +inf among the logits (-inf is a token that cannot come) or a mask of another size;
  // kInvalidArgument if no token is left.
  Result<Sample> sample(std::span<const float> logits, const SamplingParams& params, const TokenHistory& history,
                        uint64_t position, std::span<const uint32_t> allowed = {});

 private:
  void keep_top_k(size_t k);
  void keep_top_p(double top_p, size_t vocabulary);

  struct Candidate {
    double logit;  // after temperature
    TokenId id;
  };
  std::vector<double> logits_;         // [vocabulary]
  std::vector<Candidate> candidates_;  // those not ruled out yet
};

// A number in [0, 1) with 53 random bits: Philox 4x32-10 with the seed as key and (position, stream) as counter.
double random_unit(uint64_t seed, uint64_t position, uint64_t stream = 0);

}  // namespace nautile
