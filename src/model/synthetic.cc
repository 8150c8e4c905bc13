// Fills tensors from a counter-based generator: the 64 random bits of a place are a hash of (seed, name, place).
#include "model/synthetic.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string_view>

#include "checkpoint/checkpoint.h"

namespace nautile {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr uint64_t kGrainBytes = 1 << 20;  // one piece of work; a multiple of what one draw of random bits fills
constexpr int kQuantiles = 1 << 16;

uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t key_of(uint64_t seed, std::string_view name) {
  uint64_t key = mix(seed);
  for (char c : name) key = mix(key ^ static_cast<unsigned char>(c));
  return key;
}

// The middle of each of kQuantiles slices of equal probability of a normal distribution.
const std::vector<float>& normal_quantiles() {
  static const std::vector<float> table = [] {
    std::vector<float> out(kQuantiles);
    double low = -6;
    for (int i = 0; i < kQuantiles; ++i) {
      const double wanted = (i + 0.5) / kQuantiles;
      double high = 6;
      double left = low;  // quantiles grow: the last one is a lower bound
      for (int step = 0; step < 40; ++step) {
        const double middle = (left + high) / 2;
        (0.5 * std::erfc(-middle / std::sqrt(2.0)) < wanted ? left : high) = middle;
      }
      low = left;
      out[static_cast<size_t>(i)] = static_cast<float>(left);
    }
    return out;
  }();
  return table;
}

uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// The nearest code of a small format, by looking at all of them; ties to the even code.
template <size_t kCodes>
uint8_t nearest(const std::array<float, kCodes>& values, float x, uint8_t sign_bit) {
  const float magnitude = std::abs(x);
  size_t best = 0;
  for (size_t code = 1; code < kCodes; ++code) {
    const float gain = std::abs(values[best] - magnitude) - std::abs(values[code] - magnitude);
    if (gain > 0 || (gain == 0 && code % 2 == 0)) best = code;
  }
  return static_cast<uint8_t>(best | (std::signbit(x) ? sign_bit : 0));
}

uint8_t e2m1_of(float x) {
  static constexpr std::array<float, 8> kValues = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  return nearest(kValues, x, 8);
}

uint8_t e4m3_of(float x) {
  static const std::array<float, 127> values = [] {
    std::array<float, 127> out;
    for (int code = 0; code < 127; ++code) {
      const int exponent = code >> 3, mantissa = code & 7;
      out[static_cast<size_t>(code)] = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                                     : std::ldexp(1 + static_cast<float>(mantissa) / 8, exponent - 7);
    }
    return out;
  }();
  return nearest(values, x, 0x80);
}

// How one tensor is drawn.
struct Recipe {
  enum class Draw {
    kCodes8,      // one byte per 16 random bits, through `codes`
    kCodes4,      // two codes per 16 random bits, through `codes` (each half picks one)
    kNormalBf16,  // mean + std * normal
    kNormalF32,
    kScaleE8m0,  // 2^(exponent) for most, one less or more for some
    kScaleF32,   // the same as a float
    kScaleE4m3,  // NVFP4's block scales: through `codes`
    kConstantF32,
    kTable,
    kMixBase,  // biases of the hyper-connections
  };
  Draw draw = Draw::kNormalF32;
  double mean = 0, std = 0;
  int exponent = 0;  // of scales
  std::shared_ptr<const std::vector<uint8_t>> codes;
};

class Planner {
 public:
  Recipe recipe(const ExpectedTensor& tensor, int64_t k) {
    using Draw = Recipe::Draw;
    const double std = 1 / std::sqrt(static_cast<double>(std::max<int64_t>(k, 1)));
    switch (tensor.role) {
      case StorageRole::kDense:
        return coded(Draw::kCodes8, std, 100);
      case StorageRole::kDenseScale:
        return scale(tensor.dtype, std, 100);
      case StorageRole::kExpert:
        if (tensor.dtype == DType::kF8E4M3) return coded(Draw::kCodes8, std, 100);
        if (tensor.dtype == DType::kBf16) return normal(Draw::kNormalBf16, 0, std);
        return coded(Draw::kCodes4, std, 2);
      case StorageRole::kExpertScale:
        if (tensor.dtype == DType::kF8E4M3) {
          // Block scale x tensor scale is the power of two that the codes want; blocks differ by up to a quarter.
          Recipe out = coded(Draw::kScaleE4m3, std, 2);
          std::vector<uint8_t> codes(kQuantiles);
          for (int i = 0; i < kQuantiles; ++i) {
            codes[static_cast<size_t>(i)] = e4m3_of(64 * (0.75f + 0.5f * static_cast<float>(i) / kQuantiles));
          }
          out.codes = std::make_shared<const std::vector<uint8_t>>(std::move(codes));
          return out;
        }
        return scale(tensor.dtype, std, tensor.shape[0] == rows_of_weight_ ? 2 : 100);
      case StorageRole::kExpertGlobal: {
        Recipe out;
        out.draw = Draw::kConstantF32;
        out.mean = tensor.name.ends_with("input_scale") ? 10.0 / (6 * 448) : std::ldexp(1.0, exponent_for(std, 2) - 6);
        return out;
      }
      case StorageRole::kTable: {
        Recipe out;
        out.draw = Draw::kTable;
        return out;
      }
      case StorageRole::kBf16:
        return plain(tensor, Draw::kNormalBf16, std);
      case StorageRole::kF32:
        return plain(tensor, Draw::kNormalF32, std);
    }
    return {};
  }

