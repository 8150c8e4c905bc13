// `nautile bench --kernels`: each kernel alone on all threads, beside the read rate and the peaks of the same minute.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <functional>
#include <random>

#include "bench_rows.h"
#include "kernels/registry.h"
#include "model/linear.h"
#include "sys/clock.h"
#include "tensor/quantise.h"

namespace nautile {
namespace {

constexpr int kRepeats = 5;

std::vector<float> normal(size_t count) {
  std::mt19937 engine(3);
  std::normal_distribution<float> distribution;
  std::vector<float> values(count);
  for (float& v : values) v = distribution(engine);
  return values;
}

// Median seconds of a call, the first of all left out.
double seconds_of(const std::function<void()>& body) {
  body();
  std::vector<double> times;
  for (int i = 0; i < kRepeats; ++i) {
    const double begin = seconds_now();
    body();
    times.push_back(seconds_now() - begin);
  }
  return median(times);
}

class KernelBench {
 public:
  KernelBench(const Weights& weights, const Kernels& kernels, Numerics numerics, ThreadPool& pool)
      : weights_(weights), kernels_(kernels), policy_(policy_of(numerics)), pool_(pool) {}

  Result<std::string> operator()() {
    NAUTILE_ASSIGN(const BandwidthProbe read, probe_read_bandwidth(pool_, size_t{1} << 30, 1.5));
    read_gbs_ = read.gbs;
    const Peaks peaks = peaks_of(probe_peak(pool_, 0.3), kernels_.name);
    float_ = peaks.float_tflops;
    byte_ = peaks.byte_tops;
    std::vector<std::string> others = built_isas();
    for (const std::string& isa : available_isas()) std::erase(others, isa);
    out_ = fmt::format("built in and able to run here: {}; not here: {}; chosen: {}\n", fmt::join(available_isas(), ", "),
                       others.empty() ? "none" : fmt::format("{}", fmt::join(others, ", ")), kernels_.name);
    out_ += fmt::format("read {:.1f} GB/s, peak {:.3f} TFLOP/s (float or BF16), {:.3f} Top/s (int8), {} threads, medians of {}\n\n",
                        read_gbs_, float_, byte_, pool_.threads(), kRepeats);
    out_ += fmt::format("{:44} {:>12} {:>16} {:>10}\n", "kernel", "time", "rate", "of ceiling");
    const HostTime host;
    matrices();
    attention();
    index();
    elements();
    if (const double kept = host.percent(); kept >= 0.5) out_ += fmt::format("\ndisturbed: this virtual machine's host kept {:.1f}% of the processors' time\n", kept);
    return out_;
  }

 private:
  void line(const std::string& name, double seconds, const std::string& rate, double share) {
    out_ += fmt::format("{:44} {:>9.2f} us {:>16} {:>9.0f}%\n", name, 1e6 * seconds, rate, 100 * share);
  }

  // All matrices of one kind, one after the other, as a step meets them.
  void product(const std::string& name, const std::vector<const WeightView*>& matrices, Rounding rounding) {
    if (matrices.empty()) return;
    OpClock clock;
    const RopeTable none;
    Step step{weights_.config, policy_, pool_, kernels_, clock, {}, {}, {}, none, none};
    Linear linear;
    double bytes = 0, macs = 0;
    size_t cols = 0, rows = 0;
    for (const WeightView* w : matrices) {
      bytes += static_cast<double>(w->bytes());
      macs += static_cast<double>(w->rows) * static_cast<double>(w->cols);
      cols = std::max(cols, w->cols);
      rows = std::max(rows, w->rows);
    }
    for (const size_t tokens : {size_t{1}, size_t{12}, size_t{128}}) {
      const std::vector<float> x = normal(tokens * cols);
      std::vector<float> y(tokens * rows);
      const double seconds = seconds_of([&] {
        for (const WeightView* w : matrices) linear(step, *w, x.data(), cols, tokens, y.data(), rows, rounding);
      });
      const std::string label = fmt::format("{}, {} tokens", name, tokens);
      if (tokens == 1) {
        line(label, seconds, fmt::format("{:.1f} GB/s", bytes / seconds / 1e9), bytes / seconds / 1e9 / read_gbs_);
      } else {
        const double tflops = 2 * macs * static_cast<double>(tokens) / seconds / 1e12;
        line(label, seconds, fmt::format("{:.3f} TFLOP/s", tflops), tflops / float_);
      }
    }
  }

