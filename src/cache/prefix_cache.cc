// Finding, remembering, and the words for why a hit is no longer.
#include "cache/prefix_cache.h"

#include <algorithm>

namespace nautile {
namespace {

constexpr size_t kLostKept = 1 << 16;

constexpr std::string_view kNothingShared = "no common prefix";
constexpr std::string_view kBetweenSnapshots = "no snapshot nearer";
constexpr std::string_view kEvicted = "snapshot evicted";

}  // namespace

struct DiskRead {};

PrefixCache::PrefixCache(std::shared_ptr<const CacheLayout> layout, PrefixCacheOptions options, DiskTier* disk)
    : layout_(std::move(layout)),
      options_(options),
      disk_(disk),
      hasher_(random_prefix_key(), {}),
      tree_(options.budget_bytes, [this](const PrefixTree::Node& node) { evicting(node); }),
      canary_(options.canary_seed) {}

PrefixCache::~PrefixCache() = default;

CacheHit PrefixCache::find(CacheScope scope, std::span<const int32_t> tokens, int64_t max_tokens) {
  CacheHit hit;
  const std::vector<PrefixId> ids = hasher_.chain(scope, tokens);
  PrefixTree::Node* common = tree_.match(ids, tokens);
  if (common != nullptr) hit.common_tokens = common->end;
  if (PrefixTree::Node* node = PrefixTree::nearest_snapshot(common, max_tokens)) {
    tree_.touch(*node);
    hit.tokens = node->end;
    hit.snapshot = PrefixTree::snapshot(*node);
    hit.source = CacheHit::Source::kRam;
    hit.verify = options_.canary_share > 0 && std::generate_canonical<double, 53>(canary_) < options_.canary_share;
    counts_.tokens_saved += static_cast<uint64_t>(hit.tokens);
  }
  ++(hit.tokens > 0 ? counts_.hits : counts_.misses);

  const int64_t wanted =
      std::min<int64_t>(max_tokens, static_cast<int64_t>(tokens.size())) / kBlockTokens * kBlockTokens;
  if (hit.tokens < wanted) {
    hit.reason = hit.common_tokens > hit.tokens ? kBetweenSnapshots : kNothingShared;
    if (hit.tokens > 0 && hit.common_tokens == hit.tokens) hit.reason = "the rest is new";
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

void PrefixCache::insert(CacheScope scope, std::span<const int32_t> tokens, const Snapshot& snapshot) {
  const std::vector<PrefixId> ids = hasher_.chain(scope, tokens);
  if (ids.empty() || tree_.insert(ids, tokens, snapshot) == nullptr) {
    ++counts_.rejected;
    return;
  }
  ++counts_.inserts;
  lost_.erase(ids.back());
}

std::shared_ptr<DiskRead> PrefixCache::prefetch(CacheScope, std::span<const int32_t>, int64_t) {
  return nullptr;
}

bool PrefixCache::poll(const std::shared_ptr<DiskRead>&) {
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

void PrefixCache::evicting(const PrefixTree::Node& node) {
  remember_lost(node.id, kEvicted);
}

void PrefixCache::remember_lost(const PrefixId& id, std::string_view why) {
  if (lost_.size() >= kLostKept) lost_.clear();
  lost_[id] = why;
}

}  // namespace nautile
