// The draft policy on machines and texts with known properties.
#include "engine/speculation.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>

using namespace nautile;

namespace {

struct World {
  double acceptance;  // of each draft
  double step(int tokens) const { return 1 + slope * (tokens - 1); }
  double slope;         // of a step's time with its tokens
  double draft = 0.05;  // time of one draft
};

struct Outcome {
  double rate = 0;        // tokens a second over the second half
  double mean_depth = 0;  // over the second half
};

// Plays the policy against the world for a while.
Outcome play(const World& world, int steps) {
  DraftPolicy policy(
      3, 4, [&](int n) { return world.step(n); }, [&](int) { return world.draft; });
  std::mt19937 random(1);
  Acceptance acceptance;
  const std::vector<const Acceptance*> one = {&acceptance};
  double tokens = 0, seconds = 0, depths = 0;
  for (int i = 0; i < steps; ++i) {
    const int depth = policy.depth(one, 3);
    int made = 1;
    for (int k = 0; k < depth; ++k) {
      const bool accepted = std::generate_canonical<double, 53>(random) < world.acceptance;
      policy.saw(acceptance, k, accepted);
      if (!accepted) break;
      ++made;
    }
    const double took = world.step(1 + depth) + depth * world.draft;
    policy.took(1, depth, took);
    if (i < steps / 2) continue;
    tokens += made;
    seconds += took;
    depths += depth;
  }
  return {tokens / seconds, depths / (steps - steps / 2)};
}

}  // namespace

TEST_CASE("it drafts deep where drafts are cheap and good") {
  const Outcome outcome = play({0.9, 0.02}, 4000);
  CHECK(outcome.mean_depth > 2.5);
  CHECK(outcome.rate > 2.5);
}

TEST_CASE("it stops where drafts are never right, at a cost of less than 2%") {
  for (const double slope : {0.1, 0.5, 1.0}) {
    const Outcome outcome = play({0.0, slope}, 20000);
    CHECK(outcome.rate > 0.98);
    CHECK(outcome.mean_depth < 0.02);
  }
}

TEST_CASE("it stops where each token costs a full step, however good the drafts") {
  CHECK(play({0.95, 1.0}, 20000).rate > 0.98);
}

TEST_CASE("it finds the depth in between") {
  const World world{0.6, 0.15};
  double best = 0;
  for (int k = 0; k <= 3; ++k) {
    double tokens = 0, all = 1;
    for (int i = 0; i <= k; ++i, all *= world.acceptance) tokens += all;
    best = std::max(best, tokens / (world.step(1 + k) + k * world.draft));
  }
  CHECK(play(world, 20000).rate > 0.97 * best);
}

TEST_CASE("a limit is kept") {
  DraftPolicy policy(
      3, 2, [](int) { return 1.0; }, [](int) { return 0.0; });
  Acceptance good;
  good.share = good.seen = 1;
  const std::vector<const Acceptance*> one = {&good};
  for (int i = 0; i < 100; ++i) CHECK(policy.depth(one, i % 3) <= i % 3);
}
