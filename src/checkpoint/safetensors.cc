// Reads a safetensors header as a stream of JSON events: no document is built, so a header of the allowed 100 MB costs
// little more than its tensors.
#include "checkpoint/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/json.h"

namespace nautile {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is used in place");

// Follows {"name": {"dtype": "..", "shape": [..], "data_offsets": [b, e]}, "__metadata__": {"..": ".."}}.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  struct Item {
    std::string name, dtype;
    std::vector<int64_t> shape;
    std::vector<uint64_t> offsets;
    bool has_dtype = false, has_shape = false, has_offsets = false;
  };

  std::vector<Item> items;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::string problem;  // what is wrong, empty when nothing is
  std::string tensor;   // in which tensor, empty outside of any
  size_t position = 0;  // byte in the JSON text of a syntax error

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("true or false"); }
  bool number_integer(int64_t value) override { return unexpected(fmt::format("{}", value)); }
  bool number_float(double, const std::string& text) override { return unexpected(text.substr(0, 40)); }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(uint64_t value) override {
    if (place_ == Place::kShape) {
      if (value > INT64_MAX) return unexpected(fmt::format("{}", value));
      items.back().shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffsets) {
      items.back().offsets.push_back(value);
      return true;
    }
    return unexpected(fmt::format("{}", value));
  }

  bool string(std::string& value) override {
    if (place_ == Place::kMetadata) {
      metadata.back().second = value;
      return true;
    }
    if (place_ == Place::kTensor && key_ == "dtype") {
      items.back().dtype = value;
      items.back().has_dtype = true;
      return true;
    }
    return unexpected("a string");
  }

  bool start_object(size_t) override {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTop;
        return true;
      case Place::kTop:
        if (key_ == "__metadata__") {
          place_ = Place::kMetadata;
        } else {
          place_ = Place::kTensor;
          tensor = key_;
          items.emplace_back().name = key_;
        }
        return true;
      default:
        return unexpected("an object");
    }
  }

  bool key(std::string& name) override {
    key_ = name;
    if (place_ == Place::kTop) return names_.insert(name).second || wrong(fmt::format("\"{}\" appears twice", name));
    if (place_ == Place::kMetadata) {
      if (!metadata_names_.insert(name).second) return wrong(fmt::format("__metadata__ has \"{}\" twice", name));
      metadata.emplace_back(name, std::string());
      return true;
    }
    const Item& item = items.back();
    const bool* seen = name == "dtype"          ? &item.has_dtype
                       : name == "shape"        ? &item.has_shape
                       : name == "data_offsets" ? &item.has_offsets
                                                : nullptr;
    if (seen == nullptr) return wrong(fmt::format("\"{}\" is not a field of a tensor", name));
    return !*seen || wrong(fmt::format("\"{}\" appears twice", name));
  }

  bool end_object() override {
    if (place_ == Place::kTensor) {
      const Item& item = items.back();
      for (const auto& [seen, name] : {std::pair{item.has_dtype, "dtype"}, std::pair{item.has_shape, "shape"},
                                       std::pair{item.has_offsets, "data_offsets"}}) {
        if (!seen) return wrong(fmt::format("\"{}\" is missing", name));
      }
      tensor.clear();
    }
    place_ = place_ == Place::kTop ? Place::kEnd : Place::kTop;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::kTensor || key_ == "dtype") return unexpected("an array");
    place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
    (place_ == Place::kShape ? items.back().has_shape : items.back().has_offsets) = true;
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && items.back().offsets.size() != 2) {
      return wrong(fmt::format("\"data_offsets\" has {} numbers, it must have 2", items.back().offsets.size()));
    }
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception& error) override {
    position = at;
    problem = "not valid JSON: " + json_fault(error);
    return false;
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };

  bool wrong(std::string text) {
    problem = std::move(text);
    return false;
  }
  bool unexpected(const std::string& what) {
    switch (place_) {
      case Place::kStart:
        return wrong(fmt::format("the header must be a JSON object, but is {}", what));
      case Place::kTop:
        return wrong(fmt::format("\"{}\" must be an object, but is {}", key_, what));
      case Place::kMetadata:
        return wrong(fmt::format("__metadata__ \"{}\" must be a string, but is {}", key_, what));
      case Place::kTensor:
        return wrong(fmt::format("\"{}\" has a value of the wrong kind: {}", key_, what));
      case Place::kShape:
        return wrong(fmt::format("\"shape\" must hold whole numbers from 0 up, but has {}", what));
      default:
        return wrong(fmt::format("\"data_offsets\" must hold whole numbers from 0 up, but has {}", what));
    }
  }

  Place place_ = Place::kStart;
  std::string key_;
  std::unordered_set<std::string> names_, metadata_names_;
};

