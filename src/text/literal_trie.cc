// A byte trie with a table at the root, since most bytes of a text begin no added token.
#include "text/literal_trie.h"

#include <algorithm>

namespace nautile {

uint32_t LiteralTrie::child(uint32_t node, uint8_t byte) const {
  if (node == 0) return first_[byte];
  const auto& children = nodes_[node].children;
  const auto at =
      std::lower_bound(children.begin(), children.end(), byte, [](const auto& a, uint8_t b) { return a.first < b; });
  return at == children.end() || at->first != byte ? 0 : at->second;
}

bool LiteralTrie::add(std::string_view literal, int32_t id) {
  if (literal.empty()) return false;
  uint32_t node = 0;
  for (const char c : literal) {
    const auto byte = static_cast<uint8_t>(c);
    uint32_t next = child(node, byte);
    if (next == 0) {
      next = static_cast<uint32_t>(nodes_.size());
      nodes_.emplace_back();
      if (node == 0) {
        first_[byte] = next;
      } else {
        auto& children = nodes_[node].children;
        children.insert(std::lower_bound(children.begin(), children.end(), std::pair{byte, uint32_t{0}}), {byte, next});
      }
    }
    node = next;
  }
  if (nodes_[node].id >= 0) return false;
  nodes_[node].id = id;
  return true;
}

std::optional<LiteralTrie::Found> LiteralTrie::find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    uint32_t node = first_[static_cast<uint8_t>(text[begin])];
    Found longest;
    for (size_t at = begin + 1; node != 0; ++at) {
      if (nodes_[node].id >= 0) longest = {begin, at, nodes_[node].id};
      if (at == text.size()) break;
      node = child(node, static_cast<uint8_t>(text[at]));
    }
    if (longest.id >= 0) return longest;
  }
  return std::nullopt;
}

}  // namespace nautile
