// Opens and writes checkpoint directories.
#include "checkpoint/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "base/json.h"
#include "checkpoint/names.h"
#include "checkpoint/safetensors.h"

namespace nautile {
namespace {

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";
// Pro's index is about 13 MB.
constexpr size_t kMaxIndexBytes = 256u << 20;

// Follows {"metadata": {"total_size": N, ...}, "weight_map": {"tensor": "shard"}}. Other keys are skipped.
class IndexReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  ShardIndex index;
  bool has_map = false;
  std::string problem;
  size_t position = 0;

  bool null() override { return value("null"); }
  bool boolean(bool) override { return value("true or false"); }
  bool number_integer(int64_t) override { return value("a number"); }
  bool number_float(double, const std::string&) override { return value("a number"); }
  bool binary(binary_t&) override { return value("binary data"); }
  bool number_unsigned(uint64_t number) override {
    if (depth_ == 2 && top_ == "metadata" && key_ == "total_size") {
      index.has_total_size = true;
      index.total_size = number;
    }
    return value("a number");
  }
  bool string(std::string& text) override {
    if (!in_map()) return value("a string");
    if (text.empty() || text.find('/') != std::string::npos || text == "." || text == ".." ||
        text.find('\0') != std::string::npos) {
      return wrong(fmt::format("the shard of \"{}\" must be a file name without folders, but is \"{}\"", key_, text));
    }
    index.items.push_back({key_, text});
    return true;
  }
  bool start_object(size_t) override { return open(); }
  bool start_array(size_t) override { return depth_ == 0 ? wrong("the index must be a JSON object") : open(); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(std::string& name) override {
    key_ = name;
    if (depth_ == 1) {
      top_ = name;
      return name != "weight_map" || !std::exchange(has_map, true) || wrong("\"weight_map\" appears twice");
    }
    return !in_map() || names_.insert(name).second || wrong(fmt::format("\"{}\" appears twice", name));
  }
  bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception& error) override {
    position = at;
    problem = "not valid JSON: " + json_fault(error);
    return false;
  }

 private:
  bool in_map() const { return depth_ == 2 && top_ == "weight_map"; }
  bool wrong(std::string text) {
    problem = std::move(text);
    return false;
  }
  bool value(const char* what) {
    if (depth_ == 0) return wrong(fmt::format("the index must be a JSON object, but is {}", what));
    if (depth_ == 1 && top_ == "weight_map")
      return wrong(fmt::format("\"weight_map\" must be an object, not {}", what));
    if (in_map()) return wrong(fmt::format("the shard of \"{}\" must be a string, but is {}", key_, what));
    return true;
  }
  bool open() {
    if (in_map()) return wrong(fmt::format("the shard of \"{}\" must be a string", key_));
    if (depth_ == 128) return wrong("nested deeper than 128 levels");
    ++depth_;
    return true;
  }
  bool close() {
    --depth_;
    return true;
  }

  int depth_ = 0;
  std::string top_, key_;
  std::unordered_set<std::string> names_;
};

// Cuts one tensor that holds a matrix of all experts into views called by their canonical names.
Status split_experts(const TensorView& whole, const CanonicalName& name, std::vector<TensorView>& out) {
  const bool gate_up = name.form == CanonicalName::Form::kFusedGateUp;
  const auto& shape = whole.shape;
  if (shape.size() != 3 || shape[0] == 0 || (gate_up && shape[1] % 2 != 0)) {
    return {Code::kUnsupported,
            fmt::format("a tensor of all experts must be {}, but is {}",
                        gate_up ? "[experts, 2 x inter, hidden]" : "[experts, hidden, inter]", shape_text(shape)),
            whole.where()};
  }
  if (dtype_bits(whole.dtype) % 8 != 0) {
    return {Code::kUnsupported, fmt::format("{} experts in one tensor are not read", dtype_name(whole.dtype)),
            whole.where()};
  }
  const std::vector<int64_t> part_shape = {gate_up ? shape[1] / 2 : shape[1], shape[2]};
  const uint64_t part_bytes = *tensor_bytes(whole.dtype, part_shape);
  uint64_t offset = 0;
  for (int64_t expert = 0; expert < shape[0]; ++expert) {
    for (const char* matrix : gate_up ? std::vector<const char*>{"w1", "w3"} : std::vector<const char*>{"w2"}) {
      TensorView part = whole;
      part.name = fmt::format("{}{}.{}.{}", name.prefix, expert, matrix, name.leaf);
      part.shape = part_shape;
      part.data = whole.data + offset;
      part.bytes = part_bytes;
      part.file_offset = whole.file_offset + offset;
      offset += part_bytes;
      out.push_back(std::move(part));
    }
  }
  return {};
}

struct Loader {
  FileSystem& files;
  const std::string& directory;
  std::vector<TensorView> tensors;
  std::vector<CheckpointFile> opened;
  std::vector<Checkpoint::Owner> owners;

