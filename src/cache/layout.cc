// Offsets of every row, each aligned to a cache line.
#include "cache/layout.h"

#include <utility>

namespace nautile {
namespace {

size_t take(size_t& total, size_t bytes) {
  const size_t offset = total;
  total += (bytes + 63) / 64 * 64;
  return offset;
}

}  // namespace

CacheLayout::CacheLayout(CacheShape shape) : shape_(std::move(shape)) {
  for (const int ratio : shape_.ratios) {
    Layer layer;
    layer.ratio = ratio;
    layer.ring_offset = take(private_bytes_, ring_rows() * shape_.kv.row_bytes());
    if (ratio != 0) {
      layer.overlap = ratio == 4 ? 2 : 1;
      // An entry pools the last overlap * ratio positions; a rollback may ask for them again (spec model.md 5.8).
      layer.state_rows = layer.overlap * static_cast<size_t>(ratio) + kMaxRollback;
      layer.state_floats = 2 * layer.overlap * (shape_.kv.head_dim + (ratio == 4 ? shape_.index.dim : 0));
      layer.state_offset = take(private_bytes_, layer.state_rows * layer.state_floats * sizeof(float));
      layer.entries_a_block = static_cast<size_t>(kBlockTokens / ratio);
      layer.entry_offset = take(block_bytes_, layer.entries_a_block * shape_.kv.row_bytes());
      if (ratio == 4) layer.key_offset = take(block_bytes_, layer.entries_a_block * shape_.index.row_bytes());
    }
    layers_.push_back(layer);
  }
}

}  // namespace nautile
