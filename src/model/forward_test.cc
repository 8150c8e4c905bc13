// The promise of section 4 of the design, to the bit: a token's logits are the same however its prompt was cut, whoever
// shared the batch, after a rollback, from a snapshot, and on any number of threads.
#include "model/forward.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "cache/disk_tier.h"
#include "cache/prefix_cache.h"
#include "checkpoint/checkpoint.h"
#include "kernels/registry.h"
#include "model/synthetic.h"
#include "sys/directory_for_test.h"

using namespace nautile;

namespace {

struct Fixture {
  std::unique_ptr<FileSystem> files = real_files();
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Weights> weights;
  ThreadPool pool{2};
  const Kernels& kernels = *find_kernels("auto").value();

  // Weights as the program would lay them out for this policy, or in rows.
  explicit Fixture(Numerics numerics = Numerics::kFast, bool tiles = true, const std::string& name = "tiny") {
    const std::string dir = std::string(NAUTILE_SOURCE_DIR "/tests/golden/logits/") + name;
    auto config = parse_config(files->read(dir + "/config.json", 1 << 20).value(), "config.json");
    checkpoint = std::make_unique<Checkpoint>(open_checkpoint(*files, dir).value());
    weights = std::make_unique<Weights>(
        load_weights(*checkpoint, config.value(), {tiles ? &kernels : nullptr, policy_of(numerics)}).value());
  }

