// Attention, index scores and top-k one element at a time.
#pragma once

#include "kernels/ops.h"

namespace nautile::ref {

void attend(const AttendArgs& args);
void index_scores(const IndexScoreArgs& args);
void top_k(const TopKArgs& args);

}  // namespace nautile::ref
