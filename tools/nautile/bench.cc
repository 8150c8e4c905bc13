// nautile bench: decode and prefill rates beside the two floors measured in the same run: bytes over the memory's read
// rate, multiply-adds over the peak of the BF16 dot instruction (or of float FMA where there is none).
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <sstream>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "kernels/registry.h"
#include "model/forward.h"
#include "model/synthetic.h"
#include "sys/clock.h"
#include "sys/probe.h"
#include "bench_engine.h"
#include "verbs.h"

namespace nautile {
namespace {

struct BenchFlags {
  std::string model, shape, ratios = "0,4,128", depth = "0", prefill = "128,512", batch = "1", isa = "auto",
                            numerics = "fast";
  int64_t layers = 0;
  int vocabulary = 4096, decode = 16, repeats = 5, threads = 0;
  bool json = false, csv = false, engine = false;
};

// "0,4k,1M" as numbers.
Result<std::vector<int64_t>> parse_list(const std::string& text, const std::string& flag, int64_t least) {
  std::vector<int64_t> values;
  std::stringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) {
    char* end = nullptr;
    int64_t value = std::strtoll(item.c_str(), &end, 10);
    if (*end == 'k' || *end == 'K') value <<= 10, ++end;
    if (*end == 'm' || *end == 'M') value <<= 20, ++end;
    if (end == item.c_str() || *end != 0 || value < least || value > (int64_t{1} << 30)) {
      return Status(Code::kInvalidArgument, fmt::format("\"{}\" is no number of at least {}", item, least), flag,
                    "give numbers with commas between; 4k is 4096, 1M is 1048576");
    }
    values.push_back(value);
  }
  if (values.empty()) return Status(Code::kInvalidArgument, "the list is empty", flag);
  return values;
}

struct Row {
  std::string what;  // "decode" or "prefill"
  int64_t depth = 0, batch = 0, chunk = 0;
  double tokens_per_s = 0, low = 0, high = 0;  // median of the repeats, slowest, fastest
  double gbs = 0, roof_gbs = 0;                // weight bytes a second; read rate around the row
  double tflops = 0, peak_tflops = 0;
  double experts = 0;  // distinct experts read, a layer and step
  double percent_of_roof() const { return roof_gbs > 0 ? 100 * gbs / roof_gbs : 0; }
  double percent_of_peak() const { return peak_tflops > 0 ? 100 * tflops / peak_tflops : 0; }
};

class Bench {
 public:
  Bench(const Weights& weights, const Kernels& kernels, Numerics numerics, ThreadPool& pool, int repeats)
      : weights_(weights),
        cost_(weight_cost(weights)),
        pool_(pool),
        repeats_(repeats),
        forward_(weights, numerics, kernels, pool) {
    for (const PeakRow& row : probe_peak(pool, 0.3)) {
      if (row.name.rfind("int8", 0) != 0) peak_ = std::max(peak_, row.tflops);
    }
  }
  double peak() const { return peak_; }
  double roof() const { return roof_; }

  // The read rate now; each row is set against the mean of those before and after it.
  Result<double> read_rate() {
    NAUTILE_ASSIGN(const BandwidthProbe probe, probe_read_bandwidth(pool_, size_t{1} << 30, 1.5));
    roof_ = std::max(roof_, probe.gbs);
    return probe.gbs;
  }

  // `steps` decode steps of `batch` sequences that each have `depth` tokens.
  Result<Row> decode(int64_t depth, int64_t batch, int steps) {
    std::vector<std::unique_ptr<SequenceState>> states;
    for (int64_t i = 0; i < batch; ++i) {
      states.push_back(std::make_unique<SequenceState>(forward_.layout()));
      if (depth > 0) states.back()->fill_synthetic(depth, static_cast<uint64_t>(i));
    }
    std::vector<int32_t> tokens(static_cast<size_t>(batch));
    std::vector<BatchItem> items;
    for (size_t i = 0; i < tokens.size(); ++i) items.push_back({states[i].get(), {&tokens[i], 1}});
    Row row{"decode", depth, batch, 1};
    auto step = [&]() -> Status {
      for (int32_t& token : tokens) token = next_token();
      return forward_(items, Logits::kLast).status();
    };
    NAUTILE_RETURN_IF_ERROR(step());
    NAUTILE_ASSIGN(const double before, read_rate());
    std::vector<double> rates;
    uint64_t experts = forward_.experts_read();
    for (int r = 0; r < repeats_; ++r) {
      const double begin = seconds_now();
      for (int i = 0; i < steps; ++i) NAUTILE_RETURN_IF_ERROR(step());
      rates.push_back(static_cast<double>(batch) * steps / (seconds_now() - begin));
    }
    experts = forward_.experts_read() - experts;
    NAUTILE_ASSIGN(const double after, read_rate());
    const double all_steps = static_cast<double>(steps) * repeats_;
    const double bytes = static_cast<double>(cost_.dense_bytes + cost_.head_bytes) +
                         static_cast<double>(experts) / all_steps * static_cast<double>(cost_.expert_bytes);
    finish(row, rates, (before + after) / 2);
    row.gbs = bytes * row.tokens_per_s / static_cast<double>(batch) / 1e9;
    row.experts = static_cast<double>(experts) / all_steps / static_cast<double>(weights_.layers.size());
    return row;
  }

