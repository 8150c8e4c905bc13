// Measures rows, and counts what each has to move and compute.
#include "bench_rows.h"

#include <algorithm>
#include <atomic>

#include "kernels/tiles.h"
#include "model/node_rows.h"
#include "model/pooling.h"
#include "sys/clock.h"
#include "sys/memory.h"

namespace nautile {

namespace {

constexpr size_t kReadBytes = size_t{1} << 30;  // of the read probe, for as long as the bench runs

}  // namespace

double PartCost::bound_s(double read_gbs, const Ceilings& c) const {
  return std::max(bytes / read_gbs / 1e9, float_ops / c.float_tflops / 1e12 + byte_ops / c.byte_tops / 1e12);
}

TouchedPages touch_expert(const Weights& weights, const ThreadPool& pool, size_t index) {
  TouchedPages touched;
  if (weights.tiles == nullptr || weights.tiles_mapped) return touched;
  const size_t experts = weights.layers[0].moe.experts.size();
  const Expert& expert = weights.layers[index / experts].moe.experts[index % experts];
  for (const WeightView* all : {&expert.w1, &expert.w3, &expert.w2}) {
    if (all->layout != WeightLayout::kTiles) continue;  // of the checkpoint's file
    for (size_t node = 0; node < pool.nodes(); ++node) {
      const WeightView own = on_node(*all, node);
      const RowRange rows = node_rows(pool, own.rows, node);
      const size_t tile = tile_bytes(own.format, own.cols);
      const TouchedPages part = touch_pages(own.data + rows.begin / kTileRows * tile, tile_count(rows.end - rows.begin) * tile);
      touched.pieces += part.pieces;
      touched.waited += part.waited;
    }
  }
  return touched;
}

Bench::Bench(const Weights& weights, const Kernels& kernels, Numerics numerics, ThreadPool& pool, int repeats)
    : weights_(weights),
      weight_cost_(weight_cost(weights)),
      pool_(pool),
      repeats_(repeats),
      forward_(weights, numerics, kernels, pool),
      isa_(kernels.name),
      byte_experts_(policy_of(numerics).fast_experts &&
                    weights.layers[0].moe.experts[0].w1.layout == WeightLayout::kTiles) {
  read_peak(0.3);
}

// A virtual machine may be given half of its processors for a while: the peak is the highest that any reading found.
void Bench::read_peak(double seconds) {
  const Peaks now = peaks_of(probe_peak(pool_, seconds), isa_);
  ceilings_.float_tflops = std::max(ceilings_.float_tflops, now.float_tflops);
  ceilings_.byte_tops = std::max(ceilings_.byte_tops, now.byte_tops);
}

// The read rate now.
Result<double> Bench::read_rate() {
  NAUTILE_ASSIGN(const BandwidthProbe probe, reader_.measure(pool_, kReadBytes, 0.2));
  if (probe.gbs > ceilings_.read_gbs) {
    ceilings_.read_gbs = probe.gbs;
    ceilings_.nodes = probe.nodes;
  }
  return probe.gbs;
}

void Bench::begin_row() {
  reset_peak_memory();
  rates_.clear();
  percent_taken_ = 0;
  host_ = HostTime();
}

void Bench::begin_repeat() {
  std::atomic<size_t> pieces = 0, waited = 0;
  pool_.for_items(expert_count(weights_), [&](int, size_t index) {
    const TouchedPages touched = touch_expert(weights_, pool_, index);
    pieces += touched.pieces;
    waited += touched.waited;
  });
  percent_taken_ = std::max(percent_taken_, 100 * static_cast<double>(waited) / static_cast<double>(std::max<size_t>(pieces, 1)));
  forward_.clock().reset();
  repeat_began_ = seconds_now();
}

// Notes it, and the read rate after it.
Status Bench::end_repeat(double tokens) {
  rates_.push_back(tokens / (seconds_now() - repeat_began_));
  NAUTILE_ASSIGN(const double read, read_rate());
  reads_.push_back(read);
  return {};
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
    cost.attention.float_ops += row_ops * rows;
    cost.index.byte_ops += key_ops * keys;
    // A chunk's queries share their rows: each is read once at most.
    const double there = static_cast<double>(std::min<int64_t>(c.window + end - begin, end) + visible_entries(end - 1, layer.ratio));
    cost.attention.bytes += row_bytes * std::min(rows, there);
    if (keys > 0) cost.index.bytes += key_bytes * static_cast<double>(visible_entries(end - 1, layer.ratio));
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
  begin_row();
  reads_.assign(1, before);
  std::array<double, kOps> ops{};
  const uint64_t experts = forward_.experts_read();
  for (int r = 0; r < repeats_; ++r) {
    begin_repeat();
    for (int i = 0; i < steps; ++i) NAUTILE_RETURN_IF_ERROR(step());
    NAUTILE_RETURN_IF_ERROR(end_repeat(static_cast<double>(batch) * steps));
    for (size_t i = 0; i < kOps; ++i) ops[i] += forward_.clock().seconds()[i];
  }
  const double all_steps = static_cast<double>(steps) * repeats_;
  for (int64_t i = 0; i < batch; ++i) add_tokens(row.cost, depth, depth + 1);
  for (size_t i = 0; i < kOps; ++i) row.op_seconds[i] = ops[i] / all_steps;
  finish(row, static_cast<double>(forward_.experts_read() - experts) / all_steps, all_steps);
  return row;
}

Result<BenchRow> Bench::prefill(int64_t depth, int64_t chunk) {
  depth = std::min<int64_t>(depth, weights_.config.max_positions - chunk);
  BenchRow row{"prefill", depth, 1, chunk, pool_.threads()};
  NAUTILE_RETURN_IF_ERROR(read_rate().status());  // its buffer is there from here on
  begin_row();
  std::array<double, kOps> ops{};
  uint64_t experts = 0;
  for (int r = -1; r < repeats_; ++r) {  // the first one warms up
    NAUTILE_ASSIGN(const auto made, state(depth, 1));
    std::vector<int32_t> tokens(static_cast<size_t>(chunk));
    for (int32_t& token : tokens) token = next_token();
    const BatchItem item{made.get(), tokens};
    if (r == 0) {
      experts = forward_.experts_read();
      NAUTILE_ASSIGN(const double before, read_rate());
      reads_.assign(1, before);
    }
    if (r >= 0) begin_repeat();
    NAUTILE_RETURN_IF_ERROR(forward_({&item, 1}, Logits::kLast).status());
    if (r < 0) continue;
    NAUTILE_RETURN_IF_ERROR(end_repeat(static_cast<double>(chunk)));
    for (size_t i = 0; i < kOps; ++i) ops[i] += forward_.clock().seconds()[i];
  }
  add_tokens(row.cost, depth, depth + chunk);
  for (size_t i = 0; i < kOps; ++i) row.op_seconds[i] = ops[i] / repeats_;
  finish(row, static_cast<double>(forward_.experts_read() - experts) / repeats_, repeats_);
  return row;
}

// Memory, the weights' part of the cost, then rates and shares over `steps` steps. `experts`: distinct ones read, a step.
void Bench::finish(BenchRow& row, double experts, double steps) {
  row.peak_bytes = static_cast<double>(process_memory().peak) - static_cast<double>(kReadBytes);
  read_peak(0.1);
  const CacheLayout& layout = *forward_.layout();
  const int64_t blocks = (row.depth + row.chunk * (row.what == "decode" ? static_cast<int64_t>(steps) : 1)) / kBlockTokens + 1;
  row.state_bytes = static_cast<double>(row.batch) * (static_cast<double>(layout.private_bytes()) +
                                                      static_cast<double>(blocks) * static_cast<double>(layout.block_bytes()));
  const WeightCost& w = weight_cost_;
  const double layers = static_cast<double>(weights_.layers.size()), tokens = static_cast<double>(row.batch * row.chunk);
  row.experts = experts / layers;
  double shared_bytes = 0, shared_macs = 0;
  for (const Layer& layer : weights_.layers) {
    const Expert& shared = layer.moe.shared;
    for (const WeightView* m : {&shared.w1, &shared.w3, &shared.w2}) {
      shared_bytes += static_cast<double>(m->bytes());
      shared_macs += static_cast<double>(m->rows * m->cols);
    }
  }
  const double routed_ops =
      2 * tokens * layers * weights_.config.experts_per_token * static_cast<double>(w.expert_macs);
  row.cost.dense.bytes = static_cast<double>(w.dense_bytes + w.head_bytes) - shared_bytes;
  row.cost.dense.float_ops = 2 * (tokens * (static_cast<double>(w.dense_macs) - shared_macs) +
                                  static_cast<double>(row.batch) * static_cast<double>(w.head_macs));
  row.cost.experts.bytes = shared_bytes + experts * static_cast<double>(w.expert_bytes);
  row.cost.experts.float_ops = 2 * tokens * shared_macs;
  (byte_experts_ ? row.cost.experts.byte_ops : row.cost.experts.float_ops) += routed_ops;
  row.tokens_per_s = median(rates_);
  row.low = *std::min_element(rates_.begin(), rates_.end());
  row.high = *std::max_element(rates_.begin(), rates_.end());
  row.read_gbs = median(reads_);
  row.percent_stolen = host_.percent();
  row.percent_taken = percent_taken_;
  row.ceilings = ceilings_;
  std::vector<double> shares;
  for (size_t r = 0; r < rates_.size(); ++r) {
    shares.push_back(100 * rates_[r] * row.cost.bound_s((reads_[r] + reads_[r + 1]) / 2, ceilings_) / tokens);
  }
  row.percent_of_bound = median(shares);
}

}  // namespace nautile
