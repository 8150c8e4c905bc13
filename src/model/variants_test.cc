// Every released form of a checkpoint runs: MXFP4 and FP8 experts, with no draft module, MTP or DSpark; NVFP4 is
// refused by name.
#include <doctest/doctest.h>

#include <cmath>

#include "kernels/registry.h"
#include "model/forward.h"
#include "model/synthetic.h"

using namespace nautile;

namespace {

Result<Weights> weights_of(const Checkpoint& checkpoint, const ModelConfig& config) {
  NAUTILE_RETURN_IF_ERROR(verify(checkpoint, config));
  return load_weights(checkpoint, config);
}

}  // namespace

TEST_CASE("each released variant loads and gives finite logits") {
  for (const ExpertFormat experts : {ExpertFormat::kMxfp4, ExpertFormat::kFp8}) {
    for (const DraftKind draft : {DraftKind::kNone, DraftKind::kMtp, DraftKind::kDspark}) {
      ModelConfig config = tiny_config();
      if (draft == DraftKind::kDspark) config = with_dspark(config);
      const Checkpoint checkpoint = synthetic_checkpoint(config, {experts, draft, experts}, 1).value();
      const Result<Weights> weights = weights_of(checkpoint, config);
      REQUIRE_MESSAGE(weights.ok(), weights.status().message());
      CHECK((weights.value().mtp != nullptr) == (draft == DraftKind::kMtp));
      ThreadPool pool(1);
      Forward forward(weights.value(), Numerics::kReference, *find_kernels("auto").value(), pool);
      SequenceState state(forward.layout());
      std::vector<int32_t> tokens(140);
      for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = static_cast<int32_t>(i * 7 % static_cast<size_t>(config.vocab_size));
      const BatchItem item{&state, tokens};
      const ForwardOutput out = forward({&item, 1}, Logits::kAll).value();
      for (const float x : out.logits) REQUIRE(std::isfinite(x));
    }
  }
}

TEST_CASE("NVFP4 experts are refused by name") {
  const ModelConfig config = tiny_config();
  const Checkpoint checkpoint =
      synthetic_checkpoint(config, {ExpertFormat::kNvfp4, DraftKind::kNone, ExpertFormat::kNvfp4}, 1).value();
  const Status status = weights_of(checkpoint, config).status();
  CHECK(status.code() == Code::kUnsupported);
  CHECK(status.what().find("NVFP4") != std::string::npos);
  CHECK(status.where().find("experts") != std::string::npos);
}
