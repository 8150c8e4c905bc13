// bench_barrier: what a phase costs that has nothing to do: all workers start, all are waited for; beside it, what a phase is made
// of: how long a line of memory takes from the caller's core to each worker's.
//
//   build/release/bench/bench_barrier [THREADS [ROUNDS]]
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <vector>

#include "sys/clock.h"
#include "sys/machine.h"
#include "sys/probe.h"
#include "sys/threads.h"

using namespace nautile;

namespace {

// ns for a line to go one way between the caller and a worker, which answer each other.
double line_ns(ThreadPool& pool, int other) {
  constexpr unsigned kTurns = 20000;
  struct alignas(128) Line {
    std::atomic<unsigned> turn{0};
  } line;
  double seconds = 0;
  pool.run([&](int worker) {
    if (worker != 0 && worker != other) return;
    const double begin = seconds_now();
    for (unsigned turn = worker == 0 ? 0 : 1; turn < 2 * kTurns; turn += 2) {
      while (line.turn.load(std::memory_order_acquire) != turn) {
      }
      line.turn.store(turn + 1, std::memory_order_release);
    }
    if (worker == other) seconds = seconds_now() - begin;
  });
  return 1e9 * seconds / (2 * kTurns);
}

}  // namespace

int main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::max(1, std::atoi(argv[1])) : usable_cores());
  const int rounds = argc > 2 ? std::max(1, std::atoi(argv[2])) : 200000;
  std::vector<double> run, items, lines;  // ns a phase, a line
  pool.pin_caller();
  for (int repeat = 0; repeat < 9; ++repeat) {
    // Threads that share a core would wait for the scheduler at every turn.
    for (int other = 1; other < pool.threads() && pool.threads() <= usable_cores(); ++other) lines.push_back(line_ns(pool, other));
    double begin = seconds_now();
    for (int i = 0; i < rounds; ++i) pool.run([](int) {});
    run.push_back(1e9 * (seconds_now() - begin) / rounds);
    begin = seconds_now();
    for (int i = 0; i < rounds; ++i) pool.for_items(static_cast<size_t>(pool.threads()), [](int, size_t) {});
    items.push_back(1e9 * (seconds_now() - begin) / rounds);
  }
  for (const auto& [name, ns] : {std::pair{"an empty phase", run}, {"one empty item a thread, taken from shares", items}}) {
    fmt::print("{} threads, {}: median {:.0f} ns, {:.0f} to {:.0f} (9 runs of {} phases)\n", pool.threads(), name, median(ns),
               *std::ranges::min_element(ns), *std::ranges::max_element(ns), rounds);
  }
  if (lines.empty()) return 0;
  fmt::print("a line from core to core: median {:.0f} ns, {:.0f} to {:.0f} ({} readings)\n", median(lines),
             *std::ranges::min_element(lines), *std::ranges::max_element(lines), lines.size());
  return 0;
}
