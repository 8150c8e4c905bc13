// The order of admission.
#include "engine/admission.h"

#include <algorithm>
#include <tuple>
#include <vector>

namespace nautile {

bool AdmissionQueue::erase(uint64_t id) {
  for (auto it = clients_.begin(); it != clients_.end(); ++it) {
    std::deque<Waiting>& waiting = it->second.waiting;
    const auto found = std::find_if(waiting.begin(), waiting.end(), [&](const Waiting& w) { return w.id == id; });
    if (found == waiting.end()) continue;
    waiting.erase(found);
    return true;
  }
  return false;
}

size_t AdmissionQueue::size() const {
  size_t count = 0;
  for (const auto& [name, client] : clients_) count += client.waiting.size();
  return count;
}

uint64_t AdmissionQueue::next(double now_s, const std::function<Verdict(uint64_t id)>& offer) {
  // Clients that wait for nothing are forgotten, except how lately they were served: a client that returns at once
  // must not jump the others. Older than the queue's own length is as good as never.
  std::erase_if(clients_, [&](const auto& entry) {
    return entry.second.waiting.empty() && entry.second.last_served + 1024 < served_;
  });
  struct Candidate {
    double priority;
    uint64_t last_served;
    double since;
    Client* client;
    size_t index;
  };
  std::vector<Candidate> order;
  for (auto& [name, client] : clients_) {
    for (size_t i = 0; i < client.waiting.size(); ++i) {
      const Waiting& w = client.waiting[i];
      const double aged = w.priority - (now_s - w.since_s) / kAgingSeconds;
      // Whole steps, so that requests of about the same age are equals and clients take turns.
      order.push_back({static_cast<double>(static_cast<int64_t>(aged)), client.last_served, w.since_s, &client, i});
    }
  }
  // Of one client only the first stands for its turn; the others would come in later turns.
  std::stable_sort(order.begin(), order.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(a.priority, a.last_served, a.index, a.since) <
           std::tie(b.priority, b.last_served, b.index, b.since);
  });
  for (const Candidate& c : order) {
    const uint64_t id = c.client->waiting[c.index].id;
    switch (offer(id)) {
      case Verdict::kSkip:
        continue;
      case Verdict::kWait:
        return 0;
      case Verdict::kAdmit:
        c.client->waiting.erase(c.client->waiting.begin() + static_cast<std::ptrdiff_t>(c.index));
        c.client->last_served = ++served_;
        return id;
    }
  }
  return 0;
}

}  // namespace nautile
