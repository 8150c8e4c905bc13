// The prefix cache in memory: against a plain map under random use, its bytes, its reasons, its namespaces, its canary.
#include "cache/prefix_cache.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>

#include "cache/cache_for_test.h"

using namespace nautile;

namespace {

using Tokens = std::vector<int32_t>;
constexpr CacheScope kScope{1, 2}, kOther{1, 3};

Tokens first(const Tokens& tokens, int64_t count) {
  return {tokens.begin(), tokens.begin() + count};
}

}  // namespace

TEST_CASE("a hit starts from the nearest snapshot and says why not from a later one") {
  const auto layout = small_layout();
  PrefixCache cache(layout, {.budget_bytes = 10 << 20});
  std::mt19937_64 random(1);
  const Tokens tokens = random_tokens(random, 1000);
  CHECK(cache.find(kScope, tokens, 999).reason == "no common prefix");
  const Snapshot at_256 = snapshot_of(*layout, first(tokens, 256)), at_768 = snapshot_of(*layout, first(tokens, 768));
  cache.insert(kScope, first(tokens, 256), at_256);
  cache.insert(kScope, first(tokens, 768), at_768);

  CacheHit hit = cache.find(kScope, tokens, 999);
  CHECK(hit.tokens == 768);
  CHECK(hit.common_tokens == 768);
  CHECK(hit.reason == "the rest is new");
  CHECK(hit.source == CacheHit::Source::kRam);
  CHECK(same(hit.snapshot, at_768));

  hit = cache.find(kScope, tokens, 767);
  CHECK(hit.tokens == 256);
  CHECK(hit.common_tokens == 768);
  CHECK(hit.reason == "no snapshot nearer");
  CHECK(same(hit.snapshot, at_256));

  Tokens leaves = first(tokens, 700);
  leaves[600] += 1;
  hit = cache.find(kScope, leaves, 699);
  CHECK(hit.tokens == 256);
  CHECK(hit.common_tokens == 512);
  CHECK(cache.find(kScope, first(tokens, 300), 299).reason.empty());
  CHECK(cache.find(kOther, tokens, 999).tokens == 0);
  CHECK(cache.find(kScope, {}, 0).tokens == 0);

  const CacheStats stats = cache.stats();
  CHECK(stats.hits == 4);
  CHECK(stats.misses == 3);
  CHECK(stats.tokens_saved == 768 + 256 + 256 + 256);
  CHECK(stats.blocks == 6);
  CHECK(stats.snapshots == 2);
}

TEST_CASE("blocks are shared, in the tree and with what a hit hands out") {
  const auto layout = small_layout();
  PrefixCache cache(layout, {.budget_bytes = 10 << 20});
  std::mt19937_64 random(2);
  const Tokens tokens = random_tokens(random, 512);
  cache.insert(kScope, first(tokens, 256), snapshot_of(*layout, first(tokens, 256)));
  cache.insert(kScope, tokens, snapshot_of(*layout, tokens));
  const CacheHit a = cache.find(kScope, tokens, 512), b = cache.find(kScope, tokens, 511);
  REQUIRE(a.tokens == 512);
  REQUIRE(b.tokens == 256);
  CHECK(a.snapshot.blocks[1] == b.snapshot.blocks[1]);
  CHECK(cache.stats().blocks == 4);
}

TEST_CASE("a snapshot that has seen more drafts takes the place of one that has seen fewer") {
  const auto layout = small_layout();
  PrefixCache cache(layout, {.budget_bytes = 10 << 20});
  std::mt19937_64 random(3);
  const Tokens tokens = random_tokens(random, 128);
  cache.insert(kScope, tokens, snapshot_of(*layout, tokens, 0));
  cache.insert(kScope, tokens, snapshot_of(*layout, tokens, 127));
  cache.insert(kScope, tokens, snapshot_of(*layout, tokens, 5));
  CHECK(cache.find(kScope, tokens, 128).snapshot.draft_length == 127);
  CHECK(cache.stats().bytes == PrefixTree::kNodeBytes + layout->block_bytes() + PrefixTree::kSnapshotBytes +
                                   SequenceState::snapshot_bytes(*layout, 128, 127));
}

