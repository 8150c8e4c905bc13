// The engine's promises: the same tokens however they were scheduled, an end for every request, and no byte past the
// plan.
#include "engine/engine.h"

#include <condition_variable>

#include "engine/engine_for_test.h"

using namespace nautile;
using namespace nautile::test;

namespace {

// A few requests of every kind, in one order.
std::vector<GenerateRequest> mixed(const LoadedModel& model) {
  std::vector<GenerateRequest> requests;
  const std::vector<TokenId> shared = random_prompt(model, 400, 5);
  for (uint32_t i = 0; i < 10; ++i) {
    std::vector<TokenId> prompt = i % 2 == 0 ? shared : std::vector<TokenId>();
    const std::vector<TokenId> own = random_prompt(model, 1 + 23 * i, 100 + i);
    prompt.insert(prompt.end(), own.begin(), own.end());
    requests.push_back(request_of(prompt, 5 + 15 * (i % 4), i, i % 3 == 0 ? 0.0 : 1.0));
  }
  requests.push_back(request_of(text_prompt(model, "What is 48 + 75?"), 40, 3, 0.7));
  requests.back().end_tokens = {1};
  requests.push_back(request_of(text_prompt(model, "What is 12 + 7?"), 40, 4, 0.7));
  requests.back().sampling.repetition_penalty = 1.2;
  requests.back().sampling.frequency_penalty = 0.5;
  return requests;
}

const std::vector<std::vector<TokenId>>& expected(LoadedModel& model) {
  static const std::vector<std::vector<TokenId>> kAlone = [&] {
    std::vector<std::vector<TokenId>> out;
    for (const GenerateRequest& request : mixed(model)) out.push_back(plain(model, request));
    return out;
  }();
  return kAlone;
}

std::vector<std::vector<TokenId>> run_all(const LoadedModel& model, LocalEngine& engine) {
  std::vector<std::unique_ptr<Generation>> generations;
  for (GenerateRequest& request : mixed(model)) {
    auto generation = engine.submit(std::move(request));
    REQUIRE_MESSAGE(generation.ok(), generation.status().message());
    generations.push_back(std::move(generation).value());
  }
  std::vector<std::vector<TokenId>> out;
  for (auto& generation : generations) out.push_back(read_all(*generation));
  return out;
}

}  // namespace

TEST_CASE("a batch gives every request the tokens it would have alone") {
  auto model = nano();
  const auto alone = expected(*model);
  EngineOptions options = small_engine();
  SUBCASE("plain") {}
  SUBCASE("small steps") {
    options.step_tokens = 100;
  }
  SUBCASE("prefix cache") {
    options.prefix_cache = true;
  }
  SUBCASE("prefix cache, every hit computed again") {
    options.prefix_cache = true;
    options.canary_share = 1;
  }
  SUBCASE("speculation") {
    options.speculation = Speculation::kAlways;
  }
  SUBCASE("speculation and cache") {
    options.speculation = Speculation::kAlways;
    options.prefix_cache = true;
    options.snapshot_spacing = 256;
  }
  SUBCASE("speculation when it pays") {
    options.speculation = Speculation::kAuto;
  }
  SUBCASE("two at a time") {
    options.max_sequences = 2;
  }
  auto engine = start(*model, options);
  const int rounds = options.prefix_cache ? 2 : 1;
  for (int round = 0; round < rounds; ++round) CHECK(run_all(*model, *engine) == alone);
  const EngineStats stats = engine->stats();
  CHECK(stats.failed == 0);
  CHECK(stats.finished == static_cast<uint64_t>(rounds) * alone.size());
  if (options.prefix_cache && options.canary_share == 0) CHECK(stats.cached_tokens > 4 * 380);
  if (options.speculation == Speculation::kAlways) CHECK(stats.accepted_tokens > 0);
}

TEST_CASE("memory runs short: sequences give way, wait and come back to the same tokens") {
  auto model = nano();
  const auto alone = expected(*model);
  EngineOptions options = small_engine();
  const CacheLayout& layout = *model->layout();
  // Two of the longest, so that growing past the headroom of admission meets a full plan.
  options.state_bytes = 2 * (layout.private_bytes() + 10 * layout.block_bytes());
  options.speculation = Speculation::kAlways;
  auto engine = start(*model, options);
  CHECK(run_all(*model, *engine) == alone);
  CHECK(engine->stats().memory_bytes <= options.state_bytes);
}

