// Shared flags, resolved.
#include "model_flags.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "load_bar.h"
#include "sys/random.h"

namespace nautile {

void ModelFlags::add(CLI::App& verb) {
  verb.add_option("model", directory, "model directory (default: nano, which ships with the program)");
  verb.add_option("--isa", options.isa, "kernels: auto, ref, avx2, avx512 or amx")->capture_default_str();
  verb.add_option("--threads", options.threads, "threads; 0 is one for each usable core")->capture_default_str();
  verb.add_option("--numerics", numerics, "fast, reference (every official rounding) or exact (none)")
      ->capture_default_str();
  add_repacked_flags(verb, options.repacked, options.compare_repacked);
}

void add_repacked_flags(CLI::App& verb, std::string& repacked, bool& compare) {
  verb.add_option("--repacked", repacked,
                  "map the weights from this repacked file, made first if it is not there; auto: in the model's directory");
  verb.add_flag("--compare-repacked", compare, "hold all of it against the checkpoint, which is read whole for that");
}

Result<std::unique_ptr<LoadedModel>> ModelFlags::load(FileSystem& files) {
  NAUTILE_ASSIGN(options.numerics, parse_numerics(numerics));
  if (directory.empty()) {
    NAUTILE_ASSIGN(directory, find_nano(files));
  }
  LoadBar bar(quiet);
  options.progress = [&](const LoadProgress& progress) {
    bar.show(progress);
    if (watch) watch(progress);
  };
  options.notice = [&](const std::string& text) { bar.notice(text); };
  auto model = LoadedModel::load(files, directory, options);
  options.progress = nullptr;
  options.notice = nullptr;
  return model;
}

void ReplyFlags::add(CLI::App& verb) {
  SamplingParams& s = options.sampling;
  verb.add_option("--think", mode, "reasoning mode: non, low (0731 releases), high or max")->capture_default_str();
  verb.add_option("--encoding", profile, "what the modes print: auto, preview or official")->capture_default_str();
  verb.add_option("--max-tokens", options.max_tokens, "longest reply; 0 is what the context leaves")
      ->capture_default_str();
  verb.add_option("--temperature", temperature, "0 is greedy (default: the checkpoint's)");
  verb.add_option("--top-p", top_p, "keep the most likely tokens up to this mass (default: the checkpoint's)");
  verb.add_option("--top-k", s.top_k, "keep this many tokens; 0 is all")->capture_default_str();
  verb.add_option("--min-p", s.min_p, "drop tokens below this share of the likeliest")->capture_default_str();
  verb.add_option("--repetition-penalty", s.repetition_penalty)->capture_default_str();
  verb.add_option("--presence-penalty", s.presence_penalty)->capture_default_str();
  verb.add_option("--frequency-penalty", s.frequency_penalty)->capture_default_str();
  verb.add_option("--seed", seed, "the same seed gives the same reply (default: a fresh one)");
  verb.add_option("--stop", options.stop, "end the reply before this text; may be repeated");
}

Result<ReplyOptions> ReplyFlags::resolve(const LoadedModel& model) const {
  ReplyOptions resolved = options;
  NAUTILE_ASSIGN(resolved.encode.mode, parse_mode(mode));
  if (profile == "auto") {
    resolved.encode.profile = model.official_encoding() ? EncodingProfile::kOfficial : EncodingProfile::kPreview;
  } else if (profile == "preview" || profile == "official") {
    resolved.encode.profile = profile == "official" ? EncodingProfile::kOfficial : EncodingProfile::kPreview;
  } else {
    return Status(Code::kInvalidArgument, fmt::format("no encoding \"{}\"", profile), "--encoding",
                  "choose auto, preview or official");
  }
  if (options.max_tokens < 0)
    return Status(Code::kInvalidArgument, "a reply cannot be shorter than nothing", "--max-tokens");
  resolved.sampling.temperature = temperature.value_or(model.default_temperature());
  resolved.sampling.top_p = top_p.value_or(model.default_top_p());
  resolved.sampling.seed = seed ? *seed : random_seed();
  NAUTILE_RETURN_IF_ERROR(resolved.sampling.check(model.tokenizer().size()));
  return resolved;
}

EngineOptions one_reply_at_a_time() {
  EngineOptions options;
  options.max_sequences = 1;
  return options;
}

Result<ReasoningMode> parse_mode(const std::string& name) {
  if (name == "non" || name == "non_think") return ReasoningMode::kNonThink;
  if (name == "low" || name == "think_low") return ReasoningMode::kThinkLow;
  if (name == "high" || name == "think_high") return ReasoningMode::kThinkHigh;
  if (name == "max" || name == "think_max") return ReasoningMode::kThinkMax;
  return Status(Code::kInvalidArgument, fmt::format("no reasoning mode \"{}\"", name), {},
                "choose non, low, high or max");
}

Result<std::string> find_nano(FileSystem& files) {
  std::vector<std::string> places = {"models/nano"};
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    places.push_back((program.parent_path() / "../../models/nano").lexically_normal().string());
    places.push_back((program.parent_path() / "../share/nautile/models/nano").lexically_normal().string());
  }
  std::string looked;
  for (const std::string& place : places) {
    if (files.exists(join_path(place, "config.json"))) return place;
    looked += (looked.empty() ? "" : ", ") + place;
  }
  return Status(Code::kNotFound, "nano, the model that ships with Nautile, is not here", "looked in " + looked,
                "give the directory of a model");
}

void PrefillBar::show(int64_t done, int64_t total) {
  if (!isatty(STDERR_FILENO) || total < 1024 || done >= total) return clear();
  constexpr int kWidth = 30;
  const int filled = static_cast<int>(kWidth * done / total);
  std::string bar;
  for (int i = 0; i < kWidth; ++i) bar += i < filled ? "█" : "░";
  fmt::print(stderr, "\r\033[2mreading {} {}/{}\033[0m", bar, done, total);
  std::fflush(stderr);
  shown_ = true;
}

void PrefillBar::clear() {
  if (shown_) fmt::print(stderr, "\r\033[K");
  shown_ = false;
}

std::string rates_line(const Reply& reply) {
  return fmt::format("{} prompt tokens ({} cached) at {:.0f}/s, {} tokens at {:.0f}/s", reply.prompt_tokens,
                     reply.cached_tokens, reply.prefill_rate(), reply.output_tokens, reply.decode_rate());
}

}  // namespace nautile
