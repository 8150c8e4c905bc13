// ModelConfig: the numbers of config.json that shape a DeepSeek-V4 (spec checkpoint.md section 3, model.md section 1).
//
// Everything is read, nothing is assumed: a missing or contradictory field is an error that names it.
// Thread-safety: a value.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace nautile {

// What a layer's attention sees beside its window.
enum class LayerKind {
  kSwa,  // ratio 0: the window only
  kCsa,  // ratio 4: top-k of overlapping compressed entries, chosen by the indexer
  kHca,  // ratio 128: every compressed entry
};

// Which draft module the checkpoint carries under mtp.*.
enum class DraftKind { kNone, kMtp, kDspark };

struct RopeScaling {
  double factor = 16;
  int original_max_positions = 65536;
  double beta_fast = 32, beta_slow = 1;
  bool operator==(const RopeScaling&) const = default;
};

struct DsparkConfig {
  int block_size = 0;  // draft tokens a round; 0: no DSpark
  int noise_token_id = 0;
  int markov_rank = 0;
  std::vector<int> target_layers;  // main layers whose output the draft reads
  bool operator==(const DsparkConfig&) const = default;
};

inline constexpr int kDsparkStages = 3;  // mtp.0, mtp.1, mtp.2

struct ModelConfig {
  int vocab_size = 0;
  int hidden = 0;    // D
  int layers = 0;    // main layers, draft blocks not counted
  int heads = 0;     // H, query heads; there is one KV head
  int head_dim = 0;  // c
  int rope_dim = 0;  // rd, the last dims of a head
  int q_lora_rank = 0;
  int o_groups = 0, o_lora_rank = 0;
  int window = 0;
  std::vector<int> compress_ratios;  // one a main layer, each 0, 4 or 128
  int index_heads = 0, index_head_dim = 0, index_topk = 0;
  int routed_experts = 0, experts_per_token = 0, shared_experts = 1;  // E, K
  int expert_inter = 0;  // I
  int hash_layers = 0;   // the first layers, routed by token id
  double route_scale = 0;
  double swiglu_limit = 0;
  int hc_mult = 0, hc_sinkhorn_iters = 0;  // M
  double hc_eps = 0, norm_eps = 0;
  double rope_theta = 0, compress_rope_theta = 0;
  RopeScaling rope_scaling;  // of CSA and HCA layers
  int max_positions = 0;
  int bos_id = 0, eos_id = 1;
  int mtp_layers = 0;  // num_nextn_predict_layers
  DsparkConfig dspark;

  LayerKind kind(int layer) const {
    const int ratio = compress_ratios[static_cast<size_t>(layer)];
    return ratio == 0 ? LayerKind::kSwa : ratio == 4 ? LayerKind::kCsa : LayerKind::kHca;
  }
  bool hash_routed(int layer) const { return layer < hash_layers; }
  // How many layers are of that kind.
  int count(LayerKind wanted) const {
    int layers_of_kind = 0;
    for (int layer = 0; layer < layers; ++layer) layers_of_kind += kind(layer) == wanted;
    return layers_of_kind;
  }
  bool operator==(const ModelConfig&) const = default;
};

// Reads the text of a config.json. `where` names it in errors. kCorrupt for what is not JSON, kInvalidArgument for a field
// that is missing or out of range, kUnsupported for another architecture (V4.1 among them) or for dimensions that break
// the formats' blocks.
Result<ModelConfig> parse_config(std::string_view text, const std::string& where);

// "v4-flash" or "v4-pro": the published shapes. kInvalidArgument names what there is.
Result<ModelConfig> shape_config(std::string_view name);

// What parse_config checks once every field is read: ranges, divisibility, the formats' blocks. kInvalidArgument or
// kUnsupported naming the config.json field, its value and the rule.
Status validate_config(const ModelConfig& config, const std::string& where);

// The same model with as many layers as ratios, for runs on part of a shape. Hash-routed layers beyond the last layer
// and DSpark's target layers are cut to fit. kInvalidArgument when the ratios cannot be.
Result<ModelConfig> with_layers(ModelConfig config, std::vector<int> ratios);
// The first `layers` of the shape's own schedule.
Result<ModelConfig> with_layers(ModelConfig config, int layers);

// The same numbers with DSpark's draft stages instead of the MTP block, as the published shapes have them.
ModelConfig with_dspark(ModelConfig config);

// A config.json that parse_config reads back to an equal config.
std::string config_json(const ModelConfig& config);

}  // namespace nautile
