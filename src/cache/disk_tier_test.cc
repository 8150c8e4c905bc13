// The prefix cache with its disk tier: after eviction, after a restart, beside a second process, with a full queue, and
// with files that turn out to be broken.
#include "cache/disk_tier.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>

#include "cache/cache_for_test.h"
#include "cache/prefix_cache.h"
#include "sys/directory_for_test.h"

using namespace nautile;

namespace {

using Tokens = std::vector<int32_t>;
constexpr CacheScope kScope{1, 2};

Tokens first(const Tokens& tokens, int64_t count) {
  return {tokens.begin(), tokens.begin() + count};
}

// A process: a tier on the disk and a cache over it.
struct Process {
  explicit Process(std::shared_ptr<MemoryDisk> disk, uint64_t ram = 10 << 20, DiskOptions options = {}) {
    auto made = std::make_unique<MemoryDirectory>(disk);
    directory = made.get();
    if (options.budget_bytes == 0) options.budget_bytes = 1 << 30;
    options.now_s = [disk] { return disk->now_s; };
    options.refresh_s = 1;
    options.warn = [this](const std::string& line) {
      std::lock_guard lock(mutex);
      warnings.push_back(line);
    };
    tier = std::move(DiskTier::open(std::move(made), layout, options)).value();
    cache = std::make_unique<PrefixCache>(layout, PrefixCacheOptions{.budget_bytes = ram}, tier.get());
  }
  void insert(const Tokens& tokens) { cache->insert(kScope, tokens, snapshot_of(*layout, tokens)); }
  CacheHit find(const Tokens& tokens) {
    if (const auto read = cache->prefetch(kScope, tokens, static_cast<int64_t>(tokens.size()))) {
      while (!cache->poll(read)) std::this_thread::yield();
    }
    const CacheHit hit = cache->find(kScope, tokens, static_cast<int64_t>(tokens.size()));
    if (hit.tokens > 0) CHECK(same(hit.snapshot, snapshot_of(*layout, first(tokens, hit.tokens))));
    return hit;
  }

  std::shared_ptr<const CacheLayout> layout = small_layout();
  MemoryDirectory* directory = nullptr;
  std::mutex mutex;
  std::vector<std::string> warnings;
  std::unique_ptr<DiskTier> tier;
  std::unique_ptr<PrefixCache> cache;
};

void flip(MemoryDisk& disk, const DiskName& name) {
  std::lock_guard lock(disk.mutex);
  disk.names.at(name.text())->bytes[700] ^= std::byte{1};
}

}  // namespace

