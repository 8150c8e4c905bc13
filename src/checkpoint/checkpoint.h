// Opens a checkpoint directory: model.safetensors.index.json with its shards, or a single model.safetensors.
// Both naming schemes are accepted (spec checkpoint.md sections 4.1 and 5) and end up canonical.
//
// Errors name file, tensor and byte: kNotFound (a shard or tensor the index promises), kCorrupt (bytes that break the
// format, a tensor in another shard than the index says, a tensor the index does not list), kUnsupported (a spelling
// that Nautile does not run), kIo, kResourceExhausted (an index too large to be one).
// Thread-safety: pure functions of the files.
#pragma once

#include "checkpoint/tensor_table.h"

namespace nautile {

Result<Checkpoint> open_checkpoint(FileSystem& files, const std::string& directory);

// The index file as text: what stands in each shard. kCorrupt with the byte. Exposed for tests and fuzzers.
struct ShardIndex {
  struct Item {
    std::string tensor, shard;
  };
  std::vector<Item> items;      // in the file's order, names unique
  bool has_total_size = false;  // metadata.total_size, only ever compared with a warning
  uint64_t total_size = 0;
};
Result<ShardIndex> parse_shard_index(std::string_view text, const std::string& where);

// Writes the tensors as safetensors shards of at most about `max_shard_bytes` (a larger tensor stands alone), with the
// index when there is more than one shard. Names are written as they are. The directory must exist. A shard stands in
// memory once more while it is written. Errors are those of FileSystem::write().
Status write_checkpoint(FileSystem& files, const Checkpoint& checkpoint, const std::string& directory,
                        uint64_t max_shard_bytes);

}  // namespace nautile
