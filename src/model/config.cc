// config.json in and out, and the rules a shape must keep (spec checkpoint.md section 3, model.md section 1).
#include "model/config.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>

#include "base/json.h"

namespace nautile {
namespace {

// A config.json has a few kilobytes; more is some other file.
constexpr size_t kMaxConfigBytes = 1u << 20;

// Reads fields into a config and remembers the first thing that is wrong.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  void number(const char* key, int& out) {
    if (!status_.ok()) return;
    Result<int64_t> value = json_int(object_, key, where_);
    if (!value.ok()) {
      status_ = value.status();
    } else if (*value < -INT32_MAX || *value > INT32_MAX) {
      status_ = Status(Code::kInvalidArgument, fmt::format("\"{}\" is {}, which no model has", key, *value), where_);
    } else {
      out = static_cast<int>(*value);
    }
  }
  void number(const char* key, double& out) {
    if (!status_.ok()) return;
    Result<double> value = json_number(object_, key, where_);
    if (value.ok()) {
      out = *value;
    } else {
      status_ = value.status();
    }
  }
  void list(const char* key, std::vector<int>& out) {
    if (!status_.ok()) return;
    auto found = object_.find(key);
    if (found == object_.end() || !found->is_array()) {
      status_ = Status(Code::kInvalidArgument,
                       fmt::format("\"{}\" {} (it must be a list of whole numbers)", key,
                                   found == object_.end() ? "is missing" : "is not a list"),
                       where_);
      return;
    }
    for (size_t i = 0; i < found->size(); ++i) {
      const Json& item = (*found)[i];
      const double value = item.is_number_integer() ? item.get<double>() : -1;
      if (value < 0 || value > INT32_MAX) {
        status_ = Status(Code::kInvalidArgument,
                         fmt::format("\"{}\" entry {} must be a whole number from 0 up", key, i), where_);
        return;
      }
      out.push_back(static_cast<int>(value));
    }
  }
  bool has(const char* key) const {
    auto found = object_.find(key);
    return found != object_.end() && !found->is_null();
  }
  // A field that must have one value, because nothing else is implemented.
  void only(const char* key, const Json& wanted, bool required) {
    if (!status_.ok() || (!required && !has(key))) return;
    auto found = object_.find(key);
    if (found == object_.end()) {
      status_ = Status(Code::kInvalidArgument, fmt::format("\"{}\" is missing", key), where_);
    } else if (*found != wanted) {
      status_ =
          Status(Code::kUnsupported,
                 fmt::format("\"{}\" is {}, and only {} is supported", key, shorten(*found), shorten(wanted)), where_);
    }
  }
  Status status() const { return status_; }

 private:
  static std::string shorten(const Json& value) {
    std::string text = python_json(value);
    if (text.size() > 60) text = text.substr(0, 57) + "...";
    return text;
  }

  const Json& object_;
  std::string where_;
  Status status_;
};

Status check_architecture(const Json& root, const std::string& where) {
  std::string architecture;
  if (auto list = root.find("architectures");
      list != root.end() && list->is_array() && list->size() == 1 && (*list)[0].is_string()) {
    architecture = (*list)[0].get<std::string>();
  }
  std::string type;
  if (auto found = root.find("model_type"); found != root.end() && found->is_string()) type = found->get<std::string>();
  if (architecture.starts_with("DeepseekV41") || type.starts_with("deepseek_v4_1") ||
      type.starts_with("deepseek_v41")) {
    return {Code::kUnsupported,
            fmt::format("this is DeepSeek-V4.1 (\"{}\"), another architecture than V4",
                        architecture.empty() ? type : architecture),
            where, "use a DeepSeek-V4 checkpoint: V4-Flash or V4-Pro"};
  }
  if (architecture.empty() && type.empty()) {
    return {Code::kInvalidArgument, "\"architectures\" and \"model_type\" are missing or not as they should be", where,
            "give the config.json of a DeepSeek-V4 checkpoint"};
  }
  if ((!architecture.empty() && architecture != "DeepseekV4ForCausalLM") || (!type.empty() && type != "deepseek_v4")) {
    return {
        Code::kUnsupported,
        fmt::format("\"architectures\" is [\"{}\"] and \"model_type\" is \"{}\"; Nautile runs DeepseekV4ForCausalLM "
                    "(deepseek_v4) alone",
                    architecture.substr(0, 60), type.substr(0, 60)),
        where, "use a DeepSeek-V4 checkpoint"};
  }
  return {};
}

