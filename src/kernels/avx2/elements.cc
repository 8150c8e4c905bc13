// Element operations, kLanes values at a time.
#include "kernels/avx2/elements.h"

#include <math.h>
#include <string.h>

#include "kernels/avx2/lanes.h"

namespace nautile::avx2 {
namespace {

#include "kernels/formats.inc"
#include "kernels/exp.inc"
#include "kernels/elements.inc"

}  // namespace

const Elements& elements() {
  return kElements;
}

}  // namespace nautile::avx2
