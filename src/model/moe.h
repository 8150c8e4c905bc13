// The mixture of experts: router, routed experts with their weights before w2, shared expert (spec model.md section 8).
//
// A call is five parallel phases, each because it needs all of the one before:
//   1 router logits                   2 choice of experts, input rows narrowed, a token an item
//   3 gate, up and SwiGLU, a block of rows of one expert an item; its outputs are narrowed for w2 at once
//   4 down, likewise                  5 sum of a token's experts
// Calls of more than kWholeTokens repeat the last two for a part of the columns at a time: outputs of all columns
// before their sum would be K rows of floats a token. Each distinct expert's weights are read once a call; the shared
// expert is one more expert of phases 3 and 4.
//
// Thread-safety: one caller at a time, as AttentionLayer; the free functions are pure.
#pragma once

#include "model/linear.h"
#include "model/node_rows.h"
#include "model/weights.h"

namespace nautile {

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
  // One expert with the tokens that chose it: elements [first, first + count) of the lists below.
  struct Group {
    const Expert* expert;
    size_t first, count;
  };
  // A node's rows of each expert in the phase at hand, and how many items they make.
  struct Cut {
    RowRange shared, routed;
    size_t shared_items, routed_items;
  };
  // Rows that an item takes of the shared expert, and of a routed one, which has fewer tokens.
  struct Blocks {
    size_t shared = 0, routed = 0;
  };
  // A node's columns of y in the part at hand, and where they lie in the rows of slots_ and shared_.
  struct Columns {
    RowRange range;
    size_t at;
  };
  static constexpr size_t kWholeTokens = 512;

  void route(Step& step, const Moe& moe, const float* x);
  void group(Step& step, const Moe& moe);
  void gate_up(Step& step, const Group& group, Activations& out, size_t row, size_t node, RowRange rows, int worker);
  // The group's inputs: where they are, or copied to lie evenly.
  const std::byte* const* inputs_of(const Step& step, const Group& group, int worker);
  // Row r of w2 goes to element r - first of the output rows.
  void down(Step& step, const Group& group, size_t first, size_t node, RowRange rows);
  void sum(Step& step, size_t d, float* y);

  uint64_t experts_read_ = 0;
  Linear linear_;
  std::vector<int> chosen_;             // [tokens, K]
  std::vector<float> weights_;          // [tokens, K]
  Activations inputs_, shared_inputs_;  // [tokens]
  Activations acts_, shared_acts_;      // [tokens * K] in the order of the groups, [tokens]: inputs of w2

  // The shared expert's tokens first, then tokens * K pairs of a token and one of its experts, by expert.
  std::vector<Group> groups_;
  std::vector<size_t> starts_;                     // [E + 1]
  std::vector<Cut> cuts_;                          // [nodes]
  std::vector<size_t> counts_;                     // [nodes]: items of the phase
  std::vector<Columns> columns_;                   // [nodes]
  size_t parts_ = 1, width_ = 0;                   // of the columns; columns of a part at most
  Blocks inner_, outer_;                           // of phases 3 and 4
  std::vector<const std::byte*> x_;                // input rows
  std::vector<const std::byte*> act_;              // rows of acts_
  std::vector<float*> y_;                          // output rows
  std::vector<float> row_weights_;                 // router weights; 1 for the shared expert
  std::vector<std::vector<float>> gate_up_;        // by worker: [2, tokens of a group, rows of a block]
  std::vector<std::vector<float*>> gate_up_rows_;  // by worker: their rows, gate then up
  std::vector<Buffer> together_;  // by worker: rows of x_ side by side
  std::vector<std::vector<const std::byte*>> together_at_;
  Buffer scores_;
  Buffer slots_, shared_;  // [tokens, K, width], [tokens, width]
};

}  // namespace nautile
