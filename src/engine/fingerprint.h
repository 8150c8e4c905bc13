// Fingerprint: 128 bits that name what a sequence's state depends on besides its tokens: the weights, the kernels, the
// numerics policy and the layout of the state. The disk tier keeps states of different fingerprints apart.
//
// Weights are hashed whole up to 64 MiB, else 4 KiB at both ends and in the middle of every tensor: another training
// run differs in all of them. Thread-safety: a pure function.
#pragma once

#include "cache/prefix_id.h"
#include "engine/loaded_model.h"

namespace nautile {

Hash128 fingerprint(const LoadedModel& model);

}  // namespace nautile
