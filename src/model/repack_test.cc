// Loading refuses a checkpoint that holds NaN codes, and says in which tensor.
#include "model/repack.h"

#include <doctest/doctest.h>

#include <cstring>

#include "kernels/registry.h"
#include "model/synthetic.h"
#include "model/weights.h"

using namespace nautile;

TEST_CASE("a NaN code among a matrix's values or scales is refused by name, wherever it is packed") {
  const ModelConfig config = tiny_config();
  const Checkpoint good = synthetic_checkpoint(config, Variant{}, 1).value();
  for (const std::string& isa : available_isas()) {
    const Kernels* kernels = find_kernels(isa).value();
    const Packing packing{kernels, policy_of(Numerics::kFast), nullptr, false};
    CHECK(load_weights(good, config, packing).ok());
    if (kernels->tiles == nullptr) continue;  // in rows, NaN shows in the results
    for (const auto& [tensor, broken, code] :
         {std::tuple{"layers.0.attn.wq_b.weight", "layers.0.attn.wq_b.weight", 0x7f},
          {"layers.1.attn.wo_b.weight", "layers.1.attn.wo_b.weight", 0xff},
          {"layers.1.attn.wq_a.weight", "layers.1.attn.wq_a.scale", 0xff},
          {"layers.0.ffn.experts.2.w2.weight", "layers.0.ffn.experts.2.w2.scale", 0xff}}) {
      std::vector<TensorView> tensors(good.tensors().begin(), good.tensors().end());
      std::vector<std::byte> bytes;
      for (TensorView& view : tensors) {
        if (view.name != broken) continue;
        bytes.assign(view.data, view.data + view.bytes);
        bytes.back() = static_cast<std::byte>(code);
        view.data = bytes.data();
      }
      REQUIRE(!bytes.empty());
      const Checkpoint bad = Checkpoint::make(std::move(tensors), {}, {}).value();
      const auto loaded = load_weights(bad, config, packing);
      REQUIRE(!loaded.ok());
      CHECK(loaded.status().code() == Code::kCorrupt);
      CHECK_MESSAGE(loaded.status().where().find(tensor) != std::string::npos, loaded.status().where());
    }
  }
}
