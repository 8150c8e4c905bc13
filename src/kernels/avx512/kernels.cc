// AVX-512 (F, BW, VL, DQ): 16 floats a vector.
#include "kernels/avx512/kernels.h"

#include <string.h>

#include "kernels/avx512/attention.h"
#include "kernels/avx512/elements.h"
#include "kernels/avx512/lanes.h"

namespace nautile::avx512 {
namespace {

constexpr const char* kName = "avx512";
constexpr size_t kManyTokens = 4, kManyRows = 3, kOneRows = 4;  // register tiles: tokens x rows, and rows for one token

#include "kernels/formats.inc"
#include "kernels/vector.inc"
#include "kernels/rows.inc"

template <bool kBf16>
void matmul(const MatmulArgs& a) {
  a.weight.layout == WeightLayout::kTiles ? tile_kernels(kBf16).matmul(a) : matmul_in_rows(a);
}

}  // namespace

const Kernels& kernels(Products products) {
  static const Kernels rows = {kName, matmul_in_rows, attend, index_scores, dot, axpy, top_k, elements()};
  static const Kernels floats = {kName, matmul<false>, attend, index_scores_vnni, dot,
                                 axpy,  top_k,         elements(), &tile_kernels(false)};
  static const Kernels bf16 = {kName, matmul<true>, attend_bf16, index_scores_vnni, dot,
                               axpy,  top_k,        elements(),  &tile_kernels(true)};
  return products == Products::kBf16 ? bf16 : products == Products::kFloat ? floats : rows;
}

}  // namespace nautile::avx512
