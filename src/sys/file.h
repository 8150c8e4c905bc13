// Files: read whole, map read-only, write atomically, in one go or in pieces. What Nautile reads and writes goes through
// here, so that tests can break it (MemoryFiles, checkpoint/memory_files.h).
//
// Errors name the path: kNotFound, kInvalidArgument (no regular file), kResourceExhausted (the disk or the quota is full),
// else kIo.
// Thread-safety: a FileSystem may be used from several threads; a MappedFile is read-only and may be shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace nautile {

// A file's bytes in memory, read-only, for as long as the object lives.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(const std::byte* data, size_t bytes, int64_t modified_ns = 0)
      : data_(data), bytes_(bytes), modified_ns_(modified_ns) {}
  MappedFile(MappedFile&& other) noexcept { swap(other); }
  MappedFile& operator=(MappedFile&& other) noexcept {
    swap(other);
    return *this;
  }
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, bytes_}; }
  int64_t modified_ns() const { return modified_ns_; }  // when the file was last written, since 1970

 private:
  void swap(MappedFile& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(modified_ns_, other.modified_ns_);
  }
  const std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  int64_t modified_ns_ = 0;
};

// A new file that gets its name only when all of it is written. Until then it is PATH.partial, which one writer at a
// time holds; destroyed unfinished, it goes. What a killed process leaves of it is taken over by the next writer.
class FileWriter {
 public:
  virtual ~FileWriter() = default;
  // From several threads, into ranges that do not overlap.
  virtual Status write(uint64_t offset, std::span<const std::byte> bytes) = 0;
  // Puts the bytes on stable storage and then the file in its place, where it replaces what was there.
  virtual Status finish() = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // The whole file as text; kResourceExhausted when it is larger than max_bytes.
  virtual Result<std::string> read(const std::string& path, size_t max_bytes) = 0;
  // An empty file has no bytes and no time. One that others cut while it is mapped ends the process where it is read.
  virtual Result<MappedFile> map(const std::string& path) = 0;
  // Names in the directory, sorted, without "." and "..".
  virtual Result<std::vector<std::string>> list(const std::string& directory) = 0;
  virtual bool exists(const std::string& path) = 0;
  // Writes to a neighbour, syncs, renames: readers see the old bytes or all the new ones.
  virtual Status write(const std::string& path, std::string_view bytes) = 0;
  // A file of so many bytes, to be written in pieces. Room for all of it is taken at once: kResourceExhausted when there
  // is less. kIo when another process is writing the same file.
  virtual Result<std::unique_ptr<FileWriter>> create(const std::string& path, uint64_t bytes) = 0;
};

// The operating system's files.
std::unique_ptr<FileSystem> real_files();

// "dir/name" with exactly one slash between; no directory: the name alone.
std::string join_path(std::string_view directory, std::string_view name);

}  // namespace nautile
