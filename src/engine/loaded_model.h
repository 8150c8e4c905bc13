// LoadedModel: a model directory, opened, checked and ready to run on this machine.
//
// Thread-safety: the model is read-only once loaded; `forward` and `pool` belong to one caller at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/json.h"
#include "model/forward.h"
#include "model/repack_load.h"
#include "sys/file.h"
#include "text/tokenizer.h"

namespace nautile {

struct LoadOptions {
  std::string isa = "auto";  // see kernels/registry.h
  int threads = 0;           // 0: one a usable core
  Numerics numerics = Numerics::kFast;
  bool need_tokenizer = true;
  // The repacked file to map, or "auto": the one in the model's directory; empty: none. See model/repack_load.h, also for
  // the rest.
  std::string repacked = {};
  bool compare_repacked = false;
  LoadProgressFunction progress = nullptr;
  std::function<void(const std::string&)> notice = nullptr;
};

class LoadedModel {
 public:
  // Reads DIRECTORY/config.json, its shards and tokenizer.json, and verifies every tensor. Errors name file and tensor;
  // nothing is half-loaded. kInvalidArgument names an option; kNotFound without a config.json; the rest is of
  // parse_config(), open_checkpoint(), load_verified() and Tokenizer::load().
  static Result<std::unique_ptr<LoadedModel>> load(FileSystem& files, const std::string& directory,
                                                   const LoadOptions& options);
  // A checkpoint that is in memory already, without tokenizer and directory: for measuring.
  static Result<std::unique_ptr<LoadedModel>> of(Checkpoint checkpoint, const ModelConfig& config,
                                                 const LoadOptions& options);
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;

  const ModelConfig& config() const { return weights_.config; }
  const Weights& weights() const { return weights_; }
  // Of files: memory that the system takes for free, though every step reads it.
  uint64_t mapped_bytes() const {
    if (weights_.tiles == nullptr) return checkpoint_->payload_bytes();
    return weights_.tiles_mapped ? weights_.tile_bytes : 0;
  }
  const std::string& directory() const { return directory_; }
  std::string name() const;  // the directory's last part
  bool has_tokenizer() const { return tokenizer_.has_value(); }
  // Precondition: has_tokenizer(), which need_tokenizer ensures.
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  // True for the 0731 and 0813 releases, whose reasoning efforts print other texts (spec chat.md 3): by the encoder
  // file when it is there, else by the DSpark keys of the config.
  bool official_encoding() const { return official_encoding_; }
  // The checkpoint's own defaults (generation_config.json), 1.0 where it has none.
  double default_temperature() const { return default_temperature_; }
  double default_top_p() const { return default_top_p_; }
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const std::string& config_text() const { return config_text_; }  // config.json as it was read
  Numerics numerics() const { return numerics_; }
  const Kernels& kernels() const { return *kernels_; }
  const std::shared_ptr<const CacheLayout>& layout() const { return forward_->layout(); }
  ThreadPool& pool() { return *pool_; }
  Forward& forward() { return *forward_; }

 private:
  LoadedModel() = default;
  static Result<std::unique_ptr<LoadedModel>> start(const LoadOptions& options);
  Status arrange(FileSystem& files, Checkpoint checkpoint, const ModelConfig& config, const LoadOptions& options);
  Status read_extras(FileSystem& files);

  std::string directory_, config_text_;
  Numerics numerics_ = Numerics::kFast;
  std::unique_ptr<Checkpoint> checkpoint_;
  Weights weights_;
  std::optional<Tokenizer> tokenizer_;
  bool official_encoding_ = false;
  double default_temperature_ = 1, default_top_p_ = 1;
  const Kernels* kernels_ = nullptr;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Forward> forward_;
};

}  // namespace nautile
