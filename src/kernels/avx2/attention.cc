// Attention and top-k with float products.
#include "kernels/avx2/attention.h"

#include <string.h>

#include "kernels/avx2/lanes.h"

namespace nautile::avx2 {
namespace {

constexpr size_t kRowTile = 4, kColumnTile = 2;  // register tiles: rows a score tile, vectors a sum tile

#include "kernels/formats.inc"
#include "kernels/exp.inc"
#include "kernels/scores.inc"
#include "kernels/attend.inc"

}  // namespace

#include "kernels/top_k.inc"

void attend(const AttendArgs& args) {
  attend_with<FloatUnit>(args);
}

}  // namespace nautile::avx2
