// Numerics: which roundings the forward pass applies (spec checkpoint.md section 10, design section 4).
//
// The FP8 rounding of KV rows and the FP4 rounding of index queries and keys are part of the trained model; they are on
// in every policy but kExact, which exists to compare with implementations that leave them out.
//
// Products, when the weights are in tiles (weights.h): under the reference policy BF16 activations, which hold the
// official E4M3 codes times their scales exactly, with float sums; under the fast one int8 activations with a scale for
// each 32 columns into FP4 matrices and BF16 into the others. Rows, and every product of kExact, are multiplied in float.
// Thread-safety: values and pure functions.
#pragma once

#include <string_view>

#include "base/status.h"
#include "kernels/ops.h"

namespace nautile {

enum class Numerics {
  kReference,  // every rounding of the official code, step by step
  kFast,       // the trained roundings; activations in whatever is fastest
  kExact,      // none: de-quantised weights, float everywhere
};

struct Policy {
  bool round_bf16 = false;            // results are BF16 where the official code keeps BF16
  bool quantise_activations = false;  // FP8, 128 a group, into FP8 and FP4 matrices
  bool quantise_cache = true;         // FP8 KV rows, Hadamard and FP4 index queries and keys
  bool tiles = false;                 // weights may be packed in tiles
  bool fast_experts = false;          // FP4 tiles take activations in what is fastest, mostly int8

  KvFormat kv_format() const { return quantise_cache ? KvFormat::kPacked : KvFormat::kF32; }
};

constexpr Policy policy_of(Numerics numerics) {
  switch (numerics) {
    case Numerics::kReference:
      return {true, true, true, true, false};
    case Numerics::kFast:
      return {false, false, true, true, true};
    case Numerics::kExact:
      return {false, false, false, false, false};
  }
  return {};
}

// "reference", "fast" or "exact"; else kInvalidArgument.
Result<Numerics> parse_numerics(std::string_view name);

}  // namespace nautile
