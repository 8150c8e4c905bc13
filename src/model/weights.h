// Weights: the checkpoint's tensors, arranged the way the forward pass reads them. Big matrices stay where the
// checkpoint has them (mapped), are repacked once into tiles, or lie in a file of tiles (mapped); small vectors are
// widened to float.
//
// Letters in shapes are those of ModelConfig. Thread-safety: read-only once loaded. Lifetime: the Checkpoint must outlive
// the Weights.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "checkpoint/tensor_table.h"
#include "kernels/ops.h"
#include "model/config.h"
#include "model/repack.h"

namespace nautile {

// Mixes the residual streams around one sub-layer (spec model.md 3.3).
struct HyperConnection {
  WeightView fn;            // [(2 + M) * M, M * D]
  std::vector<float> base;  // [(2 + M) * M]
  float scale[3] = {};      // pre, post, comb
};

// Collapses the streams before a head (spec model.md 3.5).
struct HyperHead {
  WeightView fn;            // [M, M * D]
  std::vector<float> base;  // [M]
  float scale = 0;
};

// Pools `ratio` tokens into one entry (spec model.md 5).
struct Compressor {
  WeightView wkv, wgate;    // [overlap * width, D]
  std::vector<float> ape;   // [ratio, overlap * width]
  std::vector<float> norm;  // [width]
};

struct Indexer {
  WeightView wq_b;          // [heads * dim, q_lora_rank]
  WeightView weights_proj;  // [heads, D]
  Compressor compressor;
};

struct Attention {
  WeightView wq_a;  // [q_lora_rank, D]
  WeightView wq_b;  // [H * c, q_lora_rank]
  WeightView wkv;   // [c, D]
  WeightView wo_a;  // [o_groups * o_lora_rank, H * c / o_groups]
  WeightView wo_b;  // [D, o_groups * o_lora_rank]
  std::vector<float> q_norm, kv_norm, sink;  // [q_lora_rank], [c], [H]
  Compressor compressor;  // CSA and HCA
  Indexer indexer;        // CSA
};

struct Expert {
  WeightView w1, w3, w2;  // gate [I, D], up [I, D], down [D, I]
};

struct Moe {
  WeightView gate;                      // [E, D]
  std::vector<float> bias;              // [E]; empty on hash-routed layers
  const TensorView* tid2eid = nullptr;  // [vocab, K] on hash-routed layers
  std::vector<Expert> experts;          // [E]
  Expert shared;
  // Expert `slot` of the token by tid2eid; `width`: K.
  int table_entry(int64_t token, int slot, int width) const;
};

struct Layer {
  int ratio = 0;
  HyperConnection hc_attn, hc_ffn;
  std::vector<float> attn_norm, ffn_norm;  // [D]
  Attention attn;
  Moe moe;
};

// The draft block of the April 2026 checkpoints (spec model.md 9.1).
struct Mtp {
  Layer layer;
  WeightView e_proj, h_proj;              // [D, D]
  std::vector<float> enorm, hnorm, norm;  // [D]
  HyperHead head;
};

struct Weights {
  ModelConfig config;
  WeightView embed, head;   // [vocab, D]
  std::vector<float> norm;  // [D]
  HyperHead hc_head;
  std::vector<Layer> layers;
  std::unique_ptr<Mtp> mtp;  // when the checkpoint has one
  std::shared_ptr<const void> tiles;  // keeps the repacked matrices, if any: memory of our own or a mapped file
  uint64_t tile_bytes = 0;
  bool tiles_mapped = false;  // they lie in a file
};

// Bytes and multiply-adds of one token's way through the main model, in three parts: what every token touches (embedding
// row, hash tables and MTP left out), one routed expert, and the head.
struct WeightCost {
  uint64_t dense_bytes = 0, expert_bytes = 0, head_bytes = 0;
  uint64_t dense_macs = 0, expert_macs = 0, head_macs = 0;
};
WeightCost weight_cost(const Weights& weights);

// Arranges a checkpoint that verify() (inventory.h) has accepted. kNotFound, kUnsupported or kCorrupt name the tensor:
// NVFP4 experts and scales that are no powers of two are kUnsupported. `packing`: see repack.h; as it stands, nothing is
// packed and every matrix stays where the checkpoint has it.
Result<Weights> load_weights(const Checkpoint& checkpoint, const ModelConfig& config, const Packing& packing = {});

}  // namespace nautile
