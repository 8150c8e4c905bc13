// Attention with the BF16 dot instruction: two values a unit. Rows in the packed format are BF16 exactly (E4M3 times a
// power of two), but for values below 2^-126, which the instruction takes for zero.
#include <string.h>

#include "kernels/avx512/attention.h"
#include "kernels/avx512/lanes.h"

namespace nautile::avx512 {
namespace {

constexpr size_t kRowTile = 8, kColumnTile = 4;

#include "kernels/formats.inc"
#include "kernels/exp.inc"
#include "kernels/scores.inc"
#include "kernels/attend.inc"
#include "kernels/avx512/bf16_unit.inc"

}  // namespace

void attend_bf16(const AttendArgs& args) {
  if (args.precision == AttendPrecision::kFloat || args.kv.format != KvFormat::kPacked) {
    attend_with<FloatUnit>(args);
  } else {
    attend_with<Bf16Unit>(args);
  }
}

}  // namespace nautile::avx512
