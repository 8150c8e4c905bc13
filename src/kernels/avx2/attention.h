// Attention and top-k for AVX2, with float products, and index scores, with byte products.
#pragma once

#include "kernels/ops.h"

namespace nautile::avx2 {

void attend(const AttendArgs& args);
void index_scores(const IndexScoreArgs& args);
void index_scores_dots(const IndexScoreArgs& args);  // needs AVX-VNNI
void top_k(const TopKArgs& args);

}  // namespace nautile::avx2