Status check_quantization(const Json& root, const std::string& where) {
  auto found = root.find("quantization_config");
  if (found == root.end() || found->is_null()) return {};  // a de-quantised re-save
  const std::string inner = where + ", quantization_config";
  if (!found->is_object()) return {Code::kInvalidArgument, "\"quantization_config\" must be an object", where};
  Fields fields(*found, inner);
  fields.only("quant_method", "fp8", true);
  fields.only("fmt", "e4m3", false);
  fields.only("scale_fmt", "ue8m0", false);
  fields.only("weight_block_size", Json::array({128, 128}), false);
  return fields.status();
}

Status read_rope_scaling(const Json& root, const std::string& where, RopeScaling& out) {
  auto found = root.find("rope_scaling");
  if (found == root.end() || !found->is_object()) {
    return {Code::kInvalidArgument, "\"rope_scaling\" is missing or not an object", where};
  }
  Fields fields(*found, where + ", rope_scaling");
  fields.only(fields.has("rope_type") ? "rope_type" : "type", "yarn", true);
  fields.number("factor", out.factor);
  fields.number("original_max_position_embeddings", out.original_max_positions);
  fields.number("beta_fast", out.beta_fast);
  fields.number("beta_slow", out.beta_slow);
  return fields.status();
}

// Collects the rules of a shape; keeps the first that is broken.
struct Rules {
  const std::string& where;
  Status status = {};

  void require(bool holds, const char* key, const std::string& value, const std::string& rule) {
    if (status.ok() && !holds) {
      status = Status(Code::kInvalidArgument, fmt::format("\"{}\" is {}: {}", key, value, rule), where);
    }
  }
  void range(const char* key, int64_t value, int64_t low, int64_t high) {
    require(value >= low && value <= high, key, fmt::format("{}", value),
            fmt::format("it must be from {} to {}", low, high));
  }
  void multiple(const char* key, int64_t value, int64_t of, const char* why) {
    require(value % of == 0, key, fmt::format("{}", value), fmt::format("it must be a multiple of {} ({})", of, why));
  }
  void positive(const char* key, double value) {
    require(std::isfinite(value) && value > 0, key, fmt::format("{}", value), "it must be above 0 and finite");
  }
};

ModelConfig flash() {
  ModelConfig c;
  c.vocab_size = 129280;
  c.hidden = 4096;
  c.layers = 43;
  c.heads = 64;
  c.head_dim = 512;
  c.rope_dim = 64;
  c.q_lora_rank = 1024;
  c.o_groups = 8;
  c.o_lora_rank = 1024;
  c.window = 128;
  c.compress_ratios = {0, 0};
  while (c.compress_ratios.size() < 43) c.compress_ratios.push_back(c.compress_ratios.size() % 2 == 0 ? 4 : 128);
  c.index_heads = 64;
  c.index_head_dim = 128;
  c.index_topk = 512;
  c.routed_experts = 256;
  c.experts_per_token = 6;
  c.shared_experts = 1;
  c.expert_inter = 2048;
  c.hash_layers = 3;
  c.route_scale = 1.5;
  c.swiglu_limit = 10;
  c.hc_mult = 4;
  c.hc_sinkhorn_iters = 20;
  c.hc_eps = 1e-6;
  c.norm_eps = 1e-6;
  c.rope_theta = 10000;
  c.compress_rope_theta = 160000;
  c.max_positions = 1048576;
  c.bos_id = 0;
  c.eos_id = 1;
  c.mtp_layers = 1;
  return c;
}

