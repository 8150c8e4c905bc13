// nautile bench: decode and prefill rates beside the floors of the same run: bytes over the memory's read rate,
// multiply-adds over the peak of the dot instructions (or of float FMA where there are none).
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <sstream>

#include "bench_engine.h"
#include "bench_rows.h"
#include "checkpoint/checkpoint.h"
#include "kernels/registry.h"
#include "load_bar.h"
#include "model/repack_load.h"
#include "model/synthetic.h"
#include "model_flags.h"
#include "sys/clock.h"
#include "sys/machine.h"
#include "sys/memory.h"
#include "sys/probe.h"
#include "verbs.h"

namespace nautile {
namespace {

struct BenchFlags {
  std::string model, shape, ratios = "0,4,128", depth = "0", prefill = "128,512", batch = "1", threads = "0", isa = "auto",
                            numerics = "fast", plot, repacked;
  int64_t layers = 0;
  int vocabulary = 4096, decode = 16, repeats = 5;
  bool json = false, csv = false, kernels = false, engine = false, compare_repacked = false;
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

// The model to measure: opened, or made of the shape with random weights.
struct BenchModel {
  std::unique_ptr<FileSystem> files = real_files();
  std::unique_ptr<Checkpoint> checkpoint;
  ModelConfig config;
};

Result<BenchModel> open_model(const BenchFlags& flags) {
  BenchModel out;
  const std::string path = join_path(flags.model, "config.json");
  NAUTILE_ASSIGN(const std::string text, out.files->read(path, 1 << 20));
  NAUTILE_ASSIGN(out.config, parse_config(text, path));
  NAUTILE_ASSIGN(Checkpoint opened, open_checkpoint(*out.files, flags.model));
  out.checkpoint = std::make_unique<Checkpoint>(std::move(opened));
  return out;
}

Result<BenchModel> make_model(const BenchFlags& flags, ThreadPool& pool) {
  BenchModel out;
  NAUTILE_ASSIGN(ModelConfig config, shape_config(flags.shape));
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
    return Status(Code::kResourceExhausted,
                  fmt::format("synthetic weights take {:.1f} GB, {:.1f} GB are free",
                              static_cast<double>(totals.bytes()) / 1e9, static_cast<double>(free) / 1e9),
                  "--layers", "use fewer layers");
  }
  if (!flags.json && !flags.csv) {
    fmt::print(stderr, "making {:.1f} GB of synthetic weights ...\n", static_cast<double>(totals.bytes()) / 1e9);
  }
  NAUTILE_ASSIGN(Checkpoint made, synthetic_checkpoint(config, variant, 1, &pool));
  out.checkpoint = std::make_unique<Checkpoint>(std::move(made));
  out.config = config;
  return out;
}

Status engine(const BenchFlags& flags, Numerics numerics, int threads, const std::vector<int64_t>& batches,
              ThreadPool& pool) {
  LoadBar bar;
  LoadOptions options{flags.isa, threads, numerics, !flags.model.empty()};
  options.repacked = flags.repacked;
  options.compare_repacked = flags.compare_repacked;
  options.progress = [&](const LoadProgress& p) { bar.show(p); };
  options.notice = [&](const std::string& text) { bar.notice(text); };
  if (!flags.model.empty()) {
    const std::unique_ptr<FileSystem> files = real_files();
    NAUTILE_ASSIGN(const std::unique_ptr<LoadedModel> model, LoadedModel::load(*files, flags.model, options));
    return bench_engine(*model, batches, flags.decode, flags.json);
  }
  NAUTILE_ASSIGN(BenchModel made, make_model(flags, pool));
  NAUTILE_ASSIGN(const std::unique_ptr<LoadedModel> model,
                 LoadedModel::of(std::move(*made.checkpoint), made.config, options));
  return bench_engine(*model, batches, flags.decode, flags.json);
}

Result<Weights> load_weights(const BenchFlags& flags, const BenchModel& model, Packing packing, LoadReport& load) {
  LoadBar bar;
  LoadWay way{flags.repacked, flags.compare_repacked};
  way.progress = [&](const LoadProgress& p) {
    load.progress(p);
    bar.show(p);
  };
  way.notice = [&](const std::string& text) { bar.notice(text); };
  if (way.repacked == "auto") way.repacked = join_path(flags.model, kRepackedName);
  packing.progress = way.progress;
  reset_peak_memory();
  NAUTILE_ASSIGN(Weights weights, flags.model.empty()
                                      ? nautile::load_weights(*model.checkpoint, model.config, packing)
                                      : load_verified(*model.files, *model.checkpoint, model.config, packing, way));
  const ProcessMemory memory = process_memory();
  load.weight_bytes = static_cast<double>(model.checkpoint->payload_bytes());
  load.peak_bytes = static_cast<double>(memory.peak);
  load.anonymous_bytes = static_cast<double>(memory.anonymous);
  load.file_bytes = static_cast<double>(memory.file);
  load.mapped = weights.tiles_mapped;
  return weights;
}

// " (node 0: 180.2, node 1: 179.9)" where there are several.
std::string nodes_text(const Ceilings& ceilings) {
  if (ceilings.nodes.size() < 2) return {};
  std::string out;
  for (const NodeRate& node : ceilings.nodes) {
    out += fmt::format("{}node {}: {:.1f}", out.empty() ? " (" : ", ", node.node, node.gbs);
  }
  return out + ")";
}

Status bench(const BenchFlags& flags) {
  NAUTILE_ASSIGN(const Numerics numerics, parse_numerics(flags.numerics));
  NAUTILE_ASSIGN(const Kernels* kernels, find_kernels(flags.isa));
  NAUTILE_ASSIGN(const std::vector<int64_t> depths, parse_list(flags.depth, "--depth", 0));
  NAUTILE_ASSIGN(const std::vector<int64_t> chunks, parse_list(flags.prefill, "--prefill", 0));
  NAUTILE_ASSIGN(const std::vector<int64_t> batches, parse_list(flags.batch, "--batch", 0));
  NAUTILE_ASSIGN(const std::vector<int64_t> threads, parse_list(flags.threads, "--threads", 0));
  if (flags.decode < 1 || flags.repeats < 1) {
    return {Code::kInvalidArgument, "--decode and --repeats must be at least 1"};
  }
  if (flags.model.empty() == flags.shape.empty()) {
    return {Code::kInvalidArgument, "give either a model directory or --shape", {}, "for example --shape v4-flash"};
  }
  if (!flags.shape.empty() && !flags.repacked.empty()) {
    return {Code::kInvalidArgument, "synthetic weights have no files, so no repacked file can be theirs", "--repacked"};
  }
  ThreadPool all(usable_cores());
  if (flags.engine) return engine(flags, numerics, static_cast<int>(threads.front()), batches, all);
  double begin = seconds_now();
  NAUTILE_ASSIGN(const BenchModel model, flags.model.empty() ? make_model(flags, all) : open_model(flags));
  if (flags.model.empty()) begin = seconds_now();
  LoadReport load;
  NAUTILE_ASSIGN(const Weights weights, load_weights(flags, model, {kernels, policy_of(numerics), &all}, load));
  load.seconds = seconds_now() - begin;
  std::vector<BenchRow> rows;
  Ceilings ceilings;
  for (const int64_t count : threads) {
    ThreadPool pool(count == 0 ? usable_cores() : static_cast<int>(count));
    if (flags.kernels) {
      NAUTILE_ASSIGN(const std::string table, bench_kernels(weights, *kernels, numerics, pool));
      fmt::print("{}, {}", cpu_name(), table);
      continue;
    }
    Bench bench(weights, *kernels, numerics, pool, flags.repeats);
    for (const int64_t depth : depths) {
      for (const int64_t batch : batches) {
        if (batch == 0) continue;
        NAUTILE_ASSIGN(BenchRow row, bench.decode(depth, batch, flags.decode));
        rows.push_back(row);
      }
    }
    for (const int64_t depth : depths) {
      for (const int64_t chunk : chunks) {
        if (chunk == 0) continue;
        NAUTILE_ASSIGN(BenchRow row, bench.prefill(depth, chunk));
        rows.push_back(row);
      }
    }
    ceilings = bench.ceilings();
    if (flags.json || flags.csv) continue;
    fmt::print(
        "{}, {} threads, {} kernels, {} numerics, {} layers; read up to {:.1f} GB/s{}, peak {:.3f} TFLOP/s, {:.3f} Top/s; "
        "medians of {}\n",
        cpu_name(), pool.threads(), kernels->name, flags.numerics, model.config.layers, ceilings.read_gbs,
        nodes_text(ceilings), ceilings.float_tflops, ceilings.byte_tops, flags.repeats);
  }
  if (flags.kernels) return {};
  if (flags.csv) {
    fmt::print("{}", bench_csv(rows));
  } else if (flags.json) {
    fmt::print("{}", bench_json(rows, kernels->name, flags.numerics, model.config.layers, ceilings, load));
  } else {
    fmt::print("{}{}", bench_text(rows), load_text(load, rows));
  }
  if (!flags.plot.empty()) {
    const std::string title = fmt::format("{} on {}, {} kernels, {} numerics", flags.model.empty() ? flags.shape : flags.model,
                                          cpu_name(), kernels->name, flags.numerics);
    std::ofstream file(flags.plot);
    file << bench_svg(rows, title);
    if (!file.good()) return {Code::kIo, "the figure cannot be written", flags.plot};
  }
  return {};
}

}  // namespace

void add_bench(CLI::App& app, Run& run) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* verb = app.add_subcommand("bench",
                                      "Measures decode and prefill beside the machine's floors.\n"
                                      "  nautile bench --shape v4-flash --depth 0,32k,1M --plot roofline.svg\n"
                                      "  nautile bench --shape v4-flash --kernels\n"
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
  verb->add_option("--batch", flags->batch, "sequences decoded together; 0: no decode")->capture_default_str();
  verb->add_option("--prefill", flags->prefill, "tokens a prompt chunk; 0: no prefill")->capture_default_str();
  verb->add_option("--decode", flags->decode, "steps a repeat")->capture_default_str();
  verb->add_option("--repeats", flags->repeats, "medians are over so many")->capture_default_str();
  verb->add_option("--threads", flags->threads, "one run each; 0 is one thread for each usable core")->capture_default_str();
  verb->add_option("--isa", flags->isa, "auto, ref, avx2, avx512 or amx")->capture_default_str();
  verb->add_option("--numerics", flags->numerics, "fast, reference or exact")->capture_default_str();
  add_repacked_flags(*verb, flags->repacked, flags->compare_repacked);
  verb->add_flag("--kernels", flags->kernels, "every kernel alone beside its ceiling, and which instruction sets there are");
  verb->add_option("--plot", flags->plot, "write the roofline and the time by operation to this SVG file");
  verb->add_flag("--engine", flags->engine,
                 "the engine instead: tokens/s of each batch with and without speculation");
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
