// Where the system says that memory lies.
#pragma once

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <optional>
#include <set>

namespace nautile {

// The nodes of the range's pages, which must have been written to; none when the system does not tell.
inline std::optional<std::set<int>> nodes_of(const std::byte* data, size_t bytes) {
  std::set<int> nodes;
  for (size_t at = 0; at < bytes; at += 4096) {
    int node = -1;
    if (::syscall(SYS_get_mempolicy, &node, nullptr, 0, data + at, MPOL_F_NODE | MPOL_F_ADDR) != 0) return std::nullopt;
    nodes.insert(node);
  }
  return nodes;
}

// The node that the memory's policy prefers, -1 when it has none or the system does not tell.
inline int preferred_node(const std::byte* data) {
  int mode = 0;
  unsigned long mask[16] = {};
  if (::syscall(SYS_get_mempolicy, &mode, mask, 1024ul, data, MPOL_F_ADDR) != 0 || mode != MPOL_PREFERRED) return -1;
  for (int i = 0; i < 1024; ++i) {
    if (mask[i / 64] >> (i % 64) & 1) return i;
  }
  return -1;
}

}  // namespace nautile
