// config.json: what is written is read back, and whatever is wrong is named.
#include "model/config.h"

#include <doctest/doctest.h>

#include "base/json.h"

using namespace nautile;

namespace {

Json flash_json() {
  return Json::parse(config_json(*shape_config("v4-flash")));
}

// The error of a Flash config with one field changed.
Status with(const char* key, const Json& value) {
  Json root = flash_json();
  root[key] = value;
  return parse_config(root.dump(), "config.json").status();
}

void check_names(const Status& status, Code code, const char* key) {
  INFO(status.message());
  CHECK(status.code() == code);
  CHECK(status.what().find(key) != std::string::npos);
  CHECK(status.where().find("config.json") != std::string::npos);
}

}  // namespace

TEST_CASE("both shapes, with each draft module, survive being written and read") {
  for (const char* name : {"v4-flash", "v4-pro"}) {
    const ModelConfig config = *shape_config(name);
    REQUIRE(validate_config(config, name).ok());
    CHECK(parse_config(config_json(config), "config.json").value() == config);
    CHECK(parse_config(config_json(with_dspark(config)), "config.json").value() == with_dspark(config));
  }
  const ModelConfig flash = *shape_config("v4-flash"), pro = *shape_config("v4-pro");
  CHECK(flash.count(LayerKind::kSwa) == 2);
  CHECK(flash.count(LayerKind::kCsa) == 21);
  CHECK(flash.count(LayerKind::kHca) == 20);
  CHECK(pro.count(LayerKind::kSwa) == 0);
  CHECK(pro.count(LayerKind::kCsa) == 30);
  CHECK(pro.count(LayerKind::kHca) == 31);
  CHECK(with_dspark(flash).dspark.target_layers == std::vector<int>{40, 41, 42});
  CHECK(with_dspark(pro).dspark.target_layers == std::vector<int>{58, 59, 60});
  CHECK(shape_config("v5").status().code() == Code::kInvalidArgument);
}

TEST_CASE("every field is required") {
  const Json whole = flash_json();
  for (const auto& [key, value] : whole.items()) {
    if (key == "architectures" || key == "model_type" || key == "topk_method") continue;
    Json root = whole;
    root.erase(key);
    CAPTURE(key);
    check_names(parse_config(root.dump(), "config.json").status(), Code::kInvalidArgument, key.c_str());
  }
}

TEST_CASE("values that break a rule are named") {
  check_names(with("hidden_size", 4095), Code::kInvalidArgument, "hidden_size");
  check_names(with("hidden_size", -32), Code::kInvalidArgument, "hidden_size");
  check_names(with("hidden_size", 4096.5), Code::kInvalidArgument, "hidden_size");
  check_names(with("hidden_size", int64_t{1} << 40), Code::kInvalidArgument, "hidden_size");
  check_names(with("vocab_size", 0), Code::kInvalidArgument, "vocab_size");
  check_names(with("num_attention_heads", 63), Code::kInvalidArgument, "num_attention_heads");
  check_names(with("qk_rope_head_dim", 63), Code::kInvalidArgument, "qk_rope_head_dim");
  check_names(with("qk_rope_head_dim", 512), Code::kInvalidArgument, "qk_rope_head_dim");
  check_names(with("head_dim", 500), Code::kInvalidArgument, "head_dim");
  check_names(with("moe_intermediate_size", 2040), Code::kInvalidArgument, "moe_intermediate_size");
  check_names(with("index_head_dim", 96), Code::kInvalidArgument, "index_head_dim");
  check_names(with("num_experts_per_tok", 257), Code::kInvalidArgument, "num_experts_per_tok");
  check_names(with("num_hash_layers", 44), Code::kInvalidArgument, "num_hash_layers");
  check_names(with("rms_norm_eps", 0), Code::kInvalidArgument, "rms_norm_eps");
  check_names(with("eos_token_id", 129280), Code::kInvalidArgument, "eos_token_id");
  check_names(with("num_hidden_layers", 45), Code::kInvalidArgument, "compress_ratios");
  check_names(with("scoring_func", "softmax"), Code::kUnsupported, "scoring_func");
  check_names(with("tie_word_embeddings", true), Code::kUnsupported, "tie_word_embeddings");
  check_names(with("num_key_value_heads", 8), Code::kUnsupported, "num_key_value_heads");
  check_names(with("n_shared_experts", 2), Code::kUnsupported, "n_shared_experts");
  check_names(with("quantization_config", {{"quant_method", "awq"}}), Code::kUnsupported, "quant_method");
  check_names(with("quantization_config", {{"quant_method", "fp8"}, {"weight_block_size", {32, 32}}}),
              Code::kUnsupported, "weight_block_size");
  check_names(with("rope_scaling", {{"type", "linear"}}), Code::kUnsupported, "type");
  check_names(with("dspark_block_size", 5), Code::kInvalidArgument, "dspark_noise_token_id");
  Json ratios = flash_json()["compress_ratios"];
  ratios[7] = 8;
  check_names(with("compress_ratios", ratios), Code::kInvalidArgument, "compress_ratios[7]");
  ratios[7] = "4";
  check_names(with("compress_ratios", ratios), Code::kInvalidArgument, "compress_ratios");
}

TEST_CASE("other architectures are refused by name") {
  Json root = flash_json();
  root["architectures"] = Json::array({"DeepseekV41ForCausalLM"});
  root["model_type"] = "deepseek_v4_1";
  const Status v41 = parse_config(root.dump(), "config.json").status();
  CHECK(v41.code() == Code::kUnsupported);
  CHECK(v41.what().find("V4.1") != std::string::npos);
  check_names(with("architectures", Json::array({"LlamaForCausalLM"})), Code::kUnsupported, "LlamaForCausalLM");
  CHECK(parse_config("[]", "config.json").status().code() == Code::kInvalidArgument);
  CHECK(parse_config("{", "config.json").status().code() == Code::kCorrupt);
}

TEST_CASE("a shape with fewer layers keeps its own schedule") {
  const ModelConfig config = with_layers(*shape_config("v4-flash"), 4).value();
  CHECK(config.compress_ratios == std::vector<int>{0, 0, 4, 128});
  CHECK(config.hash_layers == 3);
  CHECK(with_layers(with_dspark(*shape_config("v4-pro")), std::vector<int>{4, 128})->dspark.target_layers ==
        std::vector<int>{0, 0, 1});
  CHECK(with_layers(*shape_config("v4-flash"), 44).status().code() == Code::kInvalidArgument);
  CHECK(with_layers(*shape_config("v4-flash"), std::vector<int>{7}).status().code() == Code::kInvalidArgument);
}
