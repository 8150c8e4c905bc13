// Rings, blocks, rollback and snapshots.
#include "cache/sequence_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace nautile {
namespace {

// Visits, in a fixed order, every private row that a token after the snapshot can read:
// ring(layer, position) and open_window(layer, position).
template <class Ring, class OpenWindow>
void for_snapshot_rows(const CacheLayout& layout, int64_t length, int64_t draft_length, const Ring& ring,
                       const OpenWindow& open_window) {
  const int64_t back = static_cast<int64_t>(layout.shape().window) - 1;
  for (size_t layer = 0; layer < layout.layers(); ++layer) {
    const int64_t end = layer < layout.shape().main_layers ? length : draft_length;
    for (int64_t p = std::max<int64_t>(0, end - back); p < end; ++p) ring(layer, p);
    if (layout.layer(layer).ratio != 4) continue;
    for (int64_t p = std::max<int64_t>(0, end - 4); p < end; ++p) open_window(layer, p);
  }
}

}  // namespace

SequenceState::SequenceState(std::shared_ptr<const CacheLayout> layout)
    : layout_(std::move(layout)), private_(layout_->private_bytes()) {}

SequenceState::SequenceState(std::shared_ptr<const CacheLayout> layout, const Snapshot& snapshot)
    : SequenceState(std::move(layout)) {
  length_ = snapshot.length;
  draft_length_ = snapshot.draft_length;
  draft_begin_ = std::max<int64_t>(0, draft_length_ - (static_cast<int64_t>(layout_->shape().window) - 1));
  // Full blocks are never written in place: reserve() copies a frozen one first.
  for (const auto& block : snapshot.blocks) {
    blocks_.push_back(std::const_pointer_cast<CacheBlock>(block));
    block_bytes_.push_back(blocks_.back()->data());
  }
  frozen_ = blocks_.size();
  const std::byte* from = snapshot.rows->data();
  const auto take = [&](void* row, size_t bytes) {
    std::memcpy(row, from, bytes);
    from += bytes;
  };
  for_snapshot_rows(
      *layout_, length_, snapshot.draft_length,
      [&](size_t layer, int64_t p) { take(window_row(layer, p), layout_->shape().kv.row_bytes()); },
      [&](size_t layer, int64_t p) { take(state_row(layer, p), layout_->layer(layer).state_floats * sizeof(float)); });
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
  return block_bytes_[i / l.entries_a_block] + l.entry_offset + i % l.entries_a_block * layout_->shape().kv.row_bytes();
}

const std::byte* SequenceState::key(size_t layer, int64_t index) const {
  const CacheLayout::Layer& l = layout_->layer(layer);
  const size_t i = static_cast<size_t>(index);
  return block_bytes_[i / l.entries_a_block] + l.key_offset +
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
  if (first < frozen_) {
    blocks_[first] = std::make_shared<CacheBlock>(*blocks_[first]);
    block_bytes_[first] = blocks_[first]->data();
    frozen_ = first;
  }
  const size_t count = static_cast<size_t>((length + kBlockTokens - 1) / kBlockTokens);
  while (blocks_.size() < count) {
    blocks_.push_back(std::make_shared<CacheBlock>(layout_->block_bytes()));
    block_bytes_.push_back(blocks_.back()->data());
  }
}

void SequenceState::fill_synthetic(int64_t length, uint64_t seed) {
  reserve(length);
  uint64_t state = seed * 2 + 1;
  auto next = [&] {  // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1dull;
  };
  auto unit = [&] { return static_cast<float>(next() >> 40) / static_cast<float>(1 << 23) - 1; };
  auto floats = [&](float* row, size_t count) {
    for (size_t i = 0; i < count; ++i) row[i] = unit();
  };
  // 8 bytes a draw: a million tokens are filled in about a second.
  auto bytes = [&](std::byte* to, size_t count, auto&& make) {
    for (; count >= 8; to += 8, count -= 8) {
      const uint64_t word = make(next());
      std::memcpy(to, &word, 8);
    }
    if (count > 0) {
      const uint64_t word = make(next());
      std::memcpy(to, &word, count);
    }
  };
  auto any = [](uint64_t word) { return word; };
  // 7F would be NaN: it becomes 7E. A row's scale is made for its largest value, so that codes without an exponent (zero and
  // subnormals, for which some CPUs multiply slowly) are one in thousands, not one in 16: here there are none.
  auto e4m3 = [](uint64_t word) {
    word ^= (((word & 0x7f7f7f7f7f7f7f7full) + 0x0101010101010101ull) & 0x8080808080808080ull) >> 7;
    return word | (~((word & 0x7878787878787878ull) + 0x7878787878787878ull) & 0x8080808080808080ull) >> 1;
  };
  auto bf16 = [](uint64_t word) { return (word & 0x807f807f807f807full) | 0x3f003f003f003f00ull; };  // 0.5 to 1
  const KvLayout& kv = layout_->shape().kv;
  const IndexLayout& index = layout_->shape().index;
  std::vector<float> values(std::max(kv.head_dim, index.dim));
  auto fill_row = [&](std::byte* row) {
    if (kv.format == KvFormat::kF32) {
      floats(values.data(), kv.head_dim);
      std::memcpy(row, values.data(), kv.row_bytes());
    } else {
      bytes(row, kv.nope(), e4m3);
      bytes(row + kv.nope(), 2 * kv.rope_dim, bf16);
      std::memset(row + kv.nope() + 2 * kv.rope_dim, 127 - 7, (kv.nope() + 63) / 64);
    }
  };
  auto fill_key = [&](std::byte* row) {
    if (index.format == KvFormat::kF32) {
      floats(values.data(), index.dim);
      std::memcpy(row, values.data(), index.row_bytes());
    } else {
      bytes(row, index.dim / 2, any);
      for (size_t i = 0; i < index.dim / 32; ++i) row[index.dim / 2 + i] = std::byte(124 + (next() >> 62) % 3);
    }
  };
  for (size_t layer = 0; layer < layout_->shape().main_layers; ++layer) {
    const CacheLayout::Layer& l = layout_->layer(layer);
    for (int64_t p = std::max<int64_t>(0, length - static_cast<int64_t>(layout_->ring_rows())); p < length; ++p) {
      fill_row(window_row(layer, p));
    }
    if (l.ratio == 0) continue;
    for (int64_t p = std::max<int64_t>(0, length - static_cast<int64_t>(l.state_rows)); p < length; ++p) {
      floats(state_row(layer, p), l.state_floats);
    }
    for (int64_t j = 0; j < length / l.ratio; ++j) {
      fill_row(writable_entry(layer, j));
      if (l.ratio == 4) fill_key(writable_key(layer, j));
    }
  }
  length_ = length;
}

