// DiskIndex: which files of the disk tier are there, how large they are, and which one goes first when room is needed:
// the one used longest ago to the minute, among those the deepest, a snapshot before its block, so that a path loses
// its end before its beginning.
//
// Thread-safety: none of its own.
#pragma once

#include <set>
#include <unordered_map>

#include "cache/disk_format.h"

namespace nautile {

class DiskIndex {
 public:
  struct File {
    uint64_t bytes = 0;
    int64_t used_s = 0;
  };

  const File* find(const DiskName& name) const {
    const auto found = files_.find(name);
    return found == files_.end() ? nullptr : &found->second;
  }
  void add(const DiskName& name, File file) {
    erase(name);
    files_.emplace(name, file);
    order_.insert(place(name, file));
    bytes_ += file.bytes;
  }
  void erase(const DiskName& name) {
    const auto found = files_.find(name);
    if (found == files_.end()) return;
    bytes_ -= found->second.bytes;
    order_.erase(place(name, found->second));
    files_.erase(found);
  }
  // Precondition: size() > 0.
  const DiskName& first_to_go() const { return order_.begin()->name; }

  uint64_t bytes() const { return bytes_; }
  size_t size() const { return files_.size(); }

 private:
  struct Place {
    int64_t minute, height;  // height: minus the depth
    bool is_block;
    DiskName name;
    auto operator<=>(const Place&) const = default;
  };
  static Place place(const DiskName& name, const File& file) {
    return {file.used_s / 60, -name.blocks, name.kind == DiskKind::kBlock, name};
  }
  struct Hasher {
    size_t operator()(const DiskName& name) const {
      return static_cast<size_t>(name.id.low) + static_cast<size_t>(name.kind);
    }
  };
  std::unordered_map<DiskName, File, Hasher> files_;
  std::set<Place> order_;
  uint64_t bytes_ = 0;
};

}  // namespace nautile
