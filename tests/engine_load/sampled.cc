// Sampled speculation: over many seeds, the tokens that the drafts had a part in are distributed as without drafts.
// Each is also the same token to the bit, which is more.
#include <algorithm>
#include <cmath>

#include "engine_load.h"

namespace nautile::load {
namespace {

// Counts of the token at each of the first places.
std::vector<std::vector<int>> counts(Engine& engine, const std::vector<TokenId>& prompt, size_t places,
                                     size_t vocabulary, int samples, uint64_t first_seed,
                                     std::vector<std::vector<TokenId>>& outputs) {
  std::vector<std::vector<int>> out(places, std::vector<int>(vocabulary));
  std::vector<std::unique_ptr<Generation>> running;
  std::vector<TokenEvent> events;
  for (int done = 0; done < samples;) {
    const int batch = std::min(32, samples - done);
    for (int i = 0; i < batch; ++i) {
      GenerateRequest request;
      request.prompt = prompt;
      request.max_tokens = static_cast<int64_t>(places);
      request.sampling.seed = first_seed + static_cast<uint64_t>(done + i);
      running.push_back(must(engine.submit(std::move(request)), "submit"));
    }
    for (auto& generation : running) {
      events.clear();
      while (generation->wait(events)) {
      }
      outputs.emplace_back();
      for (size_t place = 0; place < events.size(); ++place) {
        ++out[place][static_cast<size_t>(events[place].id)];
        outputs.back().push_back(events[place].id);
      }
    }
    running.clear();
    done += batch;
  }
  return out;
}

// Pearson's statistic of two samples of one size, rare tokens in one cell; and its degrees of freedom.
std::pair<double, int> chi_square(const std::vector<int>& a, const std::vector<int>& b) {
  double sum = 0;
  int cells = 0, rest_a = 0, rest_b = 0;
  auto add = [&](double x, double y) {
    if (x + y == 0) return;
    sum += (x - y) * (x - y) / (x + y);
    ++cells;
  };
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] + b[i] < 10) {
      rest_a += a[i];
      rest_b += b[i];
    } else {
      add(a[i], b[i]);
    }
  }
  add(rest_a, rest_b);
  return {sum, std::max(cells - 1, 1)};
}

}  // namespace

void sampled(const std::string& directory, int samples) {
  auto model = open(directory, 2);
  constexpr size_t kPlaces = 6;
  const std::vector<TokenId> prompt = must(
      model->tokenizer().encode("<｜begin▁of▁sentence｜><｜User｜>Tell me something.<｜Assistant｜></think>", true),
      "encode");
  EngineOptions options;
  options.state_bytes = options.cache_bytes = 100u << 20;
  options.max_queued = 64;
  std::vector<std::vector<TokenId>> plain_outputs, draft_outputs, other_outputs;
  std::vector<std::vector<int>> plain, drafted;
  const size_t vocabulary = model->tokenizer().size();
  {
    options.speculation = Speculation::kOff;
    auto engine = must(start_engine(*model, options), "start");
    plain = counts(*engine, prompt, kPlaces, vocabulary, samples, 0, plain_outputs);
  }
  options.speculation = Speculation::kAlways;
  auto engine = must(start_engine(*model, options), "start");
  drafted = counts(*engine, prompt, kPlaces, vocabulary, samples, 0, draft_outputs);
  const EngineStats stats = engine->stats();
  fmt::print("{} samples; drafts {} of {} accepted ({:.0f}%)\n", samples, stats.accepted_tokens, stats.drafted_tokens,
             100.0 * static_cast<double>(stats.accepted_tokens) / static_cast<double>(stats.drafted_tokens));
  check(plain_outputs == draft_outputs, "a token differs with the same seed");
  fmt::print("the same seeds give the same tokens, all {}\n", samples * static_cast<int>(kPlaces));

  // The same seeds agree to the bit, so the statistic needs other seeds to say anything: those after the first ones.
  const std::vector<std::vector<int>> fresh =
      counts(*engine, prompt, kPlaces, vocabulary, samples, 1'000'000'000, other_outputs);
  for (size_t place = 0; place < kPlaces; ++place) {
    const auto [statistic, freedom] = chi_square(plain[place], fresh[place]);
    // Wilson and Hilferty: a standard normal value of the statistic.
    const double f = freedom;
    const double z = (std::cbrt(statistic / f) - (1 - 2 / (9 * f))) / std::sqrt(2 / (9 * f));
    fmt::print("place {}: chi-square {:.1f} with {} degrees of freedom, z = {:.2f}\n", place, statistic, freedom, z);
    check(z < 4.5, "the distributions differ");
  }
}

}  // namespace nautile::load
