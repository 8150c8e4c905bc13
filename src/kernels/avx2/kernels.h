// The avx2 version of every operation.
#pragma once

#include "kernels/ops.h"

namespace nautile::avx2 {

const Kernels& kernels();

}  // namespace nautile::avx2