  // One chunk of `chunk` tokens after `depth` others.
  Result<Row> prefill(int64_t depth, int64_t chunk) {
    Row row{"prefill", depth, 1, chunk};
    std::vector<double> rates;
    uint64_t experts = 0;
    for (int r = -1; r < repeats_; ++r) {  // the first one warms up
      SequenceState state(forward_.layout());
      if (depth > 0) state.fill_synthetic(depth, 1);
      std::vector<int32_t> tokens(static_cast<size_t>(chunk));
      for (int32_t& token : tokens) token = next_token();
      const BatchItem item{&state, tokens};
      if (r == 0) experts = forward_.experts_read();
      const double begin = seconds_now();
      NAUTILE_RETURN_IF_ERROR(forward_({&item, 1}, Logits::kLast).status());
      if (r >= 0) rates.push_back(static_cast<double>(chunk) / (seconds_now() - begin));
    }
    finish(row, rates, roof_);
    const double layers = static_cast<double>(weights_.layers.size());
    const double macs = static_cast<double>(cost_.dense_macs) +
                        layers * weights_.config.experts_per_token * static_cast<double>(cost_.expert_macs) +
                        static_cast<double>(cost_.head_macs) / static_cast<double>(chunk);
    row.tflops = 2 * macs * row.tokens_per_s / 1e12;
    row.experts = static_cast<double>(forward_.experts_read() - experts) / repeats_ / layers;
    return row;
  }

 private:
  int32_t next_token() {
    random_ = random_ * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<int32_t>((random_ >> 33) % static_cast<uint64_t>(weights_.config.vocab_size));
  }
  void finish(Row& row, const std::vector<double>& rates, double roof) const {
    row.tokens_per_s = median(rates);
    row.low = *std::min_element(rates.begin(), rates.end());
    row.high = *std::max_element(rates.begin(), rates.end());
    row.roof_gbs = roof;
    row.peak_tflops = peak_;
  }