  // Maps one file, checks its tensors against `expected` (nullptr: no index) and adds them.
  Status add(const std::string& shard, const std::unordered_map<std::string, std::string>* expected) {
    const std::string path = join_path(directory, shard);
    Result<MappedFile> mapped = files.map(path);
    if (!mapped.ok()) return mapped.status();
    auto mapping = std::make_shared<const MappedFile>(std::move(mapped).value());
    const std::span<const std::byte> bytes = mapping->bytes();
    NAUTILE_ASSIGN(SafetensorsHeader header, parse_safetensors(bytes, path));
    for (SafetensorsTensor& stored : header.tensors) {
      const std::string place = fmt::format("{}, tensor {}, byte {}", path, stored.name, stored.offset);
      if (expected != nullptr) {
        auto found = expected->find(stored.name);
        if (found == expected->end()) {
          return {Code::kCorrupt, fmt::format("the tensor is not listed in {}", kIndexName), place,
                  "index and shards are of different releases: download both again"};
        }
        if (found->second != shard) {
          return {Code::kCorrupt, fmt::format("{} puts this tensor in {}", kIndexName, found->second), place,
                  "index and shards are of different releases: download both again"};
        }
      }
      const CanonicalName name = canonical_name(stored.name);
      TensorView view{name.name, stored.dtype, std::move(stored.shape), bytes.data() + stored.offset, stored.bytes,
                      path,      stored.offset};
      if (name.form == CanonicalName::Form::kWhole) {
        tensors.push_back(std::move(view));
      } else {
        view.name = stored.name;
        NAUTILE_RETURN_IF_ERROR(split_experts(view, name, tensors));
      }
    }
    opened.push_back({path, bytes.size(), header.tensors.size(), bytes, header.data_offset, mapping->modified_ns()});
    owners.push_back(std::move(mapping));
    stored_names_ += header.tensors.size();
    return {};
  }
  size_t stored_names_ = 0;
};

}  // namespace

Result<ShardIndex> parse_shard_index(std::string_view text, const std::string& where) {
  IndexReader reader;
  if (!read_json<nlohmann::json>(text, &reader)) {
    return Status(Code::kCorrupt, reader.problem, fmt::format("{}, byte {}", where, reader.position));
  }
  if (!reader.has_map) return Status(Code::kCorrupt, "\"weight_map\" is missing", where);
  return std::move(reader.index);
}