  void matrices() {
    std::vector<const WeightView*> fp4, fp8, bf16, f32;
    auto sort_in = [&](const WeightView& w) {
      if (w.rows == 0) return;
      (w.format == WeightFormat::kFp4 ? fp4 : w.format == WeightFormat::kFp8 ? fp8 : w.format == WeightFormat::kBf16 ? bf16 : f32)
          .push_back(&w);
    };
    for (const Layer& layer : weights_.layers) {
      for (const WeightView* w : {&layer.attn.wq_a, &layer.attn.wq_b, &layer.attn.wkv, &layer.attn.wo_b}) sort_in(*w);
      sort_in(layer.hc_attn.fn);
      sort_in(layer.hc_ffn.fn);
      sort_in(layer.moe.gate);
      for (const Expert& expert : layer.moe.experts) sort_in(expert.w1);
    }
    sort_in(weights_.head);
    if (fp4.size() > 96) fp4.resize(96);  // 400 MB of V4-Flash: above any cache
    product("FP4 matrices (experts' w1)", fp4, Rounding::kOfficial);
    product("FP8 matrices (attention)", fp8, Rounding::kOfficial);
    product("BF16 matrices (gate, head)", bf16, Rounding::kNone);
    product("F32 matrices (mixes)", f32, Rounding::kNone);
  }

  void attention() {
    const ModelConfig& c = weights_.config;
    const KvLayout kv{policy_.kv_format(), static_cast<size_t>(c.head_dim), static_cast<size_t>(c.rope_dim)};
    const size_t heads = static_cast<size_t>(c.heads), dim = kv.head_dim, most = 8192 + 128;
    std::vector<std::byte> cache(most * kv.row_bytes());
    std::vector<const std::byte*> rows;
    for (size_t j = 0; j < most; ++j) {
      std::byte* row = cache.data() + j * kv.row_bytes();
      for (size_t i = 0; i < kv.row_bytes(); ++i) row[i] = std::byte(32 + (i * 7 + j) % 24);
      rows.push_back(row);
    }
    const std::vector<float> q = normal(heads * dim), sink = normal(heads);
    const size_t threads = static_cast<size_t>(pool_.threads());
    std::vector<std::vector<float>> scratch(threads), out(threads);
    const AttendPrecision precision = policy_.round_bf16 ? AttendPrecision::kOfficial : policy_.quantise_cache ? AttendPrecision::kFast : AttendPrecision::kFloat;
    for (const size_t count : {size_t{128}, size_t{640}, most}) {
      const double seconds = seconds_of([&] {  // a token a thread
        pool_.run([&](int worker) {
          auto& s = scratch[static_cast<size_t>(worker)];
          auto& o = out[static_cast<size_t>(worker)];
          s.resize(attend_scratch_floats(heads, dim));
          o.resize(heads * dim);
          kernels_.attend({kv, rows.data(), count, q.data(), sink.data(), heads, 0.04f, precision, o.data(), s.data()});
        });
      });
      const double tflops = 4.0 * static_cast<double>(threads * heads * dim * count) / seconds / 1e12;
      line(fmt::format("attention, {} heads over {} rows", heads, count), seconds, fmt::format("{:.3f} TFLOP/s", tflops), tflops / float_);
    }
  }

  void index() {
    const ModelConfig& c = weights_.config;
    if (c.index_heads == 0) return;
    const IndexLayout layout{policy_.kv_format(), static_cast<size_t>(c.index_head_dim)};
    const size_t heads = static_cast<size_t>(c.index_heads), keys = 65536, block = 32, threads = static_cast<size_t>(pool_.threads());
    std::vector<std::byte> cache(keys * layout.row_bytes());
    std::mt19937 random(1);
    for (std::byte& b : cache) b = std::byte(random() & 255);
    std::vector<const std::byte*> blocks;
    for (size_t j = 0; j < keys; ++j) {
      std::byte* row = cache.data() + j * layout.row_bytes();
      if (layout.format == KvFormat::kPacked) std::fill(row + layout.dim / 2, row + layout.row_bytes(), std::byte{125});
      if (j % block == 0) blocks.push_back(row);
    }
    std::vector<std::vector<float>> scratch(threads), scores(threads);
    std::vector<std::vector<int32_t>> work(threads), chosen(threads);
    const size_t k = static_cast<size_t>(c.index_topk);
    for (const size_t tokens : {size_t{1}, size_t{8}}) {
      std::vector<float> q = normal(tokens * heads * layout.dim);
      if (policy_.quantise_cache) fp4_quantise(q.data(), q.size());
      const std::vector<float> weights = normal(tokens * heads);
      const double seconds = seconds_of([&] {
        pool_.run([&](int worker) {
          auto& s = scratch[static_cast<size_t>(worker)];
          auto& o = scores[static_cast<size_t>(worker)];
          s.resize(index_scratch_floats(heads, layout.dim, tokens));
          o.resize(tokens * keys);
          kernels_.index_scores({layout, blocks.data(), block, keys, q.data(), weights.data(), heads, tokens,
                                 policy_.round_bf16, o.data(), keys, s.data()});
        });
      });
      const double tops = 2.0 * static_cast<double>(threads * tokens * heads * layout.dim * keys) / seconds / 1e12;
      line(fmt::format("index scores, {} queries over {} keys", tokens, keys), seconds, fmt::format("{:.3f} Top/s", tops), tops / byte_);
    }
    const double seconds = seconds_of([&] {
      pool_.run([&](int worker) {
        const size_t w = static_cast<size_t>(worker);
        work[w].resize(top_k_scratch(keys, k));
        chosen[w].resize(k);
        kernels_.top_k({scores[w].data(), keys, k, chosen[w].data(), work[w].data()});
      });
    });
    const double gbs = static_cast<double>(threads * keys) * 4 / seconds / 1e9;
    line(fmt::format("top {} of {} scores", k, keys), seconds, fmt::format("{:.1f} GB/s", gbs), gbs / read_gbs_);
  }

