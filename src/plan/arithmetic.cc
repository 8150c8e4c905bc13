// Exact counts of a V4 from its config.
#include "plan/arithmetic.h"

#include <algorithm>

#include "plan/words.h"

namespace nautile::plan {
namespace {

// How a tensor is stored in the release, which is also how it is multiplied.
enum class Stored { kFp8, kFp4, kBf16, kF32, kTable };

int64_t blocks(int64_t size, int64_t block) { return (size + block - 1) / block; }

// Adds tensors to one component and to the totals.
class Counter {
 public:
  explicit Counter(Arithmetic& model) : model_(model) {}

  enum class Use { kMatrix, kElementwise, kMhc, kHead, kLookup, kRouted };
  // `copies` tensors of [rows, cols]; a token uses `active` of them.
  void add(const char* name, bool draft, Stored storage, Use use, int64_t copies, int64_t rows, int64_t cols,
           int64_t active) {
    const int64_t one = rows * cols;
    int64_t bytes = 0;
    switch (storage) {
      case Stored::kFp8: bytes = one + blocks(rows, 128) * blocks(cols, 128); break;
      case Stored::kFp4: bytes = one / 2 + one / 32; break;
      case Stored::kBf16: bytes = 2 * one; break;
      case Stored::kF32: bytes = 4 * one; break;
      case Stored::kTable: bytes = 8 * one; break;
    }
    bytes *= copies;
    const int64_t params = storage == Stored::kTable ? 0 : copies * one;
    ComponentRow& row = component(name, draft);
    row.params += params;
    row.bytes += bytes;
    row.active += active * one;
    if (storage == Stored::kTable) model_.hash_entries += copies * one;
    if (draft) {
      model_.draft_params += params;
      model_.draft_bytes += bytes;
      if (use == Use::kRouted) {
        model_.draft_expert_params += params;
        model_.draft_expert_bytes += bytes;
      }
      return;
    }
    model_.params += params;
    model_.bytes += bytes;
    model_.active += active * one;
    switch (use) {
      case Use::kRouted:
        model_.expert_params += params;
        model_.expert_bytes += bytes;
        model_.gemm_expert += active * one;
        break;
      case Use::kLookup:
        model_.resident_only_bytes += bytes;
        if (storage != Stored::kTable) model_.embedding_params += params;
        break;
      case Use::kElementwise: model_.elementwise += params; break;
      case Use::kHead:
        model_.head_params += params;
        model_.head_bytes += bytes;
        model_.gemm_bf16 += params;
        break;
      case Use::kMhc:
        model_.gemm_mhc += params;
        model_.gemm_bf16 += params;
        break;
      case Use::kMatrix: (storage == Stored::kFp8 ? model_.gemm_fp8 : model_.gemm_bf16) += params; break;
    }
  }