ModelConfig pro() {
  ModelConfig c = flash();
  c.hidden = 7168;
  c.layers = 61;
  c.heads = 128;
  c.q_lora_rank = 1536;
  c.o_groups = 16;
  c.compress_ratios = {128, 128};
  while (c.compress_ratios.size() < 61) c.compress_ratios.push_back(c.compress_ratios.size() % 2 == 0 ? 4 : 128);
  c.index_topk = 1024;
  c.routed_experts = 384;
  c.expert_inter = 3072;
  c.route_scale = 2.5;
  return c;
}

}  // namespace

Result<ModelConfig> parse_config(std::string_view text, const std::string& where) {
  if (text.size() > kMaxConfigBytes) {
    return Status(Code::kInvalidArgument, fmt::format("{} bytes are too many for a config.json", text.size()), where);
  }
  NAUTILE_ASSIGN(const Json root, parse_json(text, where));
  if (!root.is_object()) return Status(Code::kInvalidArgument, "a config.json must hold an object", where);
  NAUTILE_RETURN_IF_ERROR(check_architecture(root, where));

  ModelConfig c;
  Fields fields(root, where);
  fields.number("vocab_size", c.vocab_size);
  fields.number("hidden_size", c.hidden);
  fields.number("num_hidden_layers", c.layers);
  fields.number("num_attention_heads", c.heads);
  fields.only("num_key_value_heads", 1, true);
  fields.number("head_dim", c.head_dim);
  fields.number("qk_rope_head_dim", c.rope_dim);
  fields.number("q_lora_rank", c.q_lora_rank);
  fields.number("o_groups", c.o_groups);
  fields.number("o_lora_rank", c.o_lora_rank);
  fields.number("sliding_window", c.window);
  fields.list("compress_ratios", c.compress_ratios);
  fields.number("index_n_heads", c.index_heads);
  fields.number("index_head_dim", c.index_head_dim);
  fields.number("index_topk", c.index_topk);
  fields.number("n_routed_experts", c.routed_experts);
  fields.number("num_experts_per_tok", c.experts_per_token);
  fields.number("n_shared_experts", c.shared_experts);
  fields.number("moe_intermediate_size", c.expert_inter);
  fields.number("num_hash_layers", c.hash_layers);
  fields.number("routed_scaling_factor", c.route_scale);
  fields.number("swiglu_limit", c.swiglu_limit);
  fields.number("hc_mult", c.hc_mult);
  fields.number("hc_sinkhorn_iters", c.hc_sinkhorn_iters);
  fields.number("hc_eps", c.hc_eps);
  fields.number("rms_norm_eps", c.norm_eps);
  fields.number("rope_theta", c.rope_theta);
  fields.number("compress_rope_theta", c.compress_rope_theta);
  fields.number("max_position_embeddings", c.max_positions);
  fields.number("bos_token_id", c.bos_id);
  fields.number("eos_token_id", c.eos_id);
  fields.number("num_nextn_predict_layers", c.mtp_layers);
  fields.only("scoring_func", "sqrtsoftplus", true);
  fields.only("norm_topk_prob", true, true);
  fields.only("topk_method", "noaux_tc", false);
  fields.only("hidden_act", "silu", true);
  fields.only("tie_word_embeddings", false, true);
  if (fields.has("dspark_block_size")) {
    fields.number("dspark_block_size", c.dspark.block_size);
    fields.number("dspark_noise_token_id", c.dspark.noise_token_id);
    fields.number("dspark_markov_rank", c.dspark.markov_rank);
    fields.list("dspark_target_layer_ids", c.dspark.target_layers);
  }
  NAUTILE_RETURN_IF_ERROR(fields.status());
  NAUTILE_RETURN_IF_ERROR(check_quantization(root, where));
  NAUTILE_RETURN_IF_ERROR(read_rope_scaling(root, where, c.rope_scaling));

  // Entries beyond the main layers belong to the draft blocks, which see their window only.
  const size_t layers = c.layers < 0 ? 0 : static_cast<size_t>(c.layers);
  for (size_t i = layers; i < c.compress_ratios.size(); ++i) {
    if (c.compress_ratios[i] != 0) {
      return Status(Code::kUnsupported,
                    fmt::format("\"compress_ratios\" entry {} (a draft block) is {}, and only 0 is supported", i,
                                c.compress_ratios[i]),
                    where);
    }
  }
  if (c.compress_ratios.size() > layers) c.compress_ratios.resize(layers);
  NAUTILE_RETURN_IF_ERROR(validate_config(c, where));
  return c;
}

