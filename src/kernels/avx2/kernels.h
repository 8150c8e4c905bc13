// The avx2 version of every operation.
#pragma once

#include "kernels/tiles.h"

namespace nautile::avx2 {

const Kernels& kernels();

const TileKernels& tile_kernels();

}  // namespace nautile::avx2
