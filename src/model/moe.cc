// Routing, then each expert once over all the tokens that chose it, a block of its rows at a time.
#include "model/moe.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace nautile {
namespace {

// Rows of an expert that an item of phases 3 and 4 takes: whole groups of the official quantiser, so that it can narrow
// them. Long items read faster: 1,024 rows at 0.96 of a plain read, 512 at 0.94, 256 at 0.92, 128 at 0.87.
constexpr size_t kLeastBlock = 128, kMostBlock = 1024;
constexpr size_t kItemsAThread = 8;      // at least, so that all threads end together
constexpr size_t kMostTogether = 1 << 20;  // bytes of a group's inputs that are copied to lie together: half a second-level cache
constexpr size_t kItemFloats = 1 << 16;  // that it makes, in the second-level cache; more only with kLeastBlock

// Of `groups` experts of so many rows; `floats` are made a row.
size_t block_rows(size_t groups, size_t rows, size_t threads, size_t floats) {
  size_t block = kLeastBlock;
  while (2 * block <= kMostBlock && groups * rows >= 2 * block * threads * kItemsAThread &&
         2 * block * floats <= kItemFloats) {
    block *= 2;
  }
  return block;
}

// Columns of a node's own in each part but the last ones: whole tiles.
size_t columns_a_part(RowRange own, size_t parts) {
  const size_t all = own.end - own.begin, tiles = (all + kTileRows - 1) / kTileRows;
  return std::min(all, (tiles + parts - 1) / parts * kTileRows);
}

}  // namespace

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

// Chooses each token's experts and narrows its input.
void MoeLayer::route(Step& step, const Moe& moe, const float* x) {
  const size_t tokens = step.count(), experts = moe.gate.rows, k = static_cast<size_t>(step.config.experts_per_token);
  float* scores = scores_.floats(tokens * experts);
  linear_(step, moe.gate, x, moe.gate.cols, tokens, scores, experts, Rounding::kNone);
  chosen_.resize(std::max(chosen_.size(), tokens * k));
  weights_.resize(std::max(weights_.size(), tokens * k));
  inputs_.shape(step, moe.experts[0].w1, tokens);
  shared_inputs_.shape(step, moe.shared.w1, tokens);
  step.pool.for_range(tokens, 1, [&](int, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      step.kernels.elements.route_scores(scores + t * experts, experts);
      const bool given = moe.tid2eid != nullptr;
      if (given) {
        for (size_t i = 0; i < k; ++i) {
          chosen_[t * k + i] = moe.table_entry(step.tokens[t], static_cast<int>(i), static_cast<int>(k));
        }
      }
      choose_experts(scores + t * experts, moe.bias.empty() ? nullptr : moe.bias.data(), experts, k,
                     static_cast<float>(step.config.route_scale), chosen_.data() + t * k, weights_.data() + t * k,
                     given);
      inputs_.write(step, t, x + t * moe.gate.cols, true);
      shared_inputs_.write(step, t, x + t * moe.gate.cols, true);
    }
  });
}

