// A list in order of use, and a table into it.
#include "serve/response_store.h"

namespace nautile::serve {

size_t ResponseStore::size_of(const Entry& entry) {
  return 2 * entry.key.size() + entry.stored->input.size() + entry.stored->response.size() + 256;
}

void ResponseStore::drop(Place place) {
  bytes_ -= size_of(*place);
  places_.erase(place->key);
  entries_.erase(place);
}

ResponseStore::Place ResponseStore::look(const std::string& owner, const std::string& id, double now) {
  const auto found = places_.find(key_of(owner, id));
  if (found == places_.end()) return entries_.end();
  if (now - found->second->since <= max_age_s_) return found->second;
  drop(found->second);
  return entries_.end();
}

void ResponseStore::keep(const std::string& owner, const std::string& id, StoredResponse stored, double now) {
  const std::lock_guard lock(mutex_);
  if (max_count_ == 0) return;
  if (const Place old = look(owner, id, now); old != entries_.end()) drop(old);
  entries_.push_front({key_of(owner, id), std::make_shared<const StoredResponse>(std::move(stored)), now});
  places_[entries_.front().key] = entries_.begin();
  bytes_ += size_of(entries_.front());
  while (!entries_.empty() && (bytes_ > max_bytes_ || entries_.size() > max_count_)) drop(std::prev(entries_.end()));
}

std::shared_ptr<const StoredResponse> ResponseStore::find(const std::string& owner, const std::string& id, double now) {
  const std::lock_guard lock(mutex_);
  const Place place = look(owner, id, now);
  if (place == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, place);
  return place->stored;
}

bool ResponseStore::forget(const std::string& owner, const std::string& id, double now) {
  const std::lock_guard lock(mutex_);
  const Place place = look(owner, id, now);
  if (place == entries_.end()) return false;
  drop(place);
  return true;
}

size_t ResponseStore::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

size_t ResponseStore::count() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

}  // namespace nautile::serve
