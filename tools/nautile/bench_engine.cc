// Rows of pure decode steps, from the engine's own step records, beside the bytes that they had to read.
#include "bench_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/json.h"
#include "bench_rows.h"
#include "sys/probe.h"

namespace nautile {
namespace {

constexpr int kRepeats = 5;

struct Row {
  int64_t batch = 0;
  const char* speculation = "";
  double tokens_per_s = 0, low = 0, high = 0;  // of all sequences: median of the repeats, slowest, fastest
  double experts = 0;                          // distinct, a layer and step
  double gbs = 0, roof_gbs = 0;                // weight bytes a second; read rate around the row
  double ratio = 1;                            // to the row without speculation, median over pairs
  double drafts = 0, accepted = 0;             // drafts a sequence and step; share of them that stood
};

std::vector<TokenId> prompt_of(const LoadedModel& model, std::mt19937& random) {
  if (model.has_tokenizer()) {
    const std::string text = fmt::format("<｜begin▁of▁sentence｜><｜User｜>What is {} + {}?<｜Assistant｜><think>",
                                         random() % 900 + 100, random() % 900 + 100);
    if (auto ids = model.tokenizer().encode(text, true); ids.ok()) return std::move(ids).value();
  }
  std::vector<TokenId> prompt(16);
  for (TokenId& id : prompt) id = static_cast<TokenId>(random() % static_cast<uint32_t>(model.config().vocab_size));
  return prompt;
}

// Runs `batch` generations to their end, and adds up the steps in which all of them decoded.
struct Sums {
  double seconds = 0, tokens = 0, bytes = 0, experts = 0, drafts = 0, accepted = 0, steps = 0;
};
Result<Sums> run_once(LocalEngine& engine, const LoadedModel& model, int64_t batch, int tokens, bool speculate,
                      std::mt19937& random) {
  const WeightCost cost = weight_cost(model.weights());
  std::vector<std::unique_ptr<Generation>> running;
  const EngineStats before = engine.stats();
  for (int64_t i = 0; i < batch; ++i) {
    GenerateRequest request;
    request.prompt = prompt_of(model, random);
    request.max_tokens = tokens;
    request.sampling.seed = static_cast<uint64_t>(i);
    request.speculate = speculate;
    request.event_capacity = static_cast<size_t>(tokens) + 16;
    NAUTILE_ASSIGN(auto generation, engine.submit(std::move(request)));
    running.push_back(std::move(generation));
  }
  std::vector<TokenEvent> events;
  for (auto& generation : running) {
    while (generation->wait(events)) events.clear();
    const RequestRecord record = generation->record();
    if (record.end == EndReason::kFailed) return record.status;
  }
  Sums sums;
  const EngineStats after = engine.stats();
  for (const StepRecord& step : engine.steps(static_cast<size_t>(after.steps - before.steps))) {
    if (step.prefilling > 0 || step.decoding != batch) continue;
    sums.steps += 1;
    sums.seconds += step.seconds + step.draft_seconds;
    sums.tokens += static_cast<double>(step.new_tokens);
    sums.bytes += static_cast<double>(cost.dense_bytes + cost.head_bytes) +
                  static_cast<double>(step.experts_read) * static_cast<double>(cost.expert_bytes);
    sums.experts += static_cast<double>(step.experts_read);
    sums.drafts += step.drafts;
    sums.accepted += static_cast<double>(step.new_tokens - step.decoding);
  }
  if (sums.steps == 0) {
    return Status(Code::kInvalidArgument,
                  fmt::format("{} tokens are too few for {} sequences to decode together", tokens, batch), "--decode",
                  "ask for more");
  }
  return sums;
}

// Two rows, without and with speculation, from runs that alternate, so that both meet the same machine. The first pair
// is for caches to warm and the policy to learn, and does not count.
Status measure(LoadedModel& model, int64_t batch, int tokens, std::vector<Row>& rows) {
  EngineOptions options;
  options.max_sequences = batch;
  options.prefix_cache = false;
  const CacheLayout& layout = *model.layout();
  options.state_bytes =
      static_cast<uint64_t>(batch) *
      (layout.private_bytes() + layout.block_bytes() * static_cast<uint64_t>(tokens / kBlockTokens + 3));
  auto read_rate = [&] { return probe_read_bandwidth(model.pool(), size_t{1} << 29, 0.5); };
  NAUTILE_ASSIGN(const BandwidthProbe first, read_rate());
  const bool drafts = model.weights().mtp != nullptr;
  std::vector<double> rates[2];
  Sums sums[2];
  {
    NAUTILE_ASSIGN(const std::unique_ptr<LocalEngine> engine, start_engine(model, options));
    for (int repeat = -1; repeat < kRepeats; ++repeat) {
      for (int speculate = 0; speculate <= (drafts ? 1 : 0); ++speculate) {
        std::mt19937 random(static_cast<uint32_t>(repeat));
        // By this thread: the pool is the engine's.
        for (size_t i = 0; i < expert_count(model.weights()); ++i) touch_expert(model.weights(), model.pool(), i);
        NAUTILE_ASSIGN(const Sums one, run_once(*engine, model, batch, tokens, speculate != 0, random));
        if (repeat < 0) continue;
        rates[speculate].push_back(one.tokens / one.seconds);
        Sums& all = sums[speculate];
        all.seconds += one.seconds;
        all.bytes += one.bytes;
        all.experts += one.experts;
        all.drafts += one.drafts;
        all.accepted += one.accepted;
        all.steps += one.steps;
      }
    }
  }
  NAUTILE_ASSIGN(const BandwidthProbe last, read_rate());
  for (int speculate = 0; speculate <= (drafts ? 1 : 0); ++speculate) {
    const Sums& all = sums[speculate];
    Row row;
    row.batch = batch;
    row.speculation = speculate != 0 ? "auto" : "off";
    row.tokens_per_s = median(rates[speculate]);
    row.low = *std::ranges::min_element(rates[speculate]);
    row.high = *std::ranges::max_element(rates[speculate]);
    row.roof_gbs = (first.gbs + last.gbs) / 2;
    row.gbs = all.bytes / all.seconds / 1e9;
    row.experts = all.experts / (all.steps * static_cast<double>(model.weights().layers.size()));
    row.accepted = all.drafts > 0 ? all.accepted / all.drafts : 0;
    row.drafts = all.drafts / (all.steps * static_cast<double>(batch));
    // Pairs of neighbours in time, so that the machine's phases cancel.
    std::vector<double> ratios;
    for (size_t i = 0; i < rates[0].size(); ++i) ratios.push_back(rates[speculate][i] / rates[0][i]);
    row.ratio = median(ratios);
    rows.push_back(row);
  }
  return {};
}

}  // namespace

Status bench_engine(LoadedModel& model, const std::vector<int64_t>& batches, int tokens, bool json) {
  std::vector<Row> rows;
  for (const int64_t batch : batches) NAUTILE_RETURN_IF_ERROR(measure(model, batch, tokens, rows));
  if (json) {
    Json out = {{"cpu", cpu_name()}, {"threads", model.pool().threads()}, {"isa", model.kernels().name}};
    for (const Row& r : rows) {
      out["rows"].push_back({{"batch", r.batch},
                             {"speculation", r.speculation},
                             {"tokens_per_s", r.tokens_per_s},
                             {"slowest", r.low},
                             {"fastest", r.high},
                             {"experts_a_layer", r.experts},
                             {"weight_gb_per_s", r.gbs},
                             {"read_gb_per_s", r.roof_gbs},
                             {"drafts_a_step", r.drafts},
                             {"accepted", r.accepted},
                             {"ratio", r.ratio}});
    }
    fmt::print("{}\n", out.dump(2));
    return {};
  }
  fmt::print("{}, {} threads, {} kernels; medians of {}\n", cpu_name(), model.pool().threads(), model.kernels().name,
             kRepeats);
  fmt::print("{:>5} {:>11} {:>10} {:>21} {:>8} {:>7} {:>7} {:>7} {:>9} {:>6}\n", "batch", "speculation", "tokens/s",
             "(slowest - fastest)", "experts", "GB/s", "% roof", "drafts", "accepted", "ratio");
  for (const Row& r : rows) {
    fmt::print("{:>5} {:>11} {:>10.2f} {:>21} {:>8.1f} {:>7.1f} {:>6.0f}% {:>7.2f} {:>8.0f}% {:>6.3f}\n", r.batch,
               r.speculation, r.tokens_per_s, fmt::format("({:.2f} - {:.2f})", r.low, r.high), r.experts, r.gbs,
               100 * r.gbs / r.roof_gbs, r.drafts, 100 * r.accepted, r.ratio);
  }
  return {};
}

}  // namespace nautile
