// The pool covers every element once, whatever the number of workers.
#include "sys/threads.h"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "sys/threads_for_test.h"

using namespace nautile;

namespace {

// The first item of each worker, when none takes a second before all have one. -1: none.
struct First {
  std::vector<int64_t> node, item;
};
First first_items(ThreadPool& pool, const std::vector<size_t>& counts) {
  const size_t threads = static_cast<size_t>(pool.threads());
  First first{std::vector<int64_t>(threads, -1), std::vector<int64_t>(threads, -1)};
  std::atomic<size_t> arrived{0};
  pool.for_items(counts, [&](int worker, size_t node, size_t item) {
    int64_t& own = first.node[static_cast<size_t>(worker)];
    if (own >= 0) return;
    own = static_cast<int64_t>(node);
    first.item[static_cast<size_t>(worker)] = static_cast<int64_t>(item);
    arrived.fetch_add(1);
    while (arrived.load() < threads) std::this_thread::yield();
  });
  return first;
}

}  // namespace

TEST_CASE("for_range covers each index exactly once, in runs of whole grains") {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (size_t count : {0u, 1u, 7u, 16u, 1000u}) {
      for (size_t grain : {1u, 16u}) {
        std::vector<int> hits(count, 0);
        pool.for_range(count, grain, [&](int worker, size_t begin, size_t end) {
          CHECK(worker < threads);
          CHECK(begin % grain == 0);
          for (size_t i = begin; i < end; ++i) ++hits[i];
        });
        CHECK(hits == std::vector<int>(count, 1));
      }
    }
  }
}

TEST_CASE("many short jobs in a row all run on every worker") {
  ThreadPool pool(3);
  std::vector<int> runs(3, 0);
  for (int i = 0; i < 2000; ++i) pool.run([&](int worker) { ++runs[static_cast<size_t>(worker)]; });
  CHECK(runs == std::vector<int>(3, 2000));
}

TEST_CASE("each item runs exactly once on any topology, also where workers steal") {
  for (const std::vector<int>& cores : {std::vector{2}, {1, 1}, {2, 2, 2, 2}, {3, 1}, {1, 5}}) {
    const std::vector<Core> topology = made_up(cores);
    for (int threads = 1; threads <= 9; ++threads) {
      CAPTURE(threads);
      ThreadPool pool(threads, topology, false);
      REQUIRE(pool.nodes() == cores.size());
      CHECK(pool.memory_of(cores.size() - 1) == static_cast<int>(2 * (cores.size() - 1)));
      for (const size_t most : {0u, 1u, 3u, 500u}) {
        std::vector<size_t> counts(cores.size());
        std::vector<std::vector<int>> hits(cores.size());
        for (size_t n = 0; n < counts.size(); ++n) hits[n].resize(counts[n] = most * (n + 1) / counts.size());
        pool.for_items(counts, [&](int worker, size_t node, size_t item) {
          CHECK((worker >= 0 && worker < threads));
          ++hits[node][item];
          for (int i = 0; node == 0 && i < 20; ++i) std::this_thread::yield();  // the others come to help
        });
        for (size_t n = 0; n < counts.size(); ++n) CHECK(hits[n] == std::vector<int>(counts[n], 1));
        std::vector<int> plain(most);
        pool.for_items(most, [&](int, size_t item) { ++plain[item]; });
        CHECK(plain == std::vector<int>(most, 1));
      }
    }
  }
}

TEST_CASE("a worker takes items of its own node first, from the start of its own share") {
  for (const std::vector<int>& cores : {std::vector{1, 1}, {2, 2}, {3, 1}, {1, 1, 1, 1}}) {
    const std::vector<Core> topology = made_up(cores);
    ThreadPool pool(static_cast<int>(topology.size()), topology, false);
    const First first = first_items(pool, std::vector<size_t>(cores.size(), 600));
    for (size_t w = 0, n = 0, k = 0; w < topology.size(); ++w) {
      CHECK(pool.node_of(static_cast<int>(w)) == n);
      CHECK(first.node[w] == static_cast<int64_t>(n));
      CHECK(first.item[w] == static_cast<int64_t>(600 * k / static_cast<size_t>(cores[n])));
      if (++k == static_cast<size_t>(cores[n])) ++n, k = 0;
    }
  }
}

TEST_CASE("one node: the order of a plain list") {
  ThreadPool alone(1), pool(3, made_up({2}), false);
  CHECK(first_items(pool, {100}).item == std::vector<int64_t>{0, 33, 66});
  std::vector<size_t> seen;
  alone.for_items(std::vector<size_t>{3}, [&](int, size_t, size_t item) { seen.push_back(item); });
  CHECK(seen == std::vector<size_t>{0, 1, 2});
}

TEST_CASE("a node's share is that of its cores, whatever the number of workers") {
  const std::vector<Core> uneven = made_up({3, 1});
  for (const int threads : {1, 2, 4, 8}) {
    const ThreadPool pool(threads, uneven, false);
    CHECK(pool.share_end(16, 0) == 12);
    CHECK(pool.share_end(16, 1) == 16);
    CHECK(pool.share_end(1, 0) == 0);
    CHECK(pool.share_end(1, 1) == 1);
  }
  // Two workers of four nodes: evenly spread, and the others' items are for both.
  const ThreadPool few(2, made_up({1, 1, 1, 1}), false);
  CHECK(few.nodes() == 4);
  CHECK(few.node_of(0) == 0);
  CHECK(few.node_of(1) == 2);
}
