// Synthetic checkpoints pass verification in every released form, are the same for the same seed, and each fault
// planted in one is found with file, tensor and byte.
#include "model/synthetic.h"

#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "checkpoint/checkpoint.h"
#include "checkpoint/memory_files.h"

using namespace nautile;

namespace {

constexpr uint64_t kSeed = 7;

const std::vector<Variant>& variants() {
  using E = ExpertFormat;
  static const std::vector<Variant> all = {
      {E::kMxfp4, DraftKind::kMtp, E::kMxfp4},     // the previews
      {E::kMxfp4, DraftKind::kDspark, E::kMxfp4},  // 0731, 0813
      {E::kFp8, DraftKind::kMtp, E::kFp8},         // the Base releases
      {E::kNvfp4, DraftKind::kMtp, E::kMxfp4},     // NVFP4 with the draft as shipped
      {E::kNvfp4, DraftKind::kDspark, E::kNvfp4}, {E::kBf16, DraftKind::kNone, E::kBf16},
  };
  return all;
}

ModelConfig config_for(const Variant& variant) {
  return variant.draft == DraftKind::kDspark ? with_dspark(tiny_config()) : tiny_config();
}

// A good checkpoint with one tensor changed, dropped or added.
struct Broken {
  std::vector<TensorView> tensors;
  std::vector<std::shared_ptr<std::string>> buffers;
  std::shared_ptr<Checkpoint> base;

