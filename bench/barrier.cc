// bench_barrier: what a phase costs that has nothing to do: all workers start, all are waited for.
//
//   build/release/bench/bench_barrier [THREADS [ROUNDS]]
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "sys/clock.h"
#include "sys/machine.h"
#include "sys/probe.h"
#include "sys/threads.h"

using namespace nautile;

int main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::max(1, std::atoi(argv[1])) : usable_cores());
  const int rounds = argc > 2 ? std::max(1, std::atoi(argv[2])) : 200000;
  std::vector<double> run, items;  // ns a phase
  for (int repeat = 0; repeat < 9; ++repeat) {
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
  return 0;
}
