// Order of admission and the count of bytes.
#include "engine/admission.h"

#include <doctest/doctest.h>

#include <vector>

using namespace nautile;

namespace {

std::vector<uint64_t> admit_all(AdmissionQueue& queue, double now = 0) {
  std::vector<uint64_t> order;
  for (uint64_t id; (id = queue.next(now, [](uint64_t) { return Verdict::kAdmit; })) != 0;) order.push_back(id);
  return order;
}

}  // namespace

TEST_CASE("clients take turns, each in its own order") {
  AdmissionQueue queue;
  for (uint64_t i = 1; i <= 4; ++i) queue.push({i, "greedy", 0, 0.1 * static_cast<double>(i)});
  queue.push({5, "modest", 0, 0.9});
  CHECK(admit_all(queue) == std::vector<uint64_t>{1, 5, 2, 3, 4});
}

TEST_CASE("the lower priority goes first, and waiting raises it") {
  AdmissionQueue queue;
  queue.push({1, "a", 5, 0});
  SUBCASE("at once") {
    queue.push({2, "b", 0, 0});
    CHECK(admit_all(queue, 1) == std::vector<uint64_t>{2, 1});
  }
  SUBCASE("after long") {
    queue.push({2, "b", 0, 100});
    CHECK(admit_all(queue, 101) == std::vector<uint64_t>{1, 2});
  }
}

TEST_CASE("what does not fit is not overtaken; what waits for another is") {
  AdmissionQueue queue;
  queue.push({1, "a", 0, 0});
  queue.push({2, "b", 0, 1});
  CHECK(queue.next(2, [](uint64_t id) { return id == 1 ? Verdict::kWait : Verdict::kAdmit; }) == 0);
  CHECK(queue.next(2, [](uint64_t id) { return id == 1 ? Verdict::kSkip : Verdict::kAdmit; }) == 2);
  CHECK(queue.size() == 1);
  queue.push_front({3, "a", 0, 5});
  CHECK(admit_all(queue, 5) == std::vector<uint64_t>{3, 1});
}

TEST_CASE("an erased request is not offered") {
  AdmissionQueue queue;
  queue.push({1, "a", 0, 0});
  queue.push({2, "a", 0, 0});
  CHECK(queue.erase(1));
  CHECK(!queue.erase(1));
  CHECK(admit_all(queue) == std::vector<uint64_t>{2});
}

TEST_CASE("the budget counts whole blocks and never gives more than it has") {
  StateBudget budget(1000, 100, 50, 128);
  CHECK(budget.bytes_for(1) == 150);
  CHECK(budget.bytes_for(128) == 150);
  CHECK(budget.bytes_for(129) == 200);
  CHECK(budget.take(900));
  CHECK(!budget.take(101));
  CHECK(budget.take(100));
  budget.give(900);
  CHECK(budget.used() == 100);
}
