// The amx version: AVX-512 for everything but products of tiles, which the matrix unit makes.
#pragma once

#include "kernels/tiles.h"

namespace nautile::amx {

// The table; needs avx512 with dot products, its matrix products usable() too.
const Kernels& kernels();

// Whether this CPU has the matrix unit with BF16 and byte products and the system lets this process use it: Linux keeps
// the tile registers (8 KB a thread) only for processes that ask. The first call asks; threads inherit the answer.
bool usable();

// The same loops and packing over a scalar class that follows the instructions' definition (twin.cc), for tests: any CPU
// that runs all of avx512 runs it.
namespace twin {
const TileKernels& tile_kernels();
// Products of any number of tokens by the unit, also those that the table leaves to AVX-512.
void products(const MatmulArgs& args);
}  // namespace twin

}  // namespace nautile::amx
