// Attention, index scores and top-k with float products.
#include "kernels/avx512/attention.h"

#include <string.h>

#include "kernels/avx512/lanes.h"

namespace nautile::avx512 {
namespace {

constexpr size_t kRowTile = 8, kColumnTile = 4;  // register tiles: rows a score tile, vectors a sum tile

#include "kernels/formats.inc"
#include "kernels/exp.inc"
#include "kernels/scores.inc"
#include "kernels/attend.inc"
#include "kernels/index.inc"

}  // namespace

#include "kernels/top_k.inc"

void attend(const AttendArgs& args) {
  attend_with<FloatUnit>(args);
}
void index_scores(const IndexScoreArgs& args) {
  float_index_scores(args);
}

}  // namespace nautile::avx512
