// Partial selection over indices.
#include "model/select.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace nautile {

void select_top_k(const float* scores, int64_t count, int64_t k, std::vector<int32_t>& work,
                  std::vector<int32_t>& chosen) {
  work.resize(static_cast<size_t>(count));
  std::iota(work.begin(), work.end(), 0);
  if (k < count) {
    auto value = [&](int32_t i) { return std::isnan(scores[i]) ? -std::numeric_limits<float>::infinity() : scores[i]; };
    std::nth_element(work.begin(), work.begin() + k, work.end(), [&](int32_t a, int32_t b) {
      const float x = value(a), y = value(b);
      return x != y ? x > y : a < b;
    });
    work.resize(static_cast<size_t>(k));
  }
  chosen.assign(work.begin(), work.end());
  std::sort(chosen.begin(), chosen.end());
}

}  // namespace nautile
