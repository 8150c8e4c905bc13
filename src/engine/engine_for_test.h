// What engine tests share: nano, prompts over it, and the plainest possible generation to hold the engine against.
#pragma once

#include <doctest/doctest.h>

#include <filesystem>
#include <random>

#include "engine/engine.h"
#include "engine/sampler.h"

namespace nautile::test {

inline std::unique_ptr<LoadedModel> nano(int threads = 2) {
  const std::unique_ptr<FileSystem> files = real_files();
  LoadOptions options;
  options.threads = threads;
  auto model = LoadedModel::load(*files, NAUTILE_SOURCE_DIR "/models/nano", options);
  REQUIRE_MESSAGE(model.ok(), model.status().message());
  return std::move(model).value();
}

// Ordinary tokens, no specials.
inline std::vector<TokenId> random_prompt(const LoadedModel& model, size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> prompt(count);
  for (TokenId& id : prompt) id = 300 + static_cast<TokenId>(random() % (model.tokenizer().size() - 300));
  return prompt;
}

inline std::vector<TokenId> text_prompt(const LoadedModel& model, const std::string& text) {
  return model.tokenizer().encode("<｜begin▁of▁sentence｜><｜User｜>" + text + "<｜Assistant｜></think>", true).value();
}

inline EngineOptions small_engine() {
  EngineOptions options;
  options.state_bytes = 256u << 20;
  options.cache_bytes = 256u << 20;
  options.speculation = Speculation::kOff;
  options.prefix_cache = false;
  return options;
}

inline GenerateRequest request_of(std::vector<TokenId> prompt, int64_t max_tokens, uint64_t seed = 0,
                                  double temperature = 1) {
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.seed = seed;
  request.sampling.temperature = temperature;
  return request;
}

// One sequence, one token at a time, no engine. The prompt in one piece.
inline std::vector<TokenId> plain(LoadedModel& model, const GenerateRequest& request) {
  Forward forward(model.weights(), Numerics::kFast, model.kernels(), model.pool());
  SequenceState state(forward.layout());
  Sampler sampler(model.kernels());
  TokenHistory history;
  history.add_prompt(request.prompt);
  std::vector<TokenId> tokens = request.prompt;
  std::vector<TokenId> out;
  while (static_cast<int64_t>(out.size()) < request.max_tokens) {
    const BatchItem item{&state, std::span(tokens).subspan(static_cast<size_t>(state.length()))};
    const auto logits = forward({&item, 1}, Logits::kLast).value().logits.first(model.tokenizer().size());
    const TokenId id = sampler.sample(logits, request.sampling, history, tokens.size()).value().id;
    out.push_back(id);
    tokens.push_back(id);
    history.add_output(id);
    if (std::find(request.end_tokens.begin(), request.end_tokens.end(), id) != request.end_tokens.end()) break;
  }
  return out;
}

inline std::vector<TokenId> ids(std::span<const TokenEvent> events) {
  std::vector<TokenId> out;
  for (const TokenEvent& event : events) out.push_back(event.id);
  return out;
}

inline std::vector<TokenId> read_all(Generation& generation) {
  std::vector<TokenEvent> events;
  while (generation.wait(events)) {
  }
  return ids(events);
}

// A directory of its own, removed at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "nautile-test-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::unique_ptr<LocalEngine> start(LoadedModel& model, const EngineOptions& options) {
  auto engine = start_engine(model, options);
  REQUIRE_MESSAGE(engine.ok(), engine.status().message());
  return std::move(engine).value();
}

}  // namespace nautile::test