TEST_CASE("preemption: two long outputs that do not fit together both finish, with their own tokens") {
  auto model = nano();
  std::vector<GenerateRequest> requests;
  for (uint32_t i = 0; i < 2; ++i) requests.push_back(request_of(random_prompt(*model, 60, i), 1200, i));
  std::vector<std::vector<TokenId>> alone;
  for (const GenerateRequest& request : requests) alone.push_back(plain(*model, request));
  EngineOptions options = small_engine();
  const CacheLayout& layout = *model->layout();
  options.state_bytes = 2 * layout.private_bytes() + 18 * layout.block_bytes();  // each wants 10 blocks in the end
  SUBCASE("from nothing") {}
  SUBCASE("from the cache") {
    options.prefix_cache = true;
  }
  auto engine = start(*model, options);
  std::vector<std::unique_ptr<Generation>> running;
  for (GenerateRequest& request : requests) {
    request.event_capacity = 2000;
    running.push_back(engine->submit(std::move(request)).value());
  }
  for (size_t i = 0; i < 2; ++i) CHECK(read_all(*running[i]) == alone[i]);
  CHECK(engine->stats().preemptions > 0);
}

TEST_CASE("a request that can never run is refused with the reason") {
  auto model = nano();
  EngineOptions options = small_engine();
  options.context_tokens = 1000;
  const CacheLayout& layout = *model->layout();
  options.state_bytes = layout.private_bytes() + 4 * layout.block_bytes();
  auto engine = start(*model, options);
  auto refused = [&](GenerateRequest request) { return engine->submit(std::move(request)).status(); };
  CHECK(refused(request_of({}, 5)).where() == "prompt");
  CHECK(refused(request_of({1, 99999}, 5)).code() == Code::kInvalidArgument);
  CHECK(refused(request_of({1, -1}, 5)).code() == Code::kInvalidArgument);
  CHECK(refused(request_of({1}, 0)).where() == "max_tokens");
  CHECK(refused(request_of({1}, 5, 0, 3.0)).where() == "temperature");
  CHECK(refused(request_of(random_prompt(*model, 1000, 1), 5)).where() == "context");
  CHECK(refused(request_of(random_prompt(*model, 600, 1), 5)).where() == "memory");
  CHECK(refused(request_of(random_prompt(*model, 500, 1), 12)).ok());
  engine->drain();
  CHECK(refused(request_of({1}, 5)).code() == Code::kCancelled);
}

TEST_CASE("a full queue refuses, and everything accepted still finishes") {
  auto model = nano();
  EngineOptions options = small_engine();
  options.max_sequences = 1;
  options.max_queued = 3;
  auto engine = start(*model, options);
  std::vector<std::unique_ptr<Generation>> accepted;
  int refused = 0;
  for (int i = 0; i < 50; ++i) {
    auto generation = engine->submit(request_of(random_prompt(*model, 50, 1), 20));
    if (generation.ok()) {
      accepted.push_back(std::move(generation).value());
    } else {
      CHECK(generation.status().where() == "queue");
      ++refused;
    }
  }
  CHECK(refused > 0);
  // Another client is not kept out by the first.
  GenerateRequest modest = request_of(random_prompt(*model, 50, 1), 20);
  modest.client = "another";
  auto late = engine->submit(std::move(modest));
  REQUIRE(late.ok());
  accepted.push_back(std::move(late).value());
  for (auto& generation : accepted) CHECK(read_all(*generation).size() == 20);
}

TEST_CASE("cancelling ends a request in any phase and frees its memory") {
  auto model = nano();
  EngineOptions options = small_engine();
  options.max_sequences = 1;
  options.step_tokens = 128;
  auto engine = start(*model, options);
  auto decoding = engine->submit(request_of(random_prompt(*model, 4, 1), 10000)).value();
  auto queued = engine->submit(request_of(random_prompt(*model, 4, 2), 10)).value();
  std::vector<TokenEvent> events;
  CHECK(decoding->wait(events));
  CHECK(queued->record().phase == Phase::kQueued);
  queued->cancel();
  CHECK(read_all(*queued).empty());
  CHECK(queued->record().end == EndReason::kCancelled);
  decoding->cancel();
  read_all(*decoding);
  CHECK(decoding->record().end == EndReason::kCancelled);
  CHECK(decoding->record().output_tokens < 10000);

  auto prefilling = engine->submit(request_of(random_prompt(*model, 16000, 3), 10)).value();
  while (prefilling->record().prefilled_tokens == 0) std::this_thread::yield();
  prefilling->cancel();
  read_all(*prefilling);
  CHECK(prefilling->record().prefilled_tokens < 16000);
  { auto dropped = engine->submit(request_of(random_prompt(*model, 4, 1), 10000)).value(); }
  CHECK(read_all(*engine->submit(request_of(random_prompt(*model, 4, 1), 10)).value()).size() == 10);
  while (engine->stats().memory_bytes != 0) std::this_thread::yield();
}

