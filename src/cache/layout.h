// CacheLayout: where every row of a sequence's state lies (spec model.md 5.7, design section 4 "Sequence state").
//
// A sequence owns a private part (window rings and the compressors' open windows, fixed size) and a list of blocks, one
// for each 128 tokens, with the compressed rows and index keys that end in them. Full blocks never change.
// Thread-safety: a value.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/ops.h"

namespace nautile {

inline constexpr int kBlockTokens = 128;
// How many tokens a sequence can take back (drafts that were not accepted).
inline constexpr int kMaxRollback = 8;

// What the layout needs to know of a model.
struct CacheShape {
  std::vector<int> ratios;  // one a layer: 0, 4 or 128; draft blocks follow the main layers with 0
  size_t main_layers = 0;   // how many of them are main layers
  size_t window = 0;        // tokens a query sees, itself included
  KvLayout kv;
  IndexLayout index;  // of the CSA layers
};

class CacheLayout {
 public:
  struct Layer {
    int ratio = 0;
    size_t overlap = 1;      // windows an entry pools: 2 for CSA, 1 for HCA
    size_t ring_offset = 0;  // bytes, into the private part: [ring_rows, kv row]
    // Open window: rows of floats keyed by position modulo state_rows. A row is kv, gate [overlap * head_dim] each, and
    // for CSA index kv, index gate [overlap * index dim] each.
    size_t state_rows = 0, state_floats = 0;  // rows, floats a row
    size_t state_offset = 0;                  // bytes, into the private part
    size_t entries_a_block = 0;               // 128 / ratio
    size_t entry_offset = 0, key_offset = 0;  // bytes, into a block
  };

  explicit CacheLayout(CacheShape shape);

  const CacheShape& shape() const { return shape_; }
  const Layer& layer(size_t i) const { return layers_[i]; }
  size_t layers() const { return layers_.size(); }
  size_t ring_rows() const { return shape_.window + kMaxRollback; }
  size_t private_bytes() const { return private_bytes_; }
  size_t block_bytes() const { return block_bytes_; }

 private:
  CacheShape shape_;
  std::vector<Layer> layers_;
  size_t private_bytes_ = 0, block_bytes_ = 0;
};

}  // namespace nautile