  // In cache, one thread: these run between products on what those left there.
  void elements() {
    const ModelConfig& c = weights_.config;
    const Elements& e = kernels_.elements;
    const size_t d = static_cast<size_t>(c.hidden), m = static_cast<size_t>(c.hc_mult), mixes = 2 * m + m * m;
    std::vector<float> x = normal(m * d), y = normal(d), u(d), small = normal(std::max(mixes, size_t{64}));
    auto time = [&](const std::string& name, double bytes, const std::function<void()>& body) {
      constexpr int kCalls = 100;
      const double seconds = seconds_of([&] {
                               for (int i = 0; i < kCalls; ++i) body();
                             }) /
                             kCalls;
      out_ += fmt::format("{:44} {:>9.2f} us {:>11.1f} GB/s\n", name, 1e6 * seconds, bytes / seconds / 1e9);
    };
    const double row = 4.0 * static_cast<double>(d), streams = row * static_cast<double>(m);
    out_ += "\nin cache, one thread\n";
    time(fmt::format("RMSNorm of {}", d), 3 * row, [&] { e.rms_norm(y.data(), x.data(), d, 1e-6f, u.data()); });
    time(fmt::format("SwiGLU of {}", d), 3 * row, [&] { e.swiglu(x.data(), y.data(), d, 10.f, 1.f, u.data()); });
    time("hyper-connections: collapse", streams + row, [&] { e.collapse(small.data(), m, x.data(), d, u.data()); });
    std::vector<float> post(m, 0.1f), comb(m * m, 0.2f);
    time("hyper-connections: expand", 2 * streams + row, [&] { e.expand(post.data(), comb.data(), m, y.data(), d, x.data()); });
    std::vector<float> mixed(mixes), base(mixes);
    const float scale[3] = {1, 1, 1};
    time(fmt::format("hyper-connections: Sinkhorn, {} iterations", c.hc_sinkhorn_iters), 8.0 * static_cast<double>(mixes), [&] {
      e.mixing({small.data(), 1, m, scale, base.data(), c.hc_sinkhorn_iters, 1e-6f, mixed.data(), mixed.data() + m, mixed.data() + 2 * m, mixes});
    });
    std::vector<float> head = normal(128);
    const size_t dim = static_cast<size_t>(c.head_dim);
    std::vector<float> cos(static_cast<size_t>(c.rope_dim) / 2, 0.5f), values = normal(dim);
    std::vector<uint8_t> codes(dim), scales(dim / 32 + 1);
    time("rotation of a head", 8.0 * static_cast<double>(c.rope_dim), [&] { e.rotate(values.data(), cos.data(), cos.data(), cos.size(), false); });
    time(fmt::format("FP8 of a row of {}", dim), 5.0 * static_cast<double>(dim), [&] { e.fp8_encode(values.data(), dim, 64, codes.data(), scales.data()); });
    time("Hadamard of 128", 1024, [&] { e.hadamard(head.data(), 128); });
    time("FP4 of 128", 1024, [&] { e.fp4_quantise(head.data(), 128); });
  }

  const Weights& weights_;
  const Kernels& kernels_;
  const Policy policy_;
  ThreadPool& pool_;
  double read_gbs_ = 0, float_ = 0, byte_ = 0;
  std::string out_;
};

}  // namespace

Result<std::string> bench_kernels(const Weights& weights, const Kernels& kernels, Numerics numerics, ThreadPool& pool) {
  return KernelBench(weights, kernels, numerics, pool)();
}

}  // namespace nautile
