// One attention sub-layer, in the order of the paper.
#include "model/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/rope.h"
#include "tensor/formats.h"

namespace nautile {
namespace {

// Heads that share a pass over the rows when a token's heads are split over the workers.
constexpr size_t kHeadBlock = 16;

// Writes a finished row in the cache's format.
void pack_row(const Elements& elements, const KvLayout& kv, const float* values, std::byte* row) {
  if (kv.format == KvFormat::kF32) {
    std::memcpy(row, values, kv.head_dim * sizeof(float));
    return;
  }
  auto* codes = reinterpret_cast<uint8_t*>(row);
  elements.fp8_encode(values, kv.nope(), 64, codes, codes + kv.nope() + 2 * kv.rope_dim);
  for (size_t i = 0; i < kv.rope_dim; ++i) {
    const uint16_t half = f32_to_bf16(values[kv.nope() + i]);
    std::memcpy(codes + kv.nope() + 2 * i, &half, sizeof half);
  }
}

// Unweighted RMS over a head. The official code does this in BF16 arithmetic; the reference policy follows it.
void head_norm(const Step& step, float* q, size_t dim) {
  const float eps = static_cast<float>(step.config.norm_eps);
  if (!step.policy.round_bf16) return step.kernels.elements.rms_norm(q, nullptr, dim, eps, q);
  float sum = 0;
  for (size_t i = 0; i < dim; ++i) sum += round_bf16(q[i] * q[i]);
  const float mean = round_bf16(sum / static_cast<float>(dim));
  const float factor = round_bf16(1 / std::sqrt(round_bf16(mean + eps)));
  for (size_t i = 0; i < dim; ++i) q[i] = round_bf16(q[i] * factor);
}

}  // namespace

AttentionLayer::AttentionLayer(const ModelConfig& config) : compress_frequencies_(rope_frequencies(config, true)) {}

void AttentionLayer::operator()(Step& step, size_t layer, int ratio, const Attention& weights, const float* x,
                                float* y) {
  project(step, ratio, weights, x);
  window_keys(step, ratio, weights);
  if (ratio != 0) compress(step, layer, ratio, weights);
  if (ratio == 4) {
    index_queries(step, weights.indexer);
    step.clock.enter(Op::kScores);
    choice_(step, layer, index_q_.floats(0), index_w_.floats(0), weights.indexer.weights_proj.rows,
            weights.indexer.wq_b.rows / weights.indexer.weights_proj.rows);
  }
  for (size_t first = 0; first < step.count(); first += kPartTokens) {
    const Part part{first, std::min(kPartTokens, step.count() - first)};
    queries(step, weights, part);
    attend(step, layer, ratio, weights, part);
    output(step, weights, part, y);
  }

  step.clock.enter(Op::kRows);
  // Only now may this step's rows replace older ones in the ring: earlier queries still needed those.
  const size_t row_bytes = step.runs[0].state->layout().shape().kv.row_bytes();
  for (const TokenRun& run : step.runs) {
    const int64_t ring = static_cast<int64_t>(run.state->layout().ring_rows());
    for (int64_t p = std::max(run.begin, run.end() - ring); p < run.end(); ++p) {
      const size_t t = run.first + static_cast<size_t>(p - run.begin);
      std::memcpy(run.state->window_row(layer, p), step_rows_.data() + t * row_bytes, row_bytes);
    }
  }
}

// Everything that is a product of x, in one phase: wq_a x, wkv x, the compressors' rows, the indexer's weights. Then
// what is one of qr = rms(wq_a x): the indexer's queries, and the queries unless they are made part by part.
void AttentionLayer::project(Step& step, int ratio, const Attention& weights, const float* x) {
  const size_t tokens = step.count(), d = weights.wq_a.cols, rank = weights.wq_a.rows;
  const Indexer& indexer = weights.indexer;
  float *qr = qr_.floats(tokens * rank), *kv = kv_.floats(tokens * weights.wkv.rows);
  step.clock.enter(Op::kProjections);
  products_.clear();
  products_.push_back({weights.wq_a, x, d, qr, rank, Rounding::kOfficial});
  products_.push_back({weights.wkv, x, d, kv, weights.wkv.rows, Rounding::kOfficial});
  if (ratio != 0) entries_.add_products(step, weights.compressor, ratio, x, 0, products_);
  if (ratio == 4) {
    keys_.add_products(step, indexer.compressor, ratio, x, 2 * weights.compressor.wkv.rows, products_);
    const size_t heads = indexer.weights_proj.rows;
    products_.push_back({indexer.weights_proj, x, d, index_w_.floats(tokens * heads), heads, Rounding::kOutput});
  }
  linear_(step, products_, tokens);
  if (ratio != 0) entries_.add_positions(step, weights.compressor);
  if (ratio == 4) keys_.add_positions(step, indexer.compressor);
  rms_norm(step, qr, rank, weights.q_norm, qr, tokens);
  products_.clear();
  if (tokens <= kPartTokens) {
    const size_t width = weights.wq_b.rows;
    products_.push_back({weights.wq_b, qr, rank, q_.floats(tokens * width), width, Rounding::kOfficial});
  }
  if (ratio == 4) {
    const size_t width = indexer.wq_b.rows;
    products_.push_back({indexer.wq_b, qr, rank, index_q_.floats(tokens * width), width, Rounding::kOfficial});
  }
  if (!products_.empty()) linear_(step, products_, tokens);
}

// wq_b qr of a part, where a step has several; else they stand already.
void AttentionLayer::queries(Step& step, const Attention& weights, Part part) {
  if (step.count() <= kPartTokens) return;
  const size_t width = weights.wq_b.rows, rank = weights.wq_b.cols;
  step.clock.enter(Op::kProjections);
  linear_(step, weights.wq_b, qr_.floats(0) + part.first * rank, rank, part.count, q_.floats(part.count * width), width,
          Rounding::kOfficial);
}

// q = rope(headrms(wq_b qr)): the norm and the rotation of heads of token t.
void AttentionLayer::turn(const Step& step, int ratio, size_t t, float* q, size_t heads) const {
  const size_t dim = static_cast<size_t>(step.config.head_dim), rope = static_cast<size_t>(step.config.rope_dim);
  const RopeTable& table = step.rope(ratio);
  const Elements& elements = step.kernels.elements;
  for (size_t h = 0; h < heads; ++h, q += dim) {
    head_norm(step, q, dim);
    elements.rotate(q + dim - rope, &table.cos[t * rope / 2], &table.sin[t * rope / 2], rope / 2, false);
    if (step.policy.round_bf16) elements.round_bf16(q + dim - rope, rope);
  }
}

// kv = fp8q(rope(rms(wkv x))), kept aside as this step's cache rows
void AttentionLayer::window_keys(Step& step, int ratio, const Attention& weights) {
  const size_t tokens = step.count(), dim = weights.wkv.rows, rope = static_cast<size_t>(step.config.rope_dim);
  const KvLayout& kv_layout = step.runs[0].state->layout().shape().kv;
  float* kv = kv_.floats(0);
  step.clock.enter(Op::kRows);
  step_rows_.resize(std::max(step_rows_.size(), tokens * kv_layout.row_bytes()));
  const RopeTable& table = step.rope(ratio);
  const Elements& elements = step.kernels.elements;
  step.pool.for_range(tokens, 1, [&](int, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      float* row = kv + t * dim;
      elements.rms_norm(row, weights.kv_norm.data(), dim, static_cast<float>(step.config.norm_eps), row);
      if (step.policy.round_bf16) elements.round_bf16(row, dim);
      elements.rotate(row + dim - rope, &table.cos[t * rope / 2], &table.sin[t * rope / 2], rope / 2, false);
      pack_row(elements, kv_layout, row, step_rows_.data() + t * kv_layout.row_bytes());
    }
  });
}

