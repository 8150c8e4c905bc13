// DiskStore: the disk tier's files in one directory, without threads: writes them whole or not at all, reads back only
// what is right, keeps the directory's bytes within the budget, and sees what other processes add and remove.
//
// A broken file of ours is removed with a warning; one of another user, model or kind is left alone with a warning.
// When writing fails (a full disk, say) it warns once and does not try again for a while; reading goes on. Several
// processes may use one directory: files never change, appear by a rename, and hold the same bytes whoever wrote them.
// Models may share a directory too: their ids differ, the budget and the order of use are common. Thread-safety: has()
// from any thread; everything else from one.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_set>

#include "cache/disk_index.h"
#include "cache/sequence_state.h"
#include "sys/directory.h"

namespace nautile {

struct DiskOptions {
  uint64_t budget_bytes = 0;         // of the directory
  uint64_t queue_bytes = 256 << 20;  // held in memory until written, at most; more is dropped
  Hash128 model;  // of what the rows depend on: config, tensor table, numerics. Layout and format are mixed in here.
  std::function<void(const std::string&)> warn;  // one line each, from the disk's thread; may be empty
  std::function<int64_t()> now_s;                // seconds since 1970; empty: the system's clock
  int64_t retry_s = 30;                          // after a failed write
  int64_t refresh_s = 5;                         // between looks for other processes' files
};

class DiskStore {
 public:
  // Finds the directory's key, or makes one, and lists what is there. Errors are the directory's.
  static Result<std::unique_ptr<DiskStore>> open(std::unique_ptr<Directory> directory,
                                                 std::shared_ptr<const CacheLayout> layout, DiskOptions options);

  const PrefixHasher& hasher() const { return hasher_; }
  const DiskOptions& options() const { return options_; }

  bool has(const DiskName& name) const;

  // Writes the file if it is not there. kResourceExhausted when it is larger than the budget, or while writing is off;
  // else the directory's errors.
  Status write(const DiskHeader& header, std::span<const std::byte> body);
  // Puts the names of what was written on stable storage.
  Status sync();
  // The body of a file that says what `expected` says; fills in draft_length. Errors of decode_disk_file(), or the
  // directory's: kNotFound when another process removed it.
  Result<std::vector<std::byte>> read(DiskHeader& expected);
  // Marks the blocks of a path, and the snapshot at its end, as used now.
  void use(std::span<const PrefixId> path);
  // Looks at the directory again if refresh_s have passed and it changed.
  void refresh();

  struct Stats {
    uint64_t bytes = 0, files = 0;                        // in the directory now
    uint64_t written_bytes = 0, read_bytes = 0;           // since the start
    uint64_t failed_writes = 0, broken = 0, removed = 0;  // removed: for room
  };
  Stats stats() const;

 private:
  DiskStore(std::unique_ptr<Directory> directory, std::shared_ptr<const CacheLayout> layout, DiskOptions options,
            const PrefixKey& key);
  void list();
  void warn(const std::string& text) const;
  bool make_room(uint64_t bytes);
  void forget(const DiskName& name);
  void stop_writing(const Status& why);

  std::unique_ptr<Directory> directory_;
  std::shared_ptr<const CacheLayout> layout_;
  DiskOptions options_;
  PrefixHasher hasher_;

  mutable std::mutex mutex_;  // guards what other threads look at; only the disk's thread changes it
  DiskIndex index_;
  Stats stats_;

  uint64_t partial_bytes_ = 0;               // unfinished files, of other processes or from a crash
  std::unordered_set<std::string> ignored_;  // names warned of, and left alone
  int64_t writing_off_until_s_ = 0;
  bool writing_failed_ = false;
  int64_t listed_s_ = 0, stamp_ = 0;
  std::string process_tag_;  // makes names of unfinished files unlike other processes'
  uint64_t serial_ = 0;
};

}  // namespace nautile
