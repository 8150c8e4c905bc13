// Opening a model directory, in the order in which a person would want to hear about faults.
#include "engine/loaded_model.h"

#include <fmt/format.h>

#include "checkpoint/checkpoint.h"
#include "kernels/registry.h"
#include "sys/machine.h"

namespace nautile {
namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;

}  // namespace

// Kernels and threads.
Result<std::unique_ptr<LoadedModel>> LoadedModel::start(const LoadOptions& options) {
  std::unique_ptr<LoadedModel> model(new LoadedModel());
  model->numerics_ = options.numerics;
  NAUTILE_ASSIGN(model->kernels_, find_kernels(options.isa));
  if (options.threads < 0 || options.threads > 1024) {
    return Status(Code::kInvalidArgument, fmt::format("{} threads", options.threads), "--threads",
                  "give a number from 1 to 1024, or 0 for one a core");
  }
  model->pool_ = std::make_unique<ThreadPool>(options.threads == 0 ? usable_cores() : options.threads);
  return model;
}

// Weights in their places, and the forward pass over them.
Status LoadedModel::arrange(FileSystem& files, Checkpoint checkpoint, const ModelConfig& config,
                            const LoadOptions& options) {
  checkpoint_ = std::make_unique<Checkpoint>(std::move(checkpoint));
  LoadWay way{options.repacked, options.compare_repacked, options.progress, options.notice};
  if (way.repacked == "auto") way.repacked = join_path(directory_, kRepackedName);
  NAUTILE_ASSIGN(weights_,
                 load_verified(files, *checkpoint_, config, {kernels_, policy_of(numerics_), pool_.get()}, way));
  forward_ = std::make_unique<Forward>(weights_, numerics_, *kernels_, *pool_);
  return {};
}

Result<std::unique_ptr<LoadedModel>> LoadedModel::load(FileSystem& files, const std::string& directory,
                                                       const LoadOptions& options) {
  NAUTILE_ASSIGN(std::unique_ptr<LoadedModel> model, start(options));
  model->directory_ = directory;
  const std::string config_path = join_path(directory, "config.json");
  if (!files.exists(config_path)) {
    return Status(Code::kNotFound, "this is no model directory: it has no config.json", directory,
                  "give the directory of a downloaded DeepSeek-V4 checkpoint");
  }
  NAUTILE_ASSIGN(model->config_text_, files.read(config_path, kMaxConfigBytes));
  NAUTILE_ASSIGN(const ModelConfig config, parse_config(model->config_text_, config_path));
  NAUTILE_ASSIGN(Checkpoint checkpoint, open_checkpoint(files, directory));
  NAUTILE_RETURN_IF_ERROR(model->arrange(files, std::move(checkpoint), config, options));
  if (options.need_tokenizer) {
    NAUTILE_ASSIGN(model->tokenizer_, Tokenizer::load(files, directory));
    if (model->tokenizer_->size() > static_cast<size_t>(config.vocab_size)) {
      return Status(
          Code::kCorrupt,
          fmt::format("the tokenizer has {} tokens, the model {}", model->tokenizer_->size(), config.vocab_size),
          join_path(directory, "tokenizer.json"));
    }
  }
  NAUTILE_RETURN_IF_ERROR(model->read_extras(files));
  return model;
}

Result<std::unique_ptr<LoadedModel>> LoadedModel::of(Checkpoint checkpoint, const ModelConfig& config,
                                                     const LoadOptions& options) {
  NAUTILE_ASSIGN(std::unique_ptr<LoadedModel> model, start(options));
  const std::unique_ptr<FileSystem> files = real_files();
  NAUTILE_RETURN_IF_ERROR(model->arrange(*files, std::move(checkpoint), config, options));
  return model;
}

Status LoadedModel::read_extras(FileSystem& files) {
  official_encoding_ = config().dspark.block_size > 0;
  const std::string encoder = join_path(directory_, "encoding/encoding_dsv4.py");
  if (files.exists(encoder)) {
    NAUTILE_ASSIGN(const std::string text, files.read(encoder, 1 << 22));
    official_encoding_ = text.find("REASONING_EFFORT_PROMPTS") != std::string::npos;
  }
  const std::string generation = join_path(directory_, "generation_config.json");
  if (!files.exists(generation)) return {};
  NAUTILE_ASSIGN(const std::string text, files.read(generation, kMaxConfigBytes));
  NAUTILE_ASSIGN(const Json json, parse_json(text, generation));
  if (json.is_object() && json.contains("temperature")) {
    NAUTILE_ASSIGN(default_temperature_, json_number(json, "temperature", generation));
  }
  if (json.is_object() && json.contains("do_sample")) {
    NAUTILE_ASSIGN(const bool sample, json_bool(json, "do_sample", generation));
    if (!sample) default_temperature_ = 0;
  }
  if (json.is_object() && json.contains("top_p")) {
    NAUTILE_ASSIGN(default_top_p_, json_number(json, "top_p", generation));
  }
  return {};
}

std::string LoadedModel::name() const {
  std::string path = directory_;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.find_last_of('/') + 1);
}

}  // namespace nautile