// Sorts the pairs of token and expert by expert and lays out where each reads and writes.
void MoeLayer::group(Step& step, const Moe& moe) {
  const size_t tokens = step.count(), d = moe.gate.cols, k = static_cast<size_t>(step.config.experts_per_token);
  const size_t pairs = tokens * k, all = tokens + pairs;
  parts_ = (tokens + kWholeTokens - 1) / kWholeTokens;
  width_ = 0;
  for (size_t node = 0; node < step.pool.nodes(); ++node) {
    width_ += columns_a_part(node_rows(step.pool, d, node), parts_);
  }
  float *slots = slots_.floats(pairs * width_), *shared = shared_.floats(tokens * width_);
  acts_.shape(step, moe.experts[0].w2, pairs);
  shared_acts_.shape(step, moe.shared.w2, tokens);
  x_.resize(std::max(x_.size(), all));
  act_.resize(std::max(act_.size(), all));
  y_.resize(std::max(y_.size(), all));
  row_weights_.resize(std::max(row_weights_.size(), all));
  for (size_t t = 0; t < tokens; ++t) {
    x_[t] = shared_inputs_.row(t);
    act_[t] = shared_acts_.row(t);
    y_[t] = shared + t * width_;
    row_weights_[t] = 1;
  }
  starts_.assign(moe.experts.size() + 1, 0);
  for (size_t i = 0; i < pairs; ++i) ++starts_[static_cast<size_t>(chosen_[i]) + 1];
  groups_.clear();
  groups_.reserve(moe.experts.size() + 1);
  groups_.push_back({&moe.shared, 0, tokens});
  for (size_t e = 0; e < moe.experts.size(); ++e) {
    if (starts_[e + 1] != 0) groups_.push_back({&moe.experts[e], tokens + starts_[e], starts_[e + 1]});
    starts_[e + 1] += starts_[e];
  }
  experts_read_ += groups_.size() - 1;
  for (size_t i = 0; i < pairs; ++i) {
    const size_t place = starts_[static_cast<size_t>(chosen_[i])]++, at = tokens + place;
    x_[at] = inputs_.row(i / k);
    act_[at] = acts_.row(place);
    y_[at] = slots + i * width_;
    row_weights_[at] = weights_[i];
  }
  size_t most = 0;  // tokens of a routed expert
  for (size_t i = 1; i < groups_.size(); ++i) most = std::max(most, groups_[i].count);
  const size_t threads = static_cast<size_t>(step.pool.threads()), inner = moe.experts[0].w1.rows;
  inner_ = {block_rows(1, inner, threads, 2 * tokens), block_rows(groups_.size() - 1, inner, threads, 2 * most)};
  outer_ = {block_rows(1, width_, threads, tokens), block_rows(groups_.size() - 1, width_, threads, most)};
  gate_up_.resize(threads);
  gate_up_rows_.resize(threads);
  for (size_t worker = 0; worker < threads; ++worker) {
    std::vector<float>& floats = gate_up_[worker];
    std::vector<float*>& rows = gate_up_rows_[worker];
    floats.resize(std::max({floats.size(), 2 * tokens * kLeastBlock, kItemFloats}));
    rows.resize(std::max(rows.size(), 2 * tokens));
  }
  if (step.kernels.tiles == nullptr || most <= step.kernels.tiles->scattered_tokens) return;
  together_.resize(threads);
  together_at_.resize(threads);
  for (Buffer& rows : together_) rows.bytes(kMostTogether);
  for (std::vector<const std::byte*>& at : together_at_) at.resize(std::max(at.size(), most));
}

const std::byte* const* MoeLayer::inputs_of(const Step& step, const Group& group, int worker) {
  const std::byte* const* x = x_.data() + group.first;
  const size_t bytes = inputs_.row_bytes();
  const bool even = group.first == 0;  // the shared expert's: all tokens in turn
  if (even || group.expert->w1.layout != WeightLayout::kTiles || group.count * bytes > kMostTogether ||
      group.count <= step.kernels.tiles->scattered_tokens) {
    return x;
  }
  std::vector<const std::byte*>& at = together_at_[static_cast<size_t>(worker)];
  std::byte* to = together_[static_cast<size_t>(worker)].bytes(0);
  for (size_t t = 0; t < group.count; ++t, to += bytes) {
    std::memcpy(to, x[t], bytes);
    at[t] = to;
  }
  return at.data();
}

// Columns of the inner width, the node's, for all tokens of the group.
void MoeLayer::gate_up(Step& step, const Group& group, Activations& out, size_t row, size_t node, RowRange rows,
                       int worker) {
  const auto [begin, end] = rows;
  const Expert& expert = *group.expert;
  const ActivationFormat format = activation_format(step, expert.w1);
  float** gate = gate_up_rows_[static_cast<size_t>(worker)].data();
  float** up = gate + group.count;
  for (size_t t = 0; t < 2 * group.count; ++t) gate[t] = gate_up_[static_cast<size_t>(worker)].data() + t * (end - begin);
  const std::byte* const* x = inputs_of(step, group, worker);
  const Elements& elements = step.kernels.elements;
  const float limit = static_cast<float>(step.config.swiglu_limit);
  const bool round = step.policy.round_bf16;
  step.kernels.matmul({on_node(expert.w1, node), format, x, gate, begin, group.count, begin, end});
  step.kernels.matmul({on_node(expert.w3, node), format, x, up, begin, group.count, begin, end});
  for (size_t t = 0; t < group.count; ++t) {
    if (round) {
      elements.round_bf16(gate[t], end - begin);
      elements.round_bf16(up[t], end - begin);
    }
    elements.swiglu(gate[t], up[t], end - begin, limit, row_weights_[group.first + t], gate[t]);
    if (round) elements.round_bf16(gate[t], end - begin);
    out.write(step, row + t, gate[t], begin, end, true);
  }
}

