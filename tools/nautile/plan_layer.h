// Runs one layer of a shape through the engine's own kernels, for plan probe.
#pragma once

#include "model/config.h"
#include "plan/probe.h"
#include "sys/threads.h"

namespace nautile {

struct LayerBudget {
  size_t memory_bytes = 0;  // that the layer's weights may take; fewer experts are made when they would not fit
  int experts = 1 << 20;    // at most
  double seconds = 3;       // of timing; making the weights comes on top
  std::string isa = "auto";
};

// A layer of the given ratio (0, 4, 128) with synthetic weights: `experts` of the shape's routed experts, its own
// number a token. kResourceExhausted when not even a few experts fit.
Result<plan::MeasuredLayer> measure_layer(const ModelConfig& shape, int ratio, const LayerBudget& budget,
                                          ThreadPool& pool);

}  // namespace nautile
