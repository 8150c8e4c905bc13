// Writes a synthetic checkpoint of a published shape to a directory, in the form of a downloaded one but for tokenizer
// and index metadata: layers of ratios 0, 4 and 128 over and over, weights of the stored formats.
//   make_checkpoint v4-flash DIRECTORY LAYERS VOCABULARY
// Needs memory for all of it.
#include <fmt/format.h>

#include <cstdlib>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/synthetic.h"
#include "sys/machine.h"

using namespace nautile;

namespace {

Status make(const std::string& shape, const std::string& directory, int layers, int vocabulary) {
  NAUTILE_ASSIGN(ModelConfig config, shape_config(shape));
  std::vector<int> ratios;
  for (int i = 0; i < layers; ++i) ratios.push_back(i % 3 == 0 ? 0 : i % 3 == 1 ? 4 : 128);
  NAUTILE_ASSIGN(config, with_layers(config, ratios));
  config.vocab_size = vocabulary;
  config.hash_layers = std::min(config.hash_layers, 1);
  config.mtp_layers = 0;
  ThreadPool pool(usable_cores());
  NAUTILE_ASSIGN(const Checkpoint checkpoint, synthetic_checkpoint(config, Variant{}, 1, &pool));
  const std::unique_ptr<FileSystem> files = real_files();
  NAUTILE_RETURN_IF_ERROR(write_checkpoint(*files, checkpoint, directory, 1u << 30));
  fmt::print("{} bytes of tensors\n", checkpoint.payload_bytes());
  return files->write(join_path(directory, "config.json"), config_json(config));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    fmt::print(stderr, "usage: make_checkpoint v4-flash|v4-pro DIRECTORY LAYERS VOCABULARY\n");
    return 2;
  }
  const Status status = make(argv[1], argv[2], std::atoi(argv[3]), std::atoi(argv[4]));
  if (!status.ok()) fmt::print(stderr, "make_checkpoint: {}\n", status.message());
  return status.ok() ? 0 : 1;
}
