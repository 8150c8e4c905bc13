// The avx512 version of every operation.
#pragma once

#include "kernels/tiles.h"

namespace nautile::avx512 {

// With the instructions for BF16 and byte products (BF16, VNNI, VBMI) beside the F, BW, VL and DQ of the rest, or
// without. Even making the table needs these four.
const Kernels& kernels(bool dot_products);

// Its functions need the dot products.
const TileKernels& tile_kernels();

// A version of packing (Packer): F, BW, VL and DQ.
bool pack_half(const HalfTile& h);

}  // namespace nautile::avx512
