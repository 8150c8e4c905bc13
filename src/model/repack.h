// Repacking: from the checkpoint's rows to tiles (kernels/tiles.h), once, at load.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/tiles.h"
#include "model/numerics.h"
#include "sys/threads.h"

namespace nautile {

struct Weights;

struct Packing {
  const Kernels* kernels = nullptr;  // null: nothing is packed
  Policy policy;                     // the one the weights will run under
  ThreadPool* pool = nullptr;        // null: the caller alone
  // Whether the checkpoint's own bytes are given back to the system as they are packed, so that both never stand in
  // memory together. Mapped files can still be read; generated weights are gone.
  bool release_source = true;
  std::function<void(uint64_t done, uint64_t total)> progress = nullptr;  // bytes; from any thread, one at a time
};

// Packs every matrix that the kernels multiply in tiles, into memory that `weights` owns. kResourceExhausted.
Status pack_weights(Weights& weights, const Packing& packing);

}  // namespace nautile
