// PrefixTree: the known prefixes in memory, as a tree of 128-token blocks with snapshots on some of its nodes.
//
// Always true: a node is there exactly as long as a snapshot at or below it needs its block; bytes() is what the nodes
// and snapshots take and never exceeds the budget between calls; a node's id and its tokens agree.
// Eviction (GreedyDual): a snapshot's rank is the clock at its last use plus the tokens it saves per byte it frees; the
// lowest goes first, and the clock moves up to its rank. What it saves is what would be recomputed from the snapshot
// before it; what it frees is its rows and the blocks that nothing else needs. An owner that has its whole share evicts
// its own; a prefix counts to whom its first block does.
// Thread-safety: one caller at a time. Nodes live until the next insert().
#pragma once

#include <array>
#include <functional>
#include <map>
#include <unordered_map>

#include "cache/prefix_id.h"
#include "cache/sequence_state.h"

namespace nautile {

class PrefixTree {
 public:
  struct Node;
  // By rank, the next to be evicted first. No two ranks are equal.
  using Rank = std::pair<double, uint64_t>;
  using Order = std::map<Rank, Node*>;
  // What one owner has: all of one or of several scopes.
  struct Share {
    CacheScope owner;
    uint64_t bytes = 0;
    Order order;
  };
  struct Node {
    PrefixId id;
    CacheScope scope;
    Share* share = nullptr;
    Node* parent = nullptr;
    int64_t end = 0;  // tokens up to and with this block
    std::array<int32_t, kBlockTokens> tokens;
    std::shared_ptr<const CacheBlock> block;
    std::vector<Node*> children;

    // The snapshot at `end`, if there is one.
    std::shared_ptr<const std::vector<std::byte>> rows;
    int64_t draft_length = 0;
    double used = 0;  // the clock at its last use
    Rank rank = {};

    // For the cache around the tree: whether the snapshot came from disk and was not used yet, and when the disk was
    // last told of its use.
    bool from_disk = false;
    double told_disk_s = 0;

    bool has_snapshot() const { return rows != nullptr; }
  };
  // What a node and a snapshot take besides their block and rows: the node itself, its places in maps and lists.
  static constexpr size_t kNodeBytes = sizeof(Node) + 96;
  static constexpr size_t kSnapshotBytes = 160;

  // `evicting` sees each snapshot just before it goes, while its path is whole.
  PrefixTree(uint64_t budget_bytes, uint64_t owner_budget_bytes, std::function<void(const Node&)> evicting);

  // The deepest node of `scope` on the path of `ids` whose tokens are `tokens`; null when there is none.
  Node* match(CacheScope scope, std::span<const PrefixId> ids, std::span<const int32_t> tokens);
  // The deepest node with a snapshot at or above `node` that ends by `max_tokens`; null when there is none.
  static Node* nearest_snapshot(Node* node, int64_t max_tokens);
  // The blocks up to and with a node's, shared, and its snapshot's rows if it has one.
  static Snapshot snapshot(const Node& node);

  // Marks the snapshot as used now.
  void touch(Node& node);
  // Adds the snapshot of `tokens` with the blocks that are not there yet and evicts others until all fit. Blocks that
  // are there stay; a snapshot that is there is touched, and replaced when the new one has seen more drafts. Null when
  // it does not fit a budget alone, or (never yet seen) its id is taken by other tokens. What is new counts to `owner`.
  Node* insert(CacheScope scope, CacheScope owner, std::span<const PrefixId> ids, std::span<const int32_t> tokens,
               const Snapshot& snapshot);

  uint64_t bytes() const { return bytes_; }
  size_t blocks() const { return nodes_.size(); }
  size_t snapshots() const { return order_.size(); }
  size_t owners() const { return shares_.size(); }
  uint64_t evictions() const { return evictions_; }

 private:
  static uint64_t node_bytes(const Node& node) { return kNodeBytes + node.block->size(); }
  uint64_t freed_bytes(const Node& node) const;
  Node* add_path(CacheScope scope, Share& share, std::span<const PrefixId> ids, std::span<const int32_t> tokens,
                 const Snapshot& snapshot);
  void count(Share& share, uint64_t bytes) { bytes_ += bytes, share.bytes += bytes; }
  void discount(Share& share, uint64_t bytes) { bytes_ -= bytes, share.bytes -= bytes; }
  void remove_snapshot(Node& node);
  void prune(Node* node);
  void evict_one(const Order& order, const Node* keep);
  void rerank(Node& node);
  void rerank_below(Node& node);

  uint64_t budget_bytes_, owner_budget_bytes_;
  std::function<void(const Node&)> evicting_;
  std::unordered_map<PrefixId, Node, Hash128Hasher> nodes_;  // addresses are stable
  std::unordered_map<CacheScope, Share, Hash128Hasher> shares_;
  Order order_;  // of all owners
  uint64_t bytes_ = 0, evictions_ = 0, serial_ = 0;
  double clock_ = 0;
};

}  // namespace nautile
