// PrefixCache: what the engine remembers of prompts it has seen, so that a sequence starts from the nearest snapshot
// instead of from nothing (docs/design/cache.md). A tree in memory under a byte budget and, if given, a tier on disk.
//
// Same tokens: a snapshot holds exactly what the state held, so a hit changes nothing but the time.
// Thread-safety: one thread, the engine's. No call waits for the disk.
#pragma once

#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cache/prefix_id.h"
#include "cache/prefix_tree.h"
#include "cache/sequence_state.h"

namespace nautile {

class DiskTier;
struct DiskRead;

struct PrefixCacheOptions {
  uint64_t budget_bytes = 0;  // of the tree, all included; blocks that sequences hold as well count here too
  uint64_t owner_budget_bytes = UINT64_MAX;  // of one owner in it; who floods his share evicts his own
  int64_t snapshot_spacing = 2048;           // tokens between snapshots of a long prefill, a multiple of 128
  // The share of hits, 0 to 1, that are marked `verify`: the engine recomputes those and compares (rows_equal).
  double canary_share = 0;
  uint64_t canary_seed = 0;
};

struct CacheHit {
  enum class Source { kNone, kRam, kDisk };  // kDisk: read from there for this request

  int64_t tokens = 0;  // where to start: the snapshot's length, 0 for none
  Snapshot snapshot;
  Source source = Source::kNone;
  // Why it is not longer, a constant text; empty when no whole block of the asked prefix is left out.
  std::string_view reason;
  // Whole blocks of `tokens` that the tree knows, in tokens. Where it is past `tokens`, the prompt leaves a known path
  // that has no snapshot there: worth one (snapshot_points).
  int64_t common_tokens = 0;
  bool verify = false;
};

struct CacheStats {
  uint64_t bytes = 0, blocks = 0, snapshots = 0;      // in memory now
  uint64_t evictions = 0, inserts = 0, rejected = 0;  // rejected: larger than the whole budget
  uint64_t hits = 0, misses = 0, tokens_saved = 0;    // by find()
  uint64_t disk_hits = 0;                             // of the hits
};

class PrefixCache {
 public:
  // `disk` may be null and must outlive the cache; its key is then the cache's, so that both use the same ids.
  PrefixCache(std::shared_ptr<const CacheLayout> layout, PrefixCacheOptions options, DiskTier* disk = nullptr);
  ~PrefixCache();

  // The longest snapshot of a prefix of `tokens` that was inserted under `scope`, of at most `max_tokens` tokens (a
  // caller that wants logits asks for one less than the prompt). Costs a hash of `tokens`.
  CacheHit find(CacheScope scope, std::span<const int32_t> tokens, int64_t max_tokens);

  // Remembers the snapshot of exactly `tokens`. Blocks already in the tree are kept and the snapshot's own dropped.
  // Whose share it counts to: `owner`, else the scope itself. Scopes share nothing, whoever owns them.
  // Precondition: tokens.size() == snapshot.length, a multiple of 128, not 0.
  void insert(CacheScope scope, std::span<const int32_t> tokens, const Snapshot& snapshot,
              std::optional<CacheScope> owner = {});

  // Starts reading the longest prefix that disk has and memory has not; null when there is none (go on with find()).
  // Ask poll() between steps; once it says true, what could be read is in memory, and find() returns it. Dropping the
  // handle gives up the read.
  std::shared_ptr<DiskRead> prefetch(CacheScope scope, std::span<const int32_t> tokens, int64_t max_tokens,
                                     std::optional<CacheScope> owner = {});
  bool poll(const std::shared_ptr<DiskRead>& read);

  // Where a prefill from `begin` to `end` should pause to take snapshots, ascending, each a multiple of 128 in
  // (begin, end]: every spacing, the end of the last whole block, and `fork` (CacheHit::common_tokens) if it lies
  // inside: a path that two prompts share and leave there.
  std::vector<int64_t> snapshot_points(int64_t begin, int64_t end, int64_t fork = 0) const;

  CacheStats stats() const;
  const PrefixCacheOptions& options() const { return options_; }

 private:
  void evicting(const PrefixTree::Node& node);
  void tell_disk(PrefixTree::Node& node, std::span<const PrefixId> ids);
  void remember_lost(const PrefixId& id, std::string_view why);

  std::shared_ptr<const CacheLayout> layout_;
  PrefixCacheOptions options_;
  DiskTier* disk_;
  PrefixHasher hasher_;
  PrefixTree tree_;
  // Snapshots that were here: why they are not. Forgotten all at once when there are many.
  std::unordered_map<PrefixId, std::string_view, Hash128Hasher> lost_;
  std::mt19937_64 canary_;
  CacheStats counts_;
};

}  // namespace nautile
