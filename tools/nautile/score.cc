// nautile score: the logits of given tokens, for comparing with other implementations.
#include <fmt/format.h>

#include <cmath>

#include "engine/npy.h"
#include "model_flags.h"

namespace nautile {
namespace {

struct ScoreFlags {
  ModelFlags model;
  std::string tokens, logits;
  size_t chunk = 512;
  bool json = false;
};

// Ids from a JSON list or separated by blanks.
Result<std::vector<int32_t>> read_tokens(FileSystem& files, const std::string& path) {
  NAUTILE_ASSIGN(std::string text, files.read(path, 1u << 30));
  if (text.find('[') == std::string::npos) {
    std::string list = "[";
    bool between = false;
    for (const char c : text) {
      const bool blank = c == ' ' || c == '\n' || c == '\t' || c == '\r';
      if (blank) {
        between = list.size() > 1;
        continue;
      }
      if (between) list += ',';
      between = false;
      list += c;
    }
    text = list + "]";
  }
  NAUTILE_ASSIGN(const Json json, parse_json(text, path));
  std::vector<int32_t> ids;
  for (const Json& item : json) {
    if (!item.is_number_integer() || item.get<int64_t>() < 0 || item.get<int64_t>() > INT32_MAX) {
      return Status(Code::kInvalidArgument, fmt::format("{} is no token id", item.dump()),
                    fmt::format("{}, item {}", path, ids.size()));
    }
    ids.push_back(item.get<int32_t>());
  }
  if (ids.empty()) return Status(Code::kInvalidArgument, "there are no tokens", path);
  return ids;
}

Status score(ScoreFlags flags) {
  if (flags.chunk == 0) return {Code::kInvalidArgument, "a chunk has at least one token", "--chunk"};
  const std::unique_ptr<FileSystem> files = real_files();
  flags.model.options.need_tokenizer = false;
  NAUTILE_ASSIGN(const std::unique_ptr<LoadedModel> model, flags.model.load(*files));
  NAUTILE_ASSIGN(const std::vector<int32_t> tokens, read_tokens(*files, flags.tokens));
  const size_t vocab = static_cast<size_t>(model->config().vocab_size);
  SequenceState state(model->forward().layout());
  std::vector<float> logits;
  double log_likelihood = 0;
  for (size_t at = 0; at < tokens.size(); at += flags.chunk) {
    const BatchItem item{&state, std::span(tokens).subspan(at, std::min(flags.chunk, tokens.size() - at))};
    NAUTILE_ASSIGN(const ForwardOutput out, model->forward()({&item, 1}, Logits::kAll));
    for (size_t t = 0; t < item.tokens.size() && at + t + 1 < tokens.size(); ++t) {
      const std::span<const float> row = out.logits.subspan(t * vocab, vocab);
      const double most = *std::max_element(row.begin(), row.end());
      double total = 0;
      for (const float x : row) total += std::exp(x - most);
      log_likelihood += row[static_cast<size_t>(tokens[at + t + 1])] - most - std::log(total);
    }
    if (!flags.logits.empty()) logits.insert(logits.end(), out.logits.begin(), out.logits.end());
  }
  if (!flags.logits.empty())
    NAUTILE_RETURN_IF_ERROR(files->write(flags.logits, npy_bytes(logits, tokens.size(), vocab)));
  const double mean = tokens.size() > 1 ? log_likelihood / static_cast<double>(tokens.size() - 1) : 0;
  if (flags.json) {
    fmt::print("{}\n", Json({{"tokens", tokens.size()},
                             {"vocabulary", vocab},
                             {"mean_log_likelihood", mean},
                             {"numerics", flags.model.numerics},
                             {"isa", model->kernels().name}})
                           .dump());
  } else {
    fmt::print("{} tokens, mean log-likelihood {:.4f} (perplexity {:.3f}), {} numerics, {} kernels\n", tokens.size(),
               mean, std::exp(-mean), flags.model.numerics, model->kernels().name);
  }
  return {};
}

}  // namespace

void add_score(CLI::App& app, Run& run) {
  auto flags = std::make_shared<ScoreFlags>();
  CLI::App* verb =
      app.add_subcommand("score",
                         "Writes the logits of given tokens.\n"
                         "  nautile score models/nano --tokens ids.txt --logits out.npy --numerics reference");
  flags->model.add(*verb);
  verb->add_option("--tokens", flags->tokens, "file of token ids: a JSON list, or separated by blanks")->required();
  verb->add_option("--logits", flags->logits, "float32 .npy to write: [tokens, vocabulary]");
  verb->add_option("--chunk", flags->chunk, "tokens a forward pass; changes nothing but the speed")
      ->capture_default_str();
  verb->add_flag("--json", flags->json, "print one JSON object");
  verb->callback([flags, &run] {
    run = [flags] {
      const Status status = score(*flags);
      return status.ok() ? kExitDone : fail(status);
    };
  });
}

}  // namespace nautile
