// The pool: workers spin a short while on an epoch counter, then park on it.
#include "sys/threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <string>

namespace nautile {
namespace {

// Some hundreds of microseconds of spinning before a worker parks: longer than it waits for the last item of another's
// phase, shorter than a person's patience with a busy core. Where workers share cores, spinning keeps the one that is
// waited for from running.
constexpr int kSpins = 16000, kSpinsOfTooMany = 16;
constexpr size_t kStackLines = 8;  // of the caller's, from the job's own variables up

inline void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) : ThreadPool(threads, read_cores(allowed_cpus()), read_limits().cpus == 0) {}

ThreadPool::ThreadPool(int threads, std::span<const Core> cores, bool pinned) {
  const size_t wanted = static_cast<size_t>(std::max(threads, 1));
  pinned = pinned && wanted <= cores.size();
  if (pinned && wanted > 1) caller_cpu_ = cores[0].cpu;
  spins_ = wanted <= allowed_cpus().size() ? kSpins : kSpinsOfTooMany;
  for (size_t i = 0; i < cores.size(); ++i) {
    if (i == 0 || cores[i].node != cores[i - 1].node) nodes_.push_back({cores[i].node, 0, 0});
    nodes_.back().cores_end = i + 1;
  }
  std::vector<size_t> own, node_of;  // by worker: its queue; by queue
  for (size_t node = 0; node < nodes_.size(); ++node) {
    const size_t before = node_of.size();
    for (; own.size() < wanted && own.size() * cores.size() / wanted < nodes_[node].cores_end; node_of.push_back(node)) {
      own.push_back(node_of.size());
    }
    if (node_of.size() == before) node_of.push_back(node);
    nodes_[node].queues_end = node_of.size();
  }
  queues_ = std::vector<Queue>(node_of.size());
  for (size_t i = 0; i < queues_.size(); ++i) queues_[i].node = node_of[i];
  for (const size_t queue : own) {
    const size_t node = node_of[queue], last = nodes_[node].queues_end, first = node == 0 ? 0 : nodes_[node - 1].queues_end;
    std::vector<size_t>& order = order_.emplace_back();
    for (size_t i = 0; i < last - first; ++i) order.push_back(first + (queue - first + i) % (last - first));
    for (size_t i = last; i < first + queues_.size(); ++i) order.push_back(i % queues_.size());
  }
  done_ = std::vector<Done>(wanted - 1);
  for (int worker = 1; worker < threads; ++worker) {
    workers_.emplace_back([this, worker] { work(worker); });
    pthread_setname_np(workers_.back().native_handle(), ("nautile-" + std::to_string(worker)).c_str());
    if (!pinned && nodes() == 1) continue;
    const Core& home = cores[static_cast<size_t>(worker) * cores.size() / wanted];
    cpu_set_t may;
    CPU_ZERO(&may);
    for (const Core& core : cores) {
      if (pinned ? core.cpu == home.cpu : core.node == home.node) CPU_SET(core.cpu, &may);
    }
    pthread_setaffinity_np(workers_.back().native_handle(), sizeof may, &may);
  }
}

ThreadPool::~ThreadPool() {
  start_.job.reset();
  start_.epoch.fetch_add(1, std::memory_order_release);
  start_.epoch.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::pin_caller() const {
  if (caller_cpu_ < 0) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(caller_cpu_, &one);
  pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

void ThreadPool::work(int worker) {
  std::atomic<unsigned>& epoch = start_.epoch;
  unsigned seen = 0;
  for (;;) {
    for (int spin = 0; epoch.load(std::memory_order_acquire) == seen; ++spin) {
      if (spin < spins_) {
        pause_core();
      } else {
        epoch.wait(seen, std::memory_order_acquire);
      }
    }
    seen = epoch.load(std::memory_order_acquire);
    if (!start_.job) return;
    const FunctionRef<void(int)> job = *start_.job;
    // What the job refers to is on the caller's stack, which another core holds: all at once, not one after the other.
    for (size_t line = 0; line < kStackLines; ++line) {
      __builtin_prefetch(static_cast<const std::byte*>(job.object()) + 64 * line);
    }
    job(worker);
    done_[static_cast<size_t>(worker) - 1].epoch.store(seen, std::memory_order_release);
  }
}

void ThreadPool::run(FunctionRef<void(int)> job) {
  if (workers_.empty()) return job(0);
  start_.job = job;
  const unsigned epoch = start_.epoch.load(std::memory_order_relaxed) + 1;
  start_.epoch.store(epoch, std::memory_order_release);
  start_.epoch.notify_all();
  job(0);
  for (const Done& done : done_) {
    for (int spin = 0; done.epoch.load(std::memory_order_acquire) != epoch; ++spin) {
      if (spin < spins_) {
        pause_core();
      } else {
        std::this_thread::yield();
      }
    }
  }
}

void ThreadPool::for_range(size_t count, size_t grain, FunctionRef<void(int, size_t, size_t)> body) {
  if (count == 0) return;
  const size_t chunks = (count + grain - 1) / grain;
  const size_t parts = std::min<size_t>(static_cast<size_t>(threads()), chunks);
  if (parts == 1) return body(0, 0, count);
  run([&](int worker) {
    const size_t part = static_cast<size_t>(worker);
    if (part >= parts) return;
    const size_t begin = chunks * part / parts * grain;
    const size_t end = std::min(count, chunks * (part + 1) / parts * grain);
    if (begin < end) body(worker, begin, end);
  });
}

// Splits `count` items evenly over queues [first, last).
void ThreadPool::fill(size_t first, size_t last, size_t count) {
  const size_t parts = last - first;
  for (size_t part = 0; part < parts; ++part) {
    queues_[first + part].left.store(count * part / parts << 32 | count * (part + 1) / parts,
                                     std::memory_order_relaxed);
  }
}

// Runs body(node, item) until no queue has an item left.
template <class Body>
void ThreadPool::drain(int worker, const Body& body) {
  bool own = true;
  for (const size_t at : order_[static_cast<size_t>(worker)]) {
    Queue& queue = queues_[at];
    uint64_t seen = queue.left.load(std::memory_order_relaxed);
    for (;;) {
      const uint64_t first = seen >> 32, end = seen & 0xffffffffu;
      if (first >= end) break;
      const uint64_t rest = own ? seen + (uint64_t{1} << 32) : seen - 1;
      if (!queue.left.compare_exchange_weak(seen, rest, std::memory_order_relaxed)) continue;
      body(queue.node, own ? first : end - 1);
      seen = queue.left.load(std::memory_order_relaxed);
    }
    own = false;
  }
}

void ThreadPool::for_items(size_t count, FunctionRef<void(int, size_t)> body) {
  if (count == 0) return;
  if (count == 1 || workers_.empty()) {
    for (size_t item = 0; item < count; ++item) body(0, item);
    return;
  }
  fill(0, queues_.size(), count);
  run([&](int worker) { drain(worker, [&](size_t, size_t item) { body(worker, item); }); });
}

void ThreadPool::for_items(std::span<const size_t> counts, FunctionRef<void(int, size_t, size_t)> body) {
  size_t all = 0;
  for (size_t count : counts) all += count;
  if (all == 0) return;
  if (all == 1 || workers_.empty()) {
    for (size_t node = 0; node < counts.size(); ++node) {
      for (size_t item = 0; item < counts[node]; ++item) body(0, node, item);
    }
    return;
  }
  for (size_t node = 0, first = 0; node < counts.size(); first = nodes_[node++].queues_end) {
    fill(first, nodes_[node].queues_end, counts[node]);
  }
  run([&](int worker) { drain(worker, [&](size_t node, size_t item) { body(worker, node, item); }); });
}

}  // namespace nautile
