// The disk tier's files under faults: a crash at every step, power cuts, a full disk, read errors, flipped bits, other
// users, other models, a second writer, and the budget.
#include "cache/disk_store.h"

#include <doctest/doctest.h>

#include "cache/cache_for_test.h"
#include "sys/directory_for_test.h"

using namespace nautile;

namespace {

using Bytes = std::vector<std::byte>;
constexpr Hash128 kModel{1, 1};

// One process that uses a disk.
struct Process {
  explicit Process(std::shared_ptr<MemoryDisk> disk, uint64_t budget = 1 << 30, int64_t crash_at = -1,
                   Hash128 model = kModel) {
    auto made = std::make_unique<MemoryDirectory>(disk);
    directory = made.get();
    made->faults.crash_at = crash_at;
    DiskOptions options;
    options.budget_bytes = budget;
    options.model = model;
    options.warn = [this](const std::string& line) { warnings.push_back(line); };
    options.now_s = [disk] { return disk->now_s; };
    auto opened = DiskStore::open(std::move(made), layout, options);
    if (opened.ok()) store = std::move(opened).value();
    status = opened.status();
  }
  // A path's blocks, its snapshot, and the names on stable storage, as the tier writes them.
  Status write(std::span<const int32_t> tokens) {
    const Snapshot snapshot = snapshot_of(*layout, tokens);
    const auto ids = store->hasher().chain({}, tokens);
    for (size_t i = 0; i < ids.size(); ++i) {
      NAUTILE_RETURN_IF_ERROR(store->write(header(DiskKind::kBlock, tokens, i), *snapshot.blocks[i]));
    }
    NAUTILE_RETURN_IF_ERROR(store->write(header(DiskKind::kSnapshot, tokens, ids.size() - 1), *snapshot.rows));
    NAUTILE_RETURN_IF_ERROR(store->sync());
    store->use(ids);
    return {};
  }
  DiskHeader header(DiskKind kind, std::span<const int32_t> tokens, size_t block) {
    DiskHeader out;
    out.kind = kind;
    out.model = store->options().model;
    out.id = store->hasher().chain({}, tokens)[block];
    out.length = static_cast<int64_t>(block + 1) * kBlockTokens;
    std::ranges::copy(tokens.subspan(block * kBlockTokens, kBlockTokens), out.tokens.begin());
    return out;
  }
  Result<Bytes> read(DiskKind kind, std::span<const int32_t> tokens, size_t block) {
    DiskHeader expected = header(kind, tokens, block);
    return store->read(expected);
  }
  // Everything of the path is there and right. A wrong byte fails the test, whatever else.
  bool whole(std::span<const int32_t> tokens) {
    const Snapshot expected = snapshot_of(*layout, tokens);
    bool all = true;
    for (size_t i = 0; i < expected.blocks.size(); ++i) {
      auto block = read(DiskKind::kBlock, tokens, i);
      if (block.ok()) REQUIRE(*block == *expected.blocks[i]);
      all = all && block.ok();
    }
    auto rows = read(DiskKind::kSnapshot, tokens, expected.blocks.size() - 1);
    if (rows.ok()) REQUIRE(*rows == *expected.rows);
    return all && rows.ok();
  }

  std::shared_ptr<const CacheLayout> layout = small_layout();
  MemoryDirectory* directory = nullptr;  // of the store
  std::vector<std::string> warnings;
  std::unique_ptr<DiskStore> store;
  Status status;
};

std::vector<int32_t> path(uint64_t seed, size_t blocks) {
  std::mt19937_64 random(seed);
  return random_tokens(random, blocks * kBlockTokens);
}

std::string name_ending(const MemoryDisk& disk, std::string_view end) {
  for (const auto& [name, file] : disk.names) {
    if (name.ends_with(end)) return name;
  }
  return {};
}

}  // namespace

TEST_CASE("what one process wrote, the next one finds") {
  auto disk = std::make_shared<MemoryDisk>();
  const auto tokens = path(1, 3);
  REQUIRE(Process(disk).write(tokens).ok());
  Process next(disk);
  CHECK(next.whole(tokens));
  CHECK_FALSE(next.whole(path(2, 3)));
  CHECK(next.warnings.empty());
  CHECK(next.store->stats().files == 4);
}

TEST_CASE("after a crash at any step, with or without power, only right data is found and the finished path is") {
  const auto before = path(1, 2), during = path(2, 3);
  int64_t steps = 0;
  for (int64_t crash_at = 0;; ++crash_at) {
    for (const bool power_cut : {false, true}) {
      auto disk = std::make_shared<MemoryDisk>();
      REQUIRE(Process(disk).write(before).ok());
      bool written = false;
      {
        Process process(disk, 1 << 30, crash_at);
        written = process.write(during).ok();
        steps = process.directory->faults.steps;
      }
      if (power_cut) disk->power_cut();
      Process next(disk);
      REQUIRE(next.status.ok());
      CHECK(next.whole(before));
      CHECK((next.whole(during) || !written));  // a part of it is not wrong
      CHECK(next.warnings.empty());
      // The place is usable: the path can be written again, and what a crash left goes after a while.
      REQUIRE(next.write(during).ok());
      CHECK(next.whole(during));
      disk->now_s += 3600;
      Process later(disk);
      CHECK(name_ending(*disk, ".partial").empty());
    }
    if (crash_at > steps) break;
  }
  CHECK(steps > 20);
}

