// The replay store: the reasoning of earlier answers by tool-call id, for clients that drop it.
//
// Bounded by bytes, least recently used first, one owner never sees another's.
// Thread-safety: locks itself. Source: spec api.md 6.6.
#pragma once

#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

namespace nautile::serve {

class ReplayStore {
 public:
  explicit ReplayStore(size_t max_bytes) : max_bytes_(max_bytes) {}
  void keep(const std::string& owner, const std::string& call_id, const std::string& reasoning);
  std::optional<std::string> find(const std::string& owner, const std::string& call_id);
  size_t bytes() const;

 private:
  struct Entry {
    std::string key, reasoning;
  };
  static std::string key_of(const std::string& owner, const std::string& id) { return owner + '\n' + id; }
  mutable std::mutex mutex_;
  size_t max_bytes_, bytes_ = 0;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<std::string, std::list<Entry>::iterator> places_;
};

}  // namespace nautile::serve
