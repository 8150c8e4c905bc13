// Weights by memory node: each node's rows in its own memory, the same bytes as in one place, and the same logits.
#include "model/node_rows.h"

#include <doctest/doctest.h>

#include <cstring>
#include <optional>
#include <set>

#include "checkpoint/checkpoint.h"
#include "checkpoint/memory_files.h"
#include "kernels/registry.h"
#include "model/forward.h"
#include "model/repack_load.h"
#include "model/synthetic.h"
#include "sys/memory_for_test.h"
#include "sys/threads_for_test.h"

using namespace nautile;

namespace {

// Matrices of one to eight blocks of rows, the last ones short; output groups that end within a block.
ModelConfig test_config() {
  ModelConfig config = tiny_config();
  config.vocab_size = 1000;
  config.hidden = 320;
  config.q_lora_rank = 160;
  config.o_lora_rank = 96;
  config.expert_inter = 384;
  config.mtp_layers = 1;
  return config;
}

struct Model {
  MemoryFiles files;
  ModelConfig config = test_config();
  std::unique_ptr<Checkpoint> checkpoint;

  Model() {
    Variant variant;
    variant.draft = DraftKind::kMtp;
    REQUIRE(write_synthetic_checkpoint(files, "m", config, variant, 1, 1 << 20).ok());
    checkpoint = std::make_unique<Checkpoint>(open_checkpoint(files, "m").value());
  }
  Weights packed(const Kernels& kernels, Numerics numerics, ThreadPool* pool) const {
    return load_weights(*checkpoint, config, {&kernels, policy_of(numerics), pool, false}).value();
  }
  Weights mapped(const Kernels& kernels, Numerics numerics, ThreadPool* pool) {
    LoadWay way{"r"};
    auto loaded = load_verified(files, *checkpoint, config, {&kernels, policy_of(numerics), pool}, way);
    REQUIRE(loaded.ok());
    return std::move(loaded).value();
  }
};

const std::vector<int> kTopologies[] = {{1, 1}, {1, 1, 1, 1}, {3, 1}, {2, 5, 1}};

// Every node's rows of a matrix are the same bytes as in one place.
void check_same(const ThreadPool& pool, Weights& split, Weights& whole) {
  const std::vector<TileMatrix> parts = tile_matrices(split), all = tile_matrices(whole);
  REQUIRE(parts.size() == all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    const WeightView &view = *parts[i].view, &same = *all[i].view;
    INFO(all[i].name);
    REQUIRE(view.layout == same.layout);
    if (same.layout != WeightLayout::kTiles) continue;
    REQUIRE(view.by_node != nullptr);
    CHECK(view.data == nullptr);
    const size_t bytes = tile_bytes(view.format, view.cols);
    size_t row = 0;
    for (size_t node = 0; node < pool.nodes(); ++node) {
      const RowRange rows = node_rows(pool, view.rows, node);
      CHECK(rows.begin == row);
      CHECK(rows.begin % kNodeRows == 0);
      row = rows.end;
      const size_t begin = rows.begin / kTileRows * bytes, size = tile_count(rows.end) * bytes - begin;
      CHECK(std::memcmp(on_node(view, node).data + begin, same.data + begin, size) == 0);
    }
    CHECK(row == view.rows);
  }
}

std::vector<float> logits_of(const Weights& weights, Numerics numerics, const Kernels& kernels, ThreadPool& pool) {
  Forward forward(weights, numerics, kernels, pool);
  SequenceState first(forward.layout()), second(forward.layout());
  std::vector<float> all;
  std::vector<int32_t> tokens(140);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7 % 1000);
  const auto add = [&](std::span<const BatchItem> batch) {
    const ForwardOutput out = forward(batch, Logits::kAll).value();
    all.insert(all.end(), out.logits.begin(), out.logits.end());
    const ForwardOutput draft = forward.draft(batch, out.streams, Logits::kLast).value();
    all.insert(all.end(), draft.logits.begin(), draft.logits.end());
  };
  const BatchItem prompts[] = {{&first, tokens}, {&second, std::span(tokens).first(9)}};
  add(prompts);
  for (size_t t = 0; t < 3; ++t) {
    const BatchItem both[] = {{&first, std::span(tokens).subspan(t, 1)}, {&second, std::span(tokens).subspan(t, 1)}};
    add(both);
    add(std::span(both).first(1));
  }
  return all;
}

}  // namespace

TEST_CASE("tiles by node are the tiles in one place, packed or copied from a repacked file") {
  Model model;
  for (const std::string& isa : available_isas()) {
    const Kernels& kernels = *find_kernels(isa).value();
    if (kernels.tiles == nullptr) continue;
    for (const Numerics numerics : {Numerics::kFast, Numerics::kReference}) {
      Weights whole = model.packed(kernels, numerics, nullptr);
      for (const std::vector<int>& cores : kTopologies) {
        ThreadPool pool(3, made_up(cores), false);
        Weights packed = model.packed(kernels, numerics, &pool), mapped = model.mapped(kernels, numerics, &pool);
        CHECK(packed.tile_bytes == whole.tile_bytes);
        CHECK_FALSE(mapped.tiles_mapped);
        check_same(pool, packed, whole);
        check_same(pool, mapped, whole);
      }
    }
  }
}

