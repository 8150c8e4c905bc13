// A decoding batch allocates nothing between two block ends: every call of operator new is counted.
#include <atomic>
#include <new>

#include "engine_load.h"

namespace {
std::atomic<bool> g_counting{false};
std::atomic<uint64_t> g_allocations{0};
}  // namespace

void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  if (g_counting.load(std::memory_order_relaxed)) g_allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(bytes);
}
void* operator new(size_t bytes) {
  if (void* memory = operator new(bytes, std::nothrow)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace nautile::load {

void allocations(const std::string& directory, int batch) {
  auto model = open(directory, 2);
  for (const Speculation speculation : {Speculation::kOff, Speculation::kAlways}) {
    EngineOptions options;
    options.state_bytes = options.cache_bytes = 100u << 20;
    options.speculation = speculation;
    auto engine = must(start_engine(*model, options), "start");
    std::mt19937 random(1);
    std::vector<std::unique_ptr<Generation>> running;
    // The prompts end just behind a block's end, and all tokens below come before the next one.
    constexpr int kPrompt = 130, kWarm = 30, kCounted = 60;
    for (int i = 0; i < batch; ++i) {
      GenerateRequest request;
      request.prompt = random_tokens(*model, kPrompt, random);
      request.max_tokens = 1000;
      request.sampling.seed = static_cast<uint64_t>(i);
      running.push_back(must(engine->submit(std::move(request)), "submit"));
    }
    std::vector<std::vector<TokenEvent>> events(running.size());
    for (auto& list : events) list.reserve(2000);
    auto read_until = [&](size_t tokens) {
      for (size_t i = 0; i < running.size(); ++i) {
        while (events[i].size() < tokens) running[i]->wait(events[i]);
      }
    };
    read_until(kWarm);
    const uint64_t steps_before = engine->stats().steps;
    g_allocations = 0;
    // Counted while every sequence is between the two block ends: the fastest has at most kDone tokens.
    g_counting = true;
    read_until(kWarm + kCounted);
    g_counting = false;
    const uint64_t counted = g_allocations, steps = engine->stats().steps - steps_before;
    size_t most = 0;
    for (const auto& list : events) most = std::max(most, list.size());
    fmt::print("speculation {}: {} sequences, {} steps, {} allocations\n",
               speculation == Speculation::kOff ? "off" : "on", batch, steps, counted);
    // stats() of this thread copies a string; nothing else may appear.
    if (most + kPrompt < 250) check(counted == 0, fmt::format("{} allocations in {} steps", counted, steps));
  }
}

}  // namespace nautile::load
