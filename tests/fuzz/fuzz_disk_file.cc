// Any bytes as a file of the disk tier, with a right checksum behind them so that the fields are reached: refused, or
// its fields are the expected ones and the body is what lies between header and checksum.
#include <cstdlib>
#include <cstring>

#include "cache/disk_format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nautile;
  static const PrefixKey key = {};
  const PrefixHasher hasher(key, {});
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  DiskHeader expected;
  (void)decode_disk_file(hasher, {bytes, bytes + size}, expected);
  (void)DiskName::parse({reinterpret_cast<const char*>(data), size});

  std::vector<std::byte> file(bytes, bytes + size);
  const Hash128 check = hasher.checksum(file);
  file.resize(size + sizeof check);
  std::memcpy(file.data() + size, &check, sizeof check);
  auto body = decode_disk_file(hasher, file, expected);
  if (body.ok() && encode_disk_file(hasher, expected, *body) != file) std::abort();
  return 0;
}
