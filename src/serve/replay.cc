// A list in order of use, and a table into it.
#include "serve/replay.h"

namespace nautile::serve {

void ReplayStore::keep(const std::string& owner, const std::string& call_id, const std::string& reasoning) {
  const std::lock_guard lock(mutex_);
  std::string key = key_of(owner, call_id);
  if (places_.contains(key)) return;
  const size_t size = 2 * key.size() + reasoning.size() + 128;
  if (size > max_bytes_ / 4) return;
  entries_.push_front({key, reasoning});
  places_[std::move(key)] = entries_.begin();
  bytes_ += size;
  while (bytes_ > max_bytes_) {
    const Entry& last = entries_.back();
    bytes_ -= 2 * last.key.size() + last.reasoning.size() + 128;
    places_.erase(last.key);
    entries_.pop_back();
  }
}

std::optional<std::string> ReplayStore::find(const std::string& owner, const std::string& call_id) {
  const std::lock_guard lock(mutex_);
  const auto found = places_.find(key_of(owner, call_id));
  if (found == places_.end()) return std::nullopt;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->reasoning;
}

size_t ReplayStore::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace nautile::serve
