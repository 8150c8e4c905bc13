// AVX2 with FMA: 8 floats a vector.
#include "kernels/avx2/kernels.h"

#include <string.h>

#include "kernels/avx2/attention.h"
#include "kernels/avx2/elements.h"
#include "kernels/avx2/lanes.h"

namespace nautile::avx2 {
namespace {

constexpr const char* kName = "avx2";
constexpr size_t kManyTokens = 1, kManyRows = 3, kOneRows = 2;  // register tiles: tokens x rows, and rows for one token

#include "kernels/formats.inc"
#include "kernels/vector.inc"
#include "kernels/rows.inc"

template <bool kDots>
void matmul(const MatmulArgs& a) {
  a.weight.layout == WeightLayout::kTiles ? tile_kernels(kDots).matmul(a) : matmul_in_rows(a);
}

}  // namespace

const Kernels& kernels(bool dots) {
  static const Kernels pairs = {kName, matmul<false>, attend,     index_scores,         dot,
                                axpy,  top_k,         elements(), &tile_kernels(false)};
  static const Kernels with_dots = {kName, matmul<true>, attend,     index_scores_dots,   dot,
                                    axpy,  top_k,        elements(), &tile_kernels(true)};
  return dots ? with_dots : pairs;
}

}  // namespace nautile::avx2