Status validate_config(const ModelConfig& c, const std::string& where) {
  constexpr int64_t kMaxWidth = 1 << 20;
  Rules rules{where};
  rules.range("vocab_size", c.vocab_size, 1, 1 << 24);
  rules.range("hidden_size", c.hidden, 32, kMaxWidth);
  rules.multiple("hidden_size", c.hidden, 32, "FP4 expert weights have a scale every 32 columns");
  rules.range("num_hidden_layers", c.layers, 1, 1024);
  rules.range("num_attention_heads", c.heads, 1, 4096);
  rules.range("head_dim", c.head_dim, 1, 4096);
  rules.range("qk_rope_head_dim", c.rope_dim, 2, c.head_dim - 1);
  rules.multiple("qk_rope_head_dim", c.rope_dim, 2, "rotations act on pairs");
  rules.require((c.head_dim - c.rope_dim) % 64 == 0, "head_dim", fmt::format("{}", c.head_dim),
                fmt::format("head_dim - qk_rope_head_dim = {} must be a multiple of 64 (FP8 KV blocks)",
                            c.head_dim - c.rope_dim));
  rules.range("q_lora_rank", c.q_lora_rank, 1, kMaxWidth);
  rules.range("o_groups", c.o_groups, 1, c.heads);
  rules.require(c.o_groups < 1 || c.heads % c.o_groups == 0, "num_attention_heads", fmt::format("{}", c.heads),
                fmt::format("it must be a multiple of o_groups, {}", c.o_groups));
  rules.range("o_lora_rank", c.o_lora_rank, 1, kMaxWidth);
  rules.range("o_lora_rank x o_groups", int64_t{c.o_lora_rank} * c.o_groups, 1, 1 << 24);
  rules.range("sliding_window", c.window, 1, 1 << 20);
  rules.require(c.compress_ratios.size() == static_cast<size_t>(std::max(c.layers, 0)), "compress_ratios",
                fmt::format("{} entries long", c.compress_ratios.size()),
                fmt::format("it must have one for each of the {} layers", c.layers));
  bool indexed = false;
  for (size_t i = 0; i < c.compress_ratios.size(); ++i) {
    const int ratio = c.compress_ratios[i];
    indexed = indexed || ratio == 4;
    rules.require(ratio == 0 || ratio == 4 || ratio == 128, fmt::format("compress_ratios[{}]", i).c_str(),
                  fmt::format("{}", ratio), "it must be 0, 4 or 128");
  }
  if (indexed || c.index_heads != 0 || c.index_head_dim != 0 || c.index_topk != 0) {
    rules.range("index_n_heads", c.index_heads, 1, 4096);
    rules.range("index_head_dim", c.index_head_dim, 32, 1024);
    rules.require(std::has_single_bit(static_cast<unsigned>(c.index_head_dim)), "index_head_dim",
                  fmt::format("{}", c.index_head_dim), "it must be a power of two (Hadamard rotation)");
    rules.require(c.index_head_dim >= c.rope_dim, "index_head_dim", fmt::format("{}", c.index_head_dim),
                  fmt::format("it must hold the {} rotary dims", c.rope_dim));
    rules.range("index_topk", c.index_topk, 1, 1 << 20);
  }
  rules.range("n_routed_experts", c.routed_experts, 1, 1 << 16);
  rules.range("num_experts_per_tok", c.experts_per_token, 1, c.routed_experts);
  if (rules.status.ok() && c.shared_experts != 1) {
    return {Code::kUnsupported, fmt::format("\"n_shared_experts\" is {}, and only 1 is supported", c.shared_experts),
            where};
  }
  rules.range("moe_intermediate_size", c.expert_inter, 32, kMaxWidth);
  rules.multiple("moe_intermediate_size", c.expert_inter, 32, "FP4 expert weights have a scale every 32 columns");
  rules.range("n_routed_experts x num_hidden_layers", int64_t{c.routed_experts} * c.layers, 1, 1 << 20);
  rules.range("num_hash_layers", c.hash_layers, 0, c.layers);
  rules.positive("routed_scaling_factor", c.route_scale);
  rules.positive("swiglu_limit", c.swiglu_limit);
  rules.range("hc_mult", c.hc_mult, 1, 16);
  rules.range("hc_sinkhorn_iters", c.hc_sinkhorn_iters, 1, 1000);
  rules.positive("hc_eps", c.hc_eps);
  rules.positive("rms_norm_eps", c.norm_eps);
  rules.positive("rope_theta", c.rope_theta);
  rules.positive("compress_rope_theta", c.compress_rope_theta);
  rules.positive("rope_scaling.factor", c.rope_scaling.factor);
  rules.range("rope_scaling.original_max_position_embeddings", c.rope_scaling.original_max_positions, 1, 1 << 30);
  rules.positive("rope_scaling.beta_fast", c.rope_scaling.beta_fast);
  rules.positive("rope_scaling.beta_slow", c.rope_scaling.beta_slow);
  rules.range("max_position_embeddings", c.max_positions, 1, 1 << 30);
  rules.range("bos_token_id", c.bos_id, 0, c.vocab_size - 1);
  rules.range("eos_token_id", c.eos_id, 0, c.vocab_size - 1);
  if (rules.status.ok() && c.mtp_layers > 1) {
    return {Code::kUnsupported,
            fmt::format("\"num_nextn_predict_layers\" is {}, and at most 1 is supported", c.mtp_layers), where};
  }
  rules.range("num_nextn_predict_layers", c.mtp_layers, 0, 1);
  rules.range("dspark_block_size", c.dspark.block_size, 0, 64);
  if (c.dspark.block_size > 0) {
    rules.range("dspark_noise_token_id", c.dspark.noise_token_id, 0, c.vocab_size - 1);
    rules.range("dspark_markov_rank", c.dspark.markov_rank, 1, kMaxWidth);
    rules.require(!c.dspark.target_layers.empty() && c.dspark.target_layers.size() <= 16, "dspark_target_layer_ids",
                  fmt::format("{} entries long", c.dspark.target_layers.size()), "it must have 1 to 16");
    for (int layer : c.dspark.target_layers) rules.range("dspark_target_layer_ids entry", layer, 0, c.layers - 1);
  }
  return rules.status;
}

