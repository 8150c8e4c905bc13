// What goes into the hash, in order.
#include "engine/fingerprint.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <memory>

namespace nautile {
namespace {

constexpr uint64_t kHashedWhole = 64 << 20;
constexpr uint64_t kSampleBytes = 4096;
constexpr int kStateVersion = 1;  // raise it when the forward pass changes what it writes into a state

}  // namespace

Hash128 fingerprint(const LoadedModel& model) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash(XXH3_createState(), XXH3_freeState);
  XXH3_128bits_reset(hash.get());
  auto add = [&](const void* data, size_t bytes) { XXH3_128bits_update(hash.get(), data, bytes); };
  auto add_text = [&](const std::string& text) { add(text.c_str(), text.size() + 1); };

  const CacheLayout& layout = *model.layout();
  add_text(fmt::format("state {} kernels {} numerics {} private {} block {}", kStateVersion, model.kernels().name,
                       static_cast<int>(model.numerics()), layout.private_bytes(), layout.block_bytes()));
  add_text(model.config_text());
  const bool whole = model.checkpoint().payload_bytes() <= kHashedWhole;
  for (const TensorView& tensor : model.checkpoint().tensors()) {
    add_text(fmt::format("{} {} {}", tensor.name, static_cast<int>(tensor.dtype), fmt::join(tensor.shape, "x")));
    if (whole || tensor.bytes <= 3 * kSampleBytes) {
      add(tensor.data, tensor.bytes);
      continue;
    }
    for (const uint64_t at : {uint64_t{0}, tensor.bytes / 2, tensor.bytes - kSampleBytes})
      add(tensor.data + at, kSampleBytes);
  }
  const XXH128_hash_t digest = XXH3_128bits_digest(hash.get());
  return {digest.high64, digest.low64};
}

}  // namespace nautile
