// Finding, remembering, and the words for why a hit is no longer.
#include "cache/prefix_cache.h"

#include <algorithm>

#include "cache/disk_tier.h"
#include "sys/clock.h"

namespace nautile {
namespace {

constexpr size_t kLostKept = 1 << 16;

constexpr std::string_view kNothingShared = "no common prefix";
constexpr std::string_view kBetweenSnapshots = "no snapshot nearer";
constexpr std::string_view kRestIsNew = "the rest is new";
constexpr std::string_view kEvicted = "snapshot evicted";
constexpr double kTellDiskEvery_s = 30;

}  // namespace

PrefixCache::PrefixCache(std::shared_ptr<const CacheLayout> layout, PrefixCacheOptions options, DiskTier* disk)
    : layout_(std::move(layout)),
      options_(options),
      disk_(disk),
      hasher_(disk != nullptr ? disk->hasher() : PrefixHasher(random_prefix_key(), {})),
      tree_(options.budget_bytes, options.owner_budget_bytes, [this](const PrefixTree::Node& node) { evicting(node); }),
      canary_(options.canary_seed) {}

PrefixCache::~PrefixCache() = default;

CacheHit PrefixCache::find(CacheScope scope, std::span<const int32_t> tokens, int64_t max_tokens) {
  CacheHit hit;
  const std::vector<PrefixId> ids = hasher_.chain(scope, tokens);
  PrefixTree::Node* common = tree_.match(scope, ids, tokens);
  if (common != nullptr) hit.common_tokens = common->end;
  if (PrefixTree::Node* node = PrefixTree::nearest_snapshot(common, max_tokens)) {
    tree_.touch(*node);
    hit.tokens = node->end;
    hit.snapshot = PrefixTree::snapshot(*node);
    hit.source = node->from_disk ? CacheHit::Source::kDisk : CacheHit::Source::kRam;
    counts_.disk_hits += node->from_disk;
    node->from_disk = false;
    tell_disk(*node, ids);
    hit.verify = options_.canary_share > 0 && std::generate_canonical<double, 53>(canary_) < options_.canary_share;
    counts_.tokens_saved += static_cast<uint64_t>(hit.tokens);
  }
  ++(hit.tokens > 0 ? counts_.hits : counts_.misses);

  const int64_t wanted =
      std::min<int64_t>(max_tokens, static_cast<int64_t>(tokens.size())) / kBlockTokens * kBlockTokens;
  if (hit.tokens < wanted) {
    hit.reason = hit.common_tokens == 0           ? kNothingShared
                 : hit.common_tokens > hit.tokens ? kBetweenSnapshots
                                                  : kRestIsNew;
    // The deepest one that was here says most.
    for (int64_t end = wanted; end > hit.tokens && !lost_.empty(); end -= kBlockTokens) {
      const auto found = lost_.find(ids[static_cast<size_t>(end / kBlockTokens) - 1]);
      if (found == lost_.end()) continue;
      hit.reason = found->second;
      break;
    }
  }
  return hit;
}

void PrefixCache::insert(CacheScope scope, std::span<const int32_t> tokens, const Snapshot& snapshot,
                         std::optional<CacheScope> owner) {
  const std::vector<PrefixId> ids = hasher_.chain(scope, tokens);
  PrefixTree::Node* node = ids.empty() ? nullptr : tree_.insert(scope, owner.value_or(scope), ids, tokens, snapshot);
  if (node == nullptr) {
    ++counts_.rejected;
    return;
  }
  ++counts_.inserts;
  node->from_disk = false;
  lost_.erase(ids.back());
  if (disk_ != nullptr) disk_->write(scope, ids, tokens, PrefixTree::snapshot(*node));
}

std::shared_ptr<DiskRead> PrefixCache::prefetch(CacheScope scope, std::span<const int32_t> tokens, int64_t max_tokens,
                                                std::optional<CacheScope> owner) {
  if (disk_ == nullptr) return nullptr;
  const std::vector<PrefixId> ids = hasher_.chain(scope, tokens);
  PrefixTree::Node* common = tree_.match(scope, ids, tokens);
  const PrefixTree::Node* nearest = PrefixTree::nearest_snapshot(common, max_tokens);
  Snapshot known;
  if (common != nullptr) known = PrefixTree::snapshot(*common);
  // What would not fit the tree is not worth reading.
  const uint64_t block_bytes = PrefixTree::kNodeBytes + layout_->block_bytes();
  const int64_t fits =
      static_cast<int64_t>(std::min(options_.budget_bytes, options_.owner_budget_bytes) / block_bytes) * kBlockTokens;
  auto read =
      disk_->read(scope, ids, tokens, known.blocks, nearest == nullptr ? 0 : nearest->end, std::min(max_tokens, fits));
  if (read != nullptr) read->owner = owner.value_or(scope);
  return read;
}

bool PrefixCache::poll(const std::shared_ptr<DiskRead>& read) {
  if (read == nullptr) return true;
  if (!read->done.load(std::memory_order_acquire)) return false;
  if (!read->failure.empty()) remember_lost(read->lost, read->failure);
  const Snapshot snapshot = std::exchange(read->snapshot, {});
  if (snapshot.length == 0) return true;
  const std::span ids = std::span(read->ids).first(snapshot.blocks.size());
  if (PrefixTree::Node* node = tree_.insert(read->scope, read->owner, ids,
                                            std::span(read->tokens).first(ids.size() * kBlockTokens), snapshot)) {
    node->from_disk = true;
    lost_.erase(node->id);
  }
  return true;
}

std::vector<int64_t> PrefixCache::snapshot_points(int64_t begin, int64_t end, int64_t fork) const {
  const int64_t spacing = options_.snapshot_spacing, last = end / kBlockTokens * kBlockTokens;
  std::vector<int64_t> points;
  for (int64_t p = (begin / spacing + 1) * spacing; p < last; p += spacing) points.push_back(p);
  if (fork > begin && fork < last) points.push_back(fork / kBlockTokens * kBlockTokens);
  if (last > begin) points.push_back(last);
  std::ranges::sort(points);
  points.erase(std::unique(points.begin(), points.end()), points.end());
  return points;
}

CacheStats PrefixCache::stats() const {
  CacheStats out = counts_;
  out.bytes = tree_.bytes();
  out.blocks = tree_.blocks();
  out.snapshots = tree_.snapshots();
  out.evictions = tree_.evictions();
  return out;
}

// What is evicted stays on disk, or gets one more chance to go there.
void PrefixCache::evicting(const PrefixTree::Node& node) {
  remember_lost(node.id, kEvicted);
  if (disk_ == nullptr || disk_->has_snapshot(node.id, node.end)) return;
  const size_t blocks = static_cast<size_t>(node.end / kBlockTokens);
  std::vector<PrefixId> ids(blocks);
  std::vector<int32_t> tokens(blocks * kBlockTokens);
  size_t i = blocks;
  for (const PrefixTree::Node* n = &node; n != nullptr; n = n->parent) {
    ids[--i] = n->id;
    std::ranges::copy(n->tokens, tokens.begin() + static_cast<std::ptrdiff_t>(i * kBlockTokens));
  }
  disk_->write(node.scope, ids, tokens, PrefixTree::snapshot(node));
}

// A path that memory serves would look unused on disk.
void PrefixCache::tell_disk(PrefixTree::Node& node, std::span<const PrefixId> ids) {
  if (disk_ == nullptr || seconds_now() - node.told_disk_s < kTellDiskEvery_s) return;
  node.told_disk_s = seconds_now();
  disk_->use(ids.first(static_cast<size_t>(node.end / kBlockTokens)));
}

void PrefixCache::remember_lost(const PrefixId& id, std::string_view why) {
  if (lost_.size() >= kLostKept) lost_.clear();
  lost_[id] = why;
}

}  // namespace nautile