  std::vector<int32_t> prompt(size_t count, uint32_t seed = 1) const {
    std::mt19937 random(seed);
    std::vector<int32_t> tokens(count);
    for (int32_t& t : tokens) t = static_cast<int32_t>(random() % static_cast<uint32_t>(weights->config.vocab_size));
    return tokens;
  }
};

using Rows = std::vector<float>;

// Logits of every token, the prompt fed in the given pieces.
Rows feed(Forward& forward, SequenceState& state, std::span<const int32_t> tokens, const std::vector<size_t>& pieces) {
  Rows rows;
  size_t at = 0, piece = 0;
  while (at < tokens.size()) {
    const size_t count = std::min(pieces[piece++ % pieces.size()], tokens.size() - at);
    const BatchItem item{&state, tokens.subspan(at, count)};
    const ForwardOutput out = forward({&item, 1}, Logits::kAll).value();
    rows.insert(rows.end(), out.logits.begin(), out.logits.end());
    at += count;
  }
  return rows;
}

bool same(const Rows& a, const Rows& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

}  // namespace

TEST_CASE("every chunking gives the same bits, around every boundary") {
  Fixture f;
  Forward forward(*f.weights, Numerics::kFast, f.kernels, f.pool);
  const std::vector<int32_t> tokens = f.prompt(1040);
  SequenceState whole_state(forward.layout());
  const Rows whole = feed(forward, whole_state, tokens, {tokens.size()});
  const size_t vocab = static_cast<size_t>(f.weights->config.vocab_size);
  for (const std::vector<size_t>& pieces : std::vector<std::vector<size_t>>{
           {1}, {3}, {4}, {127}, {128}, {129}, {1, 130, 2, 125, 7}, {5, 11, 64, 200}, {512, 1}}) {
    SequenceState state(forward.layout());
    CHECK_MESSAGE(same(whole, feed(forward, state, tokens, pieces)), pieces[0]);
  }
  // One-shot prompts of every length are prefixes of the long one.
  std::vector<size_t> lengths;
  for (size_t n = 1; n <= 300; ++n) lengths.push_back(n);
  for (size_t n : {511u, 512u, 513u, 1023u, 1024u, 1025u}) lengths.push_back(n);
  for (const size_t n : lengths) {
    SequenceState state(forward.layout());
    const BatchItem item{&state, std::span(tokens).first(n)};
    const ForwardOutput out = forward({&item, 1}, Logits::kLast).value();
    REQUIRE_MESSAGE(std::memcmp(out.logits.data(), whole.data() + (n - 1) * vocab, vocab * 4) == 0, n);
  }
}

TEST_CASE("every policy keeps the same promise, with weights in tiles and in rows") {
  for (const Numerics numerics : {Numerics::kFast, Numerics::kReference, Numerics::kExact}) {
    for (const bool tiles : {true, false}) {
      Fixture f(numerics, tiles);
      Forward forward(*f.weights, numerics, f.kernels, f.pool);
      const std::vector<int32_t> tokens = f.prompt(300);
      SequenceState a(forward.layout()), b(forward.layout());
      CHECK(same(feed(forward, a, tokens, {300}), feed(forward, b, tokens, {1, 7, 128, 3})));
    }
  }
}

TEST_CASE("a batch of several sequences gives each its own logits") {
  Fixture f;
  Forward forward(*f.weights, Numerics::kFast, f.kernels, f.pool);
  std::vector<std::vector<int32_t>> prompts;
  std::vector<Rows> alone;
  for (uint32_t i = 0; i < 5; ++i) {
    prompts.push_back(f.prompt(40 + 61 * i, i));
    SequenceState state(forward.layout());
    alone.push_back(feed(forward, state, prompts[i], {prompts[i].size()}));
  }
  std::vector<std::unique_ptr<SequenceState>> states;
  for (size_t i = 0; i < prompts.size(); ++i) states.push_back(std::make_unique<SequenceState>(forward.layout()));
  std::vector<Rows> together(prompts.size());
  std::vector<size_t> at(prompts.size(), 0);
  std::mt19937 random(3);
  for (;;) {
    std::vector<BatchItem> batch;
    std::vector<size_t> who;
    for (size_t i = 0; i < prompts.size(); ++i) {
      const size_t left = prompts[i].size() - at[i];
      if (left == 0) continue;
      const size_t count = std::min<size_t>(left, 1 + random() % 50);
      batch.push_back({states[i].get(), std::span(prompts[i]).subspan(at[i], count)});
      who.push_back(i);
      at[i] += count;
    }
    if (batch.empty()) break;
    const ForwardOutput out = forward(batch, Logits::kAll).value();
    const float* row = out.logits.data();
    for (size_t i = 0; i < batch.size(); ++i) {
      const size_t floats = batch[i].tokens.size() * static_cast<size_t>(f.weights->config.vocab_size);
      together[who[i]].insert(together[who[i]].end(), row, row + floats);
      row += floats;
    }
  }
  for (size_t i = 0; i < prompts.size(); ++i) CHECK_MESSAGE(same(alone[i], together[i]), i);
}

TEST_CASE("each item gets the rows it asks for, and no other") {
  Fixture f;
  Forward forward(*f.weights, Numerics::kFast, f.kernels, f.pool);
  const std::vector<int32_t> a = f.prompt(30, 1), b = f.prompt(11, 2), c = f.prompt(5, 3);
  const size_t vocab = static_cast<size_t>(f.weights->config.vocab_size);
  auto run = [&](Logits wanted) {
    SequenceState sa(forward.layout()), sb(forward.layout()), sc(forward.layout());
    const std::vector<BatchItem> batch = {{&sa, a, 3}, {&sb, b, 0}, {&sc, c, 5}};
    const ForwardOutput out = forward(batch, wanted).value();
    return Rows(out.logits.begin(), out.logits.end());
  };
  const Rows all = run(Logits::kAll), each = run(Logits::kEach);
  REQUIRE(each.size() == 8 * vocab);
  Rows expected(all.begin() + static_cast<std::ptrdiff_t>(27 * vocab),
                all.begin() + static_cast<std::ptrdiff_t>(30 * vocab));
  expected.insert(expected.end(), all.begin() + static_cast<std::ptrdiff_t>(41 * vocab), all.end());
  CHECK(same(each, expected));
}

TEST_CASE("a rollback of 1 to 8 tokens leaves no trace") {
  Fixture f;
  Forward forward(*f.weights, Numerics::kFast, f.kernels, f.pool);
  const std::vector<int32_t> tokens = f.prompt(280), wrong = f.prompt(8, 99);
  SequenceState plain(forward.layout());
  const Rows expected = feed(forward, plain, tokens, {1});
  for (size_t back = 1; back <= 8; ++back) {
    SequenceState state(forward.layout());
    Rows rows;
    for (size_t t = 0; t < tokens.size(); ++t) {
      const Rows row = feed(forward, state, std::span(tokens).subspan(t, 1), {1});
      rows.insert(rows.end(), row.begin(), row.end());
      // Every few tokens, guess `back` tokens, all at once or one by one, and take them back.
      if (t % 3 == 0) {
        feed(forward, state, std::span(wrong).first(back), {t % 2 == 0 ? back : 1});
        REQUIRE(state.rollback(static_cast<int64_t>(t) + 1).ok());
      }
    }
    CHECK_MESSAGE(same(expected, rows), back);
  }
}

TEST_CASE("a sequence that starts from a snapshot goes on as if it had never stopped") {
  Fixture f;
  Forward forward(*f.weights, Numerics::kFast, f.kernels, f.pool);
  const std::vector<int32_t> tokens = f.prompt(700);
  const size_t vocab = static_cast<size_t>(f.weights->config.vocab_size);
  SequenceState plain(forward.layout());
  const Rows expected = feed(forward, plain, tokens, {tokens.size()});
  for (size_t cut : {128u, 256u, 512u}) {
    SequenceState first(forward.layout());
    feed(forward, first, std::span(tokens).first(cut), {100});
    const Snapshot snapshot = first.snapshot().value();
    for (int round = 0; round < 2; ++round) {
      SequenceState state(forward.layout(), snapshot);
      const Rows rows = feed(forward, state, std::span(tokens).subspan(cut), {97});
      CHECK(std::memcmp(rows.data(), expected.data() + cut * vocab, rows.size() * 4) == 0);
      // The first sequence goes its own way meanwhile.
      feed(forward, first, f.prompt(50, 5), {50});
    }
  }
}

TEST_CASE("a sequence that starts from a prefix on disk goes on as if it had never stopped") {
  Fixture f;
  Forward forward(*f.weights, Numerics::kFast, f.kernels, f.pool);
  const std::vector<int32_t> tokens = f.prompt(700);
  const size_t vocab = static_cast<size_t>(f.weights->config.vocab_size);
  SequenceState plain(forward.layout());
  const Rows expected = feed(forward, plain, tokens, {tokens.size()});
  auto disk = std::make_shared<MemoryDisk>();
  for (const bool restarted : {false, true}) {
    DiskOptions options;
    options.budget_bytes = 1 << 30;
    auto tier = DiskTier::open(std::make_unique<MemoryDirectory>(disk), forward.layout(), options);
    REQUIRE(tier.ok());
    PrefixCache cache(forward.layout(), {.budget_bytes = 1 << 30}, tier->get());
    if (!restarted) {
      SequenceState first(forward.layout());
      feed(forward, first, std::span(tokens).first(384), {100});
      cache.insert({}, std::span(tokens).first(384), first.snapshot().value());
      continue;
    }
    const auto read = cache.prefetch({}, tokens, 699);
    while (!cache.poll(read)) std::this_thread::yield();
    const CacheHit hit = cache.find({}, tokens, 699);
    REQUIRE(hit.tokens == 384);
    CHECK(hit.source == CacheHit::Source::kDisk);
    SequenceState state(forward.layout(), hit.snapshot);
    const Rows rows = feed(forward, state, std::span(tokens).subspan(384), {97});
    CHECK(std::memcmp(rows.data(), expected.data() + 384 * vocab, rows.size() * 4) == 0);
    // What the canary does: compute it again and compare.
    SequenceState again(forward.layout());
    feed(forward, again, std::span(tokens).first(384), {61});
    CHECK(again.rows_equal(hit.snapshot));
  }
}

TEST_CASE(
    "the number of threads changes nothing, also where they share cores: prefill, single tokens and small batches") {
  for (const Numerics numerics : {Numerics::kFast, Numerics::kReference}) {
    Fixture f(numerics);
    const std::vector<int32_t> prompt = f.prompt(170), other = f.prompt(60, 2);
    Rows alone;
    for (int threads = 1; threads <= 8; ++threads) {
      ThreadPool pool(threads);
      Forward forward(*f.weights, numerics, f.kernels, pool);
      SequenceState state(forward.layout()), second(forward.layout());
      Rows rows = feed(forward, state, prompt, {140, 1, 7, 1, 3});
      feed(forward, second, std::span(other).first(50), {50});
      for (size_t t = 50; t < other.size(); ++t) {
        const BatchItem batch[] = {{&state, std::span(other).subspan(t, 1)}, {&second, std::span(other).subspan(t, 1)}};
        const ForwardOutput out = forward(batch, Logits::kAll).value();
        rows.insert(rows.end(), out.logits.begin(), out.logits.end());
      }
      if (threads == 1) alone = rows;
      CHECK_MESSAGE(same(alone, rows), threads);
    }
  }
}

TEST_CASE("items of any length give the same bits: wide experts, cut more finely for more threads and fewer tokens") {
  ModelConfig config = tiny_config();
  config.hidden = 512;
  config.expert_inter = 1024;
  config.routed_experts = 16;
  config.experts_per_token = 6;
  const Checkpoint checkpoint = synthetic_checkpoint(config, Variant{}, 1).value();
  const Kernels& kernels = *find_kernels("auto").value();
  std::mt19937 random(1);
  std::vector<int32_t> prompt(40);
  for (int32_t& t : prompt) t = static_cast<int32_t>(random() % static_cast<uint32_t>(config.vocab_size));
  for (const Numerics numerics : {Numerics::kFast, Numerics::kReference}) {
    const Weights weights = load_weights(checkpoint, config, {&kernels, policy_of(numerics)}).value();
    Rows first;
    for (const int threads : {1, 2, 8}) {
      for (const std::vector<size_t>& pieces : {std::vector<size_t>{1}, {8}, {40}}) {
        ThreadPool pool(threads);
        Forward forward(weights, numerics, kernels, pool);
        SequenceState state(forward.layout());
        const Rows rows = feed(forward, state, prompt, pieces);
        if (first.empty()) first = rows;
        CHECK(std::all_of(rows.begin(), rows.end(), [](float x) { return std::isfinite(x); }));
        CHECK_MESSAGE(same(first, rows), threads << " threads, pieces of " << pieces[0]);
      }
    }
  }
}

TEST_CASE("bad batches are refused and change nothing") {
  Fixture f;
  Forward forward(*f.weights, Numerics::kFast, f.kernels, f.pool);
  SequenceState state(forward.layout());
  const std::vector<int32_t> good = {1, 2}, outside = {1, f.weights->config.vocab_size}, negative = {-1};
  auto code = [&](std::vector<BatchItem> batch) { return forward(batch, Logits::kLast).status().code(); };
  CHECK(code({}) == Code::kInvalidArgument);
  CHECK(code({{&state, {}}}) == Code::kInvalidArgument);
  CHECK(code({{&state, outside}}) == Code::kInvalidArgument);
  CHECK(code({{&state, negative}}) == Code::kInvalidArgument);
  CHECK(code({{&state, good}, {&state, good}}) == Code::kInvalidArgument);
  CHECK(state.length() == 0);
}