  void set_weight_rows(int64_t rows) { rows_of_weight_ = rows; }

 private:
  static Recipe normal(Recipe::Draw draw, double mean, double std) {
    Recipe out;
    out.draw = draw;
    out.mean = mean;
    out.std = std;
    return out;
  }
  // The power of two by which values of `std` become about `unit`.
  static int exponent_for(double std, double unit) { return static_cast<int>(std::lround(std::log2(std / unit))); }

  Recipe coded(Recipe::Draw draw, double std, double unit) {
    Recipe out;
    out.draw = draw;
    out.exponent = exponent_for(std, unit);
    const float width = static_cast<float>(std::ldexp(std, -out.exponent));  // of the codes' values
    auto& slot = tables_[{static_cast<int>(draw), width}];
    if (!slot && draw == Recipe::Draw::kCodes8) {
      std::vector<uint8_t> codes(kQuantiles);
      for (int i = 0; i < kQuantiles; ++i) {
        codes[static_cast<size_t>(i)] = e4m3_of(width * normal_quantiles()[static_cast<size_t>(i)]);
      }
      slot = std::make_shared<const std::vector<uint8_t>>(std::move(codes));
    } else if (!slot && draw == Recipe::Draw::kCodes4) {
      std::vector<uint8_t> codes(256);
      for (int i = 0; i < 256; ++i) {
        codes[static_cast<size_t>(i)] = e2m1_of(width * normal_quantiles()[static_cast<size_t>(i) * 256 + 128]);
      }
      slot = std::make_shared<const std::vector<uint8_t>>(std::move(codes));
    }
    out.codes = slot;
    return out;
  }
  Recipe scale(DType dtype, double std, double unit) {
    Recipe out;
    out.draw = dtype == DType::kF32 ? Recipe::Draw::kScaleF32 : Recipe::Draw::kScaleE8m0;
    out.exponent = exponent_for(std, unit);
    return out;
  }
  Recipe plain(const ExpectedTensor& tensor, Recipe::Draw draw, double std) {
    const std::string_view name = tensor.name;
    const auto ends = [name](std::string_view tail) { return name.ends_with(tail); };
    if (ends("norm.weight")) return normal(draw, 1, 0.1);
    if (ends("attn_sink")) return normal(draw, 0, 1);
    if (ends("gate.bias")) return normal(draw, 0, 0.05);
    if (ends(".ape")) return normal(draw, 0, 0.5);
    if (name == "embed.weight") return normal(draw, 0, 1);
    if (name.find("hc_") != std::string_view::npos) {
      if (ends("_fn")) return normal(draw, 0, std);
      if (ends("_scale")) return normal(draw, 0.1, 0.01);
      Recipe out = normal(draw, 0, 0.05);
      out.draw = Recipe::Draw::kMixBase;
      return out;
    }
    return normal(draw, 0, std);
  }

  int64_t rows_of_weight_ = 0;
  std::map<std::pair<int, float>, std::shared_ptr<const std::vector<uint8_t>>> tables_;
};

// The bias of coefficient `index` of a hyper-connection that is close to a plain residual stream: every stream is read
// with weight 1/streams, written with 1, and carried on mostly unmixed.
float mix_base(int64_t index, int64_t streams, int64_t entries) {
  const float read = -std::log(static_cast<float>(std::max<int64_t>(streams, 2)) - 1);
  if (entries == streams || index < streams) return read;
  if (index < 2 * streams) return 0;  // 2 * sigmoid(0) = 1
  const int64_t at = index - 2 * streams;
  return at / streams == at % streams ? 6.f : 0.f;
}

struct Filler {
  const ModelConfig& config;
  uint64_t seed;

