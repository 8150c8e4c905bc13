// The avx512 version of every operation.
#pragma once

#include "kernels/tiles.h"

namespace nautile::avx512 {

// With the products of tiles, which want VNNI, BF16 and VBMI beside the F, BW, VL and DQ of the rest; or without.
const Kernels& kernels(bool with_tiles);

const TileKernels& tile_kernels();

}  // namespace nautile::avx512
