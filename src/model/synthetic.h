// Synthetic checkpoints: random weights of any config in any released form, for benches, tests and `--shape`.
//
// Deterministic: every value is a function of (seed, tensor name, position), whatever the number of threads. Weights
// are normal with standard deviation 1/sqrt(K), coded as the variant stores them, with scales around that size; norms
// are near 1, and the hyper-connections start close to the identity, so that activations stay in range at any depth.
// Thread-safety: pure functions, but for what they write.
#pragma once

#include <cstdint>

#include "checkpoint/tensor_table.h"
#include "model/config.h"
#include "model/inventory.h"
#include "sys/threads.h"

namespace nautile {

// In anonymous memory, each tensor on a multiple of 64 bytes. kResourceExhausted when that has no room, kInvalidArgument
// for DSpark stages that the config lacks, else the errors of validate_config(). `pool` fills in parallel; none: the
// caller's thread.
Result<Checkpoint> synthetic_checkpoint(const ModelConfig& config, const Variant& variant, uint64_t seed,
                                        ThreadPool* pool = nullptr);

// The same as a directory that can be opened like a downloaded one: config.json, shards, index. The directory must
// exist. Errors also of FileSystem::write().
Status write_synthetic_checkpoint(FileSystem& files, const std::string& directory, const ModelConfig& config,
                                  const Variant& variant, uint64_t seed, uint64_t max_shard_bytes = 1ull << 30);

// A V4 in small, with every kind of layer (window, CSA, HCA; the first is hash-routed), for tests.
ModelConfig tiny_config();

}  // namespace nautile