Status SequenceState::rollback(int64_t length) {
  if (length < 0 || length > length_ || length_ - length > kMaxRollback) {
    return {Code::kInvalidArgument, fmt::format("cannot go from {} tokens back to {}: at most {} can be taken back",
                                                length_, length, kMaxRollback)};
  }
  length_ = length;
  return {};
}

Status SequenceState::rollback_draft(int64_t length) {
  if (length < 0 || length > draft_length_ || draft_length_ - length > kMaxRollback) {
    return {Code::kInvalidArgument, fmt::format("cannot go from {} drafted tokens back to {}", draft_length_, length)};
  }
  draft_length_ = length;
  draft_begin_ = std::min(draft_begin_, length);
  return {};
}

size_t SequenceState::snapshot_bytes(const CacheLayout& layout, int64_t length, int64_t draft_length) {
  size_t bytes = 0;
  for_snapshot_rows(
      layout, length, draft_length, [&](size_t, int64_t) { bytes += layout.shape().kv.row_bytes(); },
      [&](size_t layer, int64_t) { bytes += layout.layer(layer).state_floats * sizeof(float); });
  return bytes;
}

Result<Snapshot> SequenceState::snapshot() {
  if (length_ % kBlockTokens != 0) {
    return Status(Code::kInvalidArgument,
                  fmt::format("a snapshot needs a multiple of {} tokens, not {}", kBlockTokens, length_));
  }
  Snapshot snapshot;
  snapshot.length = length_;
  const int64_t back = static_cast<int64_t>(layout_->shape().window) - 1;
  // A window with a gap would be one more thing to keep: the block starts anew instead.
  snapshot.draft_length = draft_begin_ == 0 || draft_length_ - draft_begin_ >= back ? draft_length_ : 0;
  frozen_ = static_cast<size_t>(length_ / kBlockTokens);
  snapshot.blocks.assign(blocks_.begin(), blocks_.begin() + static_cast<std::ptrdiff_t>(frozen_));
  std::vector<std::byte> rows(snapshot_bytes(*layout_, length_, snapshot.draft_length));
  std::byte* to = rows.data();
  const auto put = [&](const void* row, size_t bytes) {
    std::memcpy(to, row, bytes);
    to += bytes;
  };
  for_snapshot_rows(
      *layout_, length_, snapshot.draft_length,
      [&](size_t layer, int64_t p) { put(window_row(layer, p), layout_->shape().kv.row_bytes()); },
      [&](size_t layer, int64_t p) { put(state_row(layer, p), layout_->layer(layer).state_floats * sizeof(float)); });
  snapshot.rows = std::make_shared<const std::vector<std::byte>>(std::move(rows));
  return snapshot;
}

bool SequenceState::rows_equal(const Snapshot& snapshot) const {
  if (length_ != snapshot.length) return false;
  for (size_t i = 0; i < snapshot.blocks.size(); ++i) {
    if (blocks_[i] != snapshot.blocks[i] && *blocks_[i] != *snapshot.blocks[i]) return false;
  }
  auto* self = const_cast<SequenceState*>(this);
  const std::byte* expected = snapshot.rows->data();
  bool equal = true;
  const auto compare = [&](size_t layer, const void* row, size_t bytes) {
    if (layer < layout_->shape().main_layers) equal = equal && std::memcmp(row, expected, bytes) == 0;
    expected += bytes;
  };
  for_snapshot_rows(
      *layout_, snapshot.length, snapshot.draft_length,
      [&](size_t layer, int64_t p) { compare(layer, self->window_row(layer, p), layout_->shape().kv.row_bytes()); },
      [&](size_t layer, int64_t p) {
        compare(layer, self->state_row(layer, p), layout_->layer(layer).state_floats * sizeof(float));
      });
  return equal;
}

size_t SequenceState::bytes() const {
  return private_.size() + blocks_.size() * layout_->block_bytes();
}

}  // namespace nautile