  // Bytes [begin, end) of the tensor; begin is a multiple of kGrainBytes.
  void fill(const ExpectedTensor& tensor, const Recipe& recipe, std::byte* data, uint64_t begin, uint64_t end) const {
    using Draw = Recipe::Draw;
    const uint64_t key = key_of(seed, tensor.name);
    const auto bits = [key](uint64_t place) { return mix(key + place * 0xD1342543DE82EF95u); };
    // 16 of the random bits of element `index`.
    const auto quarter = [&](uint64_t index) { return (bits(index / 4) >> (16 * (index % 4))) & 0xFFFF; };
    const auto& normal = normal_quantiles();
    const auto store = [data](uint64_t at, const auto& value) { std::memcpy(data + at, &value, sizeof value); };
    const float mean = static_cast<float>(recipe.mean), std = static_cast<float>(recipe.std);
    switch (recipe.draw) {
      case Draw::kCodes8:
      case Draw::kScaleE4m3:
        for (uint64_t i = begin; i < end; i += 4) {
          const uint64_t random = bits(i / 4);
          for (uint64_t j = 0; j < std::min<uint64_t>(4, end - i); ++j) {
            data[i + j] = static_cast<std::byte>((*recipe.codes)[(random >> (16 * j)) & 0xFFFF]);
          }
        }
        break;
      case Draw::kCodes4:
        for (uint64_t i = begin; i < end; i += 4) {
          const uint64_t random = bits(i / 4);
          for (uint64_t j = 0; j < std::min<uint64_t>(4, end - i); ++j) {
            const uint64_t two = random >> (16 * j);
            data[i + j] = static_cast<std::byte>((*recipe.codes)[two & 0xFF] | (*recipe.codes)[(two >> 8) & 0xFF] << 4);
          }
        }
        break;
      case Draw::kNormalBf16:
        for (uint64_t i = begin / 2; i < end / 2; ++i) store(2 * i, to_bf16(mean + std * normal[quarter(i)]));
        break;
      case Draw::kNormalF32:
        for (uint64_t i = begin / 4; i < end / 4; ++i) store(4 * i, mean + std * normal[quarter(i)]);
        break;
      case Draw::kMixBase: {
        const int64_t entries = tensor.shape[0];
        for (uint64_t i = begin / 4; i < end / 4; ++i) {
          store(4 * i, mix_base(static_cast<int64_t>(i), config.hc_mult, entries) + std * normal[quarter(i)]);
        }
        break;
      }
      case Draw::kScaleE8m0:
        for (uint64_t i = begin; i < end; ++i) data[i] = static_cast<std::byte>(127 + exponent(recipe, quarter(i)));
        break;
      case Draw::kScaleF32:
        for (uint64_t i = begin / 4; i < end / 4; ++i) store(4 * i, std::ldexp(1.f, exponent(recipe, quarter(i))));
        break;
      case Draw::kConstantF32:
        for (uint64_t i = begin / 4; i < end / 4; ++i) store(4 * i, mean);
        break;
      case Draw::kTable: {
        // The experts of a token are distinct: consecutive ones from a random start.
        const auto experts = static_cast<uint64_t>(config.routed_experts);
        const auto columns = static_cast<uint64_t>(config.experts_per_token);
        for (uint64_t i = begin / 8; i < end / 8; ++i) {
          const uint64_t random = bits(i / columns);
          store(8 * i, static_cast<int64_t>((random % experts + i % columns) % experts));
        }
        break;
      }
    }
  }

  // Six in eight blocks have the plain scale, one half of it, one twice.
  static int exponent(const Recipe& recipe, uint64_t random) {
    const uint64_t eighth = random & 7;
    return recipe.exponent + (eighth == 0 ? -1 : eighth == 1 ? 1 : 0);
  }
};

// K of the matrix a tensor is or scales.
int64_t inputs_of(const std::vector<ExpectedTensor>& tensors, size_t at) {
  size_t weight = at;
  if (tensors[at].role == StorageRole::kDenseScale) weight = at - 1;
  while ((tensors[weight].role == StorageRole::kExpertScale || tensors[weight].role == StorageRole::kExpertGlobal) && weight > 0) {
    --weight;
  }
  const ExpectedTensor& tensor = tensors[weight];
  if (tensor.shape.empty()) return 1;
  const bool packed = tensor.role == StorageRole::kExpert && (tensor.dtype == DType::kI8 || tensor.dtype == DType::kU8);
  return tensor.shape.back() * (packed ? 2 : 1);
}

}  // namespace

