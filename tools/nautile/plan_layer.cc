// One real layer: synthetic weights in the stored formats, a prefill chunk and decode steps through Forward.
#include "plan_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "kernels/registry.h"
#include "model/forward.h"
#include "model/synthetic.h"
#include "sys/clock.h"
#include "sys/probe.h"

namespace nautile {
namespace {

constexpr int kVocab = 1024;  // the layer is measured, not the embedding
constexpr int64_t kChunk = 256, kWarmUp = 32;
constexpr int kFewExperts = 16;  // below this a token's experts would stay in the caches

}  // namespace

Result<plan::MeasuredLayer> measure_layer(const ModelConfig& shape, int ratio, const LayerBudget& budget,
                                          ThreadPool& pool) {
  ModelConfig config = shape;
  config.layers = 1;
  config.compress_ratios = {ratio};
  config.vocab_size = kVocab;
  config.hash_layers = 0;
  config.mtp_layers = 0;
  config.dspark = {};
  const int64_t one_expert = 3 * int64_t{config.hidden} * config.expert_inter * 17 / 32;
  // The dense part of a layer weighs about as much as 12 experts (Flash: 160 of 13.4 MB each).
  constexpr int64_t kDenseAsExperts = 16;
  const int64_t affordable = static_cast<int64_t>(budget.memory_bytes) / one_expert - kDenseAsExperts;
  config.routed_experts = static_cast<int>(std::min<int64_t>({config.routed_experts, affordable, budget.experts}));
  if (config.routed_experts < kFewExperts) {
    return Status(Code::kResourceExhausted,
                  fmt::format("a layer with {} experts needs {:.1f} GB", kFewExperts,
                              static_cast<double>((kFewExperts + kDenseAsExperts) * one_expert) / 1e9),
                  "--layer-memory-gb", "free some memory");
  }
  NAUTILE_ASSIGN(const Kernels* kernels, find_kernels(budget.isa));
  NAUTILE_ASSIGN(const Checkpoint checkpoint, synthetic_checkpoint(config, Variant{}, 1, &pool));
  NAUTILE_ASSIGN(const Weights weights, load_weights(checkpoint, config, {kernels, policy_of(Numerics::kFast), &pool}));
  Forward forward(weights, Numerics::kFast, *kernels, pool);
  SequenceState state(forward.layout());
  std::mt19937 random(1);
  std::vector<int32_t> tokens(kChunk);
  auto run = [&](size_t count) -> Result<double> {
    for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(random() % kVocab);
    const BatchItem item{&state, std::span<const int32_t>(tokens.data(), count)};
    const double begin = seconds_now();
    NAUTILE_ASSIGN(const ForwardOutput output, forward(std::span(&item, 1), Logits::kNone));
    static_cast<void>(output);
    return seconds_now() - begin;
  };
  std::vector<double> chunks, steps;
  NAUTILE_ASSIGN(const double warm, run(kWarmUp));
  static_cast<void>(warm);
  double until = seconds_now() + budget.seconds / 2;
  while (chunks.empty() || (seconds_now() < until && chunks.size() < 32)) {
    NAUTILE_ASSIGN(const double seconds, run(kChunk));
    chunks.push_back(seconds);
  }
  plan::MeasuredLayer measured;
  measured.context = state.length();
  until = seconds_now() + budget.seconds / 2;
  while (steps.size() < 8 || (seconds_now() < until && steps.size() < 512)) {
    NAUTILE_ASSIGN(const double seconds, run(1));
    steps.push_back(seconds);
  }
  const plan::Arithmetic model = plan::count(config);
  measured.ratio = ratio;
  measured.experts = config.routed_experts;
  measured.decode_seconds = median(steps);
  std::sort(steps.begin(), steps.end());
  measured.fast_seconds = steps[steps.size() / 10];
  measured.slow_seconds = steps[steps.size() * 9 / 10];
  measured.decode_operations = plan::raw_operations(model, measured.context).total() - 2 * model.head_params;
  measured.prefill_tokens = kChunk;
  measured.prefill_seconds = median(chunks);
  measured.decode_bytes =
      plan::routed_bytes(model, plan::WeightFormat::kOfficial) / config.routed_experts * config.experts_per_token +
      plan::dense_bytes_read(model, plan::WeightFormat::kOfficial) - model.head_bytes +
      plan::kv_read_bytes(model, measured.context, plan::KvFormat::kFp8Fp4);
  return measured;
}

}  // namespace nautile
