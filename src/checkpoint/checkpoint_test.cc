// Checkpoint directories: shards through the index, both naming schemes, and each fault with file, tensor and byte.
#include "checkpoint/checkpoint.h"

#include <doctest/doctest.h>

#include "checkpoint/memory_files.h"
#include "checkpoint/names.h"
#include "checkpoint/safetensors.h"

using namespace nautile;

namespace {

std::string file_of(const std::vector<SafetensorsTensor>& tensors) {
  std::string out = safetensors_header(tensors);
  char value = 0;
  for (const SafetensorsTensor& tensor : tensors) {
    for (uint64_t i = 0; i < tensor.bytes; ++i) out += value++;
  }
  return out;
}

constexpr const char* kOne = "model-00001-of-00002.safetensors";
constexpr const char* kTwo = "model-00002-of-00002.safetensors";

// Two shards; a weight and its scale are apart.
MemoryFiles two_shards() {
  MemoryFiles files;
  files.contents[join_path("m", kOne)] =
      file_of({{"embed.weight", DType::kBf16, {3}, 0, 6}, {"layers.0.attn.wkv.scale", DType::kE8M0, {1, 1}, 0, 1}});
  files.contents[join_path("m", kTwo)] = file_of({{"layers.0.attn.wkv.weight", DType::kF8E4M3, {2, 4}, 0, 8}});
  files.contents["m/model.safetensors.index.json"] =
      std::string(R"({"metadata":{"total_size":15},"weight_map":{"embed.weight":")") + kOne +
      R"(","layers.0.attn.wkv.scale":")" + kOne + R"(","layers.0.attn.wkv.weight":")" + kTwo + "\"}}";
  return files;
}

void replace(std::string& text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  text.replace(at, from.size(), to);
}

void check_fault(MemoryFiles& files, Code code, const char* what, std::vector<const char*> where) {
  const Status status = open_checkpoint(files, "m").status();
  INFO(status.message());
  CHECK(status.code() == code);
  CHECK(status.what().find(what) != std::string::npos);
  for (const char* place : where) CHECK(status.where().find(place) != std::string::npos);
}

std::string canonical(const char* stored) {
  return canonical_name(stored).name;
}

}  // namespace

TEST_CASE("shards come together") {
  MemoryFiles files = two_shards();
  const auto opened = open_checkpoint(files, "m");
  REQUIRE(opened.ok());
  const Checkpoint& checkpoint = opened.value();
  CHECK(checkpoint.tensors().size() == 3);
  CHECK(checkpoint.payload_bytes() == 15);
  CHECK(checkpoint.warnings().empty());
  CHECK(checkpoint.files().size() == 2);
  const TensorView* weight = checkpoint.find("layers.0.attn.wkv.weight");
  REQUIRE(weight != nullptr);
  CHECK(weight->dtype == DType::kF8E4M3);
  CHECK(weight->read<uint8_t>(7) == 7);
  CHECK(weight->file == std::string("m/") + kTwo);
  CHECK(checkpoint.find("embed.weight")->read<uint16_t>(2) == 0x0504);
  CHECK(checkpoint.find("layers.0.attn.wkv") == nullptr);
  CHECK(checkpoint.get("nothing").status().code() == Code::kNotFound);
}

TEST_CASE("a written checkpoint opens again with equal bytes, in one shard or several") {
  MemoryFiles files = two_shards();
  const Checkpoint first = open_checkpoint(files, "m").value();
  for (uint64_t shard_bytes : {1000u, 7u, 1u}) {
    MemoryFiles copy;
    REQUIRE(write_checkpoint(copy, first, "c", shard_bytes).ok());
    const auto second = open_checkpoint(copy, "c");
    REQUIRE(second.ok());
    REQUIRE(second.value().tensors().size() == 3);
    for (const TensorView& tensor : first.tensors()) {
      const TensorView* other = second.value().find(tensor.name);
      REQUIRE(other != nullptr);
      CHECK(other->shape == tensor.shape);
      CHECK(std::memcmp(other->data, tensor.data, tensor.bytes) == 0);
    }
  }
}

