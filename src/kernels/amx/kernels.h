// The amx version: AVX-512 for everything but products of tiles, which the matrix unit makes.
#pragma once

#include "kernels/tiles.h"

namespace nautile::amx {

// The table; needs avx512 with dot products, its matrix products matrix_unit_usable() (sys/cpu_features.h) too.
const Kernels& kernels();

// The same loops and packing over a scalar class that follows the instructions' definition (twin.cc), for tests: any CPU
// that runs all of avx512 runs it.
namespace twin {
const TileKernels& tile_kernels();
void attend(const AttendArgs& args);
}  // namespace twin

}  // namespace nautile::amx