void MoeLayer::down(Step& step, const Group& group, size_t first, size_t node, RowRange rows) {
  const auto [begin, end] = rows;
  const WeightView& w2 = group.expert->w2;
  float* const* y = y_.data() + group.first;
  step.kernels.matmul(
      {on_node(w2, node), activation_format(step, w2), act_.data() + group.first, y, first, group.count, begin, end});
  if (!step.policy.round_bf16) return;
  for (size_t t = 0; t < group.count; ++t) step.kernels.elements.round_bf16(y[t] + (begin - first), end - begin);
}

// Columns of y at hand: routed experts in ascending id (a token's slots are sorted), the shared one last.
void MoeLayer::sum(Step& step, size_t d, float* y) {
  const size_t k = static_cast<size_t>(step.config.experts_per_token);
  const float *slots = slots_.floats(0), *shared = shared_.floats(0);
  step.pool.for_range(step.count(), 1, [&](int, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      for (const auto& [range, at] : columns_) {
        float* out = y + t * d + range.begin;
        const size_t count = range.end - range.begin;
        std::memcpy(out, slots + t * k * width_ + at, count * sizeof(float));
        for (size_t i = 1; i < k; ++i) step.kernels.axpy(1.f, slots + (t * k + i) * width_ + at, out, count);
        step.kernels.axpy(1.f, shared + t * width_ + at, out, count);
        if (step.policy.round_bf16) step.kernels.elements.round_bf16(out, count);
      }
    }
  });
}

void MoeLayer::operator()(Step& step, const Moe& moe, const float* x, float* y) {
  const size_t tokens = step.count(), d = moe.gate.cols;
  route(step, moe, x);
  group(step, moe);

  // Of a node's rows, items of the shared expert come first, then block by block of each routed one.
  auto for_blocks = [&](auto&& shared_rows, auto&& routed_rows, const Blocks& blocks, auto&& body) {
    cuts_.resize(step.pool.nodes());
    counts_.resize(step.pool.nodes());
    for (size_t node = 0; node < cuts_.size(); ++node) {
      const RowRange shared = shared_rows(node), routed = routed_rows(node);
      cuts_[node] = {shared, routed, (shared.end - shared.begin + blocks.shared - 1) / blocks.shared,
                     (routed.end - routed.begin + blocks.routed - 1) / blocks.routed};
      counts_[node] = cuts_[node].shared_items + (groups_.size() - 1) * cuts_[node].routed_items;
    }
    step.pool.for_items(counts_, [&](int worker, size_t node, size_t item) {
      const Cut& cut = cuts_[node];
      const bool shared = item < cut.shared_items;
      const RowRange own = shared ? cut.shared : cut.routed;
      const size_t block = shared ? blocks.shared : blocks.routed;
      const size_t begin = own.begin + (shared ? item : (item - cut.shared_items) % cut.routed_items) * block;
      const Group& group = groups_[shared ? 0 : 1 + (item - cut.shared_items) / cut.routed_items];
      body(group, shared, node, RowRange{begin, std::min(own.end, begin + block)}, worker);
    });
  };
  for_blocks([&](size_t node) { return node_rows(step.pool, moe.shared.w1.rows, node); },
             [&](size_t node) { return node_rows(step.pool, moe.experts[0].w1.rows, node); }, inner_,
             [&](const Group& group, bool shared, size_t node, RowRange rows, int worker) {
               gate_up(step, group, shared ? shared_acts_ : acts_, shared ? 0 : group.first - tokens, node, rows,
                       worker);
             });
  // A part takes columns of every node, so that all nodes have work in it.
  columns_.resize(step.pool.nodes());
  for (size_t part = 0; part < parts_; ++part) {
    size_t at = 0;
    for (size_t node = 0; node < columns_.size(); ++node) {
      const RowRange own = node_rows(step.pool, d, node);
      const size_t count = columns_a_part(own, parts_), begin = std::min(own.end, own.begin + part * count);
      columns_[node] = {{begin, std::min(own.end, begin + count)}, at};
      at += count;
    }
    const auto rows = [&](size_t node) { return columns_[node].range; };
    for_blocks(rows, rows, outer_, [&](const Group& group, bool, size_t node, RowRange range, int) {
      down(step, group, columns_[node].range.begin - columns_[node].at, node, range);
    });
    sum(step, d, y);
  }
}

}  // namespace nautile
