#include "text/token_trie.h"

#include <algorithm>

namespace nautile {

TokenTrie TokenTrie::build(const Tokenizer& tokenizer, std::span<const TokenId> end_tokens) {
  std::vector<std::string> bytes(tokenizer.size());
  for (size_t id = 0; id < bytes.size(); ++id) {
    const auto token = static_cast<TokenId>(id);
    if (!tokenizer.is_added(token) && !tokenizer.is_special(token)) bytes[id] = tokenizer.bytes_of(token);
  }
  return build(bytes, end_tokens);
}

TokenTrie TokenTrie::build(std::span<const std::string> bytes, std::span<const TokenId> end_tokens) {
  TokenTrie trie;
  trie.end_tokens_.assign(end_tokens.begin(), end_tokens.end());
  trie.offsets_.reserve(bytes.size() + 1);
  std::vector<TokenId> order;
  for (size_t id = 0; id < bytes.size(); ++id) {
    trie.offsets_.push_back(static_cast<uint32_t>(trie.pool_.size()));
    // Nobody's vocabulary holds such a token; a node's depth has 16 bits.
    if (bytes[id].empty() || bytes[id].size() > 0xffff || trie.is_end(static_cast<TokenId>(id))) continue;
    trie.pool_ += bytes[id];
    order.push_back(static_cast<TokenId>(id));
    if (bytes[id].size() == 1) ++trie.single_bytes_;
  }
  trie.offsets_.push_back(static_cast<uint32_t>(trie.pool_.size()));
  std::sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
    const int compared = trie.bytes_of(a).compare(trie.bytes_of(b));
    return compared != 0 ? compared < 0 : a < b;
  });

  std::vector<uint32_t> open;  // the nodes on the way to the last one
  std::string_view last;
  for (const TokenId id : order) {
    const std::string_view text = trie.bytes_of(id);
    size_t common = 0;
    while (common < last.size() && common < text.size() && last[common] == text[common]) ++common;
    if (common == text.size()) {  // only an equal text sorts behind its own prefix
      trie.twins_.push_back({trie.nodes_[open.back()].token, id});
      if (text.size() == 1) --trie.single_bytes_;
      continue;
    }
    while (open.size() > common) {
      trie.nodes_[open.back()].end = static_cast<uint32_t>(trie.nodes_.size());
      open.pop_back();
    }
    for (size_t at = common; at < text.size(); ++at) {
      open.push_back(static_cast<uint32_t>(trie.nodes_.size()));
      trie.nodes_.push_back({0, -1, static_cast<uint16_t>(at + 1), static_cast<uint8_t>(text[at])});
    }
    trie.nodes_.back().token = id;
    trie.max_depth_ = std::max(trie.max_depth_, text.size());
    last = text;
  }
  while (!open.empty()) {
    trie.nodes_[open.back()].end = static_cast<uint32_t>(trie.nodes_.size());
    open.pop_back();
  }
  return trie;
}

bool TokenTrie::is_end(TokenId id) const {
  return std::find(end_tokens_.begin(), end_tokens_.end(), id) != end_tokens_.end();
}

}  // namespace nautile