void AttentionLayer::store_entry(Step& step, const Compressor& compressor, int64_t position, float* values,
                                 std::byte* row) const {
  const size_t dim = compressor.norm.size(), rope = static_cast<size_t>(step.config.rope_dim);
  const Elements& elements = step.kernels.elements;
  const bool round = step.policy.round_bf16;
  if (round) elements.round_bf16(values, dim);
  elements.rms_norm(values, compressor.norm.data(), dim, static_cast<float>(step.config.norm_eps), values);
  if (round) elements.round_bf16(values, dim);
  float cos[512], sin[512];
  rope_angles(compress_frequencies_, position, cos, sin);
  elements.rotate(values + dim - rope, cos, sin, rope / 2, false);
  if (round) elements.round_bf16(values + dim - rope, rope);
  if (row != nullptr) pack_row(elements, step.runs[0].state->layout().shape().kv, values, row);
}

void AttentionLayer::store_key(Step& step, const Compressor& compressor, int64_t position, float* values,
                               std::byte* row) const {
  store_entry(step, compressor, position, values, nullptr);
  const size_t dim = compressor.norm.size();
  if (!step.policy.quantise_cache) {
    std::memcpy(row, values, dim * sizeof(float));
    return;
  }
  const Elements& elements = step.kernels.elements;
  elements.round_bf16(values, dim);
  elements.hadamard(values, dim);
  auto* codes = reinterpret_cast<uint8_t*>(row);
  elements.fp4_encode(values, dim, codes, codes + dim / 2);
}

