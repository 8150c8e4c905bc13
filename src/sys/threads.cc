// The pool: workers spin a short while on an epoch counter, then park on it.
#include "sys/threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <string>

#include "sys/machine.h"

namespace nautile {
namespace {

// Some tens of microseconds of spinning before a worker parks: longer than the gap between two phases of a layer,
// shorter than a person's patience with a busy core. Where workers share cores, spinning keeps the one that is waited
// for from running.
constexpr int kSpins = 4000, kSpinsOfTooMany = 16;

inline void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) : shares_(static_cast<size_t>(std::max(threads, 1))) {
  const std::vector<int> cpus = allowed_cpus();
  const std::vector<Core> cores = read_cores(cpus);
  const size_t wanted = shares_.size();
  const bool pinned = wanted <= cores.size() && read_limits().cpus == 0;
  spins_ = wanted <= cpus.size() ? kSpins : kSpinsOfTooMany;
  if (pinned && wanted > 1) caller_cpu_ = cores[0].cpu;
  for (int worker = 1; worker < threads; ++worker) {
    workers_.emplace_back([this, worker] { work(worker); });
    pthread_setname_np(workers_.back().native_handle(), ("nautile-" + std::to_string(worker)).c_str());
    if (pinned) {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cores[static_cast<size_t>(worker) * cores.size() / wanted].cpu, &one);
      pthread_setaffinity_np(workers_.back().native_handle(), sizeof one, &one);
    }
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  epoch_.fetch_add(1);
  epoch_.notify_all();
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
  unsigned seen = 0;
  for (;;) {
    for (int spin = 0; epoch_.load(std::memory_order_acquire) == seen; ++spin) {
      if (spin < spins_) {
        pause_core();
      } else {
        epoch_.wait(seen, std::memory_order_acquire);
      }
    }
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_.load()) return;
    (*job_)(worker);
    pending_.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::run(FunctionRef<void(int)> job) {
  if (workers_.empty()) return job(0);
  job_ = &job;
  pending_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  job(0);
  for (int spin = 0; pending_.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < spins_) {
      pause_core();
    } else {
      std::this_thread::yield();
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

void ThreadPool::for_items(size_t count, FunctionRef<void(int, size_t)> body) {
  if (count == 0) return;
  if (count == 1 || workers_.empty()) {
    for (size_t item = 0; item < count; ++item) body(0, item);
    return;
  }
  const size_t parts = shares_.size();
  for (size_t part = 0; part < parts; ++part) {
    shares_[part].left.store(count * part / parts << 32 | count * (part + 1) / parts, std::memory_order_relaxed);
  }
  run([&](int worker) {
    const size_t own = static_cast<size_t>(worker);
    for (size_t i = 0; i < parts; ++i) {
      std::atomic<uint64_t>& left = shares_[(own + i) % parts].left;
      uint64_t seen = left.load(std::memory_order_relaxed);
      for (;;) {
        const uint64_t first = seen >> 32, end = seen & 0xffffffffu;
        if (first >= end) break;
        const uint64_t rest = i == 0 ? seen + (uint64_t{1} << 32) : seen - 1;
        if (!left.compare_exchange_weak(seen, rest, std::memory_order_relaxed)) continue;
        body(worker, i == 0 ? first : end - 1);
        seen = left.load(std::memory_order_relaxed);
      }
    }
  });
}

}  // namespace nautile
