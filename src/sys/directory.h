// Directory: one private directory that Nautile fills itself, as primitive steps, each of which tests can make fail
// (directory_for_test.h). Names are plain file names; nothing outside the directory can be reached, links are not
// followed.
//
// Errors name the path: kNotFound, kInvalidArgument (the name is taken, or is a link), kResourceExhausted (the disk or the
// quota is full), else kIo.
// Thread-safety: a Directory may be used from several threads, and several processes may open the same one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace nautile {

struct DirectoryEntry {
  std::string name;
  uint64_t bytes = 0;
  int64_t modified_s = 0;  // since 1970
  bool ours = false;       // a regular file of this user
};

class Directory {
 public:
  virtual ~Directory() = default;
  virtual const std::string& path() const = 0;  // for messages
  // Sorted by name.
  virtual Result<std::vector<DirectoryEntry>> list() = 0;
  // A number that changes when a name appears or goes.
  virtual Result<int64_t> change_stamp() = 0;
  // The whole file. kNotFound; kInvalidArgument when it is not `ours`; kResourceExhausted when it is larger.
  virtual Result<std::vector<std::byte>> read(const std::string& name, size_t max_bytes) = 0;
  // A new file with these bytes, on stable storage. What is there after a failure is for the caller to remove.
  virtual Status create(const std::string& name, std::span<const std::byte> bytes) = 0;
  // One step for whoever looks; replaces `to`.
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  // As rename, but kInvalidArgument and no change when there is a `to`.
  virtual Status rename_new(const std::string& from, const std::string& to) = 0;
  virtual Status remove(const std::string& name) = 0;
  virtual Status set_modified(const std::string& name, int64_t modified_s) = 0;
  // Puts names (creations, renames, removals) on stable storage.
  virtual Status sync() = 0;
};

// Opens the directory for this user alone, making it (0700) and its parents if need be. kInvalidArgument when it
// belongs to someone else or others may enter it.
Result<std::unique_ptr<Directory>> open_private_directory(const std::string& path);

}  // namespace nautile