// Advances the compressors and writes every entry and key whose last token is in this step.
void AttentionLayer::compress(Step& step, size_t layer, int ratio, const Attention& weights) {
  const size_t dim = weights.compressor.norm.size();
  step.clock.enter(Op::kRows);
  float* pooled = pooled_.floats(static_cast<size_t>(step.pool.threads()) * dim);
  for (const TokenRun& run : step.runs) {
    const EntryRange range = new_entries(run, ratio);
    step.pool.for_range(static_cast<size_t>(range.last - range.first), 1, [&](int worker, size_t begin, size_t end) {
      float* values = pooled + static_cast<size_t>(worker) * dim;
      for (int64_t j = range.first + static_cast<int64_t>(begin); j < range.first + static_cast<int64_t>(end); ++j) {
        entries_.pool(step.kernels, run, layer, j, values);
        store_entry(step, weights.compressor, j * ratio, values, run.state->writable_entry(layer, j));
        if (ratio == 4) {
          keys_.pool(step.kernels, run, layer, j, values);
          store_key(step, weights.indexer.compressor, j * ratio, values, run.state->writable_key(layer, j));
        }
      }
    });
    entries_.store(run, layer);
    if (ratio == 4) keys_.store(run, layer);
  }
}

// qi = fp4q(had(rope(wq_b qr))); w = weights_proj x / sqrt(dim * heads)
void AttentionLayer::index_queries(Step& step, const Indexer& indexer) {
  const size_t tokens = step.count(), heads = indexer.weights_proj.rows, dim = indexer.wq_b.rows / heads;
  const size_t rope = static_cast<size_t>(step.config.rope_dim);
  float *q = index_q_.floats(0), *w = index_w_.floats(0);
  const float scale = 1 / std::sqrt(static_cast<float>(dim)) / std::sqrt(static_cast<float>(heads));
  step.clock.enter(Op::kQueries);
  const RopeTable& table = step.compress_rope;
  const Elements& elements = step.kernels.elements;
  step.pool.for_range(tokens * heads, kHeadBlock, [&](int, size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const size_t t = i / heads;
      float* head = q + i * dim;
      elements.rotate(head + dim - rope, &table.cos[t * rope / 2], &table.sin[t * rope / 2], rope / 2, false);
      w[i] *= scale;
      if (step.policy.round_bf16) w[i] = round_bf16(w[i]);
      if (!step.policy.quantise_cache) continue;
      elements.round_bf16(head, dim);
      elements.hadamard(head, dim);
      elements.fp4_quantise(head, dim);
    }
  });
}

// o = softmax over window and entries, split over tokens, and over heads when tokens are few; queries are turned by whoever
// attends with them.
void AttentionLayer::attend(Step& step, size_t layer, int ratio, const Attention& weights, Part part) {
  step.clock.enter(Op::kAttention);
  const size_t dim = static_cast<size_t>(step.config.head_dim), heads = weights.sink.size();
  const size_t threads = static_cast<size_t>(step.pool.threads());
  const size_t head_blocks = (heads + kHeadBlock - 1) / kHeadBlock;
  const size_t cuts = part.count >= 2 * threads ? 1 : std::min(head_blocks, threads);
  const size_t scratch_floats = attend_scratch_floats(heads, dim);
  float *q = q_.floats(0), *out = out_.floats(part.count * heads * dim),
        *scratch = scratch_.floats(threads * scratch_floats);
  const AttendPrecision precision = step.policy.round_bf16       ? AttendPrecision::kOfficial
                                    : step.policy.quantise_cache ? AttendPrecision::kFast
                                                                 : AttendPrecision::kFloat;
  const KvLayout& kv = step.runs[0].state->layout().shape().kv;
  const float scale = 1 / std::sqrt(static_cast<float>(dim));
  rows_.resize(std::max(rows_.size(), threads));
  step.pool.for_range(part.count * cuts, 1, [&](int worker, size_t begin, size_t end) {
    RowList& rows = rows_[static_cast<size_t>(worker)];
    const TokenRun* run = nullptr;
    for (size_t task = begin; task < end; ++task) {
      const size_t own = task / cuts, t = part.first + own, cut = task % cuts;
      while (run == nullptr || t >= run->first + run->count) {
        run = run == nullptr ? step.runs.data() : run + 1;
        rows.entries = 0;
      }
      const std::span<const std::byte* const> attended = attended_rows(step, *run, layer, ratio, t, rows);
      const size_t first = head_blocks * cut / cuts * kHeadBlock,
                   last = std::min(heads, head_blocks * (cut + 1) / cuts * kHeadBlock);
      float *o = out + (own * heads + first) * dim, *mine = q + (own * heads + first) * dim;
      turn(step, ratio, t, mine, last - first);
      step.kernels.attend({kv, attended.data(), attended.size(), mine, weights.sink.data() + first, last - first, scale, precision, o,
                           scratch + static_cast<size_t>(worker) * scratch_floats});
      turn_back(step, ratio, t, o, last - first);
    }
  });
}

