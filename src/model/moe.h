// The mixture of experts: router, routed experts with their weights before w2, shared expert (spec model.md section 8).
#pragma once

#include "model/linear.h"
#include "model/weights.h"

namespace nautile {

// sqrt(softplus(z)) without overflow or loss at either end.
float route_score(float logit);

// The K experts of one token, ascending by id, with weights that sum to route_scale. scores: [E]; bias: [E] or null.
// Ties go to the lower id. chosen: given ids [K] on hash-routed layers, else filled.
void choose_experts(const float* scores, const float* bias, size_t experts, size_t k, float route_scale, int* chosen,
                    float* weights, bool given);

class MoeLayer {
 public:
  // y[t] = sum_e w_e expert_e(x[t]) + shared(x[t]). x, y: [tokens, D]
  void operator()(Step& step, const Moe& moe, const float* x, float* y);
  // Routed experts whose weights have been read so far, each layer and call counted.
  uint64_t experts_read() const { return experts_read_; }

 private:
  struct Assignment {
    size_t token, slot;
  };
  void route(Step& step, const Moe& moe, const float* x);
  void swiglu(Step& step, const float* gate, const float* up, const float* weights, size_t rows, size_t width,
              float* out);

  uint64_t experts_read_ = 0;
  Linear linear_;
  std::vector<int> chosen_;     // [tokens, K]
  std::vector<float> weights_;  // [tokens, K]
  std::vector<std::vector<Assignment>> of_expert_;
  Buffer scores_, gathered_, gate_, up_, act_, slots_, row_weights_, shared_;
};

}  // namespace nautile
