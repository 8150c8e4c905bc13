// Checkpoint: every tensor of a model by its canonical name (spec checkpoint.md section 4), as bytes in memory.
//
// A Checkpoint owns the memory its views point into: file mappings, or a buffer of generated weights. Views stay valid
// while the Checkpoint (or the one it was moved into) lives. The bytes are little-endian, row-major and in general NOT
// aligned: read BF16, F32 and I64 through memcpy or unaligned loads.
// Thread-safety: read-only once built; share freely.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "sys/file.h"
#include "tensor/dtype.h"

namespace nautile {

struct TensorView {
  std::string name;  // canonical: "layers.3.attn.wq_a.weight"
  DType dtype = DType::kU8;
  std::vector<int64_t> shape;  // outermost first
  const std::byte* data = nullptr;
  uint64_t bytes = 0;
  std::string file;          // where the bytes came from; "(generated)" for synthetic weights
  uint64_t file_offset = 0;  // of the first byte in that file

  std::span<const std::byte> span() const { return {data, static_cast<size_t>(bytes)}; }
  // Element `index` of T-sized elements, whatever the alignment.
  template <class T>
  T read(uint64_t index) const {
    T value;
    std::memcpy(&value, data + index * sizeof(T), sizeof(T));
    return value;
  }
  // "model-00001-of-00046.safetensors, tensor embed.weight, byte 812": for Status::where. `byte` counts from the start
  // of the tensor and is printed from the start of the file.
  std::string where(uint64_t byte = 0) const;
};

struct CheckpointFile {
  std::string name;
  uint64_t bytes = 0;    // of the whole file
  uint64_t tensors = 0;  // stored in it
  std::span<const std::byte> contents = {};  // the whole file while the Checkpoint lives; empty for generated weights
  uint64_t header_bytes = 0;                 // before the first tensor
  int64_t modified_ns = 0;                   // since 1970
};

class Checkpoint {
 public:
  // Whatever keeps memory alive: a mapping, a buffer.
  using Owner = std::shared_ptr<const void>;

  // kCorrupt when two tensors share a name, naming both places.
  static Result<Checkpoint> make(std::vector<TensorView> tensors, std::vector<CheckpointFile> files,
                                 std::vector<Owner> owners, std::vector<std::string> warnings = {});

  // nullptr when there is no such tensor.
  const TensorView* find(std::string_view name) const;
  bool has(std::string_view name) const { return find(name) != nullptr; }
  // kNotFound naming the tensor.
  Result<const TensorView*> get(std::string_view name) const;

  std::span<const TensorView> tensors() const { return tensors_; }  // sorted by name
  const std::vector<CheckpointFile>& files() const { return files_; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  uint64_t payload_bytes() const { return payload_bytes_; }  // sum over tensors

 private:
  std::vector<TensorView> tensors_;
  std::vector<CheckpointFile> files_;
  std::vector<Owner> owners_;
  std::vector<std::string> warnings_;
  uint64_t payload_bytes_ = 0;
};

// `bytes` zeroed bytes, 64-byte aligned, backed by anonymous pages. kResourceExhausted when the system has no room.
Result<std::shared_ptr<std::byte>> allocate_pages(uint64_t bytes);

}  // namespace nautile