TEST_CASE("faults of index and shards") {
  const std::string index = "m/model.safetensors.index.json";
  MemoryFiles empty;
  check_fault(empty, Code::kNotFound, "model.safetensors", {"m"});

  MemoryFiles missing = two_shards();
  missing.contents.erase(join_path("m", kTwo));
  check_fault(missing, Code::kNotFound, "shard is missing", {kTwo, "tensor layers.0.attn.wkv.weight"});

  MemoryFiles cut = two_shards();
  cut.contents[join_path("m", kTwo)].pop_back();
  check_fault(cut, Code::kCorrupt, "cut short", {kTwo, "tensor layers.0.attn.wkv.weight", "byte "});

  MemoryFiles moved = two_shards();
  replace(moved.contents[index], std::string("embed.weight\":\"") + kOne, std::string("embed.weight\":\"") + kTwo);
  check_fault(moved, Code::kCorrupt, kTwo, {kOne, "tensor embed.weight", "byte "});

  MemoryFiles extra = two_shards();
  replace(extra.contents[index], std::string("\"embed.weight\":\"") + kOne + "\",", "");
  check_fault(extra, Code::kCorrupt, "not listed", {kOne, "tensor embed.weight", "byte "});

  MemoryFiles absent = two_shards();
  replace(absent.contents[index], "\"weight_map\":{", std::string("\"weight_map\":{\"norm.weight\":\"") + kTwo + "\",");
  check_fault(absent, Code::kNotFound, "norm.weight", {kTwo, "tensor norm.weight", "byte "});

  MemoryFiles twice = two_shards();
  replace(twice.contents[index], "\"weight_map\":{", std::string("\"weight_map\":{\"embed.weight\":\"") + kTwo + "\",");
  check_fault(twice, Code::kCorrupt, "twice", {index.c_str(), "byte "});

  MemoryFiles no_json = two_shards();
  no_json.contents[index] = "{";
  check_fault(no_json, Code::kCorrupt, "JSON", {index.c_str(), "byte "});

  MemoryFiles no_map = two_shards();
  no_map.contents[index] = R"({"metadata":{}})";
  check_fault(no_map, Code::kCorrupt, "weight_map", {index.c_str()});

  MemoryFiles outside = two_shards();
  replace(outside.contents[index], kOne, "../../etc/passwd");
  check_fault(outside, Code::kCorrupt, "file name without folders", {index.c_str()});

  MemoryFiles total = two_shards();
  replace(total.contents[index], "\"total_size\":15", "\"total_size\":16");
  const auto opened = open_checkpoint(total, "m");
  REQUIRE(opened.ok());
  REQUIRE(opened.value().warnings().size() == 1);
  CHECK(opened.value().warnings()[0].find("16") != std::string::npos);
}

