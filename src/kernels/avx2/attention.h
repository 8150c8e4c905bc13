// Attention, index scores and top-k for AVX2, with float products.
#pragma once

#include "kernels/ops.h"

namespace nautile::avx2 {

void attend(const AttendArgs& args);
void index_scores(const IndexScoreArgs& args);
void top_k(const TopKArgs& args);

}  // namespace nautile::avx2
