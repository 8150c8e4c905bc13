// SequenceState: everything one sequence keeps between tokens, and Snapshot: what lets another start at a block's end.
//
// Positions count from 0. `length` tokens have been through the main layers, `draft_length` through the MTP block.
// Thread-safety: one writer; the layout and full blocks may be shared by many states.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "cache/layout.h"

namespace nautile {

// The compressed rows and index keys of 128 tokens, all layers: block_bytes() of the layout.
using CacheBlock = std::vector<std::byte>;

// State at a multiple of 128 tokens: the window rows a following token can see, and the CSA layers' last four rows.
// The compressors' other windows are empty there. Blocks and rows never change and are shared, not copied.
//
// draft_length is 0 when no speculation ran, or not for a whole window, else at most length. Either way the snapshot
// serves a sequence with or without speculation: the draft ring only shapes proposals, which the model verifies. A
// sequence that drafts goes on from there, or skips to its length and lets the window fill anew (skip_draft).
struct Snapshot {
  int64_t length = 0, draft_length = 0;
  std::shared_ptr<const std::vector<std::byte>> rows;
  std::vector<std::shared_ptr<const CacheBlock>> blocks;
  size_t bytes() const { return rows ? rows->size() : 0; }  // without the blocks
};

class SequenceState {
 public:
  explicit SequenceState(std::shared_ptr<const CacheLayout> layout);
  // Goes on from a snapshot of the same layout.
  SequenceState(std::shared_ptr<const CacheLayout> layout, const Snapshot& snapshot);

  const CacheLayout& layout() const { return *layout_; }
  int64_t length() const { return length_; }
  int64_t draft_length() const { return draft_length_; }

  // Rows to read and write. Reading a position that was never written is a bug in the caller, and so is writing an entry or
  // a key that reserve() has not made room for.
  std::byte* window_row(size_t layer, int64_t position);
  float* state_row(size_t layer, int64_t position);
  const std::byte* entry(size_t layer, int64_t index) const;
  const std::byte* key(size_t layer, int64_t index) const;  // keys of one block lie one after the other
  std::byte* writable_entry(size_t layer, int64_t index);
  std::byte* writable_key(size_t layer, int64_t index);

  // Makes room for positions below `length`: blocks exist, and those that will be written belong to this state alone.
  // A step allocates nothing else of a state.
  void reserve(int64_t length);
  void advance(int64_t tokens) { length_ += tokens; }
  void advance_draft(int64_t tokens) { draft_length_ += tokens; }
  // The MTP block goes on at position `length` without having seen what lies before: its window is empty there.
  // Drafts get better as it fills. Precondition: length >= draft_length().
  void skip_draft(int64_t length) {
    if (length != draft_length_) draft_begin_ = draft_length_ = length;
  }
  // The first position whose window row a layer may read.
  int64_t first_position(size_t layer) const { return layer < layout_->shape().main_layers ? 0 : draft_begin_; }

  // Pretends that `length` tokens have been through the main layers: every row that a later token reads is filled with
  // random valid values of the size that trained rows have. For measuring at a depth without the tokens.
  // Precondition: a new state.
  void fill_synthetic(int64_t length, uint64_t seed);

  // Takes back to `length` tokens. kInvalidArgument when that is more than kMaxRollback, or not in the past. Blocks
  // that were reserved stay.
  Status rollback(int64_t length);
  Status rollback_draft(int64_t length);

  // kInvalidArgument unless length() is a multiple of 128. Full blocks become shared.
  Result<Snapshot> snapshot();

  // Whether this state, at the snapshot's length, holds what the snapshot says: every block and every main-layer row to
  // the bit. Draft rows are hints, which may differ. What a canary asks after it has recomputed a hit.
  bool rows_equal(const Snapshot& snapshot) const;

  // What a snapshot of this layout takes besides its blocks.
  static size_t snapshot_bytes(const CacheLayout& layout, int64_t length, int64_t draft_length);

  // Bytes held: private part and blocks (shared ones counted whole).
  size_t bytes() const;

 private:
  std::shared_ptr<const CacheLayout> layout_;
  std::vector<std::byte> private_;
  std::vector<std::shared_ptr<CacheBlock>> blocks_;
  std::vector<std::byte*> block_bytes_;  // of each block: found without a look at its owners, which a million tokens'
                                         // rows would miss the cache for
  size_t frozen_ = 0;  // so many of the first blocks are, or have been, in a snapshot: copied before they are written
  int64_t length_ = 0, draft_length_ = 0;
  int64_t draft_begin_ = 0;  // of the rows the MTP block has written since it last skipped
};

}  // namespace nautile