TEST_CASE("logits have the same bits on any nodes, with any number of threads, also fewer than nodes") {
  const Model model;
  for (const Numerics numerics : {Numerics::kFast, Numerics::kReference}) {
    const Kernels& kernels = *find_kernels("auto").value();
    ThreadPool one(1, made_up({1}), false);
    const Weights whole = model.packed(kernels, numerics, &one);
    const std::vector<float> expected = logits_of(whole, numerics, kernels, one);
    for (const std::vector<int>& cores : kTopologies) {
      ThreadPool packer(2, made_up(cores), false);
      const Weights split = model.packed(kernels, numerics, &packer);
      for (int threads = 1; threads <= 8; ++threads) {
        CAPTURE(threads);
        ThreadPool pool(threads, made_up(cores), false);
        const std::vector<float> logits = logits_of(split, numerics, kernels, pool);
        REQUIRE(logits.size() == expected.size());
        CHECK(std::memcmp(logits.data(), expected.data(), 4 * expected.size()) == 0);
      }
    }
  }
}

TEST_CASE("a chunk of many tokens, worked through in parts, has the bits of short ones on any nodes") {
  const Model model;
  const Kernels& kernels = *find_kernels("auto").value();
  std::vector<int32_t> tokens(1100);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7 % 1000);
  const auto feed = [&](const Weights& weights, ThreadPool& pool, Numerics numerics, size_t piece) {
    Forward forward(weights, numerics, kernels, pool);
    SequenceState state(forward.layout());
    std::vector<float> all;
    for (size_t at = 0; at < tokens.size(); at += piece) {
      const BatchItem item{&state, std::span(tokens).subspan(at, std::min(piece, tokens.size() - at))};
      const ForwardOutput out = forward({&item, 1}, Logits::kAll).value();
      all.insert(all.end(), out.logits.begin(), out.logits.end());
    }
    return all;
  };
  for (const Numerics numerics : {Numerics::kFast, Numerics::kReference}) {
    ThreadPool one(1, made_up({1}), false);
    const std::vector<float> expected = feed(model.packed(kernels, numerics, &one), one, numerics, 100);
    for (const std::vector<int>& cores : {std::vector<int>{2}, {1, 1}, {3, 1}, {2, 5, 1}}) {
      ThreadPool pool(2, made_up(cores), false);
      const Weights weights = model.packed(kernels, numerics, &pool);
      for (const size_t piece : {size_t{512}, size_t{513}, tokens.size()}) {
        CAPTURE(piece);
        const std::vector<float> logits = feed(weights, pool, numerics, piece);
        REQUIRE(logits.size() == expected.size());
        CHECK(std::memcmp(logits.data(), expected.data(), 4 * expected.size()) == 0);
      }
    }
  }
}

TEST_CASE("the first NaN code in the order of the matrices is named, whatever the nodes") {
  Model model;
  const Kernels& kernels = *find_kernels("auto").value();
  if (kernels.tiles == nullptr) return;
  std::vector<TensorView> tensors(model.checkpoint->tensors().begin(), model.checkpoint->tensors().end());
  std::vector<std::vector<std::byte>> bytes;
  for (TensorView& view : tensors) {
    if (view.name != "layers.1.attn.wo_b.weight" && view.name != "layers.1.attn.wq_a.weight") continue;
    bytes.emplace_back(view.data, view.data + view.bytes);
    (view.name.ends_with("wq_a.weight") ? bytes.back().back() : bytes.back().front()) = std::byte{0x7f};
    view.data = bytes.back().data();
  }
  REQUIRE(bytes.size() == 2);
  const Checkpoint bad = Checkpoint::make(std::move(tensors), {}, {}).value();
  for (const std::vector<int>& cores : kTopologies) {
    ThreadPool pool(4, made_up(cores), false);
    const auto loaded = load_weights(bad, model.config, {&kernels, policy_of(Numerics::kFast), &pool, false});
    REQUIRE_FALSE(loaded.ok());
    CHECK(loaded.status().where() == "tensor layers.1.attn.wq_a.weight");
  }
}

TEST_CASE("a node's rows lie in memory of that node, where this machine has several") {
  ThreadPool pool(usable_cores());
  const Kernels& kernels = *find_kernels("auto").value();
  if (kernels.tiles == nullptr) return;
  const Model model;
  Weights weights = model.packed(kernels, Numerics::kFast, &pool);
  MESSAGE(pool.nodes(), " nodes");
  size_t checked = 0;
  for (const TileMatrix& m : tile_matrices(weights)) {
    const WeightView& view = *m.view;
    if (view.by_node == nullptr) continue;
    for (size_t node = 0; node < pool.nodes(); ++node) {
      const RowRange rows = node_rows(pool, view.rows, node);
      if (rows.begin == rows.end) continue;
      const std::byte* begin = on_node(view, node).data + rows.begin / kTileRows * tile_bytes(view.format, view.cols);
      const std::optional<std::set<int>> found =
          nodes_of(begin, (tile_count(rows.end) - rows.begin / kTileRows) * tile_bytes(view.format, view.cols));
      if (!found || preferred_node(begin) < 0) return;  // the system does not let us ask
      CHECK(*found == std::set<int>{pool.memory_of(node)});
      ++checked;
    }
  }
  CHECK((pool.nodes() == 1 || checked > 0));
}