Result<Checkpoint> synthetic_checkpoint(const ModelConfig& config, const Variant& variant, uint64_t seed,
                                        ThreadPool* pool) {
  NAUTILE_RETURN_IF_ERROR(validate_config(config, "synthetic checkpoint"));
  if (variant.draft == DraftKind::kDspark && config.dspark.block_size == 0) {
    return Status(Code::kInvalidArgument, "DSpark stages need \"dspark_block_size\" in the config",
                  "synthetic checkpoint", "start from with_dspark(config)");
  }
  const std::vector<ExpectedTensor> tensors = expected_tensors(config, variant);
  uint64_t total = 0;
  std::vector<uint64_t> offsets;
  for (const ExpectedTensor& tensor : tensors) {
    offsets.push_back(total);
    total += (tensor.bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  NAUTILE_ASSIGN(std::shared_ptr<std::byte> buffer, allocate_pages(total));

  // Recipes first: their tables are shared, so they are made by one thread. Then pieces of at most kGrainBytes.
  struct Piece {
    size_t tensor;
    uint64_t begin, end;
  };
  Planner planner;
  std::vector<Recipe> recipes;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const ExpectedTensor& tensor = tensors[i];
    if (tensor.role == StorageRole::kExpert) {
      // One scale a row and block (MXFP4), or one a 128 x 128 block (FP8).
      planner.set_weight_rows(tensor.dtype == DType::kF8E4M3 ? -1 : tensor.shape[0]);
    }
    recipes.push_back(planner.recipe(tensor, inputs_of(tensors, i)));
    for (uint64_t begin = 0; begin < tensor.bytes; begin += kGrainBytes) {
      pieces.push_back({i, begin, std::min(begin + kGrainBytes, tensor.bytes)});
    }
  }
  const Filler filler{config, seed};
  const auto work = [&](int, size_t from, size_t to) {
    for (size_t i = from; i < to; ++i) {
      const Piece& piece = pieces[i];
      filler.fill(tensors[piece.tensor], recipes[piece.tensor], buffer.get() + offsets[piece.tensor], piece.begin,
                  piece.end);
    }
  };
  if (pool != nullptr) {
    normal_quantiles();
    pool->for_range(pieces.size(), 1, work);
  } else {
    work(0, 0, pieces.size());
  }

  const std::string file = "(generated)";
  std::vector<TensorView> views;
  views.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    views.push_back({tensors[i].name, tensors[i].dtype, tensors[i].shape, buffer.get() + offsets[i], tensors[i].bytes,
                     file, offsets[i]});
  }
  return Checkpoint::make(std::move(views), {{file, total, tensors.size()}}, {buffer});
}

Status write_synthetic_checkpoint(FileSystem& files, const std::string& directory, const ModelConfig& config,
                                  const Variant& variant, uint64_t seed, uint64_t max_shard_bytes) {
  NAUTILE_ASSIGN(const Checkpoint checkpoint, synthetic_checkpoint(config, variant, seed));
  NAUTILE_RETURN_IF_ERROR(write_checkpoint(files, checkpoint, directory, max_shard_bytes));
  return files.write(join_path(directory, "config.json"), config_json(config));
}

ModelConfig tiny_config() {
  ModelConfig c = shape_config("v4-flash").value();
  c.vocab_size = 96;
  c.hidden = 64;
  c.layers = 4;
  c.compress_ratios = {0, 4, 128, 4};
  c.heads = 4;
  c.head_dim = 96;
  c.rope_dim = 32;
  c.q_lora_rank = 32;
  c.o_groups = 2;
  c.o_lora_rank = 16;
  c.window = 128;
  c.index_heads = 2;
  c.index_head_dim = 32;
  c.index_topk = 4;
  c.routed_experts = 4;
  c.experts_per_token = 2;
  c.expert_inter = 32;
  c.hash_layers = 1;
  c.max_positions = 4096;
  c.rope_scaling.original_max_positions = 256;
  return c;
}

}  // namespace nautile
