// Lays out the expected tensors and adds them up. Checking a checkpoint against them is in verify.cc.
#include "model/inventory.h"

#include <fmt/format.h>

namespace nautile {
namespace {

constexpr int64_t kScaleBlock = 128;  // FP8 weights: one scale for 128 x 128
constexpr int64_t kMxBlock = 32;
constexpr int64_t kNvBlock = 16;

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

class Layout {
 public:
  Layout(const ModelConfig& config, const Variant& variant) : c_(config), variant_(variant) {}

  std::vector<ExpectedTensor> run() {
    const int64_t d = c_.hidden, v = c_.vocab_size;
    plain("embed.weight", {v, d}, Component::kEmbedding);
    for (int layer = 0; layer < c_.layers; ++layer) {
      block(fmt::format("layers.{}.", layer), c_.compress_ratios[static_cast<size_t>(layer)], c_.hash_routed(layer),
            variant_.experts);
    }
    plain("norm.weight", {d}, Component::kNorms);
    hc_head("");
    plain("head.weight", {v, d}, Component::kHead);
    draft_ = true;
    if (variant_.draft == DraftKind::kMtp) {
      const std::string p = "mtp.0.";
      block(p, 0, false, variant_.draft_experts);
      dense(p + "e_proj", d, d, Component::kDraftHead);
      dense(p + "h_proj", d, d, Component::kDraftHead);
      for (const char* norm : {"enorm", "hnorm", "norm"}) plain(p + norm + ".weight", {d}, Component::kNorms);
      hc_head(p);
    } else if (variant_.draft == DraftKind::kDspark) {
      const int64_t rank = c_.dspark.markov_rank, taps = static_cast<int64_t>(c_.dspark.target_layers.size());
      for (int stage = 0; stage < kDsparkStages; ++stage) {
        const std::string p = fmt::format("mtp.{}.", stage);
        block(p, 0, false, variant_.draft_experts);
        if (stage == 0) {
          dense(p + "main_proj", d, taps * d, Component::kDraftHead);
          plain(p + "main_norm.weight", {d}, Component::kNorms);
        }
        if (stage == kDsparkStages - 1) {
          plain(p + "norm.weight", {d}, Component::kNorms);
          hc_head(p);
          plain(p + "markov_head.markov_w1.weight", {v, rank}, Component::kDraftHead);
          plain(p + "markov_head.markov_w2.weight", {v, rank}, Component::kDraftHead);
          plain(p + "confidence_head.proj.weight", {1, d + rank}, Component::kDraftHead);
        }
      }
    }
    return std::move(out_);
  }