  const Weights& weights_;
  WeightCost cost_;
  ThreadPool& pool_;
  int repeats_;
  Forward forward_;
  double peak_ = 0, roof_ = 0;
  uint64_t random_ = 1;
};

void print_text(const std::vector<Row>& rows) {
  fmt::print("{:8} {:>9} {:>6} {:>6} {:>10} {:>19} {:>8} {:>7} {:>9} {:>7} {:>8}\n", "", "depth", "batch", "chunk",
             "tokens/s", "(slowest - fastest)", "GB/s", "% roof", "TFLOP/s", "% peak", "experts");
  for (const Row& r : rows) {
    fmt::print("{:8} {:>9} {:>6} {:>6} {:>10.2f} {:>19} ", r.what, r.depth, r.batch, r.chunk, r.tokens_per_s,
               fmt::format("({:.2f} - {:.2f})", r.low, r.high));
    if (r.what == "decode") {
      fmt::print("{:>8.1f} {:>6.0f}% {:>9} {:>7} {:>8.1f}\n", r.gbs, r.percent_of_roof(), "", "", r.experts);
    } else {
      fmt::print("{:>8} {:>7} {:>9.3f} {:>6.0f}% {:>8.1f}\n", "", "", r.tflops, r.percent_of_peak(), r.experts);
    }
  }
}

Status bench(const BenchFlags& flags) {
  NAUTILE_ASSIGN(const Numerics numerics, parse_numerics(flags.numerics));
  NAUTILE_ASSIGN(const Kernels* kernels, find_kernels(flags.isa));
  NAUTILE_ASSIGN(const std::vector<int64_t> depths, parse_list(flags.depth, "--depth", 0));
  NAUTILE_ASSIGN(const std::vector<int64_t> chunks, parse_list(flags.prefill, "--prefill", 1));
  NAUTILE_ASSIGN(const std::vector<int64_t> batches, parse_list(flags.batch, "--batch", 1));
  if (flags.decode < 1 || flags.repeats < 1 || flags.threads < 0) {
    return {Code::kInvalidArgument, "--decode and --repeats must be at least 1, --threads at least 0"};
  }
  if (flags.model.empty() == flags.shape.empty()) {
    return {Code::kInvalidArgument, "give either a model directory or --shape", {}, "for example --shape v4-flash"};
  }
  const std::unique_ptr<FileSystem> files = real_files();
  if (flags.engine && !flags.model.empty()) {
    NAUTILE_ASSIGN(const std::unique_ptr<LoadedModel> model,
                   LoadedModel::load(*files, flags.model, {flags.isa, flags.threads, numerics, true}));
    return bench_engine(*model, batches, flags.decode, flags.json);
  }
  ThreadPool pool(flags.threads == 0 ? usable_cores() : flags.threads);
  std::unique_ptr<Checkpoint> checkpoint;
  ModelConfig config;
  if (!flags.model.empty()) {
    const std::string path = join_path(flags.model, "config.json");
    NAUTILE_ASSIGN(const std::string text, files->read(path, 1 << 20));
    NAUTILE_ASSIGN(config, parse_config(text, path));
    NAUTILE_ASSIGN(Checkpoint opened, open_checkpoint(*files, flags.model));
    checkpoint = std::make_unique<Checkpoint>(std::move(opened));
    NAUTILE_RETURN_IF_ERROR(verify(*checkpoint, config));
  } else {
    NAUTILE_ASSIGN(config, shape_config(flags.shape));
    if (flags.layers > 0) {
      NAUTILE_ASSIGN(config, with_layers(config, static_cast<int>(flags.layers)));
    } else {
      NAUTILE_ASSIGN(const std::vector<int64_t> ratios, parse_list(flags.ratios, "--ratios", 0));
      NAUTILE_ASSIGN(config, with_layers(config, std::vector<int>(ratios.begin(), ratios.end())));
    }
    config.vocab_size = flags.vocabulary;
    config.hash_layers = std::min(config.hash_layers, 1);
    config.mtp_layers = flags.engine ? 1 : 0;
    Variant variant;
    if (flags.engine) variant.draft = DraftKind::kMtp;
    const Totals totals = inventory_totals(config, expected_tensors(config, variant));
    if (const size_t free = probe_memory().available_bytes; free != 0 && totals.bytes() > free / 10 * 9) {
      return {Code::kResourceExhausted,
              fmt::format("synthetic weights take {:.1f} GB, {:.1f} GB are free",
                          static_cast<double>(totals.bytes()) / 1e9, static_cast<double>(free) / 1e9),
              "--layers", "use fewer layers"};
    }
    if (!flags.json && !flags.csv)
      fmt::print(stderr, "making {:.1f} GB of synthetic weights ...\n", static_cast<double>(totals.bytes()) / 1e9);
    NAUTILE_ASSIGN(Checkpoint made, synthetic_checkpoint(config, variant, 1, &pool));
    if (flags.engine) {
      NAUTILE_ASSIGN(const std::unique_ptr<LoadedModel> model,
                     LoadedModel::of(std::move(made), config, {flags.isa, flags.threads, numerics, false}));
      return bench_engine(*model, batches, flags.decode, flags.json);
    }
    checkpoint = std::make_unique<Checkpoint>(std::move(made));
  }
  NAUTILE_ASSIGN(const Weights weights, load_weights(*checkpoint, config, {kernels, policy_of(numerics), &pool}));
  Bench bench(weights, *kernels, numerics, pool, flags.repeats);
  std::vector<Row> rows;
  for (const int64_t depth : depths) {
    for (const int64_t batch : batches) {
      NAUTILE_ASSIGN(Row row, bench.decode(depth, batch, flags.decode));
      rows.push_back(row);
    }
  }
  for (const int64_t depth : depths) {
    for (const int64_t chunk : chunks) {
      NAUTILE_ASSIGN(Row row, bench.prefill(depth, chunk));
      rows.push_back(row);
    }
  }
  if (flags.csv) {
    fmt::print(
        "what,depth,batch,chunk,tokens_per_s,slowest,fastest,weight_gb_per_s,read_gb_per_s,tflops,peak_tflops,"
        "experts\n");
    for (const Row& r : rows) {
      fmt::print("{},{},{},{},{:.4f},{:.4f},{:.4f},{:.3f},{:.3f},{:.4f},{:.4f},{:.2f}\n", r.what, r.depth, r.batch,
                 r.chunk, r.tokens_per_s, r.low, r.high, r.gbs, r.roof_gbs, r.tflops, r.peak_tflops, r.experts);
    }
    return {};
  }
  if (!flags.json) {
    fmt::print(
        "{}, {} threads, {} kernels, {} numerics, {} layers; read {:.1f} GB/s, peak {:.3f} TFLOP/s, medians of {}\n",
        cpu_name(), pool.threads(), kernels->name, flags.numerics, config.layers, bench.roof(), bench.peak(),
        flags.repeats);
    print_text(rows);
    return {};
  }
  Json out = {{"cpu", cpu_name()},          {"threads", pool.threads()}, {"isa", kernels->name},
              {"numerics", flags.numerics}, {"layers", config.layers},   {"read_gb_per_s", bench.roof()},
              {"peak_tflops", bench.peak()}};
  for (const Row& r : rows) {
    Json row = {{"what", r.what},
                {"depth", r.depth},
                {"batch", r.batch},
                {"chunk", r.chunk},
                {"tokens_per_s", r.tokens_per_s},
                {"slowest", r.low},
                {"fastest", r.high},
                {"experts_a_layer", r.experts}};
    if (r.what == "decode") {
      row["weight_gb_per_s"] = r.gbs;
      row["percent_of_roof"] = r.percent_of_roof();
      if (r.depth == 0 && r.batch == 1) out["decode_percent_of_roof"] = r.percent_of_roof();
    } else {
      row["tflops"] = r.tflops;
      row["percent_of_peak"] = r.percent_of_peak();
      if (r.depth == 0)
        out["prefill_percent_of_peak"] = r.percent_of_peak();  // of the longest chunk, the last one asked for
    }
    out["rows"].push_back(row);
  }
  fmt::print("{}\n", out.dump(2));
  return {};
}

}  // namespace

