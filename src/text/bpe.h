// Byte-level BPE: merges the bytes of one piece into token ids.
//
// encode() takes O(n log n) for a piece of n bytes, so that a megabyte of one letter is no attack.
// Thread-safety: immutable after construction; encode() may be called from several threads, each with its own Scratch.
// Source: spec chat.md 1.1, 1.2.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "nautile/sampling.h"

namespace nautile {

class Bpe {
 public:
  struct Merge {
    TokenId left, right, product;
  };
  // Working memory, reused from piece to piece.
  struct Scratch {
    std::vector<TokenId> ids;
    std::vector<uint32_t> next, previous, rank;
    std::vector<uint64_t> heap;
  };

  Bpe() = default;
  // `bytes`: the token of each single byte. `merges` in order of rank; a pair that stands twice keeps its first rank,
  // as in the reference. Ids must be non-negative.
  Bpe(const std::array<TokenId, 256>& bytes, std::span<const Merge> merges);

  // Appends the tokens of `piece` to `out`. Precondition: piece.size() < 2^31.
  void encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& out) const;

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  struct Slot {
    uint64_t pair = UINT64_MAX;
    uint32_t rank = kNoRank;
    TokenId product = -1;
  };
  // The slot of the pair, or an empty one.
  const Slot& find(TokenId left, TokenId right) const;
  void encode_short(std::string_view piece, Scratch& scratch, std::vector<TokenId>& out) const;
  void encode_long(std::string_view piece, Scratch& scratch, std::vector<TokenId>& out) const;

  std::array<TokenId, 256> bytes_{};
  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
  uint64_t mask_ = 0;
};

}  // namespace nautile
