// The avx2 version of every operation.
#pragma once

#include "kernels/tiles.h"

namespace nautile::avx2 {

// Even making the table needs AVX2 and FMA.
const Kernels& kernels();

const TileKernels& tile_kernels();

// A version of packing (Packer): AVX2 alone.
bool pack_half(const HalfTile& h);

}  // namespace nautile::avx2
