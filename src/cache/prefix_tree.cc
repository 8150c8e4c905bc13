// Matching, insertion and eviction by benefit.
#include "cache/prefix_tree.h"

#include <algorithm>

namespace nautile {

PrefixTree::PrefixTree(uint64_t budget_bytes, uint64_t owner_budget_bytes, std::function<void(const Node&)> evicting)
    : budget_bytes_(budget_bytes),
      owner_budget_bytes_(std::min(budget_bytes, owner_budget_bytes)),
      evicting_(std::move(evicting)) {}

PrefixTree::Node* PrefixTree::match(CacheScope scope, std::span<const PrefixId> ids, std::span<const int32_t> tokens) {
  Node* deepest = nullptr;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto found = nodes_.find(ids[i]);
    if (found == nodes_.end() || found->second.parent != deepest || found->second.scope != scope) {
      break;
    }
    if (!std::ranges::equal(found->second.tokens, tokens.subspan(i * kBlockTokens, kBlockTokens))) break;
    deepest = &found->second;
  }
  return deepest;
}

PrefixTree::Node* PrefixTree::nearest_snapshot(Node* node, int64_t max_tokens) {
  while (node != nullptr && !(node->has_snapshot() && node->end <= max_tokens)) node = node->parent;
  return node;
}

Snapshot PrefixTree::snapshot(const Node& node) {
  Snapshot out;
  out.length = node.end;
  out.draft_length = node.draft_length;
  out.rows = node.rows;
  out.blocks.resize(static_cast<size_t>(node.end / kBlockTokens));
  auto block = out.blocks.rbegin();
  for (const Node* n = &node; n != nullptr; n = n->parent) *block++ = n->block;
  return out;
}

void PrefixTree::touch(Node& node) {
  node.used = clock_;
  rerank(node);
}

PrefixTree::Node* PrefixTree::insert(CacheScope scope, CacheScope owner, std::span<const PrefixId> ids,
                                     std::span<const int32_t> tokens, const Snapshot& snapshot) {
  uint64_t alone = kSnapshotBytes + snapshot.bytes();
  for (const auto& block : snapshot.blocks) alone += kNodeBytes + block->size();
  if (alone > owner_budget_bytes_) return nullptr;
  // All of a path counts to one owner, so that an owner over its share has something of its own to evict.
  const auto first = ids.empty() ? nodes_.end() : nodes_.find(ids.front());
  if (first != nodes_.end() && first->second.scope == scope) owner = first->second.share->owner;
  Share& share = shares_[owner];
  share.owner = owner;
  Node* node = add_path(scope, share, ids, tokens, snapshot);
  if (node == nullptr) {
    if (const auto empty = shares_.find(owner); empty != shares_.end() && empty->second.bytes == 0)
      shares_.erase(empty);
    return nullptr;
  }
  const bool is_new = !node->has_snapshot();
  if (is_new || snapshot.draft_length > node->draft_length) {
    if (!is_new) discount(share, kSnapshotBytes + node->rows->size());
    node->rows = snapshot.rows;
    node->draft_length = snapshot.draft_length;
    count(share, kSnapshotBytes + node->rows->size());
  }
  touch(*node);
  if (is_new) {
    // Those below now save less, the one above frees less.
    rerank_below(*node);
    if (Node* before = nearest_snapshot(node->parent, node->end)) rerank(*before);
  }
  while (share.bytes > owner_budget_bytes_) evict_one(share.order, node);
  while (bytes_ > budget_bytes_) evict_one(order_, node);
  return node;
}

// The node at the end of the path, made as far as it is not there; null when an id on it names something else.
PrefixTree::Node* PrefixTree::add_path(CacheScope scope, Share& share, std::span<const PrefixId> ids,
                                       std::span<const int32_t> tokens, const Snapshot& snapshot) {
  Node* node = match(scope, ids, tokens);
  Node* const fork = node;
  for (size_t i = node == nullptr ? 0 : static_cast<size_t>(node->end / kBlockTokens); i < ids.size(); ++i) {
    const auto [place, fresh] = nodes_.try_emplace(ids[i]);
    if (!fresh) {
      if (node != fork) prune(node);
      return nullptr;
    }
    Node& child = place->second;
    child.id = ids[i];
    child.scope = scope;
    child.share = &share;
    child.parent = node;
    child.end = static_cast<int64_t>(i + 1) * kBlockTokens;
    std::ranges::copy(tokens.subspan(i * kBlockTokens, kBlockTokens), child.tokens.begin());
    child.block = snapshot.blocks[i];
    count(share, node_bytes(child));
    if (node != nullptr) node->children.push_back(&child);
    node = &child;
  }
  // A first branch leaves this path: what was there no longer frees the blocks above the fork.
  if (fork != nullptr && fork != node && fork->children.size() == 2) rerank_below(*fork);
  return node;
}

// Takes the snapshot away, with the blocks that only it needed.
void PrefixTree::remove_snapshot(Node& node) {
  order_.erase(node.rank);
  node.share->order.erase(node.rank);
  discount(*node.share, kSnapshotBytes + node.rows->size());
  node.rows = nullptr;
  Node* before = nearest_snapshot(node.parent, node.end);
  if (!node.children.empty()) rerank_below(node);  // they now save more
  prune(&node);
  if (before != nullptr) rerank(*before);
}

// Removes nodes from `node` upwards that no snapshot needs.
void PrefixTree::prune(Node* node) {
  while (node != nullptr && node->children.empty() && !node->has_snapshot()) {
    Node* parent = node->parent;
    if (parent != nullptr) std::erase(parent->children, node);
    Share& share = *node->share;
    discount(share, node_bytes(*node));
    nodes_.erase(node->id);
    if (share.bytes == 0) shares_.erase(CacheScope(share.owner));
    node = parent;
  }
  // The only branch left is now alone in needing the blocks above.
  if (node != nullptr && !node->has_snapshot() && node->children.size() == 1) rerank_below(*node);
}

// Precondition: the order has another snapshot than `keep`.
void PrefixTree::evict_one(const Order& order, const Node* keep) {
  auto first = order.begin();
  if (first->second == keep) ++first;
  Node& node = *first->second;
  clock_ = std::max(clock_, node.rank.first);
  ++evictions_;
  if (evicting_) evicting_(node);
  remove_snapshot(node);
}

// Bytes that removing the snapshot gives back.
uint64_t PrefixTree::freed_bytes(const Node& node) const {
  uint64_t bytes = kSnapshotBytes + node.rows->size();
  if (!node.children.empty()) return bytes;
  bytes += node_bytes(node);
  for (const Node* n = node.parent; n != nullptr && !n->has_snapshot() && n->children.size() == 1; n = n->parent) {
    bytes += node_bytes(*n);
  }
  return bytes;
}

void PrefixTree::rerank(Node& node) {
  const Node* before = nearest_snapshot(node.parent, node.end);
  const double saved = static_cast<double>(node.end - (before == nullptr ? 0 : before->end));
  order_.erase(node.rank);
  node.share->order.erase(node.rank);
  node.rank = {node.used + saved / static_cast<double>(freed_bytes(node)), ++serial_};
  order_.emplace(node.rank, &node);
  node.share->order.emplace(node.rank, &node);
}

// Reranks the nearest snapshots below `node`.
void PrefixTree::rerank_below(Node& node) {
  std::vector<Node*> todo = node.children;
  while (!todo.empty()) {
    Node* next = todo.back();
    todo.pop_back();
    if (next->has_snapshot()) {
      rerank(*next);
    } else {
      todo.insert(todo.end(), next->children.begin(), next->children.end());
    }
  }
}

}  // namespace nautile
