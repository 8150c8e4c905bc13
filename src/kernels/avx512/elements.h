// The avx512 version of every element operation.
#pragma once

#include "kernels/elements.h"

namespace nautile::avx512 {

const Elements& elements();

}  // namespace nautile::avx512
