// Element operations, kLanes values at a time.
#include "kernels/avx512/elements.h"

#include <math.h>
#include <string.h>

#include "kernels/avx512/lanes.h"

namespace nautile::avx512 {
namespace {

#include "kernels/formats.inc"
#include "kernels/exp.inc"
#include "kernels/elements.inc"

}  // namespace

const Elements& elements() {
  return kElements;
}

}  // namespace nautile::avx512