void add_bench(CLI::App& app, Run& run) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* verb = app.add_subcommand("bench",
                                      "Measures decode and prefill beside the machine's floors.\n"
                                      "  nautile bench --shape v4-flash\n"
                                      "  nautile bench models/nano --depth 0,4k --batch 1,4 --prefill 512");
  verb->add_option("model", flags->model, "model directory");
  verb->add_option("--shape", flags->shape, "v4-flash or v4-pro, with synthetic weights in the stored formats");
  verb->add_option("--ratios", flags->ratios, "with --shape: the layers to make (0 window, 4 CSA, 128 HCA)")
      ->capture_default_str();
  verb->add_option("--layers", flags->layers, "with --shape: the first N layers of its own schedule instead");
  verb->add_option("--vocabulary", flags->vocabulary,
                   "with --shape: a smaller one, so that the head does not outweigh a few layers")
      ->capture_default_str();
  verb->add_option("--depth", flags->depth, "tokens each sequence already has (made up)")->capture_default_str();
  verb->add_option("--batch", flags->batch, "sequences decoded together")->capture_default_str();
  verb->add_option("--prefill", flags->prefill, "tokens a prompt chunk")->capture_default_str();
  verb->add_option("--decode", flags->decode, "steps a repeat")->capture_default_str();
  verb->add_option("--repeats", flags->repeats, "medians are over so many")->capture_default_str();
  verb->add_option("--threads", flags->threads, "0 is one for each usable core")->capture_default_str();
  verb->add_option("--isa", flags->isa, "auto, ref, avx2 or avx512")->capture_default_str();
  verb->add_option("--numerics", flags->numerics, "fast, reference or exact")->capture_default_str();
  verb->add_flag("--engine", flags->engine,
                 "measure the engine instead: tokens/s of each batch with and without speculation");
  verb->add_flag("--json", flags->json, "one JSON object");
  verb->add_flag("--csv", flags->csv, "comma-separated rows");
  verb->callback([flags, &run] {
    run = [flags] {
      const Status status = bench(*flags);
      return status.ok() ? kExitDone : fail(status);
    };
  });
}

}  // namespace nautile
