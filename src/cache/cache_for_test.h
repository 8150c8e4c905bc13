// Small states, tokens and snapshots whose every byte follows from the tokens, for tests of the cache.
#pragma once

#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "cache/sequence_state.h"

namespace nautile {

// One layer of each kind and a draft ring; a block takes 3 KB, a snapshot 5 KB.
inline std::shared_ptr<const CacheLayout> small_layout() {
  CacheShape shape;
  shape.ratios = {0, 4, 128, 0};
  shape.main_layers = 3;
  shape.window = 16;
  shape.kv = {KvFormat::kPacked, 64, 16};
  shape.index = {KvFormat::kPacked, 32};
  return std::make_shared<CacheLayout>(shape);
}

// What a state after `tokens` might hold: a function of the tokens, as the real one is.
inline Snapshot snapshot_of(const CacheLayout& layout, std::span<const int32_t> tokens, int64_t draft_length = 0) {
  uint64_t mix = 1;
  const auto bytes = [&](size_t count, uint64_t salt) {
    std::mt19937_64 random(mix * 31 + salt);
    std::vector<std::byte> out(count);
    for (size_t i = 0; i < count; i += 8) {
      const uint64_t word = random();
      std::memcpy(out.data() + i, &word, std::min<size_t>(8, count - i));
    }
    return out;
  };
  Snapshot out;
  out.length = static_cast<int64_t>(tokens.size());
  out.draft_length = draft_length;
  for (size_t i = 0; i < tokens.size(); ++i) {
    mix = (mix ^ static_cast<uint64_t>(tokens[i])) * 0x9e3779b97f4a7c15ull;
    if ((i + 1) % kBlockTokens == 0) out.blocks.push_back(std::make_shared<CacheBlock>(bytes(layout.block_bytes(), 1)));
  }
  out.rows = std::make_shared<const std::vector<std::byte>>(
      bytes(SequenceState::snapshot_bytes(layout, out.length, draft_length), 2));
  return out;
}

inline bool same(const Snapshot& a, const Snapshot& b) {
  if (a.length != b.length || a.draft_length != b.draft_length || *a.rows != *b.rows) return false;
  if (a.blocks.size() != b.blocks.size()) return false;
  for (size_t i = 0; i < a.blocks.size(); ++i) {
    if (*a.blocks[i] != *b.blocks[i]) return false;
  }
  return true;
}

inline std::vector<int32_t> random_tokens(std::mt19937_64& random, size_t count) {
  std::vector<int32_t> out(count);
  for (int32_t& token : out) token = static_cast<int32_t>(random() % 1000);
  return out;
}

}  // namespace nautile
