// PrefixId: the name of a prefix of whole blocks, and PrefixHasher, which makes them: a keyed 128-bit hash chain over
// blocks of 128 tokens, from a root for each namespace. The same key gives the same ids in every process.
//
// An id finds a candidate, it proves nothing: whoever finds one compares the tokens themselves.
// Thread-safety: values; a PrefixHasher is constant after construction.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache/layout.h"

namespace nautile {

struct Hash128 {
  uint64_t high = 0, low = 0;
  auto operator<=>(const Hash128&) const = default;
};
using PrefixId = Hash128;
// A namespace: requests of different scopes never share anything. It must be the same after a restart for the disk tier
// to be of use (a hash of the tenant's key and name, not a random number).
using CacheScope = Hash128;

struct Hash128Hasher {  // the bits are random already
  size_t operator()(const Hash128& id) const { return static_cast<size_t>(id.low); }
};

inline constexpr size_t kPrefixKeyBytes = 192;
using PrefixKey = std::array<std::byte, kPrefixKeyBytes>;

// From the operating system.
PrefixKey random_prefix_key();

class PrefixHasher {
 public:
  // `model` names what the state depends on besides tokens: weights, numerics, layout.
  PrefixHasher(const PrefixKey& key, Hash128 model) : key_(key), model_(model) {}

  PrefixId root(CacheScope scope) const;
  PrefixId next(const PrefixId& parent, std::span<const int32_t, kBlockTokens> tokens) const;
  // ids[i] names the first 128 * (i + 1) tokens; a last part of a block has no id.
  std::vector<PrefixId> chain(CacheScope scope, std::span<const int32_t> tokens) const;
  // Keyed: bytes that another key wrote do not pass.
  Hash128 checksum(std::span<const std::byte> bytes) const;

 private:
  PrefixKey key_;
  Hash128 model_;
};

// Of any text, the same in every process: for scopes and for what names a model.
Hash128 hash128(std::string_view text);

// 32 hexadecimal digits.
std::string hex(const Hash128& hash);

}  // namespace nautile
