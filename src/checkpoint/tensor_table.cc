// The tensor table: sorted by name, found by binary search.
#include "checkpoint/tensor_table.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>

namespace nautile {

std::string TensorView::where(uint64_t byte) const {
  return fmt::format("{}, tensor {}, byte {}", file, name, file_offset + byte);
}

Result<Checkpoint> Checkpoint::make(std::vector<TensorView> tensors, std::vector<CheckpointFile> files,
                                    std::vector<Owner> owners, std::vector<std::string> warnings) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorView& a, const TensorView& b) { return a.name < b.name; });
  Checkpoint out;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (i > 0 && tensors[i].name == tensors[i - 1].name) {
      return Status(Code::kCorrupt,
                    fmt::format("the tensor {} exists twice; the other one is at {}, byte {}", tensors[i].name,
                                tensors[i - 1].file, tensors[i - 1].file_offset),
                    tensors[i].where());
    }
    out.payload_bytes_ += tensors[i].bytes;
  }
  out.tensors_ = std::move(tensors);
  out.files_ = std::move(files);
  out.owners_ = std::move(owners);
  out.warnings_ = std::move(warnings);
  return out;
}

const TensorView* Checkpoint::find(std::string_view name) const {
  auto at = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                             [](const TensorView& a, std::string_view wanted) { return a.name < wanted; });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

Result<const TensorView*> Checkpoint::get(std::string_view name) const {
  if (const TensorView* tensor = find(name)) return tensor;
  return Status(Code::kNotFound, fmt::format("the tensor {} is not in the checkpoint", name),
                files_.empty() ? std::string() : files_.front().name,
                "check that every shard was downloaded, or compare with `nautile inspect DIR --tensors`");
}

Result<std::shared_ptr<std::byte>> allocate_pages(uint64_t bytes) {
  const size_t size = static_cast<size_t>(std::max<uint64_t>(bytes, 1));
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return Status(Code::kResourceExhausted, fmt::format("no room for {} bytes of weights", bytes), "memory",
                  "use fewer layers or a machine with more memory");
  }
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(data), [size](std::byte* p) { ::munmap(p, size); });
}

}  // namespace nautile
