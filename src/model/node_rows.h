// Which memory node keeps which rows of a matrix: the one rule for placing weights and for reading them.
//
// Every matrix, every expert alone, is cut into one contiguous run of rows for each node, as long as the node has
// cores. So each node reads its part of every expert, whichever a token chooses. Thread-safety: pure functions.
#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels/ops.h"
#include "sys/threads.h"

namespace nautile {

struct RowRange {
  size_t begin = 0, end = 0;
};

// Runs begin at multiples of this: whole tiles, and whole groups of the official quantiser in an expert's inner width.
inline constexpr size_t kNodeRows = 128;

inline RowRange node_rows(const ThreadPool& pool, size_t rows, size_t node) {
  const size_t blocks = (rows + kNodeRows - 1) / kNodeRows;
  return {node == 0 ? 0 : pool.share_end(blocks, node - 1) * kNodeRows,
          std::min(rows, pool.share_end(blocks, node) * kNodeRows)};
}

// The matrix for products of the node's rows alone.
inline WeightView on_node(WeightView weight, size_t node) {
  if (weight.by_node != nullptr) weight.data = weight.by_node[node];
  return weight;
}

}  // namespace nautile
