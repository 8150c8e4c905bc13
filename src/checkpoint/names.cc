// Rewrites stored names component by component, outermost first.
#include "checkpoint/names.h"

#include <array>
#include <utility>
#include <vector>

namespace nautile {
namespace {

using Parts = std::vector<std::string>;
using Pair = std::pair<std::string_view, std::string_view>;

template <size_t N>
std::string mapped(const std::array<Pair, N>& table, const std::string& part) {
  for (const Pair& pair : table) {
    if (pair.first == part) return std::string(pair.second);
  }
  return part;
}

constexpr std::array<Pair, 2> kTop = {{{"embed_tokens", "embed"}, {"lm_head", "head"}}};
constexpr std::array<Pair, 4> kLayer = {{{"self_attn", "attn"},
                                         {"mlp", "ffn"},
                                         {"input_layernorm", "attn_norm"},
                                         {"post_attention_layernorm", "ffn_norm"}}};
constexpr std::array<Pair, 7> kAttention = {{{"q_a_proj", "wq_a"},
                                             {"q_b_proj", "wq_b"},
                                             {"kv_proj", "wkv"},
                                             {"o_a_proj", "wo_a"},
                                             {"o_b_proj", "wo_b"},
                                             {"q_a_norm", "q_norm"},
                                             {"sinks", "attn_sink"}}};
constexpr std::array<Pair, 4> kCompressor = {
    {{"kv_proj", "wkv"}, {"gate_proj", "wgate"}, {"kv_norm", "norm"}, {"position_bias", "ape"}}};
constexpr std::array<Pair, 3> kExpert = {{{"gate_proj", "w1"}, {"up_proj", "w3"}, {"down_proj", "w2"}}};

Parts split(std::string_view text) {
  Parts parts;
  for (size_t from = 0;;) {
    const size_t dot = text.find('.', from);
    parts.emplace_back(text.substr(from, dot - from));
    if (dot == std::string_view::npos) return parts;
    from = dot + 1;
  }
}

std::string join(const Parts& parts) {
  std::string text;
  for (const std::string& part : parts) {
    if (!text.empty()) text += '.';
    text += part;
  }
  return text;
}

bool is_mhc_leaf(const std::string& part) {
  return part == "fn" || part == "base" || part == "scale";
}

// parts[at..] stand behind "attn." or "self_attn.".
void rewrite_attention(Parts& parts, size_t at) {
  if (at >= parts.size()) return;
  if (parts[at] == "compressor" && at + 1 < parts.size() && parts[at + 1] == "indexer") {
    // transformers hangs the indexer under the compressor, and its compressor's matrices directly under it.
    parts.erase(parts.begin() + static_cast<long>(at));
    if (at + 2 < parts.size() && parts[at + 1] == "scorer") parts.erase(parts.begin() + static_cast<long>(at) + 1);
    if (at + 1 >= parts.size()) return;
    std::string& leaf = parts[at + 1];
    if (leaf == "q_b_proj") {
      leaf = "wq_b";
    } else if (const std::string inner = mapped(kCompressor, leaf); inner != leaf) {
      leaf = inner;
      parts.insert(parts.begin() + static_cast<long>(at) + 1, "compressor");
    }
  } else if (parts[at] == "compressor" && at + 1 < parts.size()) {
    parts[at + 1] = mapped(kCompressor, parts[at + 1]);
  } else {
    parts[at] = mapped(kAttention, parts[at]);
  }
}

// parts[at..] stand behind "ffn." or "mlp.".
void rewrite_ffn(Parts& parts, size_t at) {
  if (at + 1 >= parts.size()) return;
  if (parts[at] == "gate" && parts[at + 1] == "e_score_correction_bias") parts[at + 1] = "bias";
  if (parts[at] == "shared_experts") parts[at + 1] = mapped(kExpert, parts[at + 1]);
  if (parts[at] == "experts" && at + 2 < parts.size()) parts[at + 2] = mapped(kExpert, parts[at + 2]);
}

// "mlp.experts.gate_up_proj", with or without a leaf: all experts of a layer in one tensor.
bool fused_experts(const Parts& parts, size_t at, CanonicalName& out) {
  if (at + 1 >= parts.size() || parts[at] != "experts" || parts.size() > at + 3) return false;
  std::string matrix = parts[at + 1];
  std::string leaf = parts.size() == at + 3 ? parts[at + 2] : "weight";
  constexpr std::string_view kScale = "_scale_inv";
  if (parts.size() == at + 2 && matrix.ends_with(kScale)) {
    matrix.resize(matrix.size() - kScale.size());
    leaf = "scale";
  }
  if (leaf == "weight_scale_inv") leaf = "scale";
  if ((matrix != "gate_up_proj" && matrix != "down_proj") || (leaf != "weight" && leaf != "scale")) return false;
  out.form = matrix == "down_proj" ? CanonicalName::Form::kFusedDown : CanonicalName::Form::kFusedGateUp;
  out.prefix = join({parts.begin(), parts.begin() + static_cast<long>(at) + 1}) + ".";
  out.leaf = leaf;
  return true;
}

}  // namespace

CanonicalName canonical_name(std::string_view stored) {
  CanonicalName out;
  Parts parts = split(stored);
  if (parts.size() > 1 && parts[0] == "model") parts.erase(parts.begin());
  if (parts.back() == "weight_scale_inv") parts.back() = "scale";

  const bool in_block = parts.size() > 2 && (parts[0] == "layers" || parts[0] == "mtp");
  if (!in_block) {
    parts[0] = mapped(kTop, parts[0]);
    if (parts.size() == 2 && parts[0] == "hc_head" && parts[1].starts_with("hc_") && is_mhc_leaf(parts[1].substr(3))) {
      parts = {"hc_head_" + parts[1].substr(3)};
    }
    out.name = join(parts);
    return out;
  }
  parts[2] = mapped(kLayer, parts[2]);
  if (parts.size() == 4 && (parts[2] == "attn_hc" || parts[2] == "ffn_hc") && is_mhc_leaf(parts[3])) {
    parts[2] = (parts[2] == "attn_hc" ? "hc_attn_" : "hc_ffn_") + parts[3];
    parts.pop_back();
  } else if (parts[2] == "attn") {
    rewrite_attention(parts, 3);
  } else if (parts[2] == "ffn") {
    if (fused_experts(parts, 3, out)) return out;
    rewrite_ffn(parts, 3);
  }
  out.name = join(parts);
  return out;
}

}  // namespace nautile
