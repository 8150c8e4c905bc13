// Attention, index scores and top-k for AVX-512, in the plain version and with the instructions that some CPUs add.
#pragma once

#include "kernels/ops.h"

namespace nautile::avx512 {

void attend(const AttendArgs& args);
void index_scores(const IndexScoreArgs& args);
void top_k(const TopKArgs& args);

// Products in BF16 where the precision allows them: needs AVX512_BF16.
void attend_bf16(const AttendArgs& args);
// Exact products in bytes over FP4 keys: needs AVX512_VNNI and AVX512_VBMI.
void index_scores_vnni(const IndexScoreArgs& args);

}  // namespace nautile::avx512
