// Stored responses: what GET /v1/responses/{id} gives back and previous_response_id goes on from.
//
// Off unless a count is given. Bounded by count, bytes and age, least recently used first; one owner never sees
// another's. Thread-safety: locks itself. Source: spec api.md 12.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

namespace nautile::serve {

struct StoredResponse {
  std::string input;     // JSON: the items of the whole conversation before the answer
  std::string response;  // JSON: the response object
};

class ResponseStore {
 public:
  ResponseStore(size_t max_count, size_t max_bytes, double max_age_s)
      : max_count_(max_count), max_bytes_(max_bytes), max_age_s_(max_age_s) {}
  bool on() const { return max_count_ > 0; }
  // `now` is in seconds of any steady clock.
  void keep(const std::string& owner, const std::string& id, StoredResponse stored, double now);
  // Null: unknown, forgotten, too old, or another's.
  std::shared_ptr<const StoredResponse> find(const std::string& owner, const std::string& id, double now);
  bool forget(const std::string& owner, const std::string& id, double now);
  size_t bytes() const;
  size_t count() const;

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<const StoredResponse> stored;
    double since;
  };
  using Place = std::list<Entry>::iterator;
  static std::string key_of(const std::string& owner, const std::string& id) { return owner + '\n' + id; }
  static size_t size_of(const Entry& entry);
  Place look(const std::string& owner, const std::string& id, double now);  // end(): not there
  void drop(Place place);
  const size_t max_count_, max_bytes_;
  const double max_age_s_;
  mutable std::mutex mutex_;
  size_t bytes_ = 0;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<std::string, Place> places_;
};

}  // namespace nautile::serve
