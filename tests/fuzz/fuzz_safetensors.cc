// Any bytes as a safetensors file: a header is refused, or its tensors tile the data exactly.
#include <cstdlib>

#include "checkpoint/names.h"
#include "checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nautile;
  const auto check = [](std::span<const std::byte> file) {
    const Result<SafetensorsHeader> header = parse_safetensors(file, "fuzz");
    if (!header.ok()) return;
    uint64_t next = header.value().data_offset;
    for (const SafetensorsTensor& tensor : header.value().tensors) {
      if (tensor.offset != next || tensor_bytes(tensor.dtype, tensor.shape) != tensor.bytes) std::abort();
      next += tensor.bytes;
      (void)canonical_name(tensor.name);
    }
    if (next != file.size()) std::abort();
  };
  check({reinterpret_cast<const std::byte*>(data), size});
  // The same bytes behind a right length field, so that the JSON is reached: the first byte says how much is data.
  if (size > 1) {
    const size_t data_bytes = std::min<size_t>(data[0], size - 1);
    const uint64_t header_bytes = size - 1 - data_bytes;
    std::string file(reinterpret_cast<const char*>(&header_bytes), 8);
    file.append(reinterpret_cast<const char*>(data) + 1, size - 1);
    check({reinterpret_cast<const std::byte*>(file.data()), file.size()});
  }
  return 0;
}
