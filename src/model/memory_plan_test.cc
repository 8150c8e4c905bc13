// The memory plan against the published cache sizes.
#include "model/memory_plan.h"

#include <doctest/doctest.h>

#include "cache/sequence_state.h"

using namespace nautile;

TEST_CASE("entries and index keys have the sizes of the paged formats") {
  const ModelConfig flash = *shape_config("v4-flash");
  CHECK(entry_bytes(flash, {}) == 584);
  CHECK(index_key_bytes(flash, {}) == 68);
  CHECK(entry_bytes(flash, {1024, 256, 2}) == 1024);
}

TEST_CASE("cache of one sequence at the published contexts") {
  const ModelConfig flash = *shape_config("v4-flash"), pro = *shape_config("v4-pro");
  const auto kv = [](const ModelConfig& c, uint64_t tokens) {
    return static_cast<double>(sequence_bytes(c, DraftKind::kNone, tokens).kv());
  };
  CHECK(kv(flash, 1'000'000) == doctest::Approx(3.518e9).epsilon(0.0005));
  CHECK(kv(pro, 1'000'000) == doctest::Approx(5.036e9).epsilon(0.0005));
  CHECK(kv(flash, 8192) == doctest::Approx(0.0320e9).epsilon(0.002));
  CHECK(kv(pro, 131072) == doctest::Approx(0.664e9).epsilon(0.001));
  CHECK(kv(flash, 1048576) == doctest::Approx(3.688e9).epsilon(0.0005));
  // By hand: 43 rings of 128, then 21 CSA and 20 HCA layers at 1000 tokens.
  CHECK(sequence_bytes(flash, DraftKind::kNone, 1000).kv() == 43 * 128 * 584 + 21 * 250 * (584 + 68) + 20 * 7 * 584);
  // Below a window nothing is rounded up, and no entry is there before its window is full.
  CHECK(sequence_bytes(flash, DraftKind::kNone, 3).kv() == 43 * 3 * 584);
  CHECK(sequence_bytes(flash, DraftKind::kNone, 0).kv() == 0);
}

TEST_CASE("compressor state and draft rings") {
  const ModelConfig flash = *shape_config("v4-flash"), pro = *shape_config("v4-pro");
  CHECK(sequence_bytes(flash, DraftKind::kNone, 0).compressor == (21 * 80 + 20 * 512) * 1024);
  CHECK(sequence_bytes(pro, DraftKind::kNone, 0).compressor == (30 * 80 + 31 * 512) * 1024);
  CHECK(sequence_bytes(flash, DraftKind::kNone, 0, {0, 0, 1}).compressor == 11'345'920);
  CHECK(sequence_bytes(pro, DraftKind::kNone, 0, {0, 0, 1}).compressor == 17'481'728);
  CHECK(sequence_bytes(flash, DraftKind::kMtp, 9000).draft == 128 * 584);
  CHECK(sequence_bytes(flash, DraftKind::kDspark, 9000).draft == 3 * 128 * 584);
}

TEST_CASE("a plan adds weights, every sequence and what the caller needs") {
  const ModelConfig config = *shape_config("v4-flash");
  const Totals totals =
      inventory_totals(config, expected_tensors(config, {ExpertFormat::kMxfp4, DraftKind::kMtp, ExpertFormat::kMxfp4}));
  const MemoryPlan plan = memory_plan(config, totals, DraftKind::kMtp, 4096, 3, 1000);
  CHECK(plan.weight_bytes + plan.draft_weight_bytes == 159'609'485'896);
  CHECK(plan.total() == 159'609'485'896 + 3 * plan.sequence.total() + 1000);
  CHECK(memory_plan(config, totals, DraftKind::kNone, 4096, 1).draft_weight_bytes == 0);
}

TEST_CASE("a sequence holds what the formula says, plus room for a rollback and for alignment") {
  struct {
    const char* name;
    uint64_t rollback, padding_a_block;
  } models[] = {
      // 8 more rows in each ring and CSA or HCA open window; HCA's one entry a block takes 640 bytes, not 584.
      {"v4-flash", 44 * 8 * 584 + 21 * 8 * 10240 + 20 * 8 * 4096, 20 * 56},
      {"v4-pro", 62 * 8 * 584 + 30 * 8 * 10240 + 31 * 8 * 4096, 31 * 56},
  };
  for (const auto& model : models) {
    CAPTURE(model.name);
    const ModelConfig config = *shape_config(model.name);
    const auto layout = std::make_shared<const CacheLayout>(cache_shape(config, true, KvFormat::kPacked));
    for (const int64_t tokens : {128, 1024, 131'072, 999'936}) {
      const uint64_t blocks = size_t(tokens) / kBlockTokens;
      CHECK(layout->private_bytes() + blocks * layout->block_bytes() ==
            sequence_bytes(config, DraftKind::kMtp, size_t(tokens)).total() + model.rollback +
                blocks * model.padding_a_block);
    }
    SequenceState state(layout);
    state.reserve(1000);
    CHECK(state.bytes() == layout->private_bytes() + 8 * layout->block_bytes());
  }
}
