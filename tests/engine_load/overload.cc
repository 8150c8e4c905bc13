// Ten times more load than the engine can take: it refuses what it cannot queue, finishes what it admitted, starves
// nobody and stays within its plan.
#include <algorithm>
#include <atomic>
#include <thread>

#include "engine_load.h"
#include "sys/clock.h"

namespace nautile::load {
namespace {

uint64_t resident_bytes() {
  uint64_t size = 0, resident = 0;
  if (FILE* file = std::fopen("/proc/self/statm", "r"); file != nullptr) {
    if (std::fscanf(file, "%lu %lu", &size, &resident) != 2) resident = 0;
    std::fclose(file);
  }
  return resident * 4096;
}

}  // namespace

void overload(const std::string& directory, int seconds) {
  auto model = open(directory, 2);
  EngineOptions options;
  options.max_sequences = 16;
  options.max_queued = 64;
  options.state_bytes = 48u << 20;
  options.cache_bytes = 48u << 20;
  auto engine = must(start_engine(*model, options), "start");

  // Capacity: requests a second that keep it full, measured first.
  std::mt19937 random(1);
  auto make = [&](std::mt19937& r, int client) {
    GenerateRequest request;
    request.prompt = random_tokens(*model, 20 + r() % 600, r);
    request.max_tokens = 10 + static_cast<int64_t>(r() % 60);
    request.client = fmt::format("client {}", client);
    request.priority = static_cast<int>(r() % 2) * 5;
    request.sampling.seed = r();
    return request;
  };
  auto finish = [](std::unique_ptr<Generation>& generation) {
    std::vector<TokenEvent> events;
    while (generation->wait(events)) events.clear();
    return generation->record();
  };
  const double begin = seconds_now();
  constexpr int kProbe = 60;
  {
    std::vector<std::unique_ptr<Generation>> running;
    for (int i = 0; i < kProbe; ++i) running.push_back(must(engine->submit(make(random, 0)), "submit"));
    for (auto& generation : running) finish(generation);
  }
  const double capacity = kProbe / (seconds_now() - begin);
  const uint64_t resident_before = resident_bytes();

  // Eight clients; the first offers most of the load.
  std::atomic<uint64_t> offered{0}, refused{0}, finished{0}, wrong{0};
  std::atomic<uint64_t> most_bytes{0}, most_resident{0};
  std::vector<double> waits[8];
  std::vector<std::thread> clients;
  const double until = seconds_now() + seconds;
  for (int client = 0; client < 8; ++client) {
    clients.emplace_back([&, client] {
      std::mt19937 own(static_cast<uint32_t>(100 + client));
      const double rate = 10 * capacity * (client == 0 ? 0.65 : 0.05);
      std::vector<std::unique_ptr<Generation>> mine;
      double next = seconds_now();
      std::vector<TokenEvent> events;
      while (seconds_now() < until || !mine.empty()) {
        if (seconds_now() >= next && seconds_now() < until) {
          next += 1 / rate;
          ++offered;
          auto generation = engine->submit(make(own, client));
          if (generation.ok()) {
            mine.push_back(std::move(generation).value());
          } else if (generation.status().where() == "queue") {
            ++refused;
          } else {
            ++wrong;
          }
        }
        for (auto& generation : mine) {
          events.clear();
          if (generation->poll(events)) continue;
          const RequestRecord record = generation->record();
          record.end == EndReason::kLength ? ++finished : ++wrong;
          waits[client].push_back(record.queue_s);
          generation.reset();
        }
        std::erase(mine, nullptr);
        const EngineStats stats = engine->stats();
        most_bytes = std::max(most_bytes.load(), stats.memory_bytes);
        if (client == 0) most_resident = std::max(most_resident.load(), resident_bytes());
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
  }
  for (std::thread& client : clients) client.join();
  const EngineStats stats = engine->stats();
  fmt::print("capacity {:.1f} requests/s; offered {} in {} s, refused {}, finished {}, preempted {} times\n", capacity,
             offered.load(), seconds, refused.load(), finished.load(), stats.preemptions);
  fmt::print("plan {:.1f} MB, used at most {:.1f} MB; resident memory grew by {:.1f} MB\n",
             static_cast<double>(stats.memory_budget_bytes) / 1e6, static_cast<double>(most_bytes.load()) / 1e6,
             (static_cast<double>(most_resident.load()) - static_cast<double>(resident_before)) / 1e6);
  double longest = 0;
  for (int client = 0; client < 8; ++client) {
    if (waits[client].empty()) fail(fmt::format("client {} got nothing", client));
    const double most = *std::ranges::max_element(waits[client]);
    longest = std::max(longest, most);
    fmt::print("client {}: {:5} served, longest wait {:.2f} s\n", client, waits[client].size(), most);
  }
  check(wrong == 0, "a request ended otherwise than it should");
  check(finished + refused == offered, "a request was lost");
  check(most_bytes <= stats.memory_budget_bytes, "memory past the plan");
  // Everything queued at once, priorities and turns included, twice over.
  const double bound = 2 * static_cast<double>(options.max_queued + options.max_sequences) / capacity +
                       2 * 5 * 10.0;  // two priority classes apart by 5 steps of aging
  check(longest < bound, fmt::format("a request waited {:.1f} s, the bound is {:.1f} s", longest, bound));
}

}  // namespace nautile::load
