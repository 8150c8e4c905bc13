// DiskTier: a DiskStore behind its own thread. Writes wait in a queue of bounded bytes and are dropped, and counted,
// when it is full; reads go before writes. No call waits for the disk.
//
// Thread-safety: the calls below from one thread, the engine's.
#pragma once

#include <condition_variable>
#include <deque>
#include <thread>
#include <variant>

#include "cache/disk_store.h"

namespace nautile {

// A read under way. Filled by the disk's thread, valid once `done`.
struct DiskRead {
  std::atomic<bool> done = false;
  // The longest snapshot that could be read, with all its blocks; length 0 when none could.
  Snapshot snapshot;
  // Why it is shorter than what was there, a constant text; else empty. `lost` names the prefix that could not be read.
  std::string_view failure;
  PrefixId lost;

  // What was asked: whole blocks, and where snapshots are, longest first.
  CacheScope scope;
  CacheScope owner;  // whose share of the memory it counts to
  std::vector<PrefixId> ids;
  std::vector<int32_t> tokens;
  std::vector<int64_t> lengths;
};

class DiskTier {
 public:
  static Result<std::unique_ptr<DiskTier>> open(std::unique_ptr<Directory> directory,
                                                std::shared_ptr<const CacheLayout> layout, DiskOptions options);
  // Opens or makes the private directory. Errors of open_private_directory() and DiskStore::open().
  static Result<std::unique_ptr<DiskTier>> open(const std::string& directory, std::shared_ptr<const CacheLayout> layout,
                                                DiskOptions options);
  // Writes what is queued.
  ~DiskTier();

  const PrefixHasher& hasher() const { return store_->hasher(); }

  // Whether the snapshot is there, or will be.
  bool has_snapshot(const PrefixId& id, int64_t length) const;
  // Queues those of its blocks that are not there, then the snapshot. False when the queue has not room for all: the
  // first blocks wait there, so that a later call for the same path or a longer one has less to do.
  bool write(CacheScope scope, std::span<const PrefixId> ids, std::span<const int32_t> tokens,
             const Snapshot& snapshot);
  // Starts reading the longest snapshot of a prefix of `ids`, longer than `least` and at most `most` tokens, that is on
  // disk. `known` are its first blocks, which need no reading. Null when there is none.
  std::shared_ptr<DiskRead> read(CacheScope scope, std::span<const PrefixId> ids, std::span<const int32_t> tokens,
                                 std::span<const std::shared_ptr<const CacheBlock>> known, int64_t least, int64_t most);
  // The path is in use: its files should be among the last to go.
  void use(std::span<const PrefixId> path);

  // Waits until everything queued is done. For tests and orderly ends.
  void drain();

  struct Stats : DiskStore::Stats {
    uint64_t queued_bytes = 0, queued_files = 0;  // now
    uint64_t dropped = 0;                         // snapshots that the queue had no room for
  };
  Stats stats() const;

 private:
  struct WriteJob {
    DiskHeader header;
    std::shared_ptr<const std::vector<std::byte>> body;
  };
  static DiskName name_of(const WriteJob& job) {
    return {job.header.id, job.header.kind, job.header.length / kBlockTokens};
  }
  static uint64_t bytes_of(const WriteJob& job) { return sizeof job + job.body->size(); }
  struct UseJob {  // after the files of a path have been written: its age, and the directory's names to stable storage
    std::vector<PrefixId> path;
    bool written = false;
  };
  explicit DiskTier(std::unique_ptr<DiskStore> store);
  void run();
  void do_read(DiskRead& read);
  bool queued_or_there(const DiskName& name) const;
  void mark_used(std::span<const PrefixId> path, bool written);

  std::unique_ptr<DiskStore> store_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable work_, idle_;
  std::deque<std::weak_ptr<DiskRead>> reads_;
  std::deque<std::variant<WriteJob, UseJob>> writes_;
  std::set<DiskName> queued_;
  uint64_t queued_bytes_ = 0, dropped_ = 0;
  bool busy_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace nautile
