// The engine without a server, to hold one against: loads a model and, for every line on stdin, runs a batch of
// generations like those that serve_load asks for and prints one JSON line. Nobody reads the tokens while they are made.
//
//   raw_engine MODEL_DIRECTORY BATCH TOKENS
#include <sys/resource.h>

#include <chrono>
#include <iostream>
#include <thread>

#include "../engine_load/engine_load.h"
#include "sys/clock.h"

namespace nautile {
namespace {

double processor_seconds() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

int run(const std::string& directory, int batch, int tokens) {
  auto model = load::open(directory, 0);
  auto engine = load::must(start_engine(*model, {}), "start");
  std::string line;
  for (int round = 0; std::getline(std::cin, line); ++round) {
    const double cpu = processor_seconds();
    const EngineStats before = engine->stats();
    std::vector<std::unique_ptr<Generation>> running;
    for (int i = 0; i < batch; ++i) {
      GenerateRequest request;
      const std::string text =
          fmt::format("<｜begin▁of▁sentence｜><｜User｜>What is {} + {}?<｜Assistant｜><think>",
                      (round * batch + i) % 900 + 100, (round * batch + i) * 7 % 900 + 100);
      request.prompt = load::must(model->tokenizer().encode(text, true), "encode");
      request.max_tokens = tokens;
      request.sampling.seed = static_cast<uint64_t>(round * batch + i);
      request.event_capacity = static_cast<size_t>(tokens) + 16;
      running.push_back(load::must(engine->submit(std::move(request)), "submit"));
    }
    for (const auto& generation : running) {
      while (generation->record().phase != Phase::kEnded) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    // From step to step while all of them decode; what lies between two steps counts as well.
    const EngineStats after = engine->stats();
    double first = 0, last = 0, made = 0;
    for (const StepRecord& step : engine->steps(static_cast<size_t>(after.steps - before.steps))) {
      if (step.prefilling > 0 || step.decoding != batch) continue;
      if (first == 0) {
        first = step.begin_s;  // the tokens of the first step pay for the time to the next one's begin
      } else {
        last = step.begin_s;
      }
      made += static_cast<double>(step.new_tokens);
      if (last == 0) made = static_cast<double>(step.new_tokens);
    }
    made -= batch;  // those of the last step, whose end is not known
    fmt::print("{{\"steady_tokens_per_s\":{:.1f},\"cpu_s\":{:.3f}}}\n", made / (last - first), processor_seconds() - cpu);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace nautile

int main(int argc, char** argv) {
  if (argc != 4) {
    fmt::print(stderr, "usage: raw_engine MODEL_DIRECTORY BATCH TOKENS\n");
    return 2;
  }
  return nautile::run(argv[1], std::atoi(argv[2]), std::atoi(argv[3]));
}