Result<ModelConfig> shape_config(std::string_view name) {
  if (name == "v4-flash") return flash();
  if (name == "v4-pro") return pro();
  return Status(Code::kInvalidArgument, fmt::format("there is no shape \"{}\"", name), "--shape",
                "use v4-flash or v4-pro");
}

Result<ModelConfig> with_layers(ModelConfig config, std::vector<int> ratios) {
  config.layers = static_cast<int>(ratios.size());
  config.compress_ratios = std::move(ratios);
  config.hash_layers = std::min(config.hash_layers, config.layers);
  // The taps are the last layers of the published shapes: keep them last.
  const int taps = static_cast<int>(config.dspark.target_layers.size());
  for (int i = 0; i < taps; ++i) {
    config.dspark.target_layers[static_cast<size_t>(i)] = std::max(0, config.layers - taps + i);
  }
  NAUTILE_RETURN_IF_ERROR(validate_config(config, "--layers"));
  return config;
}

Result<ModelConfig> with_layers(ModelConfig config, int layers) {
  if (layers < 1 || layers > config.layers) {
    return Status(Code::kInvalidArgument, fmt::format("{} layers of a shape that has {}", layers, config.layers),
                  "--layers", fmt::format("give 1 to {}", config.layers));
  }
  std::vector<int> ratios(config.compress_ratios.begin(), config.compress_ratios.begin() + layers);
  return with_layers(std::move(config), std::move(ratios));
}