TEST_CASE("a deadline ends a request") {
  auto model = nano();
  auto engine = start(*model, small_engine());
  GenerateRequest request = request_of(random_prompt(*model, 4, 1), 15000);
  request.deadline_s = 0.01;
  auto generation = engine->submit(std::move(request)).value();
  CHECK(read_all(*generation).size() < 15000);
  CHECK(generation->record().end == EndReason::kDeadline);
}

TEST_CASE("a reader that stops holds up its own generation alone") {
  auto model = nano();
  auto engine = start(*model, small_engine());
  GenerateRequest request = request_of(random_prompt(*model, 10, 1), 50);
  const std::vector<TokenId> all = plain(*model, request);
  request.event_capacity = 3;
  auto slow = engine->submit(std::move(request)).value();
  auto quick = engine->submit(request_of(random_prompt(*model, 10, 2), 100)).value();
  CHECK(read_all(*quick).size() == 100);
  CHECK(slow->record().output_tokens <= 3);
  CHECK(slow->record().phase == Phase::kDecode);
  CHECK(read_all(*slow) == all);
}

TEST_CASE("on_event tells of every token and of the end") {
  auto model = nano();
  auto engine = start(*model, small_engine());
  std::mutex mutex;
  std::condition_variable changed;
  int calls = 0, ends = 0;
  GenerateRequest request = request_of(random_prompt(*model, 10, 1), 20);
  request.on_event = [&](bool ended) {
    const std::lock_guard lock(mutex);
    CHECK(ends == 0);
    ends += ended;
    ++calls;
    changed.notify_all();
  };
  auto generation = engine->submit(std::move(request)).value();
  std::vector<TokenEvent> events;
  for (int seen = 0; generation->poll(events);) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return calls > seen; });
    seen = calls;
  }
  CHECK(events.size() == 20);
  const std::lock_guard lock(mutex);
  CHECK(ends == 1);
}

namespace {
// Allows one token at a time from a list, then ends.
class Dictation final : public TokenGuide {
 public:
  explicit Dictation(std::vector<TokenId> text, size_t vocabulary)
      : text_(std::move(text)), mask_((vocabulary + 31) / 32) {}
  std::span<const uint32_t> allowed() override {
    std::fill(mask_.begin(), mask_.end(), 0u);
    mask_[static_cast<size_t>(text_[at_]) / 32] |= 1u << (text_[at_] % 32);
    return mask_;
  }
  bool accept(TokenId id) override {
    CHECK(id == text_[at_]);
    return ++at_ < text_.size();
  }

 private:
  std::vector<TokenId> text_;
  std::vector<uint32_t> mask_;
  size_t at_ = 0;
};
}  // namespace

TEST_CASE("a guide decides what may come and when it ends, with drafts or without") {
  auto model = nano();
  EngineOptions options = small_engine();
  SUBCASE("plain") {}
  SUBCASE("speculation") {
    options.speculation = Speculation::kAlways;
  }
  auto engine = start(*model, options);
  const std::vector<TokenId> text = random_prompt(*model, 30, 9);
  GenerateRequest request = request_of(random_prompt(*model, 10, 1), 100);
  request.guide = std::make_unique<Dictation>(text, static_cast<size_t>(model->config().vocab_size));
  auto generation = engine->submit(std::move(request)).value();
  CHECK(read_all(*generation) == text);
  CHECK(generation->record().end == EndReason::kGuide);
}

TEST_CASE("min_tokens holds the end back; the end token is delivered") {
  auto model = nano();
  auto engine = start(*model, small_engine());
  auto run = [&](int64_t least) {
    GenerateRequest request = request_of(text_prompt(*model, "What is 48 + 75?"), 200, 0, 0.0);
    request.end_tokens = {1};
    request.min_tokens = least;
    return read_all(*engine->submit(std::move(request)).value());
  };
  const std::vector<TokenId> free = run(0), held = run(static_cast<int64_t>(free.size()) + 5);
  CHECK(free.back() == 1);
  CHECK(held.size() > free.size() + 4);
  CHECK(std::find(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(free.size()) + 5, 1) ==
        held.begin() + static_cast<std::ptrdiff_t>(free.size()) + 5);
}

TEST_CASE("prompt scores are the model's own") {
  auto model = nano();
  const std::vector<TokenId> prompt = random_prompt(*model, 150, 4);
  std::vector<float> expected_scores;
  {
    Forward forward(model->weights(), Numerics::kFast, model->kernels(), model->pool());
    SequenceState state(forward.layout());
    const BatchItem item{&state, prompt};
    const auto logits = forward({&item, 1}, Logits::kAll).value().logits;
    const size_t width = static_cast<size_t>(model->config().vocab_size);
    for (size_t i = 0; i + 1 < prompt.size(); ++i) {
      expected_scores.push_back(
          Sampler(model->kernels()).score(logits.subspan(i * width, model->tokenizer().size()), prompt[i + 1], 0).logprob);
    }
  }
  auto engine = start(*model, small_engine());
  for (const int64_t output : {0, 3}) {
    GenerateRequest request = request_of(prompt, output);
    request.prompt_logprobs = 2;
    auto generation = engine->submit(std::move(request)).value();
    CHECK(read_all(*generation).size() == static_cast<size_t>(output));
    const std::vector<PromptScore> scores = generation->prompt_scores();
    REQUIRE(scores.size() == prompt.size() - 1);
    for (size_t i = 0; i < scores.size(); ++i) {
      CHECK(scores[i].logprob == expected_scores[i]);
      REQUIRE(scores[i].top_logprobs.size() == 2);
      CHECK(scores[i].top_logprobs[0].logprob >= scores[i].logprob);
    }
  }
}

