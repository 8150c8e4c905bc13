// nautile inspect: what a checkpoint or a shape is: config, layer schedule, parameters, bytes, memory, and its faults.
#include <fmt/format.h>
#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "model/config.h"
#include "model/inventory.h"
#include "model/memory_plan.h"
#include "sys/file.h"
#include "sys/machine.h"
#include "sys/threads.h"
#include "verbs.h"

namespace nautile {
namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;

struct Options {
  std::string directory, shape, draft, context, pattern;
  int layers = 0;
  uint64_t sequences = 1;
  bool json = false, list_tensors = false, deep = false;
};

// Everything the report says, from a directory or a shape.
struct Findings {
  std::string title;
  ModelConfig config;
  Variant variant;
  std::vector<ExpectedTensor> tensors;  // as found where there is a checkpoint
  Totals totals;
  MemoryPlan plan;
  uint64_t context = 0;
  std::optional<Checkpoint> checkpoint;
  bool deep = false;  // every value was looked at
  Status fault;       // of the checkpoint's verification
};

// "128K" is 131072 and "1M" 1048576, as context lengths are named; plain numbers are themselves.
Result<uint64_t> parse_tokens(const std::string& text) {
  size_t used = 0;
  uint64_t value = 0;
  while (used < text.size() && text[used] >= '0' && text[used] <= '9' && value < (1ull << 40)) {
    value = value * 10 + static_cast<uint64_t>(text[used++] - '0');
  }
  const std::string unit = text.substr(used);
  const uint64_t scale = unit.empty()                 ? 1
                         : unit == "K" || unit == "k" ? 1024
                         : unit == "M" || unit == "m" ? 1 << 20
                                                      : 0;
  if (used == 0 || scale == 0 || value * scale > (1ull << 40)) {
    return Status(Code::kInvalidArgument, fmt::format("\"{}\" is no number of tokens", text), "--context",
                  "write 4096, 128K or 1M");
  }
  return value * scale;
}

std::string grouped(uint64_t value) {
  std::string digits = fmt::format("{}", value);
  for (size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, ",");
  return digits;
}

std::string size_text(uint64_t bytes) {
  const double b = static_cast<double>(bytes);
  if (bytes < 10'000) return fmt::format("{} B", bytes);
  if (bytes < 1'000'000) return fmt::format("{:.2f} kB ({:.2f} KiB)", b / 1e3, b / 1024);
  if (bytes < 1'000'000'000) return fmt::format("{:.2f} MB ({:.2f} MiB)", b / 1e6, b / (1 << 20));
  return fmt::format("{:.2f} GB ({:.2f} GiB)", b / 1e9, b / (1 << 30));
}

std::string count_text(int64_t parameters) {
  const double p = static_cast<double>(parameters);
  if (parameters >= 1'000'000'000'000) return fmt::format("{:.3f}T", p / 1e12);
  if (parameters >= 1'000'000'000) return fmt::format("{:.2f}B", p / 1e9);
  return fmt::format("{:.2f}M", p / 1e6);
}

const char* draft_name(DraftKind draft) {
  return draft == DraftKind::kMtp ? "mtp" : draft == DraftKind::kDspark ? "dspark" : "none";
}

Result<Findings> inspect_shape(const Options& options) {
  Findings out;
  NAUTILE_ASSIGN(out.config, shape_config(options.shape));
  out.title = options.shape + " (shape, no weights)";
  const std::string draft = options.draft.empty() ? "mtp" : options.draft;
  if (draft == "dspark") out.config = with_dspark(out.config);
  if (options.layers != 0) {
    NAUTILE_ASSIGN(out.config, with_layers(out.config, options.layers));
  }
  out.variant.draft = draft == "mtp" ? DraftKind::kMtp : draft == "dspark" ? DraftKind::kDspark : DraftKind::kNone;
  out.tensors = expected_tensors(out.config, out.variant);
  return out;
}

// Draws a bar on a terminal; says nothing elsewhere.
class Progress {
 public:
  void operator()(uint64_t done, uint64_t total) {
    const int percent = total == 0 ? 100 : static_cast<int>(done * 100 / total);
    if (!on_terminal_ || percent == last_) return;
    last_ = percent;
    const std::string bar(static_cast<size_t>(percent) * 2 / 5, '#');
    fmt::print(stderr, "\rchecking every byte [{:<40}] {:3}%{}", bar, percent, percent == 100 ? "\n" : "");
    std::fflush(stderr);
  }

 private:
  bool on_terminal_ = ::isatty(STDERR_FILENO) != 0;
  int last_ = -1;
};

Result<Findings> inspect_directory(const Options& options) {
  const std::unique_ptr<FileSystem> files = real_files();
  Findings out;
  out.title = options.directory;
  const std::string path = join_path(options.directory, "config.json");
  NAUTILE_ASSIGN(const std::string text, files->read(path, kMaxConfigBytes));
  NAUTILE_ASSIGN(out.config, parse_config(text, path));
  NAUTILE_ASSIGN(out.checkpoint, open_checkpoint(*files, options.directory));
  NAUTILE_ASSIGN(out.variant, detect_variant(*out.checkpoint, out.config));
  // What is really stored, which for re-saved checkpoints is not what was released.
  for (ExpectedTensor& tensor : expected_tensors(out.config, out.variant)) {
    const TensorView* stored = out.checkpoint->find(tensor.name);
    if (stored == nullptr) continue;
    tensor.dtype = stored->dtype;
    tensor.shape = stored->shape;
    tensor.bytes = stored->bytes;
    out.tensors.push_back(std::move(tensor));
  }
  ThreadPool pool(usable_cores());
  VerifyOptions verify_options;
  verify_options.deep = options.deep;
  verify_options.pool = &pool;
  Progress progress;
  if (options.deep) verify_options.progress = [&](uint64_t done, uint64_t total) { progress(done, total); };
  out.deep = options.deep;
  out.fault = verify(*out.checkpoint, out.config, verify_options);
  return out;
}

bool matches(const std::string& pattern, const std::string& name) {
  if (pattern.find_first_of("*?[") == std::string::npos) return name.find(pattern) != std::string::npos;
  return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

void print_config(const Findings& f) {
  const ModelConfig& c = f.config;
  const auto row = [](const char* name, const std::string& value) { fmt::print("  {:<14} {}\n", name, value); };
  fmt::print("\nConfig\n");
  row("width", fmt::format("hidden {}, {} residual streams, vocabulary {}", c.hidden, c.hc_mult, c.vocab_size));
  row("attention", fmt::format("{} heads of {} ({} rotary), 1 KV head, q rank {}, output {} groups x rank {}", c.heads,
                               c.head_dim, c.rope_dim, c.q_lora_rank, c.o_groups, c.o_lora_rank));
  row("window", fmt::format("{} tokens; context up to {}", c.window, grouped(static_cast<uint64_t>(c.max_positions))));
  row("indexer", fmt::format("{} heads of {}, top {}", c.index_heads, c.index_head_dim, c.index_topk));
  row("experts",
      fmt::format("{} of {} routed + {} shared, width {}, x{} routed scale, {}", c.experts_per_token, c.routed_experts,
                  c.shared_experts, c.expert_inter, c.route_scale, expert_format_name(f.variant.experts)));
  switch (f.variant.draft) {
    case DraftKind::kNone:
      row("draft", "none");
      break;
    case DraftKind::kMtp:
      row("draft", "MTP, one block");
      break;
    case DraftKind::kDspark:
      row("draft",
          fmt::format("DSpark, {} stages, {} tokens a round, taps after layers {}, Markov rank {}", kDsparkStages,
                      c.dspark.block_size, fmt::join(c.dspark.target_layers, ", "), c.dspark.markov_rank));
      break;
  }
}

void print_schedule(const Findings& f) {
  const ModelConfig& c = f.config;
  constexpr int kPerLine = 64;
  fmt::print("\nLayers\n");
  for (int from = 0; from < c.layers; from += kPerLine) {
    std::string glyphs, hashed;
    for (int layer = from; layer < std::min(c.layers, from + kPerLine); ++layer) {
      const LayerKind kind = c.kind(layer);
      glyphs += kind == LayerKind::kSwa ? '.' : kind == LayerKind::kCsa ? 'C' : 'H';
      hashed += c.hash_routed(layer) ? '#' : ' ';
    }
    if (from + kPerLine >= c.layers) {
      if (f.variant.draft == DraftKind::kMtp) glyphs += " +m";
      if (f.variant.draft == DraftKind::kDspark) glyphs += " +ddd";
    }
    fmt::print("  {:>4}  {}\n", from, glyphs);
    if (hashed.find('#') != std::string::npos)
      fmt::print("        {}\n", hashed.substr(0, hashed.find_last_of('#') + 1));
  }
  fmt::print("        . window only x{}   C top-{} of 1 in 4 x{}   H all of 1 in 128 x{}   # routed by token id x{}\n",
             c.count(LayerKind::kSwa), c.index_topk, c.count(LayerKind::kCsa), c.count(LayerKind::kHca), c.hash_layers);
}

void print_totals(const Findings& f) {
  // Less than 0 active: not a part of the main model's token.
  const auto row = [](std::string_view name, int64_t total, int64_t active, uint64_t tensors, uint64_t bytes) {
    fmt::print("  {:<20} {:>21} {:>18} {:>9}  {:>26}\n", name, grouped(static_cast<uint64_t>(total)),
               active < 0 ? "-" : grouped(static_cast<uint64_t>(active)), grouped(tensors), size_text(bytes));
  };
  fmt::print("\n  {:<20} {:>21} {:>18} {:>9}  {:>26}\n", "Parameters", "total", "active a token", "tensors", "bytes");
  for (int i = 0; i < kComponents; ++i) {
    const ComponentTotals& totals = f.totals.main[static_cast<size_t>(i)];
    if (totals.tensors == 0) continue;
    row(component_name(static_cast<Component>(i)), totals.parameters, totals.active_parameters, totals.tensors,
        totals.bytes);
  }
  row("main model", f.totals.parameters(), f.totals.active_parameters(), f.totals.tensors() - f.totals.draft.tensors,
      f.totals.main_bytes());
  if (f.totals.draft.tensors > 0) {
    row(fmt::format("draft ({})", draft_name(f.variant.draft)), f.totals.draft.parameters, -1, f.totals.draft.tensors,
        f.totals.draft.bytes);
  }
  fmt::print("\n  {:<20} {:>21} {:>28}  {:>26}\n", "Stored as", "elements", "", "bytes");
  for (const auto& [dtype, bytes] : f.totals.bytes_by_dtype) {
    const bool packed = dtype == "I8" || (dtype == "U8" && f.variant.experts == ExpertFormat::kNvfp4);
    fmt::print("  {:<20} {:>21} {:>28}  {:>26}\n", packed ? dtype + " (FP4 pairs)" : dtype,
               grouped(f.totals.elements_by_dtype.at(dtype)), "", size_text(bytes));
  }
  fmt::print("  {:<20} {:>21} {:>28}  {:>26}\n", "all", "", grouped(f.totals.bytes()) + " B",
             size_text(f.totals.bytes()));
}

void print_plan(const Findings& f) {
  const auto row = [](std::string_view name, uint64_t bytes) {
    fmt::print("  {:<30} {:>26}\n", name, size_text(bytes));
  };
  const MemoryPlan& plan = f.plan;
  fmt::print("\nMemory for {} sequence{} of {} tokens (activations not counted)\n", plan.sequences,
             plan.sequences == 1 ? "" : "s", grouped(f.context));
  row("weights", plan.weight_bytes);
  if (plan.draft_weight_bytes > 0) row("draft weights", plan.draft_weight_bytes);
  row("windows, each sequence", plan.sequence.window);
  row("compressed entries", plan.sequence.compressed);
  row("index keys", plan.sequence.index);
  row("open compressor windows", plan.sequence.compressor);
  if (plan.sequence.draft > 0) row("draft windows", plan.sequence.draft);
  row("all of a sequence", plan.sequence.total());
  row("everything", plan.total());
}

int print_report(const Findings& f) {
  fmt::print("{}\n{} parameters, {} active a token\n", f.title, count_text(f.totals.parameters()),
             count_text(f.totals.active_parameters()));
  print_config(f);
  print_schedule(f);
  print_totals(f);
  print_plan(f);
  if (f.checkpoint) {
    fmt::print("\nFiles\n");
    for (const CheckpointFile& file : f.checkpoint->files()) {
      fmt::print("  {:<50} {:>8} tensors  {:>26}\n", file.name, grouped(file.tensors), size_text(file.bytes));
    }
    for (const std::string& warning : f.checkpoint->warnings()) fmt::print("\nWarning: {}\n", warning);
  }
  if (static_cast<uint64_t>(f.config.max_positions) < f.context) {
    fmt::print("\nWarning: a context of {} is more than the model's {} positions\n", grouped(f.context),
               f.config.max_positions);
  }
  if (!f.fault.ok()) return fail(f.fault);
  if (f.checkpoint) {
    fmt::print("\nEvery tensor is there, with the right dtype and shape{}.\n",
               f.deep ? ", and every value is sound" : "");
  }
  return kExitDone;
}

void print_tensors(const Findings& f, const Options& options) {
  for (const ExpectedTensor& tensor : f.tensors) {
    if (!options.pattern.empty() && !matches(options.pattern, tensor.name)) continue;
    const TensorView* stored = f.checkpoint ? f.checkpoint->find(tensor.name) : nullptr;
    fmt::print("{:<52} {:<8} {:<18} {:>14} B{}\n", tensor.name, dtype_name(tensor.dtype), shape_text(tensor.shape),
               grouped(tensor.bytes), stored ? fmt::format("  {} at {}", stored->file, stored->file_offset) : "");
  }
}

int print_json(const Findings& f, const Options& options) {
  Json components = Json::object();
  for (int i = 0; i < kComponents; ++i) {
    const ComponentTotals& totals = f.totals.main[static_cast<size_t>(i)];
    if (totals.tensors == 0) continue;
    components[component_name(static_cast<Component>(i))] = {{"parameters", totals.parameters},
                                                             {"active_parameters", totals.active_parameters},
                                                             {"tensors", totals.tensors},
                                                             {"bytes", totals.bytes}};
  }
  const SequenceBytes& sequence = f.plan.sequence;
  Json report = {
      {"model", f.title},
      {"config", Json::parse(config_json(f.config))},
      {"experts", expert_format_name(f.variant.experts)},
      {"draft", draft_name(f.variant.draft)},
      {"parameters", f.totals.parameters()},
      {"active_parameters", f.totals.active_parameters()},
      {"draft_parameters", f.totals.draft.parameters},
      {"tensors", f.totals.tensors()},
      {"bytes", f.totals.bytes()},
      {"components", components},
      {"bytes_by_dtype", f.totals.bytes_by_dtype},
      {"elements_by_dtype", f.totals.elements_by_dtype},
      {"memory",
       {{"context_tokens", f.context},
        {"sequences", f.plan.sequences},
        {"weight_bytes", f.plan.weight_bytes},
        {"draft_weight_bytes", f.plan.draft_weight_bytes},
        {"window_bytes", sequence.window},
        {"compressed_bytes", sequence.compressed},
        {"index_bytes", sequence.index},
        {"compressor_bytes", sequence.compressor},
        {"draft_window_bytes", sequence.draft},
        {"sequence_bytes", sequence.total()},
        {"total_bytes", f.plan.total()}}},
  };
  if (f.checkpoint) {
    Json list = Json::array();
    for (const CheckpointFile& file : f.checkpoint->files()) {
      list.push_back({{"name", file.name}, {"bytes", file.bytes}, {"tensors", file.tensors}});
    }
    report["files"] = list;
    report["warnings"] = f.checkpoint->warnings();
    report["ok"] = f.fault.ok();
    if (!f.fault.ok()) {
      report["fault"] = {{"code", code_name(f.fault.code())}, {"what", f.fault.what()}, {"where", f.fault.where()}};
    }
  }
  if (options.list_tensors) {
    Json list = Json::array();
    for (const ExpectedTensor& tensor : f.tensors) {
      if (!options.pattern.empty() && !matches(options.pattern, tensor.name)) continue;
      list.push_back({{"name", tensor.name},
                      {"dtype", dtype_name(tensor.dtype)},
                      {"shape", tensor.shape},
                      {"bytes", tensor.bytes}});
    }
    report["tensor_list"] = list;
  }
  fmt::print("{}\n", report.dump(2, ' ', false, Json::error_handler_t::replace));
  return f.fault.ok() ? kExitDone : kExitFailed;
}

int inspect(const Options& options) {
  if (options.directory.empty() == options.shape.empty()) {
    return fail({Code::kInvalidArgument, "one model is needed: a directory or --shape", "inspect",
                 "nautile inspect --shape v4-flash"});
  }
  if (!options.directory.empty() && (options.layers != 0 || !options.draft.empty())) {
    return fail({Code::kInvalidArgument, "--layers and --draft go with --shape alone", "inspect"});
  }
  Result<uint64_t> context = parse_tokens(options.context.empty() ? "1M" : options.context);
  if (!context.ok()) return fail(context.status());
  Result<Findings> findings = options.shape.empty() ? inspect_directory(options) : inspect_shape(options);
  if (!findings.ok()) return fail(findings.status());
  Findings& f = *findings;
  f.context = *context;
  if (options.context.empty()) f.context = std::min(f.context, static_cast<uint64_t>(f.config.max_positions));
  f.totals = inventory_totals(f.config, f.tensors);
  f.plan = memory_plan(f.config, f.totals, f.variant.draft, f.context, options.sequences);
  if (options.json) return print_json(f, options);
  if (options.list_tensors) {
    print_tensors(f, options);
    return f.fault.ok() ? kExitDone : fail(f.fault);
  }
  return print_report(f);
}

// --help opens with an example.
class ExampleFirst : public CLI::Formatter {
 public:
  std::string make_description(const CLI::App*) const override {
    return "Example: nautile inspect ~/models/DeepSeek-V4-Flash --deep\n"
           "         nautile inspect --shape v4-pro --context 128K --sequences 8\n\n"
           "Config, layers, parameters, bytes and the memory plan of a checkpoint or of a published shape. A "
           "checkpoint is\n"
           "checked too: every tensor present, with the right dtype and shape.\n\n";
  }
};

}  // namespace

void add_inspect(CLI::App& app, Run& run) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("inspect", "Shows what a checkpoint or a shape is, and checks it");
  verb->formatter(std::make_shared<ExampleFirst>());
  verb->add_option("DIR", options->directory, "folder of a downloaded checkpoint");
  verb->add_option("--shape", options->shape, "a published shape instead: v4-flash or v4-pro");
  verb->add_option("--layers", options->layers, "with --shape: only the first N layers")->check(CLI::PositiveNumber);
  verb->add_option("--draft", options->draft, "with --shape: none, mtp (default) or dspark")
      ->check(CLI::IsMember({"none", "mtp", "dspark"}));
  verb->add_option("--context", options->context,
                   "tokens of a sequence in the memory plan; K is 1024, M 1024 x 1024 (default: 1M, or all the "
                   "model has)");
  verb->add_option("--sequences", options->sequences, "sequences in the memory plan")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 20))
      ->capture_default_str();
  CLI::Option* tensors = verb->add_option("--tensors", options->pattern,
                                          "list tensors instead, those with PATTERN (text, or * and ?) in their name");
  tensors->expected(0, 1)->type_name("[PATTERN]");
  verb->add_flag("--deep", options->deep, "check the contents of every tensor: reads all bytes");
  verb->add_flag("--json", options->json, "print JSON");
  verb->callback([options, tensors, &run] {
    options->list_tensors = tensors->count() > 0;
    run = [options] { return inspect(*options); };
  });
}

}  // namespace nautile
