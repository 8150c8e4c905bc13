// Exact top-k of index scores: higher score first, lower index on ties, result ascending (spec model.md 6.5).
#pragma once

#include <cstdint>
#include <vector>

namespace nautile {

// Fills `chosen` with the indices of the k best of scores[0..count), ascending. NaN counts as -infinity.
// `work` is scratch that only grows.
void select_top_k(const float* scores, int64_t count, int64_t k, std::vector<int32_t>& work,
                  std::vector<int32_t>& chosen);

}  // namespace nautile
