// From named tensors to the structs of the forward pass.
#include "model/weights.h"

#include <fmt/format.h>

#include "tensor/formats.h"

namespace nautile {
namespace {

// Reads tensors under a prefix and remembers the first error, so that the lists below read as lists.
class Reader {
 public:
  Reader(const Checkpoint& checkpoint, std::string prefix) : checkpoint_(checkpoint), prefix_(std::move(prefix)) {}

  const Status& status() const { return status_; }
  bool has(const std::string& name) const { return checkpoint_.has(prefix_ + name); }

  const TensorView* tensor(const std::string& name) {
    auto found = checkpoint_.get(prefix_ + name);
    if (!found.ok()) {
      note(found.status());
      return nullptr;
    }
    return *found;
  }

  // A small BF16 or F32 tensor, widened.
  std::vector<float> floats(const std::string& name, size_t count) {
    std::vector<float> values;
    const TensorView* t = tensor(name);
    if (t == nullptr) return values;
    values.resize(count);
    if (t->dtype == DType::kF32 && t->bytes == 4 * count) {
      for (size_t i = 0; i < count; ++i) values[i] = t->read<float>(i);
    } else if (t->dtype == DType::kBf16 && t->bytes == 2 * count) {
      for (size_t i = 0; i < count; ++i) values[i] = bf16_to_f32(t->read<uint16_t>(i));
    } else {
      note({Code::kCorrupt,
            fmt::format("{} {} where {} BF16 or F32 values belong", dtype_name(t->dtype), shape_text(t->shape), count),
            t->where()});
    }
    return values;
  }

  // A matrix of any format that the kernels read. `name` may stand without ".weight" (the hc_* tensors).
  WeightView matrix(const std::string& name, size_t rows, size_t cols) {
    const std::string weight = has(name + ".weight") || !has(name) ? name + ".weight" : name;
    WeightView view;
    const TensorView* t = tensor(weight);
    if (t == nullptr) return view;
    view = {WeightFormat::kF32, rows, cols, t->data, nullptr, WeightLayout::kRows};
    std::string scale = name + ".scale";
    uint64_t scales = 0;
    switch (t->dtype) {
      case DType::kF32:
        break;
      case DType::kBf16:
        view.format = WeightFormat::kBf16;
        break;
      case DType::kF8E4M3:
        view.format = WeightFormat::kFp8;
        scales = (rows + 127) / 128 * ((cols + 127) / 128);
        break;
      case DType::kI8:
      case DType::kU8:
        view.format = WeightFormat::kFp4;
        scales = rows * (cols / 32);
        if (has(name + ".weight_scale_2")) {
          note(
              {Code::kUnsupported, "NVFP4 experts are not run yet", t->where(), "use the official FP4+FP8 checkpoint"});
          return view;
        }
        break;
      default:
        note({Code::kUnsupported, fmt::format("no kernel reads {}", dtype_name(t->dtype)), t->where()});
        return view;
    }
    if (t->bytes != rows * view.row_bytes()) {
      note({Code::kCorrupt,
            fmt::format("{} {} where a matrix of {} x {} belongs", dtype_name(t->dtype), shape_text(t->shape), rows,
                        cols),
            t->where()});
      return view;
    }
    if (scales != 0) {
      const TensorView* s = tensor(scale);
      if (s == nullptr) return view;
      if ((s->dtype != DType::kE8M0 && s->dtype != DType::kU8) || s->bytes != scales) {
        note({Code::kUnsupported,
              fmt::format("scales are {} {}, not {} E8M0 bytes", dtype_name(s->dtype), shape_text(s->shape), scales),
              s->where()});
        return view;
      }
      view.scales = reinterpret_cast<const uint8_t*>(s->data);
    }
    return view;
  }

