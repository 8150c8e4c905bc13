// `bench --engine`: tokens/s of the whole engine, batch by batch, with and without speculation.
#pragma once

#include <vector>

#include "engine/engine.h"

namespace nautile {

// Each row decodes about `tokens` tokens a sequence. Prompts are sums for a model with a tokenizer, random tokens else.
Status bench_engine(LoadedModel& model, const std::vector<int64_t>& batches, int tokens, bool json);

}  // namespace nautile
