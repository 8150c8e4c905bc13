// Who is admitted next, and how many bytes are left for it. Pure bookkeeping: no clock, no thread.
//
// Order: the lowest effective priority first, where waiting kAgingSeconds is worth one step of priority; among equals
// the client that was served least recently; of one client the request that came first. A request that does not fit
// holds up those after it, so that large ones are not overtaken for ever. Thread-safety: one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

namespace nautile {

// What the queue needs to know of a request.
struct Waiting {
  uint64_t id = 0;
  std::string client;
  int priority = 0;
  double since_s = 0;  // on the clock of next()
};

enum class Verdict {
  kAdmit,
  kWait,  // nothing behind it may go first
  kSkip,  // others may go first: it waits for something that is on its way
};

class AdmissionQueue {
 public:
  static constexpr double kAgingSeconds = 10;

  void push(Waiting request) { clients_[request.client].waiting.push_back(std::move(request)); }
  // A preempted request goes before everything else of its client.
  void push_front(Waiting request) { clients_[request.client].waiting.push_front(std::move(request)); }
  bool erase(uint64_t id);  // false: it does not wait here
  size_t size() const;
  bool empty() const { return size() == 0; }

  // Offers requests in order until one is admitted, which is removed and returned; 0 if none.
  uint64_t next(double now_s, const std::function<Verdict(uint64_t id)>& offer);

 private:
  struct Client {
    std::deque<Waiting> waiting;
    uint64_t last_served = 0;
  };
  std::map<std::string, Client> clients_;
  uint64_t served_ = 0;
};

// Bytes of running sequences against their budget.
class StateBudget {
 public:
  StateBudget(uint64_t budget_bytes, uint64_t private_bytes, uint64_t block_bytes, int64_t block_tokens)
      : budget_(budget_bytes), private_(private_bytes), block_(block_bytes), block_tokens_(block_tokens) {}

  // Of one sequence.
  uint64_t bytes_for(int64_t tokens) const {
    return private_ + static_cast<uint64_t>((tokens + block_tokens_ - 1) / block_tokens_) * block_;
  }
  // False, and nothing changes, when there is less left.
  bool take(uint64_t bytes) {
    if (bytes > budget_ - used_) return false;
    used_ += bytes;
    return true;
  }
  void give(uint64_t bytes) { used_ -= bytes; }
  uint64_t budget() const { return budget_; }
  uint64_t used() const { return used_; }

 private:
  uint64_t budget_, private_, block_, used_ = 0;
  int64_t block_tokens_;
};

}  // namespace nautile