TEST_CASE("transformers names become DeepSeek names") {
  CHECK(canonical("model.embed_tokens.weight") == "embed.weight");
  CHECK(canonical("lm_head.weight") == "head.weight");
  CHECK(canonical("model.norm.weight") == "norm.weight");
  CHECK(canonical("model.hc_head.hc_fn") == "hc_head_fn");
  CHECK(canonical("model.hc_head.hc_scale") == "hc_head_scale");
  CHECK(canonical("model.layers.3.input_layernorm.weight") == "layers.3.attn_norm.weight");
  CHECK(canonical("model.layers.3.post_attention_layernorm.weight") == "layers.3.ffn_norm.weight");
  CHECK(canonical("model.layers.3.attn_hc.base") == "layers.3.hc_attn_base");
  CHECK(canonical("model.layers.3.ffn_hc.scale") == "layers.3.hc_ffn_scale");
  CHECK(canonical("model.layers.3.self_attn.q_a_proj.weight") == "layers.3.attn.wq_a.weight");
  CHECK(canonical("model.layers.3.self_attn.o_b_proj.weight_scale_inv") == "layers.3.attn.wo_b.scale");
  CHECK(canonical("model.layers.3.self_attn.q_a_norm.weight") == "layers.3.attn.q_norm.weight");
  CHECK(canonical("model.layers.3.self_attn.kv_norm.weight") == "layers.3.attn.kv_norm.weight");
  CHECK(canonical("model.layers.3.self_attn.sinks") == "layers.3.attn.attn_sink");
  CHECK(canonical("model.layers.3.self_attn.compressor.kv_proj.weight") == "layers.3.attn.compressor.wkv.weight");
  CHECK(canonical("model.layers.3.self_attn.compressor.position_bias") == "layers.3.attn.compressor.ape");
  CHECK(canonical("model.layers.3.self_attn.compressor.kv_norm.weight") == "layers.3.attn.compressor.norm.weight");
  CHECK(canonical("model.layers.3.self_attn.compressor.indexer.q_b_proj.weight") ==
        "layers.3.attn.indexer.wq_b.weight");
  for (const char* stored : {"model.layers.3.self_attn.compressor.indexer.weights_proj.weight",
                             "model.layers.3.self_attn.compressor.indexer.scorer.weights_proj.weight"}) {
    CHECK(canonical(stored) == "layers.3.attn.indexer.weights_proj.weight");
  }
  CHECK(canonical("model.layers.3.self_attn.compressor.indexer.gate_proj.weight") ==
        "layers.3.attn.indexer.compressor.wgate.weight");
  CHECK(canonical("model.layers.3.self_attn.compressor.indexer.kv_norm.weight") ==
        "layers.3.attn.indexer.compressor.norm.weight");
  CHECK(canonical("model.layers.3.mlp.gate.e_score_correction_bias") == "layers.3.ffn.gate.bias");
  CHECK(canonical("model.layers.3.mlp.gate.tid2eid") == "layers.3.ffn.gate.tid2eid");
  CHECK(canonical("model.layers.3.mlp.shared_experts.gate_proj.weight") == "layers.3.ffn.shared_experts.w1.weight");
  CHECK(canonical("layers.3.mlp.experts.7.up_proj.weight_scale_inv") == "layers.3.ffn.experts.7.w3.scale");
  CHECK(canonical("mtp.0.ffn.experts.7.w2.scale") == "mtp.0.ffn.experts.7.w2.scale");
  CHECK(canonical("layers.3.attn.indexer.compressor.wkv.weight") == "layers.3.attn.indexer.compressor.wkv.weight");
  CHECK(canonical("mtp.2.hc_head_fn") == "mtp.2.hc_head_fn");
  for (const char* odd : {"", ".", "model", "model.", "layers", "layers.1.", "layers.1.mlp.experts", "a..b"}) {
    CHECK_NOTHROW(canonical(odd));
  }
}

TEST_CASE("experts of a layer in one tensor are cut into views") {
  MemoryFiles files;
  files.contents["m/model.safetensors"] =
      file_of({{"model.layers.0.mlp.experts.gate_up_proj", DType::kBf16, {2, 4, 3}, 0, 48},
               {"model.layers.0.mlp.experts.down_proj", DType::kBf16, {2, 3, 2}, 0, 24}});
  const Checkpoint checkpoint = open_checkpoint(files, "m").value();
  CHECK(checkpoint.tensors().size() == 6);
  const TensorView* up = checkpoint.find("layers.0.ffn.experts.1.w3.weight");
  REQUIRE(up != nullptr);
  CHECK(up->shape == std::vector<int64_t>{2, 3});
  CHECK(up->read<uint8_t>(0) == 36);  // expert 1 starts at 24, its w3 rows 12 later
  const TensorView* down = checkpoint.find("layers.0.ffn.experts.1.w2.weight");
  REQUIRE(down != nullptr);
  CHECK(down->shape == std::vector<int64_t>{3, 2});
  CHECK(down->read<uint8_t>(0) == 48 + 12);

  files.contents["m/model.safetensors"] =
      file_of({{"model.layers.0.mlp.experts.gate_up_proj", DType::kBf16, {2, 3}, 0, 12}});
  check_fault(files, Code::kUnsupported, "all experts", {"gate_up_proj", "byte "});
  files.contents["m/model.safetensors"] =
      file_of({{"model.norm.weight", DType::kBf16, {1}, 0, 2}, {"norm.weight", DType::kBf16, {1}, 0, 2}});
  check_fault(files, Code::kCorrupt, "twice", {"norm.weight", "byte "});
}
