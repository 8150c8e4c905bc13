// The avx512 version of every operation.
#pragma once

#include "kernels/tiles.h"

namespace nautile::avx512 {

// How weights are multiplied, by what a CPU has beside F, BW, VL and DQ. Even making the table needs those four.
enum class Products {
  kRows,   // nothing: no tiles
  kFloat,  // VNNI and VBMI: FP4 by bytes, the rest in float
  kBf16,   // BF16 too: the rest by its dot instruction
};
const Kernels& kernels(Products products);

// Its functions need VNNI and VBMI, and BF16 where asked for.
const TileKernels& tile_kernels(bool bf16);

// Cores that want different things fetched early (quads.h).
enum class Core { kZen4, kZen5, kIntel };
// A wide product's tile, and its activations: kBf16, and kF32Padded.
void wide_tile_bf16(const MatmulArgs& a, size_t tile, Core core);
void wide_tile_float(const MatmulArgs& a, size_t tile, Core core);
void narrow_bf16(const NarrowArgs& a);
void narrow_float(const NarrowArgs& a);

// A version of packing (Packer): F, BW, VL and DQ.
bool pack_half(const HalfTile& h);

}  // namespace nautile::avx512
