// The avx2 version of every operation.
#pragma once

#include "kernels/tiles.h"

namespace nautile::avx2 {

// Even making the table needs AVX2 and FMA. `dots`: with the byte products of AVX-VNNI, which 256-bit CPUs have since Alder Lake.
const Kernels& kernels(bool dots);

const TileKernels& tile_kernels(bool dots);

// A version of packing (Packer): AVX2 alone.
bool pack_half(const HalfTile& h);

}  // namespace nautile::avx2