TEST_CASE("a crash at any step of the first start leaves a directory that can be used") {
  for (int64_t crash_at = 0; crash_at < 12; ++crash_at) {
    for (const bool power_cut : {false, true}) {
      auto disk = std::make_shared<MemoryDisk>();
      { Process first(disk, 1 << 30, crash_at); }
      if (power_cut) disk->power_cut();
      Process next(disk);
      REQUIRE(next.status.ok());
      REQUIRE(next.write(path(1, 1)).ok());
      CHECK(Process(disk).whole(path(1, 1)));
    }
  }
}

TEST_CASE("a flipped bit at any byte of any file is never used, and its file is removed with one warning") {
  auto disk = std::make_shared<MemoryDisk>();
  const auto tokens = path(1, 1);
  REQUIRE(Process(disk).write(tokens).ok());
  const auto flip_everywhere = [&](const std::string& name, auto check) {
    const Bytes right = disk->names[name]->bytes;
    for (size_t i = 0; i < right.size(); ++i) {
      auto flipped = std::make_shared<MemoryDisk::File>(*disk->names[name]);
      flipped->bytes = right;
      flipped->bytes[i] ^= static_cast<std::byte>(1 << (i % 8));
      disk->names[name] = flipped;
      check();
      disk->names[name] = std::make_shared<MemoryDisk::File>(MemoryDisk::File{right, true, true, disk->now_s});
    }
  };
  for (const DiskKind kind : {DiskKind::kBlock, DiskKind::kSnapshot}) {
    const std::string name = name_ending(*disk, kind == DiskKind::kBlock ? ".block" : ".snapshot");
    Process process(disk);
    flip_everywhere(name, [&] {
      disk->now_s += 10;
      process.store->refresh();
      process.warnings.clear();
      REQUIRE(process.read(kind, tokens, 0).status().code() == Code::kCorrupt);
      REQUIRE(process.warnings.size() == 1);
      REQUIRE_FALSE(disk->names.contains(name));
      REQUIRE_FALSE(process.store->has({process.store->hasher().chain({}, tokens)[0], kind, 1}));
      ++disk->stamp;
    });
  }
  flip_everywhere("key", [&] {
    const Bytes flipped = disk->names["key"]->bytes;
    Process process(disk);
    REQUIRE(process.status.ok());
    REQUIRE(process.warnings.size() == 1);
    REQUIRE_FALSE(process.whole(tokens));
    REQUIRE(disk->names["key"]->bytes != flipped);
  });
  CHECK(Process(disk).whole(tokens));
}

TEST_CASE("on a full disk it warns once, keeps reading, leaves nothing behind, and writes again later") {
  auto disk = std::make_shared<MemoryDisk>();
  Process process(disk);
  REQUIRE(process.write(path(1, 2)).ok());
  process.directory->faults.room_bytes = 5000;
  CHECK_FALSE(process.write(path(2, 3)).ok());
  CHECK(process.warnings.size() == 1);
  CHECK(name_ending(*disk, ".partial").empty());
  const int64_t steps = process.directory->faults.steps;
  CHECK_FALSE(process.write(path(2, 3)).ok());
  CHECK(process.directory->faults.steps == steps);  // it did not even try
  CHECK(process.whole(path(1, 2)));
  disk->now_s += 31;
  CHECK_FALSE(process.write(path(2, 3)).ok());  // tries, still full
  CHECK(process.warnings.size() == 1);
  process.directory->faults.room_bytes = -1;
  disk->now_s += 31;
  CHECK(process.write(path(2, 3)).ok());
  CHECK(process.whole(path(2, 3)));
  CHECK(process.store->stats().failed_writes == 2);
}

TEST_CASE("a read error loses the read, not the file; a short read is a broken file") {
  auto disk = std::make_shared<MemoryDisk>();
  const auto tokens = path(1, 2);
  Process process(disk);
  REQUIRE(process.write(tokens).ok());
  process.directory->faults.read_error = true;
  CHECK(process.read(DiskKind::kBlock, tokens, 0).status().code() == Code::kIo);
  CHECK(process.warnings.size() == 1);
  process.directory->faults.read_error = false;
  CHECK(Process(disk).whole(tokens));
  process.directory->faults.short_read = true;
  CHECK(process.read(DiskKind::kBlock, tokens, 1).status().code() == Code::kCorrupt);
}

