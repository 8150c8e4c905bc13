// The arithmetic of the memory plan.
#include "model/memory_plan.h"

#include <algorithm>

namespace nautile {
namespace {

uint64_t size(int64_t value) {
  return static_cast<uint64_t>(value);
}

// FP32 value and score rows of one compressor.
uint64_t compressor_state(int64_t rows, int64_t columns) {
  return size(rows * columns) * 2 * sizeof(float);
}

}  // namespace

int64_t entry_bytes(const ModelConfig& c, const StateLayout& layout) {
  if (layout.entry_bytes > 0) return layout.entry_bytes;
  const int64_t plain = c.head_dim - c.rope_dim;
  return (plain + c.rope_dim * 2 + plain / 64 + 7) / 8 * 8;
}

int64_t index_key_bytes(const ModelConfig& c, const StateLayout& layout) {
  if (layout.index_bytes > 0) return layout.index_bytes;
  return c.index_head_dim / 2 + c.index_head_dim / 32;
}

SequenceBytes sequence_bytes(const ModelConfig& c, DraftKind draft, uint64_t tokens, const StateLayout& layout) {
  const uint64_t entry = size(entry_bytes(c, layout)), key = size(index_key_bytes(c, layout));
  const uint64_t ring = std::min(tokens, size(c.window)) * entry;
  SequenceBytes out;
  for (int layer = 0; layer < c.layers; ++layer) {
    out.window += ring;
    switch (c.kind(layer)) {
      case LayerKind::kSwa:
        break;
      case LayerKind::kCsa: {
        const int64_t rows = 4 * int64_t{layout.csa_state_windows};
        out.compressed += tokens / 4 * entry;
        out.index += tokens / 4 * key;
        out.compressor +=
            compressor_state(rows, 2 * int64_t{c.head_dim}) + compressor_state(rows, 2 * int64_t{c.index_head_dim});
        break;
      }
      case LayerKind::kHca:
        out.compressed += tokens / 128 * entry;
        out.compressor += compressor_state(128, c.head_dim);
        break;
    }
  }
  if (draft == DraftKind::kMtp) out.draft = ring;
  if (draft == DraftKind::kDspark) out.draft = kDsparkStages * ring;
  return out;
}

CacheShape cache_shape(const ModelConfig& c, bool mtp, KvFormat format) {
  CacheShape shape;
  shape.ratios = c.compress_ratios;
  shape.ratios.resize(size(c.layers));
  shape.main_layers = shape.ratios.size();
  if (mtp) shape.ratios.push_back(0);
  shape.window = size(c.window);
  shape.kv = {format, size(c.head_dim), size(c.rope_dim)};
  shape.index = {format, size(c.index_head_dim)};
  return shape;
}

MemoryPlan memory_plan(const ModelConfig& config, const Totals& totals, DraftKind draft, uint64_t tokens,
                       uint64_t sequences, uint64_t activation_bytes, const StateLayout& layout) {
  MemoryPlan plan;
  plan.weight_bytes = totals.main_bytes();
  plan.draft_weight_bytes = draft == DraftKind::kNone ? 0 : totals.draft.bytes;
  plan.sequence = sequence_bytes(config, draft, tokens, layout);
  plan.sequences = sequences;
  plan.activation_bytes = activation_bytes;
  return plan;
}

}  // namespace nautile
