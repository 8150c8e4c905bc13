// A pool of pinned threads that run one job at a time, all together. The calling thread is worker 0.
//
// Work must be split so that results do not depend on the number of workers: split by output elements, never by the
// terms of a sum.
// Thread-safety: one caller at a time. Nothing is allocated after construction.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "base/function_ref.h"
#include "sys/machine.h"

namespace nautile {

class ThreadPool {
 public:
  // `threads` workers including the caller, at least 1, spread evenly over this machine's cores and so over its memory
  // nodes. Where there are physical cores enough and the process has no quota of processor time (others then share its
  // cores), each worker beyond the caller is pinned to one; else, where there are several nodes, to the cores of its own.
  explicit ThreadPool(int threads);
  // The same on given cores, at least one, those of a node in a row; `pinned`: each worker may have one to itself.
  ThreadPool(int threads, std::span<const Core> cores, bool pinned);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Pins the calling thread to the core that is left for worker 0, where workers are pinned. For a thread that does
  // nothing else: a scheduler that packs threads puts it beside a spinning worker otherwise.
  void pin_caller() const;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Memory nodes with a core that may be used, whatever the number of threads; those without (memory alone, or outside
  // the process's CPUs) do not exist here.
  size_t nodes() const { return nodes_.size(); }
  // The system's number of a node.
  int memory_of(size_t node) const { return nodes_[node].memory; }
  // The node whose items a worker takes first.
  size_t node_of(int worker) const { return queues_[order_[static_cast<size_t>(worker)].front()].node; }
  // Where a node's share of `count` things ends: each has as much as it has of the cores, and begins where the one before
  // ends. This is the rule by which weights are placed and read; it depends on the machine alone, not on `threads`.
  size_t share_end(size_t count, size_t node) const { return count * nodes_[node].cores_end / nodes_.back().cores_end; }

  // Runs job(worker) once on every worker and returns when all are done.
  void run(FunctionRef<void(int worker)> job);

  // Runs body(worker, begin, end) over [0, count) cut into at most one contiguous run a worker; each run but the last
  // is a multiple of `grain`. A count of one grain or less runs on the caller alone.
  void for_range(size_t count, size_t grain, FunctionRef<void(int worker, size_t begin, size_t end)> body);

  // Runs body(worker, item) for each item in [0, count), fewer than 2^31. Each worker walks a contiguous share from its
  // start; one that has finished takes items from the end of the others'. For items that are worth a microsecond.
  void for_items(size_t count, FunctionRef<void(int worker, size_t item)> body);
  // The same for items that read memory of a node: body(worker, node, item) for each item in [0, counts[node]) of each
  // node. A worker takes its own node's first, those of its fellows there next, other nodes' last. counts: [nodes()]
  void for_items(std::span<const size_t> counts, FunctionRef<void(int worker, size_t node, size_t item)> body);

 private:
  struct Node {
    int memory = 0;
    size_t cores_end = 0;   // cores of this node and those before
    size_t queues_end = 0;  // likewise
  };
  // What is left of a worker's share: its first item in the high half, its end in the low one. A node without workers has
  // a queue too, for anyone to take from.
  struct alignas(64) Queue {
    std::atomic<uint64_t> left{0};
    size_t node = 0;
  };

  void fill(size_t first, size_t last, size_t count);
  template <class Body>
  void drain(int worker, const Body& body);
  void work(int worker);

  std::vector<std::thread> workers_;
  std::vector<Node> nodes_;
  std::vector<Queue> queues_;               // by node
  std::vector<std::vector<size_t>> order_;  // by worker: its own queue, around its node, around the others
  int spins_;
  int caller_cpu_ = -1;  // -1: nobody is pinned
  // Lines that pass between cores, each with one writer: what the caller starts, and what each worker has finished.
  struct alignas(64) Start {
    std::atomic<unsigned> epoch{0};
    std::optional<FunctionRef<void(int)>> job;  // none: stop
  };
  struct alignas(64) Done {
    std::atomic<unsigned> epoch{0};
  };
  Start start_;
  std::vector<Done> done_;  // of each worker beyond the caller
};

}  // namespace nautile
