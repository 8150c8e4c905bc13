// Tensor names: from what a file calls a tensor to the canonical (DeepSeek) name, spec checkpoint.md 4.1 and 5.
//
// Thread-safety: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace nautile {

struct CanonicalName {
  // How the stored tensor maps to canonical ones.
  enum class Form {
    kWhole,        // one tensor, called `name`
    kFusedGateUp,  // [E, 2I, ...]: for each expert e, rows 0..I-1 are w1 and rows I..2I-1 are w3
    kFusedDown,    // [E, D, ...]: for each expert e, w2
  };
  Form form = Form::kWhole;
  std::string name;    // kWhole
  std::string prefix;  // fused: "layers.3.ffn.experts."
  std::string leaf;    // fused: "weight" or "scale"
};

// Never fails: a name it does not know is kept, and the inventory reports it as unknown.
CanonicalName canonical_name(std::string_view stored);

}  // namespace nautile
