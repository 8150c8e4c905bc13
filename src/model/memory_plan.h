// Memory plan: how many bytes a model takes, weights and sequence state, for any context (spec planner.md section 3,
// model.md 5.5 and 11.3). Pure arithmetic; the speed and cost side is in src/plan.
//
// Thread-safety: values and pure functions.
#pragma once

#include <cstdint>

#include "cache/layout.h"
#include "model/config.h"
#include "model/inventory.h"

namespace nautile {

// How sequence state is laid out. The defaults are the stored formats of V4: FP8 KV entries, FP4 index keys.
struct StateLayout {
  // Bytes of a window or compressed entry; 0: dims without rotation in FP8, rotary dims in BF16, an E8M0 scale for each
  // 64, rounded up to 8 (584 for V4).
  int64_t entry_bytes = 0;
  // Bytes of an index key; 0: FP4 with an E8M0 scale for each 32 (68 for V4).
  int64_t index_bytes = 0;
  // Windows of raw rows that a CSA compressor keeps: 2 as in the official code; 1 is the figure that published sizes
  // use.
  int csa_state_windows = 2;
};

// One sequence.
struct SequenceBytes {
  uint64_t window = 0;      // rings of the main layers
  uint64_t compressed = 0;  // CSA and HCA entries
  uint64_t index = 0;       // index keys
  uint64_t compressor = 0;  // FP32 open windows
  uint64_t draft = 0;       // rings of the draft blocks
  // What published KV sizes count.
  uint64_t kv() const { return window + compressed + index; }
  uint64_t total() const { return kv() + compressor + draft; }
};

// What the layout says, or 0 there stands for.
int64_t entry_bytes(const ModelConfig& config, const StateLayout& layout);
int64_t index_key_bytes(const ModelConfig& config, const StateLayout& layout);

// State of one sequence that has `tokens` tokens, with the draft module's rings.
SequenceBytes sequence_bytes(const ModelConfig& config, DraftKind draft, uint64_t tokens,
                             const StateLayout& layout = {});

// What the layout of a sequence's state needs to know of a model; `mtp`: with the draft block's ring.
CacheShape cache_shape(const ModelConfig& config, bool mtp, KvFormat format);

struct MemoryPlan {
  uint64_t weight_bytes = 0;
  uint64_t draft_weight_bytes = 0;
  SequenceBytes sequence;
  uint64_t sequences = 1;
  uint64_t activation_bytes = 0;  // as the caller measured or estimated it
  uint64_t total() const { return weight_bytes + draft_weight_bytes + sequences * sequence.total() + activation_bytes; }
};

MemoryPlan memory_plan(const ModelConfig& config, const Totals& totals, DraftKind draft, uint64_t tokens,
                       uint64_t sequences, uint64_t activation_bytes = 0, const StateLayout& layout = {});

}  // namespace nautile
