// The avx512 version of every operation.
#pragma once

#include "kernels/ops.h"

namespace nautile::avx512 {

const Kernels& kernels();

}  // namespace nautile::avx512
