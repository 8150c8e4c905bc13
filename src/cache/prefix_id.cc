// XXH3-128 with a secret of our own.
#include "cache/prefix_id.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <cstring>

#include "sys/random.h"

namespace nautile {
namespace {

static_assert(kPrefixKeyBytes >= XXH3_SECRET_SIZE_MIN);

Hash128 from_xxh(XXH128_hash_t hash) {
  return {hash.high64, hash.low64};
}

}  // namespace

PrefixKey random_prefix_key() {
  PrefixKey key;
  for (size_t i = 0; i < key.size(); i += sizeof(uint64_t)) {
    const uint64_t word = random_seed();
    std::memcpy(key.data() + i, &word, sizeof word);
  }
  return key;
}

PrefixId PrefixHasher::root(CacheScope scope) const {
  const Hash128 text[2] = {model_, scope};
  return from_xxh(XXH3_128bits_withSecret(text, sizeof text, key_.data(), key_.size()));
}

PrefixId PrefixHasher::next(const PrefixId& parent, std::span<const int32_t, kBlockTokens> tokens) const {
  std::byte text[sizeof parent + kBlockTokens * sizeof(int32_t)];
  std::memcpy(text, &parent, sizeof parent);
  std::memcpy(text + sizeof parent, tokens.data(), tokens.size_bytes());
  return from_xxh(XXH3_128bits_withSecret(text, sizeof text, key_.data(), key_.size()));
}

std::vector<PrefixId> PrefixHasher::chain(CacheScope scope, std::span<const int32_t> tokens) const {
  std::vector<PrefixId> ids(tokens.size() / kBlockTokens);
  PrefixId id = root(scope);
  for (size_t i = 0; i < ids.size(); ++i) {
    id = ids[i] = next(id, tokens.subspan(i * kBlockTokens).first<kBlockTokens>());
  }
  return ids;
}

Hash128 PrefixHasher::checksum(std::span<const std::byte> bytes) const {
  return from_xxh(XXH3_128bits_withSecret(bytes.data(), bytes.size(), key_.data(), key_.size()));
}

Hash128 hash128(std::string_view text) {
  return from_xxh(XXH3_128bits(text.data(), text.size()));
}

std::string hex(const Hash128& hash) {
  return fmt::format("{:016x}{:016x}", hash.high, hash.low);
}

}  // namespace nautile
