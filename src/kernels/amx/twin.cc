// The matrix unit's products over a unit in plain code. For tests.
#include <string.h>

#include "kernels/amx/kernels.h"
#include "kernels/amx/scalar_unit.h"
#include "kernels/avx512/attention.h"
#include "kernels/avx512/kernels.h"
#include "kernels/avx512/quads.h"

namespace nautile::amx::twin {
namespace {

constexpr size_t kAhead = 0;

#include "kernels/amx/lines.h"

class Unit {
 public:
  void configure(size_t first_rows, size_t second_rows) {
    for (int i = 0; i < 8; ++i) unit_.configure(i, i < 2 || i == 4 ? first_rows : i < 6 ? second_rows : 16, 64);
  }
  void release() { unit_.release(); }
  template <int kTile>
  void zero() {
    unit_.zero(kTile);
  }
  template <int kTile>
  void load(const void* from, size_t stride) {
    unit_.load(kTile, from, stride);
  }
  template <int kTile>
  void store(void* to, size_t stride) {
    unit_.store(kTile, to, stride);
  }
  template <int kSum, int kFirst, int kSecond>
  void dot() {
    unit_.dot(kSum, kFirst, kSecond);
  }

 private:
  ScalarUnit unit_;
};

#include "kernels/amx/products.h"
#include "kernels/amx/narrow.h"
#include "kernels/amx/attend.inc"

}  // namespace

void attend(const AttendArgs& args) {
  attend_in_tiles<Unit>(args);
}

const TileKernels& tile_kernels() {
  static const TileKernels table = {ActivationFormat::kBf16, ActivationFormat::kInt8AndBf16, ActivationFormat::kBf16Eights,
                                     matmul_in_tiles<Unit>, narrow, kFewTokens};
  return table;
}

}  // namespace nautile::amx::twin
