// Mixed requests give the same bytes alone, together, in any order of arrival, with the cache off, on and warm from
// disk after a restart, with and without speculation, on one thread and on two.
#include <algorithm>
#include <numeric>
#include <thread>

#include "engine_load.h"
#include "sys/clock.h"

namespace nautile::load {
namespace {

struct Case {
  GenerateRequest request;  // without guide
  int cancel_after = -1;    // tokens read before the reader gives up
};

std::vector<Case> cases(const LoadedModel& model, int count) {
  std::mt19937 random(7);
  std::vector<std::vector<TokenId>> shared;
  for (const size_t length : {256u, 700u, 2000u, 3000u}) shared.push_back(random_tokens(model, length, random));
  const std::vector<std::string> modes = {"</think>", "<think>"};
  std::vector<Case> out;
  for (int i = 0; i < count; ++i) {
    Case c;
    const unsigned kind = random() % 4;
    if (kind == 0) {  // a chat
      const std::string text = fmt::format("<｜begin▁of▁sentence｜><｜User｜>What is {} + {}?<｜Assistant｜>{}",
                                           random() % 1000, random() % 1000, modes[random() % 2]);
      c.request.prompt = must(model.tokenizer().encode(text, true), "encoding");
      c.request.end_tokens = {1};
    } else if (kind == 1) {  // noise of any length
      c.request.prompt = random_tokens(model, 1 + random() % 4000, random);
    } else {  // a shared beginning, and something of its own
      c.request.prompt = shared[random() % shared.size()];
      c.request.prompt.resize(c.request.prompt.size() - random() % 200);
      const std::vector<TokenId> own = random_tokens(model, 1 + random() % 400, random);
      c.request.prompt.insert(c.request.prompt.end(), own.begin(), own.end());
    }
    c.request.max_tokens = 1 + random() % 120;
    c.request.sampling.seed = random();
    c.request.sampling.temperature = std::vector<double>{0, 0.6, 1, 1}[random() % 4];
    if (random() % 5 == 0) c.request.sampling.top_p = 0.9;
    if (random() % 7 == 0) c.request.sampling.repetition_penalty = 1.1;
    if (random() % 10 == 0) c.cancel_after = static_cast<int>(random() % 10);
    c.request.client = fmt::format("client {}", random() % 5);
    c.request.priority = static_cast<int>(random() % 3);
    c.request.event_capacity = 1 + random() % 200;
    out.push_back(std::move(c));
  }
  return out;
}

GenerateRequest copy(const GenerateRequest& from) {
  GenerateRequest to;
  to.prompt = from.prompt;
  to.max_tokens = from.max_tokens;
  to.sampling = from.sampling;
  to.end_tokens = from.end_tokens;
  to.client = from.client;
  to.priority = from.priority;
  to.event_capacity = from.event_capacity;
  return to;
}

using Outputs = std::vector<std::vector<TokenId>>;

// All at once in the given order; readers take turns.
Outputs run(Engine& engine, const std::vector<Case>& all, const std::vector<size_t>& order, size_t together) {
  Outputs out(all.size());
  std::vector<std::pair<size_t, std::unique_ptr<Generation>>> running;
  size_t next = 0;
  std::vector<TokenEvent> events;
  while (next < order.size() || !running.empty()) {
    while (next < order.size() && running.size() < together) {
      const size_t i = order[next++];
      running.emplace_back(i, must(engine.submit(copy(all[i].request)), "submit"));
    }
    bool moved = false;
    for (auto& [i, generation] : running) {
      events.clear();
      const bool more = generation->poll(events);
      moved = moved || !events.empty() || !more;
      for (const TokenEvent& event : events) out[i].push_back(event.id);
      if (all[i].cancel_after >= 0 && static_cast<int>(out[i].size()) > all[i].cancel_after) {
        generation->cancel();
        out[i].resize(static_cast<size_t>(all[i].cancel_after));
        generation.reset();
      } else if (!more) {
        const RequestRecord record = generation->record();
        check(record.end != EndReason::kFailed, record.status.message());
        generation.reset();
      }
    }
    std::erase_if(running, [](const auto& r) { return r.second == nullptr; });
    if (!moved) std::this_thread::yield();
  }
  return out;
}

}  // namespace

void mixed(const std::string& directory, int requests) {
  auto model = open(directory, 2);
  const std::vector<Case> all = cases(*model, requests);
  std::vector<size_t> order(all.size());
  std::iota(order.begin(), order.end(), size_t{0});
  EngineOptions base;
  base.state_bytes = base.cache_bytes = 400u << 20;
  base.prefix_cache = false;
  base.speculation = Speculation::kOff;
  base.max_queued = requests;

  Outputs alone;
  auto round = [&](const char* name, LoadedModel& on, const EngineOptions& options, uint32_t shuffle, size_t together) {
    if (shuffle != 0) {
      std::mt19937 random(shuffle);
      std::shuffle(order.begin(), order.end(), random);
    }
    const double begin = seconds_now();
    auto engine = must(start_engine(on, options), name);
    const Outputs out = run(*engine, all, order, together);
    const EngineStats stats = engine->stats();
    fmt::print("{:44} {:6.2f} s, {:6} tokens out, {:7} prompt tokens of which {:7} cached, drafts {:5} of {:5} right\n",
               name, seconds_now() - begin, stats.output_tokens, stats.prompt_tokens, stats.cached_tokens,
               stats.accepted_tokens, stats.drafted_tokens);
    std::fflush(stdout);
    if (alone.empty()) alone = out;
    for (size_t i = 0; i < all.size(); ++i) check(out[i] == alone[i], fmt::format("{}: request {} differs", name, i));
    check(stats.memory_budget_bytes >= stats.memory_bytes, "memory past the plan");
    return stats;
  };

  round("one after the other", *model, base, 0, 1);
  round("all at once", *model, base, 0, all.size());
  round("all at once, random order", *model, base, 1, all.size());
  EngineOptions options = base;
  options.speculation = Speculation::kAlways;
  check(round("speculation", *model, options, 2, all.size()).accepted_tokens > 0, "no draft was accepted");
  options.prefix_cache = true;
  options.snapshot_spacing = 512;
  check(round("speculation and prefix cache", *model, options, 3, all.size()).cached_tokens > 0, "no cache hit");
  options.speculation = Speculation::kAuto;
  options.state_bytes = 24u << 20;
  options.cache_bytes = 12u << 20;
  round("little memory, random order", *model, options, 4, all.size());
  const Scratch scratch;
  options = base;
  options.prefix_cache = true;
  options.disk_directory = scratch.path;
  options.disk_bytes = 2ull << 30;
  round("prefix cache and disk, cold", *model, options, 5, 8);
  const EngineStats warm = round("the same after a restart", *model, options, 6, 8);
  check(warm.cached_disk_tokens > 0, "nothing was found on disk");
  model.reset();
  auto single = open(directory, 1);
  options.speculation = Speculation::kAlways;
  options.disk_directory.clear();
  round("one thread, speculation and prefix cache", *single, options, 7, all.size());
  fmt::print("{} requests, byte-equal in every way\n", all.size());
}

}  // namespace nautile::load