 private:
  void add(std::string name, DType dtype, std::vector<int64_t> shape, Component component, StorageRole role,
           int64_t parameters_per_element) {
    ExpectedTensor tensor;
    tensor.parameters = *shape_elements(shape) * parameters_per_element;
    tensor.bytes = *tensor_bytes(dtype, shape);
    tensor.name = std::move(name);
    tensor.dtype = dtype;
    tensor.shape = std::move(shape);
    tensor.component = component;
    tensor.role = role;
    tensor.draft = draft_;
    out_.push_back(std::move(tensor));
  }
  void plain(std::string name, std::vector<int64_t> shape, Component component) {
    add(std::move(name), DType::kBf16, std::move(shape), component, StorageRole::kBf16, 1);
  }
  void fp32(std::string name, std::vector<int64_t> shape, Component component) {
    add(std::move(name), DType::kF32, std::move(shape), component, StorageRole::kF32, 1);
  }
  void dense(const std::string& name, int64_t n, int64_t k, Component component) {
    add(name + ".weight", DType::kF8E4M3, {n, k}, component, StorageRole::kDense, 1);
    add(name + ".scale", DType::kE8M0, {ceil_div(n, kScaleBlock), ceil_div(k, kScaleBlock)}, component,
        StorageRole::kDenseScale, 0);
  }
  void expert(const std::string& name, int64_t n, int64_t k, ExpertFormat format) {
    constexpr Component kWhere = Component::kRoutedExperts;
    switch (format) {
      case ExpertFormat::kMxfp4:
        add(name + ".weight", DType::kI8, {n, k / 2}, kWhere, StorageRole::kExpert, 2);
        add(name + ".scale", DType::kE8M0, {n, k / kMxBlock}, kWhere, StorageRole::kExpertScale, 0);
        break;
      case ExpertFormat::kFp8:
        add(name + ".weight", DType::kF8E4M3, {n, k}, kWhere, StorageRole::kExpert, 1);
        add(name + ".scale", DType::kE8M0, {ceil_div(n, kScaleBlock), ceil_div(k, kScaleBlock)}, kWhere,
            StorageRole::kExpertScale, 0);
        break;
      case ExpertFormat::kNvfp4:
        add(name + ".weight", DType::kU8, {n, k / 2}, kWhere, StorageRole::kExpert, 2);
        add(name + ".weight_scale", DType::kF8E4M3, {n, k / kNvBlock}, kWhere, StorageRole::kExpertScale, 0);
        add(name + ".weight_scale_2", DType::kF32, {}, kWhere, StorageRole::kExpertGlobal, 0);
        add(name + ".input_scale", DType::kF32, {}, kWhere, StorageRole::kExpertGlobal, 0);
        break;
      case ExpertFormat::kBf16:
        add(name + ".weight", DType::kBf16, {n, k}, kWhere, StorageRole::kExpert, 1);
        break;
    }
  }
  void hc_head(const std::string& p) {
    const int64_t m = c_.hc_mult;
    fp32(p + "hc_head_fn", {m, m * c_.hidden}, Component::kMhc);
    fp32(p + "hc_head_base", {m}, Component::kMhc);
    fp32(p + "hc_head_scale", {1}, Component::kMhc);
  }
  void compressor(const std::string& p, int64_t ratio, int64_t width, Component component) {
    const int64_t overlap = ratio == 4 ? 2 : 1;
    fp32(p + "ape", {ratio, overlap * width}, component);
    plain(p + "wkv.weight", {overlap * width, c_.hidden}, component);
    plain(p + "wgate.weight", {overlap * width, c_.hidden}, component);
    plain(p + "norm.weight", {width}, component);
  }
  void block(const std::string& p, int64_t ratio, bool hash_routed, ExpertFormat experts) {
    const int64_t d = c_.hidden, r = c_.q_lora_rank, heads = c_.heads, hd = c_.head_dim, inter = c_.expert_inter;
    const int64_t groups = c_.o_groups, rank = c_.o_lora_rank, m = c_.hc_mult, mix = (2 + m) * m;
    plain(p + "attn_norm.weight", {d}, Component::kNorms);
    plain(p + "ffn_norm.weight", {d}, Component::kNorms);

    dense(p + "attn.wq_a", r, d, Component::kAttention);
    plain(p + "attn.q_norm.weight", {r}, Component::kNorms);
    dense(p + "attn.wq_b", heads * hd, r, Component::kAttention);
    dense(p + "attn.wkv", hd, d, Component::kAttention);
    plain(p + "attn.kv_norm.weight", {hd}, Component::kNorms);
    fp32(p + "attn.attn_sink", {heads}, Component::kNorms);
    dense(p + "attn.wo_a", groups * rank, heads * hd / groups, Component::kAttention);
    dense(p + "attn.wo_b", d, groups * rank, Component::kAttention);
    if (ratio != 0) {
      compressor(p + "attn.compressor.", ratio, hd, ratio == 4 ? Component::kCompressorCsa : Component::kCompressorHca);
    }
    if (ratio == 4) {
      dense(p + "attn.indexer.wq_b", int64_t{c_.index_heads} * c_.index_head_dim, r, Component::kIndexer);
      plain(p + "attn.indexer.weights_proj.weight", {c_.index_heads, d}, Component::kIndexer);
      compressor(p + "attn.indexer.compressor.", ratio, c_.index_head_dim, Component::kIndexer);
    }

    for (const char* site : {"attn", "ffn"}) {
      fp32(fmt::format("{}hc_{}_fn", p, site), {mix, m * d}, Component::kMhc);
      fp32(fmt::format("{}hc_{}_base", p, site), {mix}, Component::kMhc);
      fp32(fmt::format("{}hc_{}_scale", p, site), {3}, Component::kMhc);
    }

    plain(p + "ffn.gate.weight", {c_.routed_experts, d}, Component::kGate);
    if (hash_routed) {
      add(p + "ffn.gate.tid2eid", DType::kI64, {c_.vocab_size, c_.experts_per_token}, Component::kHashTable,
          StorageRole::kTable, 0);
    } else {
      fp32(p + "ffn.gate.bias", {c_.routed_experts}, Component::kGate);
    }
    for (int e = 0; e < c_.routed_experts; ++e) {
      const std::string at = fmt::format("{}ffn.experts.{}.", p, e);
      expert(at + "w1", inter, d, experts);
      expert(at + "w2", d, inter, experts);
      expert(at + "w3", inter, d, experts);
    }
    dense(p + "ffn.shared_experts.w1", inter, d, Component::kSharedExperts);
    dense(p + "ffn.shared_experts.w2", d, inter, Component::kSharedExperts);
    dense(p + "ffn.shared_experts.w3", inter, d, Component::kSharedExperts);
  }

