// What the load tests share.
#pragma once

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace nautile::load {

// Ends the program with what was expected and is not so.
[[noreturn]] inline void fail(const std::string& what) {
  fmt::print("FAILED: {}\n", what);
  std::fflush(stdout);
  std::quick_exit(1);
}
inline void check(bool condition, const std::string& what) {
  if (!condition) fail(what);
}
template <class T>
T must(Result<T> result, const std::string& what) {
  if (!result.ok()) fail(what + ": " + result.status().message());
  return std::move(result).value();
}

inline std::unique_ptr<LoadedModel> open(const std::string& directory, int threads) {
  const std::unique_ptr<FileSystem> files = real_files();
  LoadOptions options;
  options.threads = threads;
  return must(LoadedModel::load(*files, directory, options), "loading " + directory);
}

// A directory of its own, removed at the end.
class Scratch {
 public:
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "nautile-load-XXXXXX").string();
    check(mkdtemp(name.data()) != nullptr, "no temporary directory");
    path = name;
  }
  ~Scratch() { std::filesystem::remove_all(path); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::string path;
};

inline std::vector<TokenId> random_tokens(const LoadedModel& model, size_t count, std::mt19937& random) {
  std::vector<TokenId> tokens(count);
  for (TokenId& id : tokens) id = 300 + static_cast<TokenId>(random() % (model.tokenizer().size() - 300));
  return tokens;
}

// Each takes the model's directory and its size, prints what it measured, and fails loudly.
void mixed(const std::string& directory, int requests);
void agent(const std::string& directory, int turns);
void overload(const std::string& directory, int seconds);
void sampled(const std::string& directory, int samples);
void allocations(const std::string& directory, int batch);

}  // namespace nautile::load
