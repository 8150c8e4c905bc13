// Exact counts of a V4 from its config.
#include "plan/arithmetic.h"

#include <algorithm>

#include "model/inventory.h"
#include "model/memory_plan.h"
#include "plan/words.h"

namespace nautile::plan {
namespace {

int64_t blocks(int64_t size, int64_t block) {
  return (size + block - 1) / block;
}

int64_t bits(int64_t params, double bits_per_param) {
  return static_cast<int64_t>(static_cast<long double>(params) * bits_per_param / 8);
}

// FP8 bytes of the routed experts: one byte a parameter and one scale a 128 x 128 block.
int64_t fp8_experts(const Arithmetic& model, int64_t blocks_of_layers) {
  const ModelConfig& c = model.config;
  const int64_t one = int64_t{c.hidden} * c.expert_inter + blocks(c.hidden, 128) * blocks(c.expert_inter, 128);
  return blocks_of_layers * c.routed_experts * 3 * one;
}

constexpr double kIq2BitsPerParam = (2 * 2.0625 + 2.625) / 3;  // w1, w3 IQ2_XXS; w2 Q2_K

}  // namespace

Arithmetic count(const ModelConfig& config) {
  Arithmetic model;
  model.config = config;
  for (int ratio : config.compress_ratios) {
    (ratio == 0 ? model.swa_layers : ratio == 4 ? model.csa_layers : model.hca_layers) += 1;
  }
  Variant released;
  released.draft = config.mtp_layers > 0 ? DraftKind::kMtp : DraftKind::kNone;
  const std::vector<ExpectedTensor> tensors = expected_tensors(config, released);
  const Totals totals = inventory_totals(config, tensors);
  auto row = [&](const ExpectedTensor& tensor) -> ComponentRow& {
    const char* name = component_name(tensor.component);
    for (ComponentRow& found : model.components) {
      if (found.name == name && found.draft == tensor.draft) return found;
    }
    model.components.push_back({name, 0, 0, 0, tensor.draft});
    return model.components.back();
  };
  for (const ExpectedTensor& tensor : tensors) {
    const int64_t params = tensor.parameters, bytes = static_cast<int64_t>(tensor.bytes);
    const bool routed = tensor.component == Component::kRoutedExperts;
    const bool lookup = tensor.component == Component::kEmbedding || tensor.component == Component::kHashTable;
    // Of a layer's routed experts a token uses a fixed share.
    const int64_t active = lookup ? 0 : routed ? params * config.experts_per_token / config.routed_experts : params;
    ComponentRow& component = row(tensor);
    component.params += params;
    component.bytes += bytes;
    // Summed in whole experts, so that nothing is lost to the division.
    component.active += routed ? params : active;
    if (tensor.component == Component::kHashTable) model.hash_entries += bytes / 8;
    if (tensor.draft) {
      model.draft_params += params;
      model.draft_bytes += bytes;
      if (routed) {
        model.draft_expert_params += params;
        model.draft_expert_bytes += bytes;
      }
      continue;
    }
    if (routed) {
      model.expert_params += params;
      model.expert_bytes += bytes;
    } else if (lookup) {
      model.resident_only_bytes += bytes;
      model.embedding_params += params;
    } else if (tensor.component == Component::kNorms ||
               (tensor.component == Component::kGate && tensor.role == StorageRole::kF32)) {
      model.elementwise += params;
    } else if (tensor.role == StorageRole::kDense) {
      model.gemm_fp8 += params;
    } else {
      model.gemm_bf16 += params;
      if (tensor.component == Component::kMhc) model.gemm_mhc += params;
    }
    if (tensor.component == Component::kHead) {
      model.head_params += params;
      model.head_bytes += bytes;
    }
  }
  for (ComponentRow& component : model.components) {
    if (component.name == component_name(Component::kRoutedExperts)) {
      component.active = component.active / config.routed_experts * config.experts_per_token;
    }
  }
  model.gemm_expert = model.expert_params / config.routed_experts * config.experts_per_token;
  model.params = totals.parameters();
  model.active = totals.active_parameters();
  model.bytes = static_cast<int64_t>(totals.main_bytes());
  return model;
}

const std::vector<WeightFormatName>& weight_formats() {
  static const std::vector<WeightFormatName> kFormats = {
      {WeightFormat::kOfficial, "official", "as released: FP4 experts, FP8 dense, BF16 rest, with MTP"},
      {WeightFormat::kOfficialNoMtp, "official-no-mtp", "as released, MTP block dropped"},
      {WeightFormat::kNvfp4, "nvfp4", "NVFP4 experts (a scale per 16), rest and MTP as released"},
      {WeightFormat::kFp8, "fp8", "experts expanded to FP8, with MTP"},
      {WeightFormat::kBf16, "bf16", "everything BF16, with MTP"},
      {WeightFormat::kQ8_0, "q8_0", "GGUF Q8_0, 8.5 bits a parameter, no MTP"},
      {WeightFormat::kQ4, "q4_k_m", "GGUF Q4_K_M, 4.85 bits a parameter, no MTP"},
      {WeightFormat::kMxfp4Q8, "mxfp4-q8", "GGUF: MXFP4 experts, Q8_0 rest, no MTP"},
      {WeightFormat::kIq2, "iq2", "GGUF: IQ2_XXS w1 w3, Q2_K w2, Q8_0 rest, no MTP (ds4)"},
  };
  return kFormats;
}

Result<WeightFormat> weight_format(std::string_view id) {
  std::vector<std::string> names;
  for (const auto& entry : weight_formats()) {
    if (id == entry.id) return entry.format;
    names.emplace_back(entry.id);
  }
  return unknown_name("weight format", id, names, "--format");
}

const char* weight_format_id(WeightFormat format) {
  for (const auto& entry : weight_formats()) {
    if (entry.format == format) return entry.id;
  }
  return "unknown";
}

const std::vector<KvFormatName>& kv_formats() {
  // FP8: 448 values in FP8, 64 rotary values in BF16, 7 scale bytes and 1 of padding. NVFP4: the 448 in FP4.
  static const std::vector<KvFormatName> kFormats = {
      {KvFormat::kFp8Fp4, "fp8", "FP8 entries, FP4 index keys (the official mix)", 584, 68},
      {KvFormat::kFp8Fp8, "fp8-fp8idx", "FP8 entries, FP8 index keys", 584, 132},
      {KvFormat::kBf16, "bf16", "BF16 entries and index keys", 1024, 256},
      {KvFormat::kNvfp4, "nvfp4", "FP4 entries with BF16 rotary part, FP4 index keys", 380, 68},
  };
  return kFormats;
}

Result<KvFormat> kv_format(std::string_view id) {
  std::vector<std::string> names;
  for (const auto& entry : kv_formats()) {
    if (id == entry.id) return entry.format;
    names.emplace_back(entry.id);
  }
  return unknown_name("cache format", id, names, "--kv");
}

const KvFormatName& kv_format_name(KvFormat format) {
  return kv_formats()[static_cast<size_t>(format)];
}

int64_t routed_bytes(const Arithmetic& model, WeightFormat format) {
  switch (format) {
    case WeightFormat::kOfficial:
    case WeightFormat::kOfficialNoMtp:
    case WeightFormat::kMxfp4Q8:
      return model.expert_bytes;
    case WeightFormat::kNvfp4:
      return model.expert_params / 16 * 9;
    case WeightFormat::kFp8:
      return fp8_experts(model, model.config.layers);
    case WeightFormat::kBf16:
      return 2 * model.expert_params;
    case WeightFormat::kQ8_0:
      return bits(model.expert_params, 8.5);
    case WeightFormat::kQ4:
      return bits(model.expert_params, 4.85);
    case WeightFormat::kIq2:
      return bits(model.expert_params, kIq2BitsPerParam);
  }
  return 0;
}

int64_t weight_bytes_without_draft(const Arithmetic& model, WeightFormat format) {
  const int64_t rest = model.params - model.expert_params;
  switch (format) {
    case WeightFormat::kBf16:
      return 2 * model.params + 8 * model.hash_entries;
    case WeightFormat::kQ8_0:
      return bits(model.params, 8.5);
    case WeightFormat::kQ4:
      return bits(model.params, 4.85);
    case WeightFormat::kMxfp4Q8:
    case WeightFormat::kIq2:
      return routed_bytes(model, format) + bits(rest, 8.5);
    default:
      return model.bytes - model.expert_bytes + routed_bytes(model, format);
  }
}

int64_t weight_bytes(const Arithmetic& model, WeightFormat format) {
  const int64_t main = weight_bytes_without_draft(model, format);
  switch (format) {
    case WeightFormat::kOfficial:
    case WeightFormat::kNvfp4:
      return main + model.draft_bytes;
    case WeightFormat::kFp8:
      return main + model.draft_bytes - model.draft_expert_bytes + fp8_experts(model, model.config.mtp_layers);
    case WeightFormat::kBf16:
      return main + 2 * model.draft_params;
    default:
      return main;
  }
}

int64_t dense_bytes_read(const Arithmetic& model, WeightFormat format) {
  const int64_t all = weight_bytes_without_draft(model, format) - routed_bytes(model, format);
  const int64_t resident = model.resident_only_bytes;
  switch (format) {
    case WeightFormat::kQ8_0:
    case WeightFormat::kMxfp4Q8:
    case WeightFormat::kIq2:
      return all - bits(model.embedding_params, 8.5);
    case WeightFormat::kQ4:
      return all - bits(model.embedding_params, 4.85);
    default:
      return all - resident;
  }
}

int64_t kv_bytes(const Arithmetic& model, int64_t tokens, KvFormat format) {
  const KvFormatName& kv = kv_format_name(format);
  const StateLayout layout{kv.entry_bytes, kv.index_bytes, 1};
  return static_cast<int64_t>(
      sequence_bytes(model.config, DraftKind::kNone, static_cast<uint64_t>(tokens), layout).kv());
}

int64_t compressor_state_bytes(const Arithmetic& model) {
  return static_cast<int64_t>(sequence_bytes(model.config, DraftKind::kNone, 1, {0, 0, 1}).compressor);
}

int64_t kv_read_bytes(const Arithmetic& model, int64_t tokens, KvFormat format) {
  const KvFormatName& kv = kv_format_name(format);
  const int64_t window = std::min<int64_t>(tokens, model.config.window) * kv.entry_bytes;
  const int64_t chosen = std::min<int64_t>(tokens / 4, model.config.index_topk);
  return model.config.layers * window + model.csa_layers * (chosen * kv.entry_bytes + tokens / 4 * kv.index_bytes) +
         model.hca_layers * (tokens / 128) * kv.entry_bytes;
}

Operations raw_operations(const Arithmetic& model, int64_t tokens) {
  const ModelConfig& c = model.config;
  const int64_t core = 4 * int64_t{c.heads} * c.head_dim;  // q.k and p.v for one attended entry
  const int64_t chosen = std::min<int64_t>(tokens / 4, c.index_topk);
  Operations ops;
  ops.weights = 2 * (model.active - model.elementwise);
  ops.index = model.csa_layers * (tokens / 4) * 2 * c.index_heads * c.index_head_dim;
  ops.csa = model.csa_layers * (chosen + c.window) * core;
  ops.hca = model.hca_layers * (tokens / 128 + c.window) * core;
  ops.swa = model.swa_layers * int64_t{c.window} * core;
  return ops;
}

Operations fp8_operations(const Arithmetic& model, int64_t tokens) {
  Operations ops = raw_operations(model, tokens);
  ops.weights += 2 * model.gemm_bf16;
  ops.index /= 2;
  ops.csa *= 2;
  ops.hca *= 2;
  ops.swa *= 2;
  return ops;
}

int64_t v32_kv_bytes(const BaselineV32& v32, int64_t tokens) {
  return v32.layers * (v32.entry_fp8 + v32.index_fp8) * tokens;
}

namespace {

int64_t v32_core(const BaselineV32& v32, int64_t tokens) {
  const int64_t width = 2 * v32.kv_lora + v32.rope;  // latent attention: q.k over 512 + 64, p.v over 512
  return v32.layers * v32.heads * 2 * width * std::min<int64_t>(v32.topk, tokens);
}
int64_t v32_index(const BaselineV32& v32, int64_t tokens) {
  return v32.layers * int64_t{2} * v32.index_heads * v32.index_head_dim * tokens;
}

}  // namespace

int64_t v32_raw_operations(const BaselineV32& v32, int64_t tokens) {
  return 2 * v32.active + v32_index(v32, tokens) + v32_core(v32, tokens);
}

int64_t v32_fp8_operations(const BaselineV32& v32, int64_t tokens) {
  // Attention core in BF16 counts twice, as do head, gates and the indexer's head weights.
  const int64_t bf16 =
      int64_t{v32.hidden} * (v32.vocab + (v32.layers - v32.dense_layers) * v32.experts + v32.layers * v32.index_heads);
  return 2 * v32.active + 2 * bf16 + v32_index(v32, tokens) + 2 * v32_core(v32, tokens);
}

}  // namespace nautile::plan