 private:
  void note(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  const Checkpoint& checkpoint_;
  std::string prefix_;
  Status status_;
};

size_t size(int value) {
  return static_cast<size_t>(value);
}

HyperConnection read_hc(Reader& r, const std::string& name, const ModelConfig& c) {
  const size_t m = size(c.hc_mult), mixes = (2 + m) * m;
  HyperConnection hc;
  hc.fn = r.matrix(name + "_fn", mixes, m * size(c.hidden));
  hc.base = r.floats(name + "_base", mixes);
  const std::vector<float> scale = r.floats(name + "_scale", 3);
  for (size_t i = 0; i < scale.size(); ++i) hc.scale[i] = scale[i];
  return hc;
}

HyperHead read_head(Reader& r, const ModelConfig& c) {
  const size_t m = size(c.hc_mult);
  HyperHead head;
  head.fn = r.matrix("hc_head_fn", m, m * size(c.hidden));
  head.base = r.floats("hc_head_base", m);
  const std::vector<float> scale = r.floats("hc_head_scale", 1);
  if (!scale.empty()) head.scale = scale[0];
  return head;
}

Compressor read_compressor(Reader& r, const std::string& name, int ratio, size_t width, const ModelConfig& c) {
  const size_t channels = (ratio == 4 ? 2 : 1) * width;
  Compressor compressor;
  compressor.wkv = r.matrix(name + ".wkv", channels, size(c.hidden));
  compressor.wgate = r.matrix(name + ".wgate", channels, size(c.hidden));
  compressor.ape = r.floats(name + ".ape", size(ratio) * channels);
  compressor.norm = r.floats(name + ".norm.weight", width);
  return compressor;
}

Attention read_attention(Reader& r, int ratio, const ModelConfig& c) {
  const size_t d = size(c.hidden), head_dim = size(c.head_dim), heads = size(c.heads), rank = size(c.q_lora_rank);
  const size_t groups = size(c.o_groups), out_rank = size(c.o_lora_rank);
  Attention a;
  a.wq_a = r.matrix("attn.wq_a", rank, d);
  a.q_norm = r.floats("attn.q_norm.weight", rank);
  a.wq_b = r.matrix("attn.wq_b", heads * head_dim, rank);
  a.wkv = r.matrix("attn.wkv", head_dim, d);
  a.kv_norm = r.floats("attn.kv_norm.weight", head_dim);
  a.sink = r.floats("attn.attn_sink", heads);
  a.wo_a = r.matrix("attn.wo_a", groups * out_rank, heads * head_dim / groups);
  a.wo_b = r.matrix("attn.wo_b", d, groups * out_rank);
  if (ratio != 0) a.compressor = read_compressor(r, "attn.compressor", ratio, head_dim, c);
  if (ratio == 4) {
    const size_t dim = size(c.index_head_dim);
    a.indexer.wq_b = r.matrix("attn.indexer.wq_b", size(c.index_heads) * dim, rank);
    a.indexer.weights_proj = r.matrix("attn.indexer.weights_proj", size(c.index_heads), d);
    a.indexer.compressor = read_compressor(r, "attn.indexer.compressor", ratio, dim, c);
  }
  return a;
}

Expert read_expert(Reader& r, const std::string& name, const ModelConfig& c, int copies = 1) {
  const size_t inter = size(c.expert_inter) * size(copies), d = size(c.hidden);
  return {r.matrix(name + ".w1", inter, d), r.matrix(name + ".w3", inter, d), r.matrix(name + ".w2", d, inter)};
}

Moe read_moe(Reader& r, bool hash, const ModelConfig& c) {
  Moe moe;
  moe.gate = r.matrix("ffn.gate", size(c.routed_experts), size(c.hidden));
  if (hash) {
    moe.tid2eid = r.tensor("ffn.gate.tid2eid");
  } else {
    moe.bias = r.floats("ffn.gate.bias", size(c.routed_experts));
  }
  for (int e = 0; e < c.routed_experts; ++e) moe.experts.push_back(read_expert(r, fmt::format("ffn.experts.{}", e), c));
  moe.shared = read_expert(r, "ffn.shared_experts", c, c.shared_experts);
  return moe;
}

Result<Layer> read_layer(const Checkpoint& checkpoint, const std::string& prefix, int ratio, bool hash,
                         const ModelConfig& c) {
  Reader r(checkpoint, prefix);
  Layer layer;
  layer.ratio = ratio;
  layer.hc_attn = read_hc(r, "hc_attn", c);
  layer.hc_ffn = read_hc(r, "hc_ffn", c);
  layer.attn_norm = r.floats("attn_norm.weight", size(c.hidden));
  layer.ffn_norm = r.floats("ffn_norm.weight", size(c.hidden));
  layer.attn = read_attention(r, ratio, c);
  layer.moe = read_moe(r, hash, c);
  if (!r.status().ok()) return r.status();
  return layer;
}

}  // namespace

int Moe::table_entry(int64_t token, int slot, int width) const {
  const uint64_t index = static_cast<uint64_t>(token) * static_cast<uint64_t>(width) + static_cast<uint64_t>(slot);
  return static_cast<int>(tid2eid->dtype == DType::kI32 ? tid2eid->read<int32_t>(index)
                                                        : tid2eid->read<int64_t>(index));
}

WeightCost weight_cost(const Weights& weights) {
  WeightCost cost;
  auto dense = [&](std::initializer_list<const WeightView*> matrices) {
    for (const WeightView* m : matrices) {
      cost.dense_bytes += m->bytes();
      cost.dense_macs += m->rows * m->cols;
    }
  };
  for (const Layer& layer : weights.layers) {
    const Attention& a = layer.attn;
    dense({&layer.hc_attn.fn, &layer.hc_ffn.fn, &a.wq_a, &a.wq_b, &a.wkv, &a.wo_a, &a.wo_b, &a.compressor.wkv,
           &a.compressor.wgate, &a.indexer.wq_b, &a.indexer.weights_proj, &a.indexer.compressor.wkv,
           &a.indexer.compressor.wgate, &layer.moe.gate, &layer.moe.shared.w1, &layer.moe.shared.w3,
           &layer.moe.shared.w2});
  }
  dense({&weights.hc_head.fn});
  const Expert& expert = weights.layers[0].moe.experts[0];
  for (const WeightView* m : {&expert.w1, &expert.w3, &expert.w2}) {
    cost.expert_bytes += m->bytes();
    cost.expert_macs += m->rows * m->cols;
  }
  cost.head_bytes = weights.head.bytes();
  cost.head_macs = weights.head.rows * weights.head.cols;
  return cost;
}

Result<Weights> load_weights(const Checkpoint& checkpoint, const ModelConfig& config, const Packing& packing) {
  Weights w;
  w.config = config;
  Reader r(checkpoint, "");
  const size_t vocab = size(config.vocab_size), d = size(config.hidden);
  w.embed = r.matrix("embed", vocab, d);
  w.head = r.matrix("head", vocab, d);
  w.norm = r.floats("norm.weight", d);
  w.hc_head = read_head(r, config);
  if (!r.status().ok()) return r.status();
  for (int i = 0; i < config.layers; ++i) {
    NAUTILE_ASSIGN(Layer layer,
                   read_layer(checkpoint, fmt::format("layers.{}.", i), config.compress_ratios[static_cast<size_t>(i)],
                              config.hash_routed(i), config));
    w.layers.push_back(std::move(layer));
  }
  if (checkpoint.has("mtp.0.e_proj.weight")) {
    auto mtp = std::make_unique<Mtp>();
    NAUTILE_ASSIGN(mtp->layer, read_layer(checkpoint, "mtp.0.", 0, false, config));
    Reader m(checkpoint, "mtp.0.");
    mtp->e_proj = m.matrix("e_proj", d, d);
    mtp->h_proj = m.matrix("h_proj", d, d);
    mtp->enorm = m.floats("enorm.weight", d);
    mtp->hnorm = m.floats("hnorm.weight", d);
    mtp->norm = m.floats("norm.weight", d);
    mtp->head = read_head(m, config);
    if (!m.status().ok()) return m.status();
    w.mtp = std::move(mtp);
  }
  NAUTILE_RETURN_IF_ERROR(pack_weights(w, packing));
  return w;
}

}  // namespace nautile
