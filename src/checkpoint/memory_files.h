// MemoryFiles: a FileSystem in memory for tests, whose files can be cut, patched and removed, and whose disk can be full
// or broken.
//
// Thread-safety: none, but for FileWriter::write().
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "sys/file.h"

namespace nautile {

class MemoryFiles : public FileSystem {
 public:
  std::map<std::string, std::string> contents;  // by path
  std::map<std::string, int64_t> modified_ns;   // by path; 0 where there is none
  // Faults of create(): bytes that the disk has left; which write (counted from 0) and whether the end fails.
  uint64_t room_bytes = UINT64_MAX;
  int64_t failing_write = -1;
  bool failing_finish = false;
  bool reserves = true;  // false: a full disk shows at the write that does not fit

  Result<std::string> read(const std::string& path, size_t max_bytes) override {
    auto found = contents.find(path);
    if (found == contents.end()) return Status(Code::kNotFound, "no such file", path);
    if (found->second.size() > max_bytes) return Status(Code::kResourceExhausted, "too large", path);
    return found->second;
  }
  Result<MappedFile> map(const std::string& path) override {
    auto found = contents.find(path);
    if (found == contents.end()) return Status(Code::kNotFound, "no such file", path);
    const std::string& bytes = found->second;
    if (bytes.empty()) return MappedFile();
    // A file without a name: like the pages of any file, those given back (release_pages) can be read again.
    const int fd = ::memfd_create("memory_files", MFD_CLOEXEC);
    const bool filled = fd >= 0 && ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
    void* data = filled ? ::mmap(nullptr, bytes.size(), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (fd >= 0) ::close(fd);
    if (data == MAP_FAILED) return Status(Code::kResourceExhausted, "no memory", path);
    return MappedFile(static_cast<const std::byte*>(data), bytes.size(), modified_ns[path]);
  }
  Result<std::vector<std::string>> list(const std::string& directory) override {
    std::vector<std::string> names;
    const std::string prefix = join_path(directory, "");
    for (const auto& [path, bytes] : contents) {
      if (path.starts_with(prefix)) names.push_back(path.substr(prefix.size()));
    }
    return names;
  }
  bool exists(const std::string& path) override { return contents.contains(path); }
  Status write(const std::string& path, std::string_view bytes) override {
    contents[path] = bytes;
    return {};
  }
  Result<std::unique_ptr<FileWriter>> create(const std::string& path, uint64_t bytes) override {
    if (reserves && bytes > room_bytes) return Status(Code::kResourceExhausted, "the disk is full", path);
    return std::unique_ptr<FileWriter>(std::make_unique<Writer>(*this, path, bytes));
  }

 private:
  class Writer : public FileWriter {
   public:
    Writer(MemoryFiles& files, const std::string& path, uint64_t bytes) : files_(files), path_(path) {
      files_.contents[path_ + ".partial"].assign(static_cast<size_t>(bytes), '\0');
    }
    ~Writer() override { files_.contents.erase(path_ + ".partial"); }
    Status write(uint64_t offset, std::span<const std::byte> bytes) override {
      const std::lock_guard lock(mutex_);
      if (files_.failing_write == number_++) return {Code::kIo, "cannot write: input/output error", path_};
      written_ += bytes.size();
      if (written_ > files_.room_bytes) return {Code::kResourceExhausted, "cannot write: no space left on device", path_};
      std::memcpy(files_.contents[path_ + ".partial"].data() + offset, bytes.data(), bytes.size());
      return {};
    }
    Status finish() override {
      if (files_.failing_finish) return {Code::kIo, "cannot sync: input/output error", path_};
      files_.contents[path_] = files_.contents[path_ + ".partial"];
      return {};
    }

   private:
    MemoryFiles& files_;
    std::string path_;
    std::mutex mutex_;
    int64_t number_ = 0;
    uint64_t written_ = 0;
  };
};

}  // namespace nautile
