// Repacking: from the checkpoint's rows to tiles (kernels/tiles.h), once, at load.
//
// Thread-safety: one caller at a time for the same Weights; work is spread over the pool.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/tiles.h"
#include "model/numerics.h"
#include "sys/threads.h"

namespace nautile {

struct Weights;

// How far loading has come.
struct LoadProgress {
  const char* what = "";         // "repacking", "writing tiles", "checking tiles", "comparing tiles", "placing tiles"
  uint64_t done = 0, total = 0;  // bytes
};
using LoadProgressFunction = std::function<void(const LoadProgress&)>;

struct Packing {
  const Kernels* kernels = nullptr;  // null: nothing is packed
  Policy policy;                     // the one the weights will run under
  ThreadPool* pool = nullptr;        // null: the caller alone
  // Whether the checkpoint's own bytes are given back to the system as they are packed, so that both never stand in
  // memory together. Mapped files can still be read; generated weights are gone.
  bool release_source = true;
  LoadProgressFunction progress = nullptr;  // from any thread, one at a time
};

// A matrix that can lie in tiles, by the checkpoint's name without ".weight". Views with rows == 0 are left out.
struct TileMatrix {
  std::string name;
  WeightView* view;  // into the Weights, not null
};
// All of them, in the order in which a step reads them.
std::vector<TileMatrix> tile_matrices(Weights& weights);
// Whether these kernels multiply a matrix of that format in tiles under that policy.
bool takes_tiles(const Kernels* kernels, const Policy& policy, WeightFormat format);
// Turns a view of rows into one of its tiles, in one place or by_node.
void set_tiles(WeightView& view, const std::byte* tiles, const std::byte* const* by_node = nullptr);
// Starts reading from the disk what packing tiles [tile_begin, tile_end) will read.
void prefetch_rows(const WeightView& rows, size_t tile_begin, size_t tile_end);
// Gives back the pages of the rows behind tiles [tile_begin, tile_end).
void release_rows(const WeightView& rows, size_t tile_begin, size_t tile_end);

// kCorrupt naming the tensor: what pack_tiles() found a NaN code in.
Status refuse_nan(const std::string& name);

// Packs every matrix that the kernels multiply in tiles, into memory that `weights` owns: each memory node's rows
// (node_rows.h) on that node, written by its own workers. Matrices that are in tiles already, in one place, are copied
// there. kResourceExhausted; kCorrupt as refuse_nan(), after which the weights must not be used.
Status pack_weights(Weights& weights, const Packing& packing);

}  // namespace nautile
