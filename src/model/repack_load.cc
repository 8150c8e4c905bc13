// The ways of loading, in the order in which they are tried.
#include "model/repack_load.h"

#include <fmt/format.h>

#include "model/inventory.h"
#include "model/repack_file.h"

namespace nautile {
namespace {

struct Loader {
  FileSystem& files;
  const Checkpoint& checkpoint;
  const ModelConfig& config;
  const Packing& packing;
  const LoadWay& way;

  void notice(const std::string& text) const {
    if (way.notice) way.notice(text);
  }

  Status verify_all(const RepackedFile* held) const {
    VerifyOptions options;
    options.pool = packing.pool;
    // What the file holds was sound when it was made, and is not read from the checkpoint.
    if (held != nullptr) options.known_sound = [held](std::string_view tensor) { return held->holds(tensor); };
    return verify(checkpoint, config, options);
  }

  // From the file. An error says why it cannot be.
  Result<Weights> mapped() const {
    NAUTILE_ASSIGN(const RepackedFile file, RepackedFile::open(files, way.repacked, checkpoint));
    NAUTILE_RETURN_IF_ERROR(verify_all(&file));
    NAUTILE_ASSIGN(Weights weights, load_weights(checkpoint, config));
    if (file.times_differ() && !way.compare) {
      notice(
          fmt::format("the checkpoint's files have other times than when {} was made: comparing all of it, at each "
                      "start until `nautile repack` has made it again",
                      way.repacked));
    }
    if (file.times_differ() || way.compare) {
      NAUTILE_RETURN_IF_ERROR(file.compare(weights, packing.pool, way.progress));
    }
    NAUTILE_RETURN_IF_ERROR(file.check(packing.pool, way.progress));
    NAUTILE_RETURN_IF_ERROR(file.attach(weights, packing));
    // The page cache has the file where it was first read, often all on one node.
    if (packing.pool != nullptr && packing.pool->nodes() > 1) NAUTILE_RETURN_IF_ERROR(pack_weights(weights, packing));
    return weights;
  }

  Status make() const {
    NAUTILE_ASSIGN(Weights rows, load_weights(checkpoint, config));
    return RepackedFile::make(files, way.repacked, checkpoint, rows, packing.pool, way.progress);
  }
};

}  // namespace

Result<Weights> load_verified(FileSystem& files, const Checkpoint& checkpoint, const ModelConfig& config,
                              Packing packing, const LoadWay& way) {
  packing.progress = way.progress;
  const Loader loader{files, checkpoint, config, packing, way};
  const bool tiles = takes_tiles(packing.kernels, packing.policy, WeightFormat::kFp8);
  bool verified = false;
  if (!way.repacked.empty() && !tiles) {
    loader.notice("these kernels and numerics take the weights as the checkpoint has them: no repacked file is used");
  } else if (!way.repacked.empty()) {
    bool there = files.exists(way.repacked);
    if (!there) {
      NAUTILE_RETURN_IF_ERROR(loader.verify_all(nullptr));
      verified = true;
      const Status made = loader.make();
      if (made.ok()) loader.notice(fmt::format("made {}; later starts map it", way.repacked));
      if (!made.ok())
        loader.notice(fmt::format("no repacked file was made, loading goes on without: {}", made.message()));
      there = made.ok();
    }
    if (there) {
      Result<Weights> weights = loader.mapped();
      if (weights.ok()) return weights;
      loader.notice(fmt::format("the repacked file is not used, the checkpoint is packed instead: {}",
                                weights.status().message()));
    }
  }
  if (!verified) NAUTILE_RETURN_IF_ERROR(loader.verify_all(nullptr));
  return load_weights(checkpoint, config, packing);
}

}  // namespace nautile
