// Any bytes as config.json and as a shard index. A config that is taken keeps its rules and survives being written.
#include <cstdlib>

#include "checkpoint/checkpoint.h"
#include "model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nautile;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)parse_shard_index(text, "fuzz");
  const Result<ModelConfig> config = parse_config(text, "fuzz");
  if (config.ok()) {
    if (!validate_config(config.value(), "fuzz").ok()) std::abort();
    const Result<ModelConfig> again = parse_config(config_json(config.value()), "fuzz");
    if (!again.ok() || !(again.value() == config.value())) std::abort();
  }
  return 0;
}
