// The avx2 version of every element operation.
#pragma once

#include "kernels/elements.h"

namespace nautile::avx2 {

const Elements& elements();

}  // namespace nautile::avx2
