// The pool covers every element once, whatever the number of workers.
#include "sys/threads.h"

#include <doctest/doctest.h>

#include <vector>

using namespace nautile;

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
