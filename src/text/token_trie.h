// The vocabulary as a prefix tree over the tokens' bytes: what a grammar walks to find which tokens may come next.
//
// Nodes stand in preorder, so that a walk is one pass over an array and a subtree that cannot match is one jump. Added
// tokens (control tokens, markers) have no bytes here and never match text; the tokens that end a turn are kept apart.
// Thread-safety: immutable once built. Source: spec chat.md 1, api.md 10.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace nautile {

class TokenTrie {
 public:
  struct Node {
    uint32_t end;    // index behind the subtree
    TokenId token;   // -1: no token ends here
    uint16_t depth;  // bytes from the root; the first level is 1
    uint8_t byte;
  };

  // `end_tokens` end a turn: allowed where a grammar may end.
  static TokenTrie build(const Tokenizer& tokenizer, std::span<const TokenId> end_tokens);
  // bytes[id]; an empty string is a token without bytes.
  static TokenTrie build(std::span<const std::string> bytes, std::span<const TokenId> end_tokens);

  size_t vocabulary() const { return offsets_.size() - 1; }
  size_t mask_words() const { return (vocabulary() + 31) / 32; }
  std::span<const Node> nodes() const { return nodes_; }
  size_t max_depth() const { return max_depth_; }
  // Tokens with the bytes of another, as (the one in the tree, the other).
  std::span<const std::pair<TokenId, TokenId>> twins() const { return twins_; }
  std::span<const TokenId> end_tokens() const { return end_tokens_; }
  bool is_end(TokenId id) const;
  // Empty for a token that never matches text. Precondition: has(id).
  std::string_view bytes_of(TokenId id) const {
    return std::string_view(pool_).substr(offsets_[id], offsets_[id + 1] - offsets_[id]);
  }
  bool has(TokenId id) const { return id >= 0 && static_cast<size_t>(id) < vocabulary(); }
  // Whether each of the 256 bytes is a token: then any text can be spelled, and no grammar runs into a dead end.
  bool spells_all_bytes() const { return single_bytes_ == 256; }

 private:
  std::vector<Node> nodes_;
  std::vector<std::pair<TokenId, TokenId>> twins_;
  std::vector<TokenId> end_tokens_;
  std::string pool_;
  std::vector<uint32_t> offsets_;  // [vocabulary + 1]
  size_t max_depth_ = 0;
  int single_bytes_ = 0;
};

}  // namespace nautile