 private:
  ComponentRow& component(const char* name, bool draft) {
    for (ComponentRow& row : model_.components) {
      if (row.name == name && row.draft == draft) return row;
    }
    model_.components.push_back({name, 0, 0, 0, draft});
    return model_.components.back();
  }
  Arithmetic& model_;
};

using Use = Counter::Use;

void count_block(Counter& counter, const ModelConfig& c, int ratio, bool hash_routed, bool draft) {
  const int64_t d = c.hidden, q = c.q_lora_rank, h = c.heads, hd = c.head_dim, i = c.expert_inter;
  const int64_t groups = c.o_groups, low = groups * c.o_lora_rank;
  auto matrix = [&](const char* name, Stored storage, int64_t rows, int64_t cols, Use use = Use::kMatrix) {
    counter.add(name, draft, storage, use, 1, rows, cols, 1);
  };
  matrix("attention projections", Stored::kFp8, q, d);
  matrix("attention projections", Stored::kFp8, h * hd, q);
  matrix("attention projections", Stored::kFp8, hd, d);
  matrix("attention projections", Stored::kFp8, low, h * hd / groups);
  matrix("attention projections", Stored::kFp8, d, low);
  matrix("norms and sinks", Stored::kF32, 1, h, Use::kElementwise);
  matrix("norms and sinks", Stored::kBf16, 1, q + hd, Use::kElementwise);
  matrix("norms and sinks", Stored::kBf16, 2, d, Use::kElementwise);
  const int64_t overlap = ratio == 4 ? 2 : 1;
  if (ratio != 0) {
    const char* name = ratio == 4 ? "compressors CSA" : "compressors HCA";
    matrix(name, Stored::kBf16, 2 * overlap * hd, d);
    matrix(name, Stored::kF32, ratio, overlap * hd);
    matrix(name, Stored::kBf16, 1, hd);
  }
  if (ratio == 4) {
    const int64_t ih = c.index_heads, id = c.index_head_dim;
    matrix("indexer", Stored::kFp8, ih * id, q);
    matrix("indexer", Stored::kBf16, ih, d);
    matrix("indexer", Stored::kBf16, 2 * overlap * id, d);
    matrix("indexer", Stored::kF32, ratio, overlap * id);
    matrix("indexer", Stored::kBf16, 1, id);
  }
  const int64_t streams = c.hc_mult, mixes = streams * (2 + streams);
  for (int site = 0; site < 2; ++site) {
    matrix("mHC", Stored::kF32, mixes, streams * d, Use::kMhc);
    matrix("mHC", Stored::kF32, 1, mixes + 3, Use::kMhc);
  }
  matrix("gates", Stored::kBf16, c.routed_experts, d);
  if (hash_routed) {
    counter.add("hash tables", draft, Stored::kTable, Use::kLookup, 1, c.vocab_size, c.experts_per_token, 0);
  } else {
    matrix("gates", Stored::kF32, 1, c.routed_experts, Use::kElementwise);
  }
  for (const auto& [rows, cols] : {std::pair{i, d}, std::pair{i, d}, std::pair{d, i}}) {
    counter.add("routed experts", draft, Stored::kFp4, Use::kRouted, c.routed_experts, rows, cols, c.experts_per_token);
    counter.add("shared experts", draft, Stored::kFp8, Use::kMatrix, c.shared_experts, rows, cols, c.shared_experts);
  }
}

void count_head_mix(Counter& counter, const ModelConfig& c, bool draft) {
  counter.add("mHC", draft, Stored::kF32, Use::kMhc, 1, c.hc_mult, int64_t{c.hc_mult} * c.hidden, 1);
  counter.add("mHC", draft, Stored::kF32, Use::kMhc, 1, 1, c.hc_mult + 1, 1);
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
  Counter counter(model);
  counter.add("embedding", false, Stored::kBf16, Use::kLookup, 1, config.vocab_size, config.hidden, 0);
  for (int layer = 0; layer < config.layers; ++layer) {
    const int ratio = config.compress_ratios[static_cast<size_t>(layer)];
    (ratio == 0 ? model.swa_layers : ratio == 4 ? model.csa_layers : model.hca_layers) += 1;
    count_block(counter, config, ratio, config.hash_routed(layer), false);
  }
  counter.add("norms and sinks", false, Stored::kBf16, Use::kElementwise, 1, 1, config.hidden, 1);
  count_head_mix(counter, config, false);
  counter.add("head", false, Stored::kBf16, Use::kHead, 1, config.vocab_size, config.hidden, 1);
  for (int block = 0; block < config.mtp_layers; ++block) {
    count_block(counter, config, 0, false, true);
    counter.add("MTP projections", true, Stored::kFp8, Use::kMatrix, 2, config.hidden, config.hidden, 2);
    counter.add("norms and sinks", true, Stored::kBf16, Use::kElementwise, 3, 1, config.hidden, 3);
    count_head_mix(counter, config, true);
  }
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

const KvFormatName& kv_format_name(KvFormat format) { return kv_formats()[static_cast<size_t>(format)]; }

int64_t routed_bytes(const Arithmetic& model, WeightFormat format) {
  switch (format) {
    case WeightFormat::kOfficial:
    case WeightFormat::kOfficialNoMtp:
    case WeightFormat::kMxfp4Q8: return model.expert_bytes;
    case WeightFormat::kNvfp4: return model.expert_params / 16 * 9;
    case WeightFormat::kFp8: return fp8_experts(model, model.config.layers);
    case WeightFormat::kBf16: return 2 * model.expert_params;
    case WeightFormat::kQ8_0: return bits(model.expert_params, 8.5);
    case WeightFormat::kQ4: return bits(model.expert_params, 4.85);
    case WeightFormat::kIq2: return bits(model.expert_params, kIq2BitsPerParam);
  }
  return 0;
}

int64_t weight_bytes_without_draft(const Arithmetic& model, WeightFormat format) {
  const int64_t rest = model.params - model.expert_params;
  switch (format) {
    case WeightFormat::kBf16: return 2 * model.params + 8 * model.hash_entries;
    case WeightFormat::kQ8_0: return bits(model.params, 8.5);
    case WeightFormat::kQ4: return bits(model.params, 4.85);
    case WeightFormat::kMxfp4Q8:
    case WeightFormat::kIq2: return routed_bytes(model, format) + bits(rest, 8.5);
    default: return model.bytes - model.expert_bytes + routed_bytes(model, format);
  }
}

int64_t weight_bytes(const Arithmetic& model, WeightFormat format) {
  const int64_t main = weight_bytes_without_draft(model, format);
  switch (format) {
    case WeightFormat::kOfficial:
    case WeightFormat::kNvfp4: return main + model.draft_bytes;
    case WeightFormat::kFp8:
      return main + model.draft_bytes - model.draft_expert_bytes + fp8_experts(model, model.config.mtp_layers);
    case WeightFormat::kBf16: return main + 2 * model.draft_params;
    default: return main;
  }
}

int64_t dense_bytes_read(const Arithmetic& model, WeightFormat format) {
  const int64_t all = weight_bytes_without_draft(model, format) - routed_bytes(model, format);
  const int64_t resident = model.resident_only_bytes;
  switch (format) {
    case WeightFormat::kQ8_0:
    case WeightFormat::kMxfp4Q8:
    case WeightFormat::kIq2: return all - bits(model.embedding_params, 8.5);
    case WeightFormat::kQ4: return all - bits(model.embedding_params, 4.85);
    default: return all - resident;
  }
}

int64_t kv_bytes(const Arithmetic& model, int64_t tokens, KvFormat format) {
  const KvFormatName& kv = kv_format_name(format);
  const int64_t window = std::min<int64_t>(tokens, model.config.window) * kv.entry_bytes;
  return model.config.layers * window + model.csa_layers * (tokens / 4) * (kv.entry_bytes + kv.index_bytes) +
         model.hca_layers * (tokens / 128) * kv.entry_bytes;
}

int64_t compressor_state_bytes(const Arithmetic& model) {
  const ModelConfig& c = model.config;
  // Values and scores in FP32: CSA keeps 4 rows of two overlapping entries and of two index keys, HCA 128 rows.
  const int64_t csa = 2 * 4 * 2 * (int64_t{c.head_dim} + c.index_head_dim) * 4;
  const int64_t hca = 2 * 128 * int64_t{c.head_dim} * 4;
  return model.csa_layers * csa + model.hca_layers * hca;
}

int64_t kv_read_bytes(const Arithmetic& model, int64_t tokens, KvFormat format) {
  const KvFormatName& kv = kv_format_name(format);
  const int64_t window = std::min<int64_t>(tokens, model.config.window) * kv.entry_bytes;
  const int64_t chosen = std::min<int64_t>(tokens / 4, model.config.index_topk);
  return model.config.layers * window +
         model.csa_layers * (chosen * kv.entry_bytes + tokens / 4 * kv.index_bytes) +
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
