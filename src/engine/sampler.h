// The sampler: logits and parameters to the next token, the same token every time.
//
// Order, as in vLLM and Hugging Face: repetition, presence and frequency penalties; logit bias; the mask of allowed
// tokens; temperature; top-k; top-p (of what top-k left); min-p. Then one draw by inverse cumulative distribution over
// the kept tokens in ascending order of id. Probabilities are floats from the kernels' exponentials, sums of them doubles: a
// nucleus is that of top_p within a millionth. Temperature 0 or top_p 0 takes the highest logit, the lowest id among equals, and
// draws nothing. The draw is random_unit(seed, position): it depends on nothing else,
// so batch mates, chunking and speculation do not change it. Thread-safety: a Sampler holds working memory and belongs
// to one thread; the result is a pure function of the arguments and the kernels. Source: spec chat.md 8, api.md 9.3, 9.4, 9.6.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "kernels/ops.h"
#include "nautile/sampling.h"

namespace nautile {

// Which tokens a sequence holds, for the penalties; empty where there are none. Kept up to date token by token.
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
struct Sample {
  TokenId id = -1;
  float logprob = 0;                  // as in Logprob; set if logprobs are asked for
  std::vector<Logprob> top_logprobs;  // descending; the lower id first among equals
};

class Sampler {
 public:
  explicit Sampler(const Kernels& kernels) : kernels_(kernels) {}

  // logits: [vocabulary]. allowed: one bit a token, 32 to a word, lowest bit first; empty allows all (a grammar fills
  // it). position: of the token to be drawn, counted from the start of the sequence.
  // kInternal for a NaN or +inf among the logits (-inf is a token that cannot come) or a mask of another size;
  // kInvalidArgument if no token is left.
  Result<Sample> sample(std::span<const float> logits, const SamplingParams& params, const TokenHistory& history,
                        uint64_t position, std::span<const uint32_t> allowed = {});
  // top: how many of the most likely. Precondition: 0 <= id < logits.size(), logits without NaN.
  TokenScore score(std::span<const float> logits, TokenId id, int top);

 private:
  void penalise(const SamplingParams& params, const TokenHistory& history);
  TokenId draw(const SamplingParams& params, float highest, double unit);
  double weigh(std::span<const float> logits, float highest, double temperature);
  double sum_blocks();
  size_t draw_at(double wanted) const;
  void drop_below(float least);
  void keep_top_p(std::span<const float> logits, double wanted);
  void best_of(std::span<const float> logits, size_t k);

  const Kernels& kernels_;
  std::vector<float> logits_;              // [vocabulary], after penalties and mask
  std::vector<float> few_;                 // [top_k] of them
  std::vector<int32_t> chosen_, scratch_;  // of top-k: which they are
  std::vector<float> weights_;             // [vocabulary] or [top_k], the best token's is 1; 0: ruled out
  std::vector<double> block_weights_;      // sums of kBlock of them
  std::vector<double> buckets_;            // of top-p: sums of weights by size
  std::vector<uint32_t> edge_;             // of top-p: places of which some stay
};

// A number in [0, 1) with 53 random bits: Philox 4x32-10 with the seed as key and (position, stream) as counter.
double random_unit(uint64_t seed, uint64_t position, uint64_t stream = 0);

}  // namespace nautile
