// Measures rows, and counts what each has to move and compute.
#include "bench_rows.h"

#include <algorithm>

#include "model/pooling.h"
#include "sys/clock.h"
#include "sys/memory.h"

namespace nautile {

double StepCost::bound_s(double read_gbs, const Ceilings& c) const {
  auto phase = [&](double bytes, double ops, double peak) { return std::max(bytes / read_gbs / 1e9, ops / peak / 1e12); };
  return phase(weight_bytes, weight_ops, c.float_tflops) + phase(attention_bytes, attention_ops, c.float_tflops) +
         phase(index_bytes, index_ops, c.byte_tops);
}

Bench::Bench(const Weights& weights, const Kernels& kernels, Numerics numerics, ThreadPool& pool, int repeats)
    : weights_(weights),
      weight_cost_(weight_cost(weights)),
      pool_(pool),
      repeats_(repeats),
      forward_(weights, numerics, kernels, pool) {
  for (const PeakRow& row : probe_peak(pool, 0.3)) {
    if (!row.name.starts_with("int8")) ceilings_.float_tflops = std::max(ceilings_.float_tflops, row.tflops);
    ceilings_.byte_tops = std::max(ceilings_.byte_tops, row.tflops);
  }
}

// The read rate now; each row is set against the mean of those before and after it. One serves as after and before when
// the rows follow at once.
Result<double> Bench::read_rate() {
  if (seconds_now() - last_read_at_ < 0.5) return last_read_;
  NAUTILE_ASSIGN(const BandwidthProbe probe, probe_read_bandwidth(pool_, size_t{1} << 30, 1.5));
  ceilings_.read_gbs = std::max(ceilings_.read_gbs, probe.gbs);
  last_read_ = probe.gbs;
  last_read_at_ = seconds_now();
  return probe.gbs;
}

int32_t Bench::next_token() {
  random_ = random_ * 6364136223846793005ull + 1442695040888963407ull;
  return static_cast<int32_t>((random_ >> 33) % static_cast<uint64_t>(weights_.config.vocab_size));
}

Result<std::unique_ptr<SequenceState>> Bench::state(int64_t depth, uint64_t seed) {
  if (depth < 0) return Status(Code::kInvalidArgument, "the context is too short for so many steps", "--decode");
  auto made = std::make_unique<SequenceState>(forward_.layout());
  if (depth > 0) made->fill_synthetic(depth, seed);
  return made;
}

// Rows attended and keys scored by the tokens at positions [begin, end) of one sequence, in every layer.
void Bench::add_tokens(StepCost& cost, int64_t begin, int64_t end) const {
  const ModelConfig& c = weights_.config;
  const CacheShape& shape = forward_.layout()->shape();
  const double row_ops = 4.0 * c.heads * c.head_dim, key_ops = 2.0 * c.index_heads * c.index_head_dim;
  const double row_bytes = static_cast<double>(shape.kv.row_bytes()), key_bytes = static_cast<double>(shape.index.row_bytes());
  for (const Layer& layer : weights_.layers) {
    double rows = 0, keys = 0;
    for (int64_t p = begin; p < end; ++p) {
      const int64_t visible = visible_entries(p, layer.ratio);
      const bool scored = layer.ratio == 4 && visible > c.index_topk;
      rows += static_cast<double>(std::min<int64_t>(c.window, p + 1) + (scored ? c.index_topk : visible));
      if (scored) keys += static_cast<double>(visible);
    }
    cost.attention_ops += row_ops * rows;
    cost.index_ops += key_ops * keys;
    // A chunk's queries share their rows: each is read once at most.
    const double there = static_cast<double>(std::min<int64_t>(c.window + end - begin, end) + visible_entries(end - 1, layer.ratio));
    cost.attention_bytes += row_bytes * std::min(rows, there);
    if (keys > 0) cost.index_bytes += key_bytes * static_cast<double>(visible_entries(end - 1, layer.ratio));
  }
}

Result<BenchRow> Bench::decode(int64_t depth, int64_t batch, int steps) {
  depth = std::min<int64_t>(depth, weights_.config.max_positions - 1 - int64_t{steps} * repeats_);
  std::vector<std::unique_ptr<SequenceState>> states;
  for (int64_t i = 0; i < batch; ++i) {
    NAUTILE_ASSIGN(auto made, state(depth, static_cast<uint64_t>(i)));
    states.push_back(std::move(made));
  }
  std::vector<int32_t> tokens(static_cast<size_t>(batch));
  std::vector<BatchItem> items;
  for (size_t i = 0; i < tokens.size(); ++i) items.push_back({states[i].get(), {&tokens[i], 1}});
  auto step = [&]() -> Status {
    for (int32_t& token : tokens) token = next_token();
    return forward_(items, Logits::kLast).status();
  };
  BenchRow row{"decode", depth, batch, 1, pool_.threads()};
  NAUTILE_RETURN_IF_ERROR(step());
  NAUTILE_ASSIGN(const double before, read_rate());
  reset_peak_memory();
  std::vector<double> rates;
  const uint64_t experts = forward_.experts_read();
  forward_.clock().reset();
  for (int r = 0; r < repeats_; ++r) {
    const double begin = seconds_now();
    for (int i = 0; i < steps; ++i) NAUTILE_RETURN_IF_ERROR(step());
    rates.push_back(static_cast<double>(batch) * steps / (seconds_now() - begin));
  }
  const double all_steps = static_cast<double>(steps) * repeats_;
  for (int64_t i = 0; i < batch; ++i) add_tokens(row.cost, depth, depth + 1);
  finish(row, rates, static_cast<double>(forward_.experts_read() - experts) / all_steps, all_steps);
  NAUTILE_ASSIGN(const double after, read_rate());
  row.read_gbs = (before + after) / 2;
  row.ceilings = ceilings_;
  return row;
}

Result<BenchRow> Bench::prefill(int64_t depth, int64_t chunk) {
  depth = std::min<int64_t>(depth, weights_.config.max_positions - chunk);
  BenchRow row{"prefill", depth, 1, chunk, pool_.threads()};
  NAUTILE_ASSIGN(const double before, read_rate());
  reset_peak_memory();
  std::vector<double> rates;
  std::array<double, kOps> ops{};
  uint64_t experts = 0;
  for (int r = -1; r < repeats_; ++r) {  // the first one warms up
    NAUTILE_ASSIGN(const auto made, state(depth, 1));
    std::vector<int32_t> tokens(static_cast<size_t>(chunk));
    for (int32_t& token : tokens) token = next_token();
    const BatchItem item{made.get(), tokens};
    if (r == 0) experts = forward_.experts_read();
    forward_.clock().reset();
    const double begin = seconds_now();
    NAUTILE_RETURN_IF_ERROR(forward_({&item, 1}, Logits::kLast).status());
    if (r < 0) continue;
    rates.push_back(static_cast<double>(chunk) / (seconds_now() - begin));
    for (size_t i = 0; i < kOps; ++i) ops[i] += forward_.clock().seconds()[i];
  }
  add_tokens(row.cost, depth, depth + chunk);
  finish(row, rates, static_cast<double>(forward_.experts_read() - experts) / repeats_, repeats_);
  for (size_t i = 0; i < kOps; ++i) row.op_seconds[i] = ops[i] / repeats_;
  NAUTILE_ASSIGN(const double after, read_rate());
  row.read_gbs = (before + after) / 2;
  row.ceilings = ceilings_;
  return row;
}

// Rates, the weights' share of the cost, and the clock over `steps` steps. `experts`: distinct ones read, a step.
void Bench::finish(BenchRow& row, const std::vector<double>& rates, double experts, double steps) {
  row.tokens_per_s = median(rates);
  row.low = *std::min_element(rates.begin(), rates.end());
  row.high = *std::max_element(rates.begin(), rates.end());
  row.peak_bytes = static_cast<double>(process_memory().peak);
  const CacheLayout& layout = *forward_.layout();
  const int64_t blocks = (row.depth + row.chunk * (row.what == "decode" ? static_cast<int64_t>(steps) : 1)) / kBlockTokens + 1;
  row.state_bytes = static_cast<double>(row.batch) * (static_cast<double>(layout.private_bytes()) +
                                                      static_cast<double>(blocks) * static_cast<double>(layout.block_bytes()));
  const WeightCost& w = weight_cost_;
  const double layers = static_cast<double>(weights_.layers.size()), tokens = static_cast<double>(row.batch * row.chunk);
  row.experts = experts / layers;
  row.cost.weight_bytes = static_cast<double>(w.dense_bytes + w.head_bytes) + experts * static_cast<double>(w.expert_bytes);
  row.cost.weight_ops =
      2 * (tokens * (static_cast<double>(w.dense_macs) +
                     layers * weights_.config.experts_per_token * static_cast<double>(w.expert_macs)) +
           static_cast<double>(row.batch) * static_cast<double>(w.head_macs));
  for (size_t i = 0; i < kOps; ++i) row.op_seconds[i] = forward_.clock().seconds()[i] / steps;
}

}  // namespace nautile