TEST_CASE("a conversation pays only for what is new, to the token") {
  auto model = nano();
  EngineOptions options = small_engine();
  options.prefix_cache = true;
  auto engine = start(*model, options);
  std::vector<TokenId> history = random_prompt(*model, 300, 1);
  int64_t before = 0;
  for (uint32_t turn = 0; turn < 6; ++turn) {
    auto generation = engine->submit(request_of(history, 150, turn)).value();
    const std::vector<TokenId> reply = read_all(*generation);
    const RequestRecord record = generation->record();
    CHECK(record.cached_tokens + record.prefilled_tokens == record.prompt_tokens);
    if (turn > 0) {
      // Of what was known at the end of the last turn, less than a block is computed again.
      CHECK(before - record.cached_tokens <= kBlockTokens);
    }
    history.insert(history.end(), reply.begin(), reply.end());
    before = static_cast<int64_t>(history.size()) - 1;
    const std::vector<TokenId> next = random_prompt(*model, 40, 50 + turn);
    history.insert(history.end(), next.begin(), next.end());
  }
}

TEST_CASE("requests that share a beginning compute it once, also when they come together") {
  auto model = nano();
  EngineOptions options = small_engine();
  options.prefix_cache = true;
  auto engine = start(*model, options);
  const std::vector<TokenId> shared = random_prompt(*model, 3000, 1);
  std::vector<std::unique_ptr<Generation>> running;
  for (uint32_t i = 0; i < 8; ++i) {
    std::vector<TokenId> prompt = shared;
    prompt.push_back(static_cast<TokenId>(400 + i));
    running.push_back(engine->submit(request_of(prompt, 4, i)).value());
  }
  int64_t computed = 0;
  for (auto& generation : running) {
    read_all(*generation);
    computed += generation->record().prefilled_tokens;
  }
  CHECK(computed <= 3001 + 7 * (3001 - 3000 / kBlockTokens * kBlockTokens));
  SUBCASE("another scope shares nothing") {
    GenerateRequest request = request_of(shared, 1);
    request.cache_scope = "another tenant";
    auto generation = engine->submit(std::move(request)).value();
    read_all(*generation);
    CHECK(generation->record().cached_tokens == 0);
  }
}

TEST_CASE("what was computed is found again after a restart, and after it left memory") {
  auto model = nano();
  const TemporaryDirectory directory;
  EngineOptions options = small_engine();
  options.prefix_cache = true;
  options.disk_directory = directory.path();
  options.disk_bytes = 1 << 30;
  std::vector<std::string> warnings;
  options.warn = [&](const std::string& line) { warnings.push_back(line); };
  const GenerateRequest wanted = request_of(random_prompt(*model, 1500, 1), 30, 1);
  const std::vector<TokenId> alone = plain(*model, wanted);
  auto copy = [&] { return request_of(wanted.prompt, 30, 1); };
  auto run = [&](LocalEngine& engine) {
    auto generation = engine.submit(copy()).value();
    CHECK(read_all(*generation) == alone);
    return generation->record();
  };
  CHECK(run(*start(*model, options)).cached_tokens == 0);
  {
    auto engine = start(*model, options);
    const RequestRecord record = run(*engine);
    CHECK(record.cached_tokens == 1499 / kBlockTokens * kBlockTokens);
    CHECK(record.cache_decision.find("from disk") != std::string::npos);
    CHECK(engine->stats().cached_disk_tokens == static_cast<uint64_t>(record.cached_tokens));
  }
  // A cache that holds next to nothing in memory.
  options.cache_bytes = 3 * (model->layout()->private_bytes() + 12 * model->layout()->block_bytes());
  auto engine = start(*model, options);
  for (uint32_t i = 0; i < 6; ++i)
    read_all(*engine->submit(request_of(random_prompt(*model, 1500, 10 + i), 1)).value());
  CHECK(engine->stats().cache_bytes <= options.cache_bytes);
  CHECK(run(*engine).cached_tokens == 1499 / kBlockTokens * kBlockTokens);
  CHECK(warnings.empty());
}