  explicit Broken(const Variant& variant = variants()[0]) {
    base = std::make_shared<Checkpoint>(synthetic_checkpoint(config_for(variant), variant, kSeed).value());
    tensors.assign(base->tensors().begin(), base->tensors().end());
  }
  TensorView& at(const std::string& name) {
    for (TensorView& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    FAIL("no tensor " << name);
    return tensors[0];
  }
  void drop(const std::string& name) {
    std::erase_if(tensors, [&](const TensorView& tensor) { return tensor.name == name; });
  }
  template <class T>
  void patch(const std::string& name, uint64_t byte, T value) {
    TensorView& tensor = at(name);
    auto copy = std::make_shared<std::string>(reinterpret_cast<const char*>(tensor.data), tensor.bytes);
    std::memcpy(copy->data() + byte, &value, sizeof value);
    tensor.data = reinterpret_cast<const std::byte*>(copy->data());
    buffers.push_back(copy);
  }
  Status check(const ModelConfig& config = tiny_config()) {
    return verify(Checkpoint::make(tensors, base->files(), {}).value(), config, {.deep = true});
  }
};

void check_fault(const Status& status, Code code, const std::string& tensor) {
  INFO(status.message());
  CHECK(status.code() == code);
  CHECK(status.where().find("(generated)") != std::string::npos);
  CHECK(status.where().find("tensor " + tensor) != std::string::npos);
  CHECK(status.where().find("byte ") != std::string::npos);
}

}  // namespace

TEST_CASE("every released form is generated, recognised and verified") {
  for (const Variant& variant : variants()) {
    CAPTURE(expert_format_name(variant.experts));
    const ModelConfig config = config_for(variant);
    const auto made = synthetic_checkpoint(config, variant, kSeed);
    REQUIRE(made.ok());
    const auto found = detect_variant(made.value(), config);
    REQUIRE(found.ok());
    CHECK(found.value().experts == variant.experts);
    CHECK(found.value().draft == variant.draft);
    if (variant.draft != DraftKind::kNone) CHECK(found.value().draft_experts == variant.draft_experts);
    const Status status = verify(made.value(), config, {.deep = true});
    INFO(status.message());
    CHECK(status.ok());
    CHECK(made.value().payload_bytes() == inventory_totals(config, expected_tensors(config, variant)).bytes());
  }
}

TEST_CASE("bytes depend on the seed, not on the threads") {
  const Variant variant = variants()[0];
  ThreadPool pool(3);
  const Checkpoint one = synthetic_checkpoint(tiny_config(), variant, kSeed).value();
  const Checkpoint many = synthetic_checkpoint(tiny_config(), variant, kSeed, &pool).value();
  const Checkpoint other = synthetic_checkpoint(tiny_config(), variant, kSeed + 1).value();
  size_t different = 0;
  for (const TensorView& tensor : one.tensors()) {
    CHECK(std::memcmp(tensor.data, many.find(tensor.name)->data, tensor.bytes) == 0);
    different += std::memcmp(tensor.data, other.find(tensor.name)->data, tensor.bytes) != 0;
  }
  CHECK(different > one.tensors().size() / 2);
  CHECK(verify(one, tiny_config(), {.deep = true, .pool = &pool}).ok());
}

TEST_CASE("weights have about the standard deviation 1/sqrt(K)") {
  static const float e2m1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  ModelConfig config = tiny_config();
  config.hidden = 512;
  config.expert_inter = 256;
  const Checkpoint checkpoint = synthetic_checkpoint(config, variants()[0], kSeed).value();
  const TensorView* weight = checkpoint.find("layers.1.ffn.experts.0.w1.weight");
  const TensorView* scale = checkpoint.find("layers.1.ffn.experts.0.w1.scale");
  REQUIRE(weight != nullptr);
  double sum = 0, squares = 0;
  const uint64_t count = weight->bytes * 2;
  for (uint64_t i = 0; i < count; ++i) {
    const int code = weight->read<uint8_t>(i / 2) >> (4 * (i % 2)) & 15;
    const double value = std::ldexp(code & 8 ? -e2m1[code & 7] : e2m1[code & 7], scale->read<uint8_t>(i / 32) - 127);
    sum += value;
    squares += value * value;
  }
  const double std = std::sqrt(squares / static_cast<double>(count));
  CHECK(std == doctest::Approx(1 / std::sqrt(512.0)).epsilon(0.25));
  CHECK(std::abs(sum / static_cast<double>(count)) < 0.02 * std);
}

TEST_CASE("a directory of shards opens like a download") {
  MemoryFiles files;
  const Variant variant = variants()[0];
  REQUIRE(write_synthetic_checkpoint(files, "m", tiny_config(), variant, kSeed, 40'000).ok());
  const auto config = parse_config(files.contents["m/config.json"], "m/config.json");
  REQUIRE(config.ok());
  CHECK(config.value() == tiny_config());
  const auto opened = open_checkpoint(files, "m");
  REQUIRE(opened.ok());
  CHECK(opened.value().files().size() > 3);
  CHECK(verify(opened.value(), config.value(), {.deep = true}).ok());

  // A flipped NaN scale is found at the very byte of its file.
  const TensorView* scale = opened.value().find("layers.2.attn.wq_a.scale");
  REQUIRE(scale != nullptr);
  files.contents[scale->file][scale->file_offset] = '\xFF';
  const Status status = verify(open_checkpoint(files, "m").value(), tiny_config());
  CHECK(status.code() == Code::kCorrupt);
  CHECK(status.where() == scale->where());
}

TEST_CASE("each fault names file, tensor and byte") {
  const std::string expert = "layers.1.ffn.experts.2.w2";
  CHECK(Broken().check().ok());
  {
    Broken b;
    b.drop("layers.3.attn.wkv.weight");
    check_fault(b.check(), Code::kNotFound, "layers.3.attn.wkv.weight");
  }
  {
    Broken b;
    b.drop("layers.3.attn.wkv.scale");
    check_fault(b.check(), Code::kNotFound, "layers.3.attn.wkv.scale");
  }
  {
    Broken b;
    b.drop("layers.0.ffn.experts.0.w1.weight");
    check_fault(b.check(), Code::kNotFound, "layers.0.ffn.experts.0.w1.weight");
  }
  {
    Broken b;
    b.tensors.push_back(b.at("norm.weight"));
    b.tensors.back().name = "layers.9.attn_norm.weight";
    check_fault(b.check(), Code::kCorrupt, "layers.9.attn_norm.weight");
  }
  {
    Broken b;
    b.at("norm.weight").dtype = DType::kF16;
    check_fault(b.check(), Code::kUnsupported, "norm.weight");
  }
  {
    Broken b;
    b.at(expert + ".weight").dtype = DType::kF16;
    check_fault(b.check(), Code::kUnsupported, expert + ".weight");
  }
  {
    Broken b;
    std::swap(b.at("embed.weight").shape[0], b.at("embed.weight").shape[1]);
    check_fault(b.check(), Code::kCorrupt, "embed.weight");
  }
  {
    Broken b;  // w1's scale in the place of w2's
    TensorView swapped = b.at("layers.1.ffn.experts.2.w1.scale");
    swapped.name = expert + ".scale";
    b.at(expert + ".scale") = swapped;
    check_fault(b.check(), Code::kCorrupt, expert + ".scale");
  }
  {
    Broken b;
    b.patch<uint8_t>(expert + ".scale", 3, 0xFF);
    const Status status = b.check();
    check_fault(status, Code::kCorrupt, expert + ".scale");
    CHECK(status.where() == b.at(expert + ".scale").where(3));
  }
  {
    Broken b;
    b.patch<uint8_t>("layers.2.attn.wo_b.weight", 5, 0x7F);
    check_fault(b.check(), Code::kCorrupt, "layers.2.attn.wo_b.weight");
  }
  {
    Broken b;
    b.patch<float>("layers.2.hc_attn_base", 8, std::nanf(""));
    const Status status = b.check();
    check_fault(status, Code::kCorrupt, "layers.2.hc_attn_base");
    CHECK(status.where() == b.at("layers.2.hc_attn_base").where(8));
  }
  {
    Broken b;
    b.patch<uint16_t>("head.weight", 100, 0x7F80);
    check_fault(b.check(), Code::kCorrupt, "head.weight");
  }
  for (int64_t id : {int64_t{-1}, int64_t{4}, int64_t{1} << 40}) {
    Broken b;
    b.patch<int64_t>("layers.0.ffn.gate.tid2eid", 16, id);
    const Status status = b.check();
    check_fault(status, Code::kCorrupt, "layers.0.ffn.gate.tid2eid");
    CHECK(status.where() == b.at("layers.0.ffn.gate.tid2eid").where(16));
  }
  {
    Broken b;  // a scale beside a weight that is not quantised
    TensorView& weight = b.at("layers.1.attn.wkv.weight");
    weight.dtype = DType::kBf16;
    check_fault(b.check(), Code::kCorrupt, "layers.1.attn.wkv.scale");
  }
  {
    Broken b;
    b.drop("mtp.0.e_proj.weight");
    CHECK(b.check().code() == Code::kNotFound);
  }
  {
    Broken b(variants()[1]);  // DSpark tensors, config.json without its keys
    check_fault(b.check(), Code::kInvalidArgument, "mtp.0.main_proj.weight");
  }
  {
    Broken b(variants()[3]);
    b.patch<float>("layers.1.ffn.experts.0.w1.weight_scale_2", 0, 0.f);
    check_fault(b.check(), Code::kCorrupt, "layers.1.ffn.experts.0.w1.weight_scale_2");
  }
  {
    Broken b;
    b.at("layers.0.ffn.experts.0.w1.weight").name = "layers.0.ffn.experts.0.w1.weight_packed";
    check_fault(b.check(), Code::kUnsupported, "layers.0.ffn.experts.0.w1.weight_packed");
  }
}

TEST_CASE("what re-saving does to a checkpoint is accepted") {
  Broken b;
  b.at("layers.1.attn.wq_a.scale").dtype = DType::kU8;
  b.at("layers.1.ffn.experts.1.w1.weight").dtype = DType::kU8;
  std::erase_if(b.tensors, [](const TensorView& tensor) { return tensor.name.starts_with("mtp."); });
  // Copies of embedding and head in the draft block are ignored.
  b.tensors.push_back(b.at("head.weight"));
  b.tensors.back().name = "mtp.0.head.weight";
  const Status status = b.check();
  INFO(status.message());
  CHECK(status.ok());
}