TEST_CASE("random use agrees with a map from prefix to snapshot, and never exceeds the budget") {
  const auto layout = small_layout();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::mt19937_64 random(seed);
    const uint64_t budget = (30 + random() % 200) * 1000;
    PrefixCache cache(layout, {.budget_bytes = budget});
    std::map<std::pair<uint64_t, Tokens>, Snapshot> model;  // all that was ever inserted
    std::vector<Tokens> known = {{}};
    for (int step = 0; step < 400; ++step) {
      const uint64_t scope = random() % 2;
      // Grows from a known prefix, so that there are forks at any depth.
      Tokens tokens = known[random() % known.size()];
      tokens.resize(random() % (tokens.size() + 1) / kBlockTokens * kBlockTokens);
      const Tokens more = random_tokens(random, (random() % 6) * kBlockTokens);
      tokens.insert(tokens.end(), more.begin(), more.end());
      if (random() % 2 == 0 && !tokens.empty()) {
        const Snapshot snapshot = snapshot_of(*layout, tokens);
        cache.insert({0, scope}, tokens, snapshot);
        model[{scope, tokens}] = snapshot;
        known.push_back(tokens);
      } else {
        const int64_t max = static_cast<int64_t>(random() % (tokens.size() + 1));
        const CacheHit hit = cache.find({0, scope}, tokens, max);
        CHECK(hit.tokens <= max);
        if (hit.tokens > 0) {
          const auto expected = model.find({scope, first(tokens, hit.tokens)});
          REQUIRE(expected != model.end());
          CHECK(same(hit.snapshot, expected->second));
        }
        if (cache.stats().evictions == 0 && cache.stats().rejected == 0) {  // then nothing may be missed
          int64_t longest = 0;
          for (int64_t end = kBlockTokens; end <= max; end += kBlockTokens) {
            if (model.contains({scope, first(tokens, end)})) longest = end;
          }
          CHECK(hit.tokens == longest);
        }
      }
      CHECK(cache.stats().bytes <= budget);
    }
    CHECK(cache.stats().evictions > 0);
  }
}

