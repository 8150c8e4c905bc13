// A set of literal strings and the longest of them at a place of a text: the search for added tokens.
//
// find() is linear in the text times the longest literal. Thread-safety: immutable after the last add().
// Source: spec chat.md 1.2 (leftmost, longest).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace nautile {

class LiteralTrie {
 public:
  struct Found {
    size_t begin = 0, end = 0;  // bytes
    int32_t id = -1;
  };

  LiteralTrie() : nodes_(1) {}
  // False if the literal is empty or already in the set. `id` must be non-negative.
  bool add(std::string_view literal, int32_t id);
  // The leftmost and there longest literal at or after `from`.
  std::optional<Found> find(std::string_view text, size_t from) const;

 private:
  struct Node {
    int32_t id = -1;
    std::vector<std::pair<uint8_t, uint32_t>> children;  // ascending by byte
  };
  uint32_t child(uint32_t node, uint8_t byte) const;  // 0 where there is none: the root is nobody's child

  std::vector<Node> nodes_;
  std::array<uint32_t, 256> first_{};  // children of the root by byte
};

}  // namespace nautile
