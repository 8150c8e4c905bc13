// Checks a checkpoint against its inventory: names, dtypes, shapes, and what stands in the bytes.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <unordered_set>

#include "model/inventory.h"
#include "sys/memory.h"

namespace nautile {
namespace {

constexpr uint64_t kChunkBytes = 4u << 20;  // of a scan; a multiple of every element size

// The converter of the official code drops copies of embedding and head under mtp.*; some files may hold them.
bool ignored(std::string_view name) {
  return name.starts_with("mtp.") && (name.find("emb") != std::string_view::npos || name.ends_with("head.weight"));
}

Result<ExpertFormat> detect_expert_format(const Checkpoint& checkpoint, const std::string& matrix, int64_t k) {
  for (const char* leaf : {".weight_packed", ".weight_global_scale"}) {
    if (const TensorView* tensor = checkpoint.find(matrix + leaf)) {
      return Status(Code::kUnsupported, "experts in the compressed-tensors spelling of NVFP4 are not read",
                    tensor->where(), "use the official checkpoint or the ModelOpt NVFP4 one");
    }
  }
  const TensorView* weight = checkpoint.find(matrix + ".weight");
  if (weight == nullptr) {
    return Status(Code::kNotFound, fmt::format("the routed expert {}.weight is missing", matrix),
                  fmt::format("{}, tensor {}.weight, byte 0",
                              checkpoint.files().empty() ? "the checkpoint" : checkpoint.files().front().name, matrix),
                  "check that every shard was downloaded");
  }
  const bool packed = weight->dtype == DType::kI8 || weight->dtype == DType::kU8;
  if (packed && checkpoint.has(matrix + ".weight_scale_2")) return ExpertFormat::kNvfp4;
  if (packed && weight->shape.size() == 2 && weight->shape[1] == k / 2) return ExpertFormat::kMxfp4;
  if (weight->dtype == DType::kF8E4M3) return ExpertFormat::kFp8;
  if (weight->dtype == DType::kBf16 || weight->dtype == DType::kF32) return ExpertFormat::kBf16;
  return Status(Code::kUnsupported,
                fmt::format("routed experts as {} {} are no format that Nautile knows", dtype_name(weight->dtype),
                            shape_text(weight->shape)),
                weight->where(), "the official checkpoint has I8 [rows, columns / 2] with an F8_E8M0 scale every 32");
}

std::vector<DType> accepted_dtypes(const ExpectedTensor& expected) {
  switch (expected.role) {
    case StorageRole::kDense:
      return {DType::kF8E4M3, DType::kBf16, DType::kF32};
    case StorageRole::kDenseScale:
      return {DType::kE8M0, DType::kU8, DType::kF32};
    case StorageRole::kExpert:
      if (expected.dtype == DType::kF8E4M3) return {DType::kF8E4M3};
      if (expected.dtype == DType::kBf16) return {DType::kBf16, DType::kF32};
      return {DType::kI8, DType::kU8};
    case StorageRole::kExpertScale:
      if (expected.dtype == DType::kF8E4M3) return {DType::kF8E4M3};
      return {DType::kE8M0, DType::kU8, DType::kF32};
    case StorageRole::kExpertGlobal:
      return {DType::kF32};
    case StorageRole::kBf16:
      return {DType::kBf16, DType::kF32};
    case StorageRole::kF32:
      return {DType::kF32, DType::kBf16};
    case StorageRole::kTable:
      return {DType::kI64, DType::kI32};
  }
  return {};
}

// What the bytes of one tensor must satisfy.
enum class Rule { kNone, kE8m0, kE4m3, kF32, kPositiveF32, kBf16, kTableI64, kTableI32 };

Rule rule_for(const ExpectedTensor& expected, DType dtype) {
  switch (expected.role) {
    case StorageRole::kDenseScale:
    case StorageRole::kExpertScale:
    case StorageRole::kExpertGlobal:
      if (dtype == DType::kF8E4M3) return Rule::kE4m3;
      return dtype == DType::kF32 ? Rule::kPositiveF32 : Rule::kE8m0;
    case StorageRole::kTable:
      return dtype == DType::kI64 ? Rule::kTableI64 : Rule::kTableI32;
    default:
      break;
  }
  switch (dtype) {
    case DType::kF8E4M3:
      return Rule::kE4m3;
    case DType::kF32:
      return Rule::kF32;
    case DType::kBf16:
      return Rule::kBf16;
    default:
      return Rule::kNone;
  }
}

struct Fault {
  uint64_t byte = 0;  // within the tensor
  std::string what;
};

// The first byte of [begin, end) for which bad(p) holds, stepping by `step`; end when there is none. The loop without a
// branch over a page at a time is what keeps a deep scan at memory speed.
template <size_t kStep, class Bad>
uint64_t first_bad(const std::byte* data, uint64_t begin, uint64_t end, Bad bad) {
  constexpr uint64_t kPage = 4096;
  for (uint64_t page = begin; page < end; page += kPage) {
    const uint64_t stop = std::min(page + kPage, end);
    unsigned any = 0;
    for (uint64_t at = page; at < stop; at += kStep) any |= static_cast<unsigned>(bad(data + at));
    if (any == 0) continue;
    for (uint64_t at = page; at < stop; at += kStep) {
      if (bad(data + at)) return at;
    }
  }
  return end;
}

template <class T>
T load(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

bool scan(const TensorView& tensor, Rule rule, int experts, uint64_t begin, uint64_t end, Fault& fault) {
  const std::byte* data = tensor.data;
  uint64_t at = end;
  const auto in_range = [experts](int64_t id) { return id >= 0 && id < experts; };
  switch (rule) {
    case Rule::kNone:
      return true;
    case Rule::kE8m0:
      at = first_bad<1>(data, begin, end, [](const std::byte* p) { return *p == std::byte{0xFF}; });
      if (at < end) fault = {at, "a scale is NaN (E8M0 byte 0xFF)"};
      break;
    case Rule::kE4m3:
      at = first_bad<1>(data, begin, end, [](const std::byte* p) { return (*p & std::byte{0x7F}) == std::byte{0x7F}; });
      if (at < end) fault = {at, fmt::format("an E4M3 value is NaN (byte 0x{:02X})", static_cast<int>(data[at]))};
      break;
    case Rule::kF32:
      at = first_bad<4>(data, begin, end,
                        [](const std::byte* p) { return (load<uint32_t>(p) & 0x7F800000u) == 0x7F800000u; });
      if (at < end) fault = {at, fmt::format("a value is {}", load<float>(data + at))};
      break;
    case Rule::kPositiveF32:
      at = first_bad<4>(data, begin, end, [](const std::byte* p) {
        const uint32_t bits = load<uint32_t>(p);
        return bits == 0 || bits >= 0x7F800000u;
      });
      if (at < end) fault = {at, fmt::format("a scale is {}, it must be above 0 and finite", load<float>(data + at))};
      break;
    case Rule::kBf16:
      at = first_bad<2>(data, begin, end, [](const std::byte* p) { return (load<uint16_t>(p) & 0x7F80u) == 0x7F80u; });
      if (at < end) fault = {at, fmt::format("a value is not finite (BF16 0x{:04X})", load<uint16_t>(data + at))};
      break;
    case Rule::kTableI64:
      at = first_bad<8>(data, begin, end, [&](const std::byte* p) { return !in_range(load<int64_t>(p)); });
      if (at < end) {
        fault = {at, fmt::format("expert {} of {} does not exist", load<int64_t>(data + at), experts)};
      }
      break;
    case Rule::kTableI32:
      at = first_bad<4>(data, begin, end, [&](const std::byte* p) { return !in_range(load<int32_t>(p)); });
      if (at < end) {
        fault = {at, fmt::format("expert {} of {} does not exist", load<int32_t>(data + at), experts)};
      }
      break;
  }
  return at == end;
}

struct Chunk {
  const TensorView* tensor;
  Rule rule;
  uint64_t begin, end;
};

Status scan_all(const std::vector<Chunk>& chunks, const ModelConfig& config, const VerifyOptions& options) {
  uint64_t total = 0, done = 0;
  for (const Chunk& chunk : chunks) total += chunk.end - chunk.begin;
  const size_t threads = options.pool ? static_cast<size_t>(options.pool->threads()) : 1;
  const size_t batch = std::max<size_t>(threads * 16, 64);
  for (size_t from = 0; from < chunks.size(); from += batch) {
    const size_t count = std::min(batch, chunks.size() - from);
    std::vector<Fault> faults(count);
    std::vector<char> bad(count, 0);
    std::atomic<size_t> next{0};
    // Small tensors lie far apart: asked for together, a disk reads them many times faster than one fault after another.
    for (size_t i = 0; i < count; ++i) prefetch_pages(chunks[from + i].tensor->data + chunks[from + i].begin, chunks[from + i].end - chunks[from + i].begin);
    const auto work = [&](int) {
      for (size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
        const Chunk& chunk = chunks[from + i];
        bad[i] = !scan(*chunk.tensor, chunk.rule, config.routed_experts, chunk.begin, chunk.end, faults[i]);
      }
    };
    if (options.pool) {
      options.pool->run(work);
    } else {
      work(0);
    }
    for (size_t i = 0; i < count; ++i) {
      const Chunk& chunk = chunks[from + i];
      if (bad[i]) {
        return {Code::kCorrupt, faults[i].what, chunk.tensor->where(faults[i].byte), "download this file again"};
      }
      done += chunk.end - chunk.begin;
    }
    if (options.progress) options.progress(done, total);
  }
  return {};
}

}  // namespace

Result<Variant> detect_variant(const Checkpoint& checkpoint, const ModelConfig& config) {
  Variant out;
  NAUTILE_ASSIGN(out.experts, detect_expert_format(checkpoint, "layers.0.ffn.experts.0.w1", config.hidden));
  if (checkpoint.has("mtp.0.main_proj.weight")) {
    out.draft = DraftKind::kDspark;
    if (config.dspark.block_size == 0) {
      return Status(Code::kInvalidArgument,
                    "the checkpoint has DSpark stages, but config.json no \"dspark_block_size\"",
                    checkpoint.find("mtp.0.main_proj.weight")->where(), "use the config.json of the same release");
    }
  } else if (checkpoint.has("mtp.0.e_proj.weight")) {
    out.draft = DraftKind::kMtp;
  } else {
    for (const TensorView& tensor : checkpoint.tensors()) {
      if (tensor.name.starts_with("mtp.") && !ignored(tensor.name)) {
        return Status(Code::kNotFound, "there are mtp.* tensors, but neither mtp.0.e_proj nor mtp.0.main_proj",
                      tensor.where(), "check that every shard was downloaded");
      }
    }
  }
  if (out.draft != DraftKind::kNone) {
    NAUTILE_ASSIGN(out.draft_experts, detect_expert_format(checkpoint, "mtp.0.ffn.experts.0.w1", config.hidden));
  }
  return out;
}

Status verify(const Checkpoint& checkpoint, const ModelConfig& config, const VerifyOptions& options) {
  NAUTILE_ASSIGN(const Variant variant, detect_variant(checkpoint, config));
  const std::vector<ExpectedTensor> expected = expected_tensors(config, variant);
  std::unordered_set<std::string_view> known;
  known.reserve(expected.size());
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < expected.size(); ++i) {
    const ExpectedTensor& want = expected[i];
    const TensorView* tensor = checkpoint.find(want.name);
    if (want.role == StorageRole::kDenseScale) {
      // The weight stands right before its scale. A de-quantised weight has none.
      const TensorView* weight = checkpoint.find(expected[i - 1].name);
      if (weight != nullptr && weight->dtype != DType::kF8E4M3) {
        if (tensor == nullptr) continue;
        return {Code::kCorrupt, fmt::format("a scale although {} is {}", weight->name, dtype_name(weight->dtype)),
                tensor->where()};
      }
    }
    if (tensor == nullptr) {
      // The neighbour tells which file to look at.
      const TensorView* near = i > 0 ? checkpoint.find(expected[i - 1].name) : nullptr;
      const std::string file = near                         ? near->file
                               : checkpoint.files().empty() ? std::string("the checkpoint")
                                                            : checkpoint.files().front().name;
      return {Code::kNotFound, fmt::format("the tensor {} is missing", want.name),
              fmt::format("{}, tensor {}, byte {}", file, want.name, near ? near->file_offset + near->bytes : 0),
              "check that every shard was downloaded and that config.json is of the same release"};
    }
    known.insert(want.name);
    const std::vector<DType> dtypes = accepted_dtypes(want);
    if (std::find(dtypes.begin(), dtypes.end(), tensor->dtype) == dtypes.end()) {
      return {Code::kUnsupported,
              fmt::format("the dtype is {}, it must be {}", dtype_name(tensor->dtype), dtype_name(want.dtype)),
              tensor->where(), "use the official checkpoint"};
    }
    if (tensor->shape != want.shape) {
      return {
          Code::kCorrupt,
          fmt::format("the shape is {}, config.json calls for {}", shape_text(tensor->shape), shape_text(want.shape)),
          tensor->where(), "check that config.json is of the same release"};
    }
    const Rule rule = rule_for(want, tensor->dtype);
    if (rule == Rule::kNone || (!options.deep && tensor->bytes > options.scan_limit_bytes)) continue;
    if (options.known_sound && options.known_sound(tensor->name)) continue;
    for (uint64_t begin = 0; begin < tensor->bytes; begin += kChunkBytes) {
      chunks.push_back({tensor, rule, begin, std::min(begin + kChunkBytes, tensor->bytes)});
    }
  }
  for (const TensorView& tensor : checkpoint.tensors()) {
    if (!known.contains(tensor.name) && !ignored(tensor.name)) {
      return {Code::kCorrupt, "config.json calls for no such tensor", tensor.where(),
              "check that config.json is of the same release"};
    }
  }
  return scan_all(chunks, config, options);
}

}  // namespace nautile
