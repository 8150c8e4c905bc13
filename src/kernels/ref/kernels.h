// The ref version of every operation.
#pragma once

#include "kernels/ops.h"

namespace nautile::ref {

const Kernels& kernels();

}  // namespace nautile::ref
