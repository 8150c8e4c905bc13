// MemoryDirectory: a Directory in memory whose steps fail as told: the n-th and all after it (a crash), a full disk, a
// read error; and which knows what would be left after a power cut.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "sys/directory.h"

namespace nautile {

// What lies on the disk; outlives the process that a MemoryDirectory stands for.
struct MemoryDisk {
  struct File {
    std::vector<std::byte> bytes;
    bool synced = false, ours = true;
    int64_t modified_s = 0;
  };
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<File>> names, durable_names;
  int64_t now_s = 1'000'000, stamp = 0;

  // What was not synced is gone: names since the last sync(), bytes of files that were never synced.
  void power_cut() {
    std::lock_guard lock(mutex);
    names = durable_names;
    for (auto& [name, file] : names) {
      if (!file->synced) file->bytes.resize(file->bytes.size() / 2);
    }
  }
};

class MemoryDirectory : public Directory {
 public:
  explicit MemoryDirectory(std::shared_ptr<MemoryDisk> disk) : disk_(std::move(disk)) {}

  // Faults. Every change to the disk is a step; a step that crashes is not done, nor is any after it.
  struct Faults {
    std::atomic<int64_t> steps = 0, crash_at = -1;  // the number of the first step that is not done
    std::atomic<int64_t> room_bytes = -1;           // less than this can still be written
    std::atomic<bool> read_error = false, short_read = false;
    bool crashed() const { return crash_at >= 0 && steps > crash_at; }
  } faults;

  const std::string& path() const override { return path_; }

  Result<std::vector<DirectoryEntry>> list() override {
    std::lock_guard lock(disk_->mutex);
    std::vector<DirectoryEntry> out;
    for (const auto& [name, file] : disk_->names)
      out.push_back({name, file->bytes.size(), file->modified_s, file->ours});
    return out;
  }
  Result<int64_t> change_stamp() override {
    std::lock_guard lock(disk_->mutex);
    return int64_t{disk_->stamp};
  }
  Result<std::vector<std::byte>> read(const std::string& name, size_t max_bytes) override {
    std::lock_guard lock(disk_->mutex);
    const auto found = disk_->names.find(name);
    if (found == disk_->names.end()) return Status(Code::kNotFound, "cannot open: no such file", name);
    if (!found->second->ours) return Status(Code::kInvalidArgument, "is not a file of this user", name);
    if (faults.read_error) return Status(Code::kIo, "cannot read: input/output error", name);
    std::vector<std::byte> bytes = found->second->bytes;
    if (bytes.size() > max_bytes) return Status(Code::kResourceExhausted, "too large", name);
    if (faults.short_read) bytes.resize(bytes.size() / 2);
    return bytes;
  }
  Status create(const std::string& name, std::span<const std::byte> bytes) override {
    std::lock_guard lock(disk_->mutex);
    if (!step()) return crashed();
    if (disk_->names.contains(name)) return {Code::kInvalidArgument, "cannot create: file exists", name};
    auto file = std::make_shared<MemoryDisk::File>();
    file->modified_s = disk_->now_s;
    disk_->names[name] = file;
    ++disk_->stamp;
    for (const size_t end : {bytes.size() / 2, bytes.size()}) {  // two writes
      if (!step()) return crashed();
      size_t room = end;
      if (faults.room_bytes >= 0) room = std::min(end, file->bytes.size() + static_cast<size_t>(faults.room_bytes));
      if (faults.room_bytes >= 0) faults.room_bytes -= static_cast<int64_t>(room - file->bytes.size());
      file->bytes.assign(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(room));
      if (room < end) return {Code::kResourceExhausted, "cannot write: no space left on device", name};
    }
    if (!step()) return crashed();
    file->synced = true;
    return {};
  }
  Status rename(const std::string& from, const std::string& to) override {
    std::lock_guard lock(disk_->mutex);
    return move(from, to);
  }
  Status rename_new(const std::string& from, const std::string& to) override {
    std::lock_guard lock(disk_->mutex);
    if (disk_->names.contains(to)) return {Code::kInvalidArgument, "cannot name: file exists", to};
    return move(from, to);
  }
  Status remove(const std::string& name) override {
    std::lock_guard lock(disk_->mutex);
    if (!step()) return crashed();
    if (disk_->names.erase(name) == 0) return {Code::kNotFound, "cannot remove: no such file", name};
    ++disk_->stamp;
    return {};
  }
  Status set_modified(const std::string& name, int64_t modified_s) override {
    std::lock_guard lock(disk_->mutex);
    if (!step()) return crashed();
    const auto found = disk_->names.find(name);
    if (found == disk_->names.end()) return {Code::kNotFound, "no such file", name};
    found->second->modified_s = modified_s;
    return {};
  }
  Status sync() override {
    std::lock_guard lock(disk_->mutex);
    if (!step()) return crashed();
    disk_->durable_names = disk_->names;
    return {};
  }

 private:
  bool step() {
    const int64_t number = faults.steps++;
    return faults.crash_at < 0 || number < faults.crash_at;
  }
  Status crashed() const { return {Code::kIo, "the machine is off", path_}; }
  Status move(const std::string& from, const std::string& to) {
    if (!step()) return crashed();
    const auto found = disk_->names.find(from);
    if (found == disk_->names.end()) return {Code::kNotFound, "cannot rename: no such file", from};
    disk_->names[to] = found->second;
    disk_->names.erase(from);
    ++disk_->stamp;
    return {};
  }

  std::shared_ptr<MemoryDisk> disk_;
  const std::string path_ = "memory";
};

}  // namespace nautile
