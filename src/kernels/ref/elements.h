// The ref version of every element operation.
#pragma once

#include "kernels/elements.h"

namespace nautile::ref {

const Elements& elements();

}  // namespace nautile::ref
