// Rings, blocks, rollback and snapshots.
#include "cache/sequence_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace nautile {

SequenceState::SequenceState(std::shared_ptr<const CacheLayout> layout)
    : layout_(std::move(layout)), private_(layout_->private_bytes()) {}

SequenceState::SequenceState(std::shared_ptr<const CacheLayout> layout, const Snapshot& snapshot)
    : SequenceState(std::move(layout)) {
  length_ = snapshot.length;
  draft_length_ = snapshot.draft_length;
  // Full blocks are never written in place: reserve() copies a shared one first.
  for (const auto& block : snapshot.blocks) blocks_.push_back(std::const_pointer_cast<CacheBlock>(block));
  size_t offset = 0;
  visit_snapshot_rows(snapshot, [&](std::byte* row, size_t bytes) {
    std::memcpy(row, snapshot.rows.data() + offset, bytes);
    offset += bytes;
  });
}

std::byte* SequenceState::window_row(size_t layer, int64_t position) {
  const size_t row = static_cast<size_t>(position) % layout_->ring_rows();
  return private_.data() + layout_->layer(layer).ring_offset + row * layout_->shape().kv.row_bytes();
}

float* SequenceState::state_row(size_t layer, int64_t position) {
  const CacheLayout::Layer& l = layout_->layer(layer);
  const size_t row = static_cast<size_t>(position) % l.state_rows;
  return reinterpret_cast<float*>(private_.data() + l.state_offset) + row * l.state_floats;
}

const std::byte* SequenceState::entry(size_t layer, int64_t index) const {
  const CacheLayout::Layer& l = layout_->layer(layer);
  const size_t i = static_cast<size_t>(index);
  return blocks_[i / l.entries_a_block]->data() + l.entry_offset +
         i % l.entries_a_block * layout_->shape().kv.row_bytes();
}

const std::byte* SequenceState::key(size_t layer, int64_t index) const {
  const CacheLayout::Layer& l = layout_->layer(layer);
  const size_t i = static_cast<size_t>(index);
  return blocks_[i / l.entries_a_block]->data() + l.key_offset +
         i % l.entries_a_block * layout_->shape().index.row_bytes();
}

std::byte* SequenceState::writable_entry(size_t layer, int64_t index) {
  return const_cast<std::byte*>(entry(layer, index));
}
std::byte* SequenceState::writable_key(size_t layer, int64_t index) {
  return const_cast<std::byte*>(key(layer, index));
}

void SequenceState::reserve(int64_t length) {
  const size_t first = static_cast<size_t>(length_ / kBlockTokens);
  if (first < blocks_.size() && blocks_[first].use_count() > 1) {
    blocks_[first] = std::make_shared<CacheBlock>(*blocks_[first]);
  }
  const size_t count = static_cast<size_t>((length + kBlockTokens - 1) / kBlockTokens);
  while (blocks_.size() < count) blocks_.push_back(std::make_shared<CacheBlock>(layout_->block_bytes()));
}

Status SequenceState::rollback(int64_t length) {
  if (length < 0 || length > length_ || length_ - length > kMaxRollback) {
    return {Code::kInvalidArgument, fmt::format("cannot go from {} tokens back to {}: at most {} can be taken back",
                                                length_, length, kMaxRollback)};
  }
  length_ = length;
  // Blocks past the end would be used again as they are; one that only starts later must not be counted as held.
  blocks_.resize(std::min(blocks_.size(), static_cast<size_t>((length + kBlockTokens - 1) / kBlockTokens)));
  return {};
}

Status SequenceState::rollback_draft(int64_t length) {
  if (length < 0 || length > draft_length_ || draft_length_ - length > kMaxRollback) {
    return {Code::kInvalidArgument, fmt::format("cannot go from {} drafted tokens back to {}", draft_length_, length)};
  }
  draft_length_ = length;
  return {};
}

// Visits, in a fixed order, every private row that a token after the snapshot can read.
template <class Visit>
void SequenceState::visit_snapshot_rows(const Snapshot& snapshot, const Visit& visit) {
  const int64_t back = static_cast<int64_t>(layout_->shape().window) - 1;
  for (size_t layer = 0; layer < layout_->layers(); ++layer) {
    const int64_t end = layer < layout_->shape().main_layers ? snapshot.length : snapshot.draft_length;
    for (int64_t p = std::max<int64_t>(0, end - back); p < end; ++p) {
      visit(window_row(layer, p), layout_->shape().kv.row_bytes());
    }
    const CacheLayout::Layer& l = layout_->layer(layer);
    if (l.ratio == 4) {
      for (int64_t p = std::max<int64_t>(0, end - 4); p < end; ++p) {
        visit(reinterpret_cast<std::byte*>(state_row(layer, p)), l.state_floats * sizeof(float));
      }
    }
  }
}

Result<Snapshot> SequenceState::snapshot() const {
  if (length_ % kBlockTokens != 0) {
    return Status(Code::kInvalidArgument,
                  fmt::format("a snapshot needs a multiple of {} tokens, not {}", kBlockTokens, length_));
  }
  Snapshot snapshot;
  snapshot.length = length_;
  snapshot.draft_length = draft_length_;
  snapshot.blocks.assign(blocks_.begin(), blocks_.begin() + length_ / kBlockTokens);
  const_cast<SequenceState*>(this)->visit_snapshot_rows(
      snapshot, [&](std::byte* row, size_t bytes) { snapshot.rows.insert(snapshot.rows.end(), row, row + bytes); });
  return snapshot;
}

size_t SequenceState::bytes() const {
  return private_.size() + blocks_.size() * layout_->block_bytes();
}

}  // namespace nautile