ModelConfig with_dspark(ModelConfig config) {
  config.dspark.block_size = 5;
  config.dspark.noise_token_id = std::min(128799, config.vocab_size - 1);
  // 256 in Flash, 512 in Pro; their hidden sizes are 4096 and 7168.
  config.dspark.markov_rank = config.hidden > 4096 ? 512 : 256;
  config.dspark.target_layers.clear();
  for (int i = std::max(0, config.layers - kDsparkStages); i < config.layers; ++i) {
    config.dspark.target_layers.push_back(i);
  }
  return config;
}

std::string config_json(const ModelConfig& c) {
  std::vector<int> ratios = c.compress_ratios;
  ratios.insert(ratios.end(), c.dspark.block_size > 0 ? kDsparkStages : static_cast<size_t>(c.mtp_layers), 0);
  Json root = {
      {"architectures", Json::array({"DeepseekV4ForCausalLM"})},
      {"model_type", "deepseek_v4"},
      {"vocab_size", c.vocab_size},
      {"bos_token_id", c.bos_id},
      {"eos_token_id", c.eos_id},
      {"hidden_size", c.hidden},
      {"num_hidden_layers", c.layers},
      {"num_attention_heads", c.heads},
      {"num_key_value_heads", 1},
      {"head_dim", c.head_dim},
      {"qk_rope_head_dim", c.rope_dim},
      {"q_lora_rank", c.q_lora_rank},
      {"o_groups", c.o_groups},
      {"o_lora_rank", c.o_lora_rank},
      {"moe_intermediate_size", c.expert_inter},
      {"n_routed_experts", c.routed_experts},
      {"num_experts_per_tok", c.experts_per_token},
      {"n_shared_experts", c.shared_experts},
      {"num_hash_layers", c.hash_layers},
      {"scoring_func", "sqrtsoftplus"},
      {"norm_topk_prob", true},
      {"topk_method", "noaux_tc"},
      {"routed_scaling_factor", c.route_scale},
      {"swiglu_limit", c.swiglu_limit},
      {"sliding_window", c.window},
      {"index_n_heads", c.index_heads},
      {"index_head_dim", c.index_head_dim},
      {"index_topk", c.index_topk},
      {"hc_mult", c.hc_mult},
      {"hc_sinkhorn_iters", c.hc_sinkhorn_iters},
      {"hc_eps", c.hc_eps},
      {"rms_norm_eps", c.norm_eps},
      {"hidden_act", "silu"},
      {"tie_word_embeddings", false},
      {"rope_theta", c.rope_theta},
      {"compress_rope_theta", c.compress_rope_theta},
      {"rope_scaling",
       {{"type", "yarn"},
        {"factor", c.rope_scaling.factor},
        {"original_max_position_embeddings", c.rope_scaling.original_max_positions},
        {"beta_fast", c.rope_scaling.beta_fast},
        {"beta_slow", c.rope_scaling.beta_slow}}},
      {"max_position_embeddings", c.max_positions},
      {"num_nextn_predict_layers", c.mtp_layers},
      {"compress_ratios", ratios},
  };
  if (c.dspark.block_size > 0) {
    root["dspark_block_size"] = c.dspark.block_size;
    root["dspark_markov_rank"] = c.dspark.markov_rank;
    root["dspark_noise_token_id"] = c.dspark.noise_token_id;
    root["dspark_target_layer_ids"] = c.dspark.target_layers;
  }
  return root.dump(2) + "\n";
}

}  // namespace nautile
