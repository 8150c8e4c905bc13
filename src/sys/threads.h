// A pool of pinned threads that run one job at a time, all together. The calling thread is worker 0.
//
// Work must be split so that results do not depend on the number of workers: split by output elements, never by the
// terms of a sum.
// Thread-safety: one caller at a time. Nothing is allocated after construction.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/function_ref.h"

namespace nautile {

class ThreadPool {
 public:
  // `threads` workers including the caller, at least 1. Where there are physical cores enough and the process has no
  // quota of processor time (others then share its cores), each worker beyond the caller is pinned to one; fewer
  // workers than cores are spread evenly over the nodes.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Pins the calling thread to the core that is left for worker 0, where workers are pinned. For a thread that does
  // nothing else: a scheduler that packs threads puts it beside a spinning worker otherwise.
  void pin_caller() const;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs job(worker) once on every worker and returns when all are done.
  void run(FunctionRef<void(int worker)> job);

  // Runs body(worker, begin, end) over [0, count) cut into at most one contiguous run a worker; each run but the last
  // is a multiple of `grain`. A count of one grain or less runs on the caller alone.
  void for_range(size_t count, size_t grain, FunctionRef<void(int worker, size_t begin, size_t end)> body);

  // Runs body(worker, item) for each item in [0, count), fewer than 2^31. Each worker walks a contiguous share from its
  // start; one that has finished takes items from the end of the others'. For items that are worth a microsecond.
  void for_items(size_t count, FunctionRef<void(int worker, size_t item)> body);

 private:
  // What is left of a worker's share: its first item in the high half, its end in the low one.
  struct alignas(64) Share {
    std::atomic<uint64_t> left{0};
  };

  void work(int worker);
  std::vector<std::thread> workers_;
  std::vector<Share> shares_;
  int spins_;
  int caller_cpu_ = -1;  // -1: nobody is pinned
  const FunctionRef<void(int)>* job_ = nullptr;
  alignas(64) std::atomic<unsigned> epoch_{0};
  alignas(64) std::atomic<int> pending_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace nautile