  const ModelConfig& c_;
  const Variant& variant_;
  bool draft_ = false;
  std::vector<ExpectedTensor> out_;
};

}  // namespace

const char* expert_format_name(ExpertFormat format) {
  switch (format) {
    case ExpertFormat::kMxfp4:
      return "MXFP4";
    case ExpertFormat::kFp8:
      return "FP8";
    case ExpertFormat::kNvfp4:
      return "NVFP4";
    case ExpertFormat::kBf16:
      return "BF16";
  }
  return "unknown";
}

const char* component_name(Component component) {
  switch (component) {
    case Component::kEmbedding:
      return "embedding";
    case Component::kHead:
      return "head";
    case Component::kAttention:
      return "attention";
    case Component::kCompressorCsa:
      return "compressor CSA";
    case Component::kCompressorHca:
      return "compressor HCA";
    case Component::kIndexer:
      return "indexer";
    case Component::kMhc:
      return "hyper-connections";
    case Component::kGate:
      return "gate";
    case Component::kHashTable:
      return "hash tables";
    case Component::kRoutedExperts:
      return "routed experts";
    case Component::kSharedExperts:
      return "shared experts";
    case Component::kNorms:
      return "norms, sinks";
    case Component::kDraftHead:
      return "draft heads";
  }
  return "unknown";
}

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config, const Variant& variant) {
  return Layout(config, variant).run();
}

Totals inventory_totals(const ModelConfig& config, const std::vector<ExpectedTensor>& tensors) {
  Totals out;
  for (const ExpectedTensor& tensor : tensors) {
    ComponentTotals& totals = tensor.draft ? out.draft : out.main[static_cast<size_t>(tensor.component)];
    totals.parameters += tensor.parameters;
    totals.bytes += tensor.bytes;
    ++totals.tensors;
    out.elements_by_dtype[dtype_name(tensor.dtype)] += static_cast<uint64_t>(*shape_elements(tensor.shape));
    out.bytes_by_dtype[dtype_name(tensor.dtype)] += tensor.bytes;
  }
  for (int i = 0; i < kComponents; ++i) {
    ComponentTotals& totals = out.main[static_cast<size_t>(i)];
    switch (static_cast<Component>(i)) {
      case Component::kEmbedding:
        totals.active_parameters = 0;
        break;  // one row of it is read
      case Component::kRoutedExperts:
        totals.active_parameters = totals.parameters / config.routed_experts * config.experts_per_token;
        break;
      default:
        totals.active_parameters = totals.parameters;
    }
  }
  return out;
}

int64_t Totals::parameters() const {
  int64_t sum = 0;
  for (const ComponentTotals& totals : main) sum += totals.parameters;
  return sum;
}

int64_t Totals::active_parameters() const {
  int64_t sum = 0;
  for (const ComponentTotals& totals : main) sum += totals.active_parameters;
  return sum;
}

uint64_t Totals::main_bytes() const {
  uint64_t sum = 0;
  for (const ComponentTotals& totals : main) sum += totals.bytes;
  return sum;
}

uint64_t Totals::bytes() const {
  return main_bytes() + draft.bytes;
}

uint64_t Totals::tensors() const {
  uint64_t sum = draft.tensors;
  for (const ComponentTotals& totals : main) sum += totals.tensors;
  return sum;
}

}  // namespace nautile