TEST_CASE("what memory evicted comes back from disk, and only what memory lacks is read") {
  auto disk = std::make_shared<MemoryDisk>();
  Process process(disk, 60'000);
  std::mt19937_64 random(1);
  const Tokens tokens = random_tokens(random, 1024);
  process.insert(first(tokens, 512));
  process.insert(tokens);
  for (int i = 0; i < 20; ++i) process.insert(random_tokens(random, 640));
  process.tier->drain();
  CHECK(process.cache->find(kScope, tokens, 1024).tokens == 0);
  CHECK(process.cache->find(kScope, tokens, 1024).reason == "snapshot evicted");
  CacheHit hit = process.find(tokens);
  CHECK(hit.tokens == 1024);
  CHECK(hit.source == CacheHit::Source::kDisk);
  hit = process.find(tokens);
  CHECK(hit.source == CacheHit::Source::kRam);
  CHECK(process.cache->stats().disk_hits == 1);
  CHECK(process.cache->stats().bytes <= 60'000);
  CHECK(process.cache->prefetch(kScope, tokens, 1024) == nullptr);  // nothing that memory has not
  CHECK(process.warnings.empty());

  Process next(disk);
  next.insert(first(tokens, 512));
  const uint64_t before = next.tier->stats().read_bytes;
  CHECK(next.find(tokens).tokens == 1024);
  CHECK(next.tier->stats().read_bytes - before ==
        4 * (kDiskHeaderBytes + next.layout->block_bytes() + kDiskChecksumBytes) + kDiskHeaderBytes +
            SequenceState::snapshot_bytes(*next.layout, 1024, 0) + kDiskChecksumBytes);
}

TEST_CASE("after a restart every snapshot is there, in its scope alone, and the draft length with it") {
  auto disk = std::make_shared<MemoryDisk>();
  std::mt19937_64 random(2);
  const Tokens trunk = random_tokens(random, 512);
  std::vector<Tokens> all;
  {
    Process process(disk);
    for (int i = 0; i < 20; ++i) {
      Tokens tokens = first(trunk, static_cast<int64_t>(random() % 5) * 128);
      const Tokens more = random_tokens(random, 128 * (1 + random() % 4));
      tokens.insert(tokens.end(), more.begin(), more.end());
      process.insert(tokens);
      all.push_back(tokens);
    }
    process.cache->insert({7, 7}, trunk, snapshot_of(*process.layout, trunk, 511));
  }
  Process process(disk);
  for (const Tokens& tokens : all) {
    const CacheHit hit = process.find(tokens);
    CHECK(hit.tokens == static_cast<int64_t>(tokens.size()));
    CHECK(hit.reason.empty());
  }
  const auto read = process.cache->prefetch({7, 7}, trunk, 512);
  REQUIRE(read != nullptr);
  while (!process.cache->poll(read)) std::this_thread::yield();
  CHECK(process.cache->find({7, 7}, trunk, 512).snapshot.draft_length == 511);
  CHECK(process.cache->prefetch({7, 8}, trunk, 512) == nullptr);
  CHECK(process.warnings.empty());
}

TEST_CASE("a broken block or snapshot file costs what lies behind it, and the hit says so") {
  auto disk = std::make_shared<MemoryDisk>();
  std::mt19937_64 random(3);
  const Tokens tokens = random_tokens(random, 1024);
  PrefixHasher hasher(random_prefix_key(), {});
  {
    Process process(disk);
    for (const int64_t end : {256, 512, 1024}) process.insert(first(tokens, end));
    hasher = process.tier->hasher();
  }
  const auto ids = hasher.chain(kScope, tokens);
  flip(*disk, {ids[7], DiskKind::kSnapshot, 8});
  {
    Process process(disk);
    const CacheHit hit = process.find(tokens);
    CHECK(hit.tokens == 512);
    CHECK(hit.reason == "disk file torn or damaged");
    CHECK(process.warnings.size() == 1);
  }
  flip(*disk, {ids[2], DiskKind::kBlock, 3});
  {
    Process process(disk);
    const CacheHit hit = process.find(tokens);
    CHECK(hit.tokens == 256);
    CHECK(hit.reason == "disk file torn or damaged");
    // Computed once more, it is written once more.
    process.insert(tokens);
  }
  Process process(disk);
  CHECK(process.find(tokens).tokens == 1024);
}

TEST_CASE("a second process finds what the first one writes while both run") {
  auto disk = std::make_shared<MemoryDisk>();
  std::mt19937_64 random(4);
  const Tokens tokens = random_tokens(random, 384);
  Process a(disk), b(disk);
  CHECK(b.find(tokens).tokens == 0);
  a.insert(tokens);
  a.tier->drain();
  {
    std::lock_guard lock(disk->mutex);
    disk->now_s += 2;
  }
  b.insert(random_tokens(random, 128));  // wakes its thread, which looks around
  b.tier->drain();
  CHECK(b.find(tokens).tokens == 384);
  CHECK(b.find(tokens).source == CacheHit::Source::kRam);
}

TEST_CASE("a full queue drops and counts, and an evicted snapshot is offered again") {
  auto disk = std::make_shared<MemoryDisk>();
  DiskOptions options;
  options.queue_bytes = 20'000;
  Process process(disk, 10 << 20, options);
  std::mt19937_64 random(5);
  const Tokens longer = random_tokens(random, 2560);
  process.insert(longer);
  CHECK(process.tier->stats().dropped == 1);
  CHECK(process.tier->stats().queued_bytes <= 20'000);
  while (process.tier->stats().dropped < 10 &&
         !process.tier->has_snapshot(process.tier->hasher().chain(kScope, longer).back(), 2560)) {
    process.tier->drain();
    process.insert(longer);  // goes on where the last one stopped
  }
  CHECK(process.tier->stats().dropped < 10);
  for (int i = 0; i < 200; ++i) {
    process.insert(random_tokens(random, 128));
    CHECK(process.tier->stats().queued_bytes <= 20'000);
  }
  process.tier->drain();
  CHECK(process.tier->stats().queued_bytes == 0);
  CHECK(process.tier->stats().queued_files == 0);

  // Off while the cache fills, on when it evicts.
  disk = std::make_shared<MemoryDisk>();
  Process evicting(disk, 30'000);
  evicting.directory->faults.room_bytes = 0;
  const Tokens tokens = random_tokens(random, 256);
  evicting.insert(tokens);
  evicting.tier->drain();
  CHECK(evicting.warnings.size() == 1);
  CHECK(evicting.tier->stats().files == 0);
  evicting.directory->faults.room_bytes = -1;
  {
    std::lock_guard lock(disk->mutex);
    disk->now_s += 100;
  }
  for (int i = 0; i < 20; ++i) evicting.insert(random_tokens(random, 256));
  evicting.tier->drain();
  CHECK(evicting.cache->find(kScope, tokens, 256).tokens == 0);
  CHECK(evicting.find(tokens).tokens == 256);
}

TEST_CASE("many reads and writes at once agree with what was inserted") {
  auto disk = std::make_shared<MemoryDisk>();
  DiskOptions options;
  options.budget_bytes = 600'000;
  std::mt19937_64 random(6);
  const Tokens trunk = random_tokens(random, 1280);
  Process process(disk, 80'000, options);
  std::vector<std::pair<Tokens, std::shared_ptr<DiskRead>>> reads;
  std::vector<Tokens> all;
  for (int i = 0; i < 1500; ++i) {
    Tokens tokens = all.empty() || random() % 2 == 0 ? first(trunk, static_cast<int64_t>(random() % 11) * 128)
                                                     : all[random() % all.size()];
    if (random() % 2 == 0 || tokens.empty()) {
      const Tokens more = random_tokens(random, 128 * (1 + random() % 3));
      tokens.insert(tokens.end(), more.begin(), more.end());
      process.insert(tokens);
      all.push_back(tokens);
    } else if (auto read = process.cache->prefetch(kScope, tokens, static_cast<int64_t>(tokens.size()))) {
      reads.emplace_back(tokens, read);
    }
    std::erase_if(reads, [&](const auto& pending) {
      if (random() % 50 == 0) return true;  // gives it up
      if (!process.cache->poll(pending.second)) return false;
      const auto& tokens = pending.first;
      const CacheHit hit = process.cache->find(kScope, tokens, static_cast<int64_t>(tokens.size()));
      if (hit.tokens > 0) CHECK(same(hit.snapshot, snapshot_of(*process.layout, first(tokens, hit.tokens))));
      return true;
    });
    CHECK(process.cache->stats().bytes <= 80'000);
    CHECK(process.tier->stats().bytes <= 600'000);
  }
  CHECK(process.cache->stats().disk_hits > 0);
  CHECK(process.tier->stats().removed > 0);
  CHECK(process.warnings.empty());
}

TEST_CASE("on the real file system") {
  char name[] = "/tmp/nautile_cache_XXXXXX";
  const std::string path = mkdtemp(name);
  const auto layout = small_layout();
  std::mt19937_64 random(7);
  const Tokens tokens = random_tokens(random, 640);
  DiskOptions options;
  options.budget_bytes = 1 << 20;
  for (int restart = 0; restart < 2; ++restart) {
    auto tier = std::move(DiskTier::open(path, layout, options)).value();
    PrefixCache cache(layout, {.budget_bytes = 1 << 20}, tier.get());
    const auto read = cache.prefetch(kScope, tokens, 640);
    CHECK((read == nullptr) == (restart == 0));
    while (!cache.poll(read)) std::this_thread::yield();
    const CacheHit hit = cache.find(kScope, tokens, 640);
    CHECK(hit.tokens == restart * 640);
    if (restart == 1) CHECK(same(hit.snapshot, snapshot_of(*layout, tokens)));
    cache.insert(kScope, tokens, snapshot_of(*layout, tokens));
  }
  std::filesystem::remove_all(path);
}