// Quoted and escaped; bytes that are not UTF-8 are replaced rather than thrown about.
std::string json_text(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

Result<SafetensorsHeader> parse_safetensors(std::span<const std::byte> file, const std::string& where) {
  const auto corrupt = [&](std::string what, uint64_t byte, const std::string& tensor = {}) {
    const std::string place = tensor.empty() ? fmt::format("{}, byte {}", where, byte)
                                             : fmt::format("{}, tensor {}, byte {}", where, tensor, byte);
    return Status(Code::kCorrupt, std::move(what), place, "download or write this file again");
  };
  if (file.size() < 8) {
    return corrupt(fmt::format("the file has {} bytes, too few for a safetensors header", file.size()), 0);
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), 8);
  if (header_bytes > kMaxSafetensorsHeaderBytes) {
    return corrupt(fmt::format("the header claims {} bytes, more than the {} that the format allows", header_bytes,
                               kMaxSafetensorsHeaderBytes),
                   0);
  }
  if (header_bytes > file.size() - 8) {
    return corrupt(fmt::format("the header claims {} bytes, but the file ends after {}", header_bytes, file.size() - 8),
                   0);
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, header_bytes);
  HeaderReader reader;
  if (!read_json<nlohmann::json>(text, &reader)) {
    return corrupt(reader.problem, 8 + reader.position, reader.tensor);
  }

  SafetensorsHeader out;
  out.metadata = std::move(reader.metadata);
  out.data_offset = 8 + header_bytes;
  const uint64_t data_bytes = file.size() - out.data_offset;
  out.tensors.reserve(reader.items.size());
  for (HeaderReader::Item& item : reader.items) {
    const uint64_t begin = item.offsets[0], end = item.offsets[1];
    const uint64_t at = out.data_offset + std::min(begin, data_bytes);
    const std::optional<DType> dtype = dtype_from_name(item.dtype);
    if (!dtype) return corrupt(fmt::format("unknown dtype \"{}\"", item.dtype), at, item.name);
    if (begin > end || end > data_bytes) {
      return corrupt(
          fmt::format("data_offsets [{}, {}] leave the {} bytes of data: the file is cut short or its header "
                      "is wrong",
                      begin, end, data_bytes),
          at, item.name);
    }
    const std::optional<uint64_t> bytes = tensor_bytes(*dtype, item.shape);
    if (!bytes) {
      return corrupt(
          fmt::format("{} {} has no size in bytes that a file could hold", item.dtype, shape_text(item.shape)), at,
          item.name);
    }
    if (*bytes != end - begin) {
      return corrupt(fmt::format("{} {} needs {} bytes, but data_offsets [{}, {}] hold {}", item.dtype,
                                 shape_text(item.shape), *bytes, begin, end, end - begin),
                     at, item.name);
    }
    out.tensors.push_back({std::move(item.name), *dtype, std::move(item.shape), out.data_offset + begin, *bytes});
  }
  std::stable_sort(out.tensors.begin(), out.tensors.end(), [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  uint64_t next = out.data_offset;
  for (const SafetensorsTensor& tensor : out.tensors) {
    if (tensor.offset < next) {
      return corrupt(fmt::format("overlaps the tensor before it by {} bytes", next - tensor.offset), tensor.offset,
                     tensor.name);
    }
    if (tensor.offset > next) {
      return corrupt(fmt::format("{} bytes before it belong to no tensor", tensor.offset - next), next, tensor.name);
    }
    next += tensor.bytes;
  }
  if (next != file.size()) {
    return corrupt(fmt::format("{} bytes after the last tensor belong to none", file.size() - next), next);
  }
  return out;
}

std::string safetensors_header(const std::vector<SafetensorsTensor>& tensors) {
  std::string json = "{\"__metadata__\":{\"format\":\"pt\"}";
  uint64_t offset = 0;
  for (const SafetensorsTensor& tensor : tensors) {
    json += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", json_text(tensor.name),
                        dtype_name(tensor.dtype), fmt::join(tensor.shape, ","), offset, offset + tensor.bytes);
    offset += tensor.bytes;
  }
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  const uint64_t length = json.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + json;
}

}  // namespace nautile
