// The engine without a server, to hold one against: loads a model and, for every line on stdin, runs a batch of
// generations like those that serve_load asks for and prints one JSON line. Nobody reads the tokens while they are
// made. What decides the speed is as in the server: the checkpoint's own sampling, ends ignored, no speculation.
//
//   raw_engine MODEL_DIRECTORY BATCH TOKENS [THREADS]
#include <sys/resource.h>

#include <chrono>
#include <iostream>
#include <thread>

#include "../engine_load/engine_load.h"

namespace nautile {
namespace {

double processor_seconds() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

int run(const std::string& directory, int batch, int tokens, int threads) {
  auto model = load::open(directory, threads);
  EngineOptions options;
  options.speculation = Speculation::kOff;
  auto engine = load::must(start_engine(*model, options), "start");
  std::string line;
  for (int round = 0; std::getline(std::cin, line); ++round) {
    const double cpu = processor_seconds();
    std::vector<std::unique_ptr<Generation>> running;
    for (int i = 0; i < batch; ++i) {
      GenerateRequest request;
      const std::string text = fmt::format("<｜begin▁of▁sentence｜><｜User｜>What is {} + {}?<｜Assistant｜><think>",
                                           (round * batch + i) % 900 + 100, (round * batch + i) * 7 % 900 + 100);
      request.prompt = load::must(model->tokenizer().encode(text, true), "encode");
      request.max_tokens = tokens;  // no end tokens: as with ignore_eos
      request.sampling.temperature = model->default_temperature();
      request.sampling.top_p = model->default_top_p();
      request.sampling.seed = static_cast<uint64_t>(round * batch + i);
      request.event_capacity = static_cast<size_t>(tokens) + 16;
      running.push_back(load::must(engine->submit(std::move(request)), "submit"));
    }
    for (const auto& generation : running) {
      while (generation->record().phase != Phase::kEnded) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    // Each from its first token to its last, as a client sees it, summed.
    double rate = 0;
    for (const auto& generation : running) rate += (tokens - 1) / generation->record().decode_s;
    fmt::print("{{\"decode_tokens_per_s\":{:.1f},\"cpu_s\":{:.3f}}}\n", rate, processor_seconds() - cpu);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace nautile

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    fmt::print(stderr, "usage: raw_engine MODEL_DIRECTORY BATCH TOKENS [THREADS]\n");
    return 2;
  }
  return nautile::run(argv[1], std::atoi(argv[2]), std::atoi(argv[3]), argc == 5 ? std::atoi(argv[4]) : 0);
}
