// Loading: a checkpoint verified and its matrices in tiles, packed now or mapped from a repacked file.
//
// Thread-safety: one caller at a time for the same repacked file.
#pragma once

#include <functional>
#include <string>

#include "model/repack.h"
#include "model/weights.h"
#include "sys/file.h"

namespace nautile {

// What --repacked auto means.
inline constexpr const char* kRepackedName = "repacked.nautile";

struct LoadWay {
  std::string repacked;  // the repacked file to map, made first when it is not there; empty: none
  // Every matrix of the file is compared with the checkpoint, not only where shards have been written to since.
  bool compare = false;
  LoadProgressFunction progress = nullptr;
  // Told in a sentence or two when a repacked file was made, or cannot be used and the checkpoint is packed instead.
  std::function<void(const std::string&)> notice = nullptr;
};

// Verifies the checkpoint (inventory.h) and arranges it as `packing` says (its progress is not used). A repacked file
// that is stale, damaged, of something else or not to be written is never an error: the weights then come from the
// checkpoint, and notice() says why. Errors are those of verify() and load_weights().
Result<Weights> load_verified(FileSystem& files, const Checkpoint& checkpoint, const ModelConfig& config,
                              Packing packing, const LoadWay& way);

}  // namespace nautile