TEST_CASE("the bytes are those of the nodes and snapshots that are there, and nothing is left that no snapshot needs") {
  const auto layout = small_layout();
  std::mt19937_64 random(4);
  std::map<PrefixId, std::vector<PrefixId>> alive;  // each snapshot's path
  PrefixTree tree(100'000, UINT64_MAX, [&](const PrefixTree::Node& node) { alive.erase(node.id); });
  const PrefixHasher hasher(random_prefix_key(), {});
  const Tokens trunk = random_tokens(random, 1280);
  for (int i = 0; i < 300; ++i) {
    Tokens tokens = first(trunk, static_cast<int64_t>(random() % 11) * kBlockTokens);
    const Tokens more = random_tokens(random, random() % 4 * kBlockTokens);
    tokens.insert(tokens.end(), more.begin(), more.end());
    if (tokens.empty()) continue;
    const auto ids = hasher.chain(kScope, tokens);
    REQUIRE(tree.insert(kScope, kScope, ids, tokens, snapshot_of(*layout, tokens)) != nullptr);
    alive[ids.back()] = ids;
    REQUIRE(tree.snapshots() == alive.size());
    std::set<PrefixId> needed;
    for (const auto& [id, path] : alive) needed.insert(path.begin(), path.end());
    CHECK(tree.blocks() == needed.size());
    const size_t snapshot = PrefixTree::kSnapshotBytes + SequenceState::snapshot_bytes(*layout, 1000, 0);
    CHECK(tree.bytes() == tree.blocks() * (PrefixTree::kNodeBytes + layout->block_bytes()) + alive.size() * snapshot);
    CHECK(tree.bytes() <= 100'000);
  }
  CHECK(tree.evictions() > 100);
}

TEST_CASE("what saves least for its bytes goes first, what is used stays") {
  const auto layout = small_layout();
  std::mt19937_64 random(5);
  const auto bytes_of = [&](size_t blocks, size_t snapshots) {
    return blocks * (PrefixTree::kNodeBytes + layout->block_bytes()) +
           snapshots * (PrefixTree::kSnapshotBytes + SequenceState::snapshot_bytes(*layout, 1000, 0));
  };
  PrefixCache cache(layout, {.budget_bytes = bytes_of(20, 2) + 100});
  const Tokens a = random_tokens(random, 1280), b = random_tokens(random, 1280);
  cache.insert(kScope, first(a, 1152), snapshot_of(*layout, first(a, 1152)));
  cache.insert(kScope, a, snapshot_of(*layout, a));  // saves one block
  cache.insert(kScope, b, snapshot_of(*layout, b));  // saves ten
  const CacheHit hit = cache.find(kScope, a, 1280);
  CHECK(hit.tokens == 1152);
  CHECK(hit.reason == "snapshot evicted");
  CHECK(cache.find(kScope, b, 1280).tokens == 1280);

  // A thousand passers-by do not displace a prefix that is used again and again.
  for (int i = 0; i < 1000; ++i) {
    const Tokens c = random_tokens(random, 640);
    cache.insert(kScope, c, snapshot_of(*layout, c));
    REQUIRE(cache.find(kScope, b, 1280).tokens == 1280);
  }
  CHECK(cache.find(kScope, a, 1280).tokens == 0);
  // More than the whole budget is not taken and costs nothing.
  const uint64_t evictions = cache.stats().evictions;
  const Tokens huge = random_tokens(random, 128 * 40);
  cache.insert(kScope, huge, snapshot_of(*layout, huge));
  CHECK(cache.stats().rejected == 1);
  CHECK(cache.stats().evictions == evictions);
}

TEST_CASE("a scope that floods its share evicts its own and nobody else's") {
  const auto layout = small_layout();
  std::mt19937_64 random(8);
  PrefixCache cache(layout, {.budget_bytes = 300'000, .owner_budget_bytes = 100'000});
  const Tokens mine = random_tokens(random, 640);
  cache.insert(kScope, mine, snapshot_of(*layout, mine));
  for (int i = 0; i < 500; ++i) {
    const Tokens flood = random_tokens(random, 640);
    cache.insert(kOther, flood, snapshot_of(*layout, flood));
    for (int use = 0; use < 3; ++use) CHECK(cache.find(kOther, flood, 640).tokens == 640);
    CHECK(cache.stats().bytes <= 130'000);
  }
  CHECK(cache.find(kScope, mine, 640).tokens == 640);
  const Tokens huge = random_tokens(random, 128 * 60);
  cache.insert(kScope, huge, snapshot_of(*layout, huge));
  CHECK(cache.stats().rejected == 1);
}

TEST_CASE("an owner of many scopes has one share, and no other owner's prefix goes for it") {
  const auto layout = small_layout();
  std::mt19937_64 random(9);
  PrefixCache cache(layout, {.budget_bytes = 300'000, .owner_budget_bytes = 100'000});
  const CacheScope me{1, 1}, flooder{2, 2};
  const Tokens mine = random_tokens(random, 640);
  cache.insert(kScope, mine, snapshot_of(*layout, mine), me);
  for (uint64_t i = 0; i < 300; ++i) {
    const CacheScope scope{77, i};
    const Tokens flood = random_tokens(random, 640);
    cache.insert(scope, flood, snapshot_of(*layout, flood), flooder);
    for (int use = 0; use < 3; ++use) CHECK(cache.find(scope, flood, 640).tokens == 640);
    CHECK(cache.stats().bytes <= 130'000);
    CHECK(cache.find({78, i}, flood, 640).tokens == 0);
  }
  CHECK(cache.find(kScope, mine, 640).tokens == 640);
  // A path has one owner: the second does not end up with blocks that only the first may evict.
  Tokens longer = mine;
  const Tokens rest = random_tokens(random, 128 * 4);
  longer.insert(longer.end(), rest.begin(), rest.end());
  cache.insert(kScope, longer, snapshot_of(*layout, longer), flooder);
  for (int i = 0; i < 50; ++i) {
    const Tokens flood = random_tokens(random, 1280);
    cache.insert(kOther, flood, snapshot_of(*layout, flood), flooder);
  }
  CHECK(cache.find(kScope, longer, 128 * 9).tokens == 128 * 9);
}

TEST_CASE("snapshots are planned at the spacing, at the last block and where prompts leave each other") {
  PrefixCache cache(small_layout(), {.budget_bytes = 1000, .snapshot_spacing = 512});
  using Points = std::vector<int64_t>;
  CHECK(cache.snapshot_points(0, 1300) == Points{512, 1024, 1280});
  CHECK(cache.snapshot_points(512, 1100) == Points{1024});
  CHECK(cache.snapshot_points(0, 1300, 384) == Points{384, 512, 1024, 1280});
  CHECK(cache.snapshot_points(384, 1300, 384) == Points{512, 1024, 1280});
  CHECK(cache.snapshot_points(0, 127).empty());
  CHECK(cache.snapshot_points(128, 200).empty());
  CHECK(cache.snapshot_points(100, 128) == Points{128});
}

TEST_CASE("the canary marks its share of hits, the same ones for the same seed") {
  const auto layout = small_layout();
  std::mt19937_64 random(6);
  const Tokens tokens = random_tokens(random, 128);
  const auto marks = [&](double share) {
    PrefixCache cache(layout, {.budget_bytes = 1 << 20, .canary_share = share, .canary_seed = 7});
    cache.insert(kScope, tokens, snapshot_of(*layout, tokens));
    std::vector<bool> out;
    for (int i = 0; i < 1000; ++i) out.push_back(cache.find(kScope, tokens, 128).verify);
    return out;
  };
  CHECK(std::ranges::count(marks(0), true) == 0);
  CHECK(std::ranges::count(marks(1), true) == 1000);
  const auto some = marks(0.1);
  CHECK(std::ranges::count(some, true) > 60);
  CHECK(std::ranges::count(some, true) < 140);
  CHECK(some == marks(0.1));
}
