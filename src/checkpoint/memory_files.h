// MemoryFiles: a FileSystem in memory for tests, whose files can be cut, patched and removed.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <map>
#include <string>

#include "sys/file.h"

namespace nautile {

class MemoryFiles : public FileSystem {
 public:
  std::map<std::string, std::string> contents;  // by path

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
    // MappedFile unmaps what it holds, so the copy must be a mapping too.
    void* data = ::mmap(nullptr, bytes.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return Status(Code::kResourceExhausted, "no memory", path);
    std::memcpy(data, bytes.data(), bytes.size());
    return MappedFile(static_cast<const std::byte*>(data), bytes.size());
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
};

}  // namespace nautile
