// start_engine: the Engine of include/nautile/engine.h on a loaded model, with every byte planned before the first
// request.
//
// One thread of its own runs steps: each takes one token (and drafts) of every decoding sequence and fills up with
// prefill chunks (docs/design/engine.md). Thread-safety: that of Engine. Lifetime: the model must outlive the engine, and
// nobody else may use its forward and pool meanwhile.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cache/disk_tier.h"
#include "engine/loaded_model.h"
#include "nautile/engine.h"

namespace nautile {

enum class Speculation { kOff, kAuto, kAlways };  // kAuto drafts only while it is measured to pay

struct EngineOptions {
  int64_t max_sequences = 32;  // in one step
  int64_t step_tokens = 512;   // in one step; prefill chunks fill what decoding leaves
  int64_t max_queued = 256;    // requests that wait
  int64_t context_tokens = 0;  // of one sequence, at most; 0: the model's own
  uint64_t state_bytes = 0;    // for running sequences; 0: from the machine's free memory
  uint64_t cache_bytes = 0;    // for the prefix cache; 0: from the machine's free memory
  uint64_t cache_owner_bytes = 0;  // of one cache owner in it, at most; 0: all
  bool prefix_cache = true;
  int64_t snapshot_spacing = 2048;               // tokens, a multiple of 128
  double canary_share = 0;                       // of cache hits that are computed again and compared
  std::string disk_directory;                    // of the disk tier; empty: none
  uint64_t disk_bytes = 0;                       // its budget
  std::function<void(const std::string&)> warn;  // one line each, from any thread; may be empty
  Speculation speculation = Speculation::kAuto;
  int draft_depth = 3;  // tokens drafted at most, up to kMaxRollback - 1
};

// One step, for the bench and the curious.
struct StepRecord {
  double begin_s = 0, seconds = 0, draft_seconds = 0;  // begin: on seconds_now()'s clock
  int decoding = 0, drafts = 0, prefilling = 0;        // sequences, drafted tokens verified, sequences
  int64_t prefill_tokens = 0, new_tokens = 0;
  uint64_t experts_read = 0;  // distinct experts, summed over layers
};

class LocalEngine : public Engine {
 public:
  // The last steps, oldest first; at most `count`.
  virtual std::vector<StepRecord> steps(size_t count) const = 0;
};

// kInvalidArgument naming an option out of range. kResourceExhausted when the plan does not fit: what() and fix() give the
// numbers. kUnsupported: speculation kAlways on a checkpoint without a draft module. Errors of the disk tier's directory
// name it. `disk`, if given, is used instead of opening options.disk_directory.
Result<std::unique_ptr<LocalEngine>> start_engine(LoadedModel& model, const EngineOptions& options,
                                                  std::unique_ptr<DiskTier> disk = nullptr);

}  // namespace nautile