TEST_CASE("files of other users, other kinds and other models are left alone and never used") {
  auto disk = std::make_shared<MemoryDisk>();
  const auto tokens = path(1, 1);
  REQUIRE(Process(disk).write(tokens).ok());
  REQUIRE(Process(disk, 1 << 30, -1, {2, 2}).write(tokens).ok());
  CHECK(disk->names.size() == 5);  // a key, and two files of each model
  Process other(disk, 1 << 30, -1, {2, 2});
  // The other model's block under our name: a copy by hand.
  const std::string ours = DiskName{other.store->hasher().chain({}, tokens)[0], DiskKind::kBlock, 1}.text();
  const std::string theirs =
      DiskName{PrefixHasher(other.store->hasher()).chain({9, 9}, tokens)[0], DiskKind::kBlock, 1}.text();
  for (const auto& [name, file] : std::map(disk->names)) {
    if (name.ends_with(".block") && name != ours) disk->names[ours] = file;
  }
  CHECK(other.read(DiskKind::kBlock, tokens, 0).status().what() == "the file is of another model");
  CHECK(other.warnings.size() == 1);
  CHECK(disk->names.contains(ours));
  CHECK(theirs != ours);
  CHECK(Process(disk).whole(tokens));

  disk->names["notes.txt"] = std::make_shared<MemoryDisk::File>();
  for (auto& [name, file] : disk->names) {
    if (name.ends_with(".snapshot")) file->ours = false;
  }
  Process careful(disk);
  CHECK(careful.warnings.size() == 3);  // two snapshots and the notes
  CHECK(careful.read(DiskKind::kSnapshot, tokens, 0).status().code() == Code::kInvalidArgument);
  CHECK(disk->names.contains("notes.txt"));
  disk->names["key"]->ours = false;
  CHECK(Process(disk).status.code() == Code::kInvalidArgument);
}

TEST_CASE("two processes share a directory: one key, each finds the other's files, neither breaks them") {
  auto disk = std::make_shared<MemoryDisk>();
  Process a(disk), b(disk);
  REQUIRE(a.write(path(1, 2)).ok());
  REQUIRE(b.write(path(1, 2)).ok());  // the same files again, unknowing
  REQUIRE(b.write(path(2, 2)).ok());
  CHECK_FALSE(a.store->has({a.store->hasher().chain({}, path(2, 2))[0], DiskKind::kBlock, 1}));
  disk->now_s += 10;
  a.store->refresh();
  CHECK(a.store->has({a.store->hasher().chain({}, path(2, 2))[0], DiskKind::kBlock, 1}));
  CHECK(a.whole(path(1, 2)));
  CHECK(a.whole(path(2, 2)));
  CHECK(b.whole(path(1, 2)));
  // A file that the other one removed for room is a miss, without a word.
  disk->names.erase(DiskName{a.store->hasher().chain({}, path(2, 2))[0], DiskKind::kBlock, 1}.text());
  CHECK_FALSE(a.whole(path(2, 2)));
  CHECK(a.warnings.empty());
}

TEST_CASE("the budget holds, and the path used longest ago goes first, from its end") {
  auto disk = std::make_shared<MemoryDisk>();
  const auto layout = small_layout();
  const uint64_t block = layout->block_bytes() + kDiskHeaderBytes + kDiskChecksumBytes;
  const uint64_t snapshot = SequenceState::snapshot_bytes(*layout, 1000, 0) + kDiskHeaderBytes + kDiskChecksumBytes;
  Process process(disk, 8 * block + 2 * snapshot);
  for (const uint64_t seed : {1, 2}) {
    REQUIRE(process.write(path(seed, 4)).ok());
    disk->now_s += 100;
  }
  process.store->use(process.store->hasher().chain({}, path(1, 4)));
  disk->now_s += 100;
  REQUIRE(process.write(path(3, 2)).ok());
  CHECK(process.store->stats().bytes <= 8 * block + 2 * snapshot);
  CHECK(process.whole(path(1, 4)));
  CHECK(process.whole(path(3, 2)));
  CHECK_FALSE(process.read(DiskKind::kSnapshot, path(2, 4), 3).ok());
  CHECK(process.read(DiskKind::kBlock, path(2, 4), 0).ok());
  CHECK(process.warnings.empty());
  // The order of use outlives the process.
  Process next(disk, 4 * block + 2 * snapshot);
  disk->now_s += 100;
  REQUIRE(next.write(path(4, 1)).ok());
  CHECK(next.whole(path(4, 1)));
  CHECK(next.whole(path(3, 2)));
  CHECK_FALSE(next.whole(path(1, 4)));
  CHECK(next.store->stats().bytes <= 4 * block + 2 * snapshot);
  CHECK_FALSE(Process(disk, block).write(path(5, 1)).ok());  // a file larger than all
}
