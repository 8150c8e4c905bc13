// The replay store: earlier answers by tool-call id, so that a turn which comes back stands in the prompt as it was
// generated: the reasoning that a client dropped, and the very tokens, which text alone does not tell.
//
// Bounded by bytes, least recently used first, one owner never sees another's.
// Thread-safety: locks itself. Source: spec api.md 6.6.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/conversation.h"

namespace nautile::serve {

struct Replay {
  std::string reasoning, content;
  std::vector<HistoryCall> calls;
  std::shared_ptr<const GeneratedTurn>
      generated;  // null if what was sent is not all that was generated, or is not known

  // What a client sent back is this turn: same text, same calls with the same arguments, whatever their order and
  // spaces.
  bool is(const Message& message) const;
  size_t bytes() const;
};

class ReplayStore {
 public:
  explicit ReplayStore(size_t max_bytes) : max_bytes_(max_bytes) {}
  // A later one takes an earlier one's place.
  void keep(const std::string& owner, const std::string& id, Replay replay);
  std::shared_ptr<const Replay> find(const std::string& owner, const std::string& id);
  size_t bytes() const;

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<const Replay> replay;
    size_t bytes = 0;
  };
  using Place = std::list<Entry>::iterator;
  static std::string key_of(const std::string& owner, const std::string& id) { return owner + '\n' + id; }
  void remove(Place place);  // with mutex_

  mutable std::mutex mutex_;
  size_t max_bytes_, bytes_ = 0;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<std::string, Place> places_;
};

// An answer without calls is known by the last call before it, how many messages ago that was, and its own text; empty
// if there was no call. `messages` are those before the answer.
std::string answer_id(std::span<const Message> messages, const std::string& content);

}  // namespace nautile::serve