Result<Checkpoint> open_checkpoint(FileSystem& files, const std::string& directory) {
  const std::string index_path = join_path(directory, kIndexName);
  Loader loader{files, directory, {}, {}, {}};
  std::vector<std::string> warnings;
  if (!files.exists(index_path)) {
    if (!files.exists(join_path(directory, kSingleName))) {
      return Status(Code::kNotFound, fmt::format("neither {} nor {} is there", kIndexName, kSingleName), directory,
                    "give the folder that holds a downloaded checkpoint");
    }
    NAUTILE_RETURN_IF_ERROR(loader.add(kSingleName, nullptr));
    return Checkpoint::make(std::move(loader.tensors), std::move(loader.opened), std::move(loader.owners));
  }

  NAUTILE_ASSIGN(const std::string text, files.read(index_path, kMaxIndexBytes));
  NAUTILE_ASSIGN(const ShardIndex index, parse_shard_index(text, index_path));
  std::vector<std::string> shards;
  std::unordered_map<std::string, std::string> expected;
  expected.reserve(index.items.size());
  for (const ShardIndex::Item& item : index.items) {
    expected.emplace(item.tensor, item.shard);
    shards.push_back(item.shard);
  }
  std::sort(shards.begin(), shards.end());
  shards.erase(std::unique(shards.begin(), shards.end()), shards.end());
  if (shards.empty()) return Status(Code::kCorrupt, "\"weight_map\" lists no tensor", index_path);
  for (const std::string& shard : shards) {
    if (!files.exists(join_path(directory, shard))) {
      const auto& first = *std::find_if(index.items.begin(), index.items.end(),
                                        [&](const ShardIndex::Item& item) { return item.shard == shard; });
      return Status(Code::kNotFound, "a shard is missing",
                    fmt::format("{}, tensor {}", join_path(directory, shard), first.tensor),
                    fmt::format("download {}", shard));
    }
  }
  for (const std::string& shard : shards) NAUTILE_RETURN_IF_ERROR(loader.add(shard, &expected));

  // Every stored tensor is listed in its shard, so a difference in number is a listed tensor that no shard holds.
  if (loader.stored_names_ != index.items.size()) {
    for (const std::string& shard : shards) {
      const std::string path = join_path(directory, shard);
      NAUTILE_ASSIGN(const MappedFile file, files.map(path));
      NAUTILE_ASSIGN(const SafetensorsHeader header, parse_safetensors(file.bytes(), path));
      for (const SafetensorsTensor& tensor : header.tensors) expected.erase(tensor.name);
    }
    std::string first;
    for (const auto& [tensor, shard] : expected) {
      if (first.empty() || tensor < first) first = tensor;
    }
    return Status(
        Code::kNotFound,
        fmt::format("{} tensors that {} lists are in no shard, the first is {}", expected.size(), kIndexName, first),
        fmt::format("{}, tensor {}, byte 0", join_path(directory, expected[first]), first),
        "index and shards are of different releases: download both again");
  }
  uint64_t payload = 0;
  for (const TensorView& tensor : loader.tensors) payload += tensor.bytes;
  if (index.has_total_size && index.total_size != payload) {
    warnings.push_back(fmt::format("{} says total_size {}, the tensors have {} bytes (the tensors are right)",
                                   index_path, index.total_size, payload));
  }
  return Checkpoint::make(std::move(loader.tensors), std::move(loader.opened), std::move(loader.owners),
                          std::move(warnings));
}

Status write_checkpoint(FileSystem& files, const Checkpoint& checkpoint, const std::string& directory,
                        uint64_t max_shard_bytes) {
  std::vector<std::vector<const TensorView*>> shards;
  uint64_t filled = 0;
  for (const TensorView& tensor : checkpoint.tensors()) {
    if (shards.empty() || (filled > 0 && filled + tensor.bytes > max_shard_bytes)) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(&tensor);
    filled += tensor.bytes;
  }
  nlohmann::json weight_map = nlohmann::json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name =
        shards.size() == 1 ? kSingleName : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    std::vector<SafetensorsTensor> header;
    for (const TensorView* tensor : shards[i]) {
      header.push_back({tensor->name, tensor->dtype, tensor->shape, 0, tensor->bytes});
      weight_map[tensor->name] = name;
    }
    std::string bytes = safetensors_header(header);
    for (const TensorView* tensor : shards[i]) {
      bytes.append(reinterpret_cast<const char*>(tensor->data), static_cast<size_t>(tensor->bytes));
    }
    NAUTILE_RETURN_IF_ERROR(files.write(join_path(directory, name), bytes));
  }
  if (shards.size() <= 1) return {};
  const nlohmann::json index = {{"metadata", {{"total_size", checkpoint.payload_bytes()}}}, {"weight_map", weight_map}};
  return files.write(join_path(directory, kIndexName),
                     index.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace nautile
