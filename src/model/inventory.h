// Inventory: the exact list of tensors that a config and a variant call for (spec checkpoint.md section 4), what they
// amount to, and whether a checkpoint holds them.
//
// Thread-safety: values and pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tensor_table.h"
#include "model/config.h"
#include "sys/threads.h"

namespace nautile {

enum class ExpertFormat { kMxfp4, kFp8, kNvfp4, kBf16 };
const char* expert_format_name(ExpertFormat format);  // "MXFP4", ...

// Which of the released forms a checkpoint has.
struct Variant {
  ExpertFormat experts = ExpertFormat::kMxfp4;  // routed experts of the main layers
  DraftKind draft = DraftKind::kNone;
  ExpertFormat draft_experts = ExpertFormat::kMxfp4;  // routed experts under mtp.*
};

enum class Component {
  kEmbedding,
  kHead,
  kAttention,
  kCompressorCsa,
  kCompressorHca,
  kIndexer,
  kMhc,
  kGate,
  kHashTable,  // integers, not parameters
  kRoutedExperts,
  kSharedExperts,
  kNorms,      // and attention sinks
  kDraftHead,  // what the draft module has beside its blocks: projections, Markov and confidence heads
};
inline constexpr int kComponents = static_cast<int>(Component::kDraftHead) + 1;
const char* component_name(Component component);

// What may be stored under a name.
enum class StorageRole {
  kDense,         // E4M3 with a scale in the release; BF16 or F32 without one after de-quantising
  kDenseScale,    // [ceil(N/128), ceil(K/128)], E8M0 (or its byte as U8, or its value as F32)
  kExpert,        // as the variant's expert format says
  kExpertScale,   // MXFP4: [N, K/32]; FP8: as kDenseScale; NVFP4: E4M3 [N, K/16]
  kExpertGlobal,  // NVFP4's F32 scalars: weight_scale_2, input_scale
  kBf16,          // BF16; F32 accepted
  kF32,           // F32; BF16 accepted
  kTable,         // I64; I32 accepted
};

struct ExpectedTensor {
  std::string name;
  DType dtype = DType::kBf16;  // as released
  std::vector<int64_t> shape;
  Component component = Component::kNorms;
  StorageRole role = StorageRole::kBf16;
  bool draft = false;      // under mtp.*
  int64_t parameters = 0;  // 0 for scales and tables; two per byte for packed FP4
  uint64_t bytes = 0;      // as released
};

// In the order of the file format's description: top level, then layer by layer, then the draft blocks.
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config, const Variant& variant);

struct ComponentTotals {
  int64_t parameters = 0, active_parameters = 0;
  uint64_t bytes = 0, tensors = 0;
};

struct Totals {
  std::array<ComponentTotals, kComponents> main = {};  // main model, by component
  ComponentTotals draft;                               // everything under mtp.*
  std::map<std::string, uint64_t> elements_by_dtype;   // stored elements, main and draft
  std::map<std::string, uint64_t> bytes_by_dtype;

  // Main model. Active: per token, routed experts as routed, the embedding table left out.
  int64_t parameters() const;
  int64_t active_parameters() const;
  uint64_t main_bytes() const;
  uint64_t bytes() const;    // with draft
  uint64_t tensors() const;  // with draft
};
Totals inventory_totals(const ModelConfig& config, const std::vector<ExpectedTensor>& tensors);

// The variant a checkpoint has, from its tensors alone (section 3 rules 2 and 3). kUnsupported for a spelling or mix
// that Nautile does not read, kNotFound when there is no routed expert at all, or mtp.* without its first tensors,
// kInvalidArgument when the config knows nothing of the DSpark stages that are there.
Result<Variant> detect_variant(const Checkpoint& checkpoint, const ModelConfig& config);

struct VerifyOptions {
  // Contents are checked too: E8M0 never 0xFF, no E4M3 NaN, F32 and BF16 finite, hash tables in range. Tensors up to
  // this size always; `deep`: all.
  uint64_t scan_limit_bytes = 1 << 20;
  bool deep = false;
  // Tensors whose contents need no look; none when empty.
  std::function<bool(std::string_view tensor)> known_sound = nullptr;
  ThreadPool* pool = nullptr;  // for deep scans; none: the caller's thread
  // Called now and then from the calling thread with bytes done and bytes in all.
  std::function<void(uint64_t done, uint64_t total)> progress = nullptr;
};

// Every tensor there with a right dtype and shape, none unknown (mtp.* is allowed to be absent as a whole, and copies
// of embedding or head under mtp.* are ignored), contents as the options ask. The first fault, naming file, tensor,
// byte: kNotFound (missing), kUnsupported (dtype), kCorrupt (shape, unknown, contents), or of detect_variant().
Status verify(const Checkpoint& checkpoint, const ModelConfig& config, const VerifyOptions& options = {});

}  // namespace nautile