// The rows that token t attends: window rows, oldest first, then entries, ascending. The list keeps the entries of the
// token before it where they are the same.
std::span<const std::byte* const> AttentionLayer::attended_rows(Step& step, const TokenRun& run, size_t layer, int ratio,
                                                                size_t t, RowList& list) {
  const CacheLayout& layout = run.state->layout();
  const size_t row_bytes = layout.shape().kv.row_bytes(), window = layout.shape().window;
  const int64_t position = step.positions[t];
  const size_t in_window = std::min(window, static_cast<size_t>(position + 1 - run.state->first_position(layer)));
  const size_t visible = static_cast<size_t>(visible_entries(position, ratio));
  const std::span<const int32_t> chosen = ratio == 4 ? choice_.chosen(t) : std::span<const int32_t>();
  const size_t entries = chosen.empty() ? visible : chosen.size();
  if (list.rows.size() < window + entries) list.rows.resize(window + entries);
  const std::byte** at = list.rows.data() + window - in_window;
  for (int64_t p = position + 1 - static_cast<int64_t>(in_window); p <= position; ++p) {
    *at++ = p >= run.begin ? step_rows_.data() + (run.first + static_cast<size_t>(p - run.begin)) * row_bytes
                           : run.state->window_row(layer, p);
  }
  if (chosen.empty()) {
    for (size_t j = list.entries; j < entries; ++j) at[j] = run.state->entry(layer, static_cast<int64_t>(j));
    list.entries = entries;
  } else {
    for (size_t j = 0; j < entries; ++j) at[j] = run.state->entry(layer, chosen[j]);
    list.entries = 0;
  }
  return {list.rows.data() + window - in_window, in_window + entries};
}

// The inverse rotation of a token's outputs.
void AttentionLayer::turn_back(const Step& step, int ratio, size_t t, float* o, size_t heads) const {
  const size_t dim = static_cast<size_t>(step.config.head_dim), rope = static_cast<size_t>(step.config.rope_dim);
  const RopeTable& table = step.rope(ratio);
  const Elements& elements = step.kernels.elements;
  for (size_t h = 0; h < heads; ++h, o += dim) {
    if (step.policy.round_bf16) elements.round_bf16(o, dim);
    elements.rotate(o + dim - rope, &table.cos[t * rope / 2], &table.sin[t * rope / 2], rope / 2, true);
    if (step.policy.round_bf16) elements.round_bf16(o + dim - rope, rope);
  }
}

// y = wo_b(concat_g(wo_a[g] o[g]))
void AttentionLayer::output(Step& step, const Attention& weights, Part part, float* y) {
  step.clock.enter(Op::kProjections);
  const size_t tokens = part.count, groups = static_cast<size_t>(step.config.o_groups);
  const size_t in = weights.wo_a.cols, rank = weights.wo_a.rows / groups;
  float *o = out_.floats(0), *low = low_.floats(tokens * groups * rank);
  products_.clear();
  for (size_t g = 0; g < groups; ++g) {
    products_.push_back({weights.wo_a, o + g * in, groups * in, low, groups * rank, Rounding::kOutput, g * rank,
                         (g + 1) * rank});
  }
  linear_(step, products_, tokens);
  linear_(step, weights.wo_b, low, groups * rank, tokens, y + part.first * weights.wo_b.rows, weights.wo_b.rows,
          Rounding::kOfficial);
}

}  // namespace nautile
