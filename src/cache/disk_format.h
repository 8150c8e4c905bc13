// The files of the disk tier (docs/design/cache.md, "Files"): one for each block, one for each snapshot, written once
// and never changed. Encoding, and decoding that trusts nothing.
//
//   offset  bytes
//        0      8   magic "NTLCACHE"
//        8      4   version, 1
//       12      4   kind: 1 block, 2 snapshot
//       16     16   model: what the state depends on besides tokens
//       32     16   scope
//       48     16   id of the prefix that ends here
//       64      8   length of that prefix in tokens, a multiple of 128
//       72      8   draft length (snapshots; 0 in blocks)
//       80      8   bytes of the body
//       88    512   the prefix's last 128 token ids
//      600      n   body: the block, or the snapshot's rows
//    600+n     16   keyed XXH3-128 of everything before
//
// Integers are little-endian. The name is "<id in hexadecimal>-<blocks>.block" or ".snapshot".
// Thread-safety: values and pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "cache/prefix_id.h"

namespace nautile {

enum class DiskKind : uint32_t { kBlock = 1, kSnapshot = 2 };

inline constexpr uint32_t kDiskVersion = 1;
inline constexpr size_t kDiskHeaderBytes = 600, kDiskChecksumBytes = 16;

// What a file says besides its body.
struct DiskHeader {
  DiskKind kind = DiskKind::kBlock;
  Hash128 model;
  CacheScope scope;
  PrefixId id;
  int64_t length = 0, draft_length = 0;
  std::array<int32_t, kBlockTokens> tokens = {};
};

// A file's identity, as its name spells it. Ordered by nothing but for sets.
struct DiskName {
  PrefixId id;
  DiskKind kind = DiskKind::kBlock;
  int64_t blocks = 0;
  auto operator<=>(const DiskName&) const = default;

  std::string text() const;
  static std::optional<DiskName> parse(std::string_view text);  // nothing for any other name
};

// The whole file, checksum included.
std::vector<std::byte> encode_disk_file(const PrefixHasher& hasher, const DiskHeader& header,
                                        std::span<const std::byte> body);

// The body, when the file is whole and says exactly what `expected` says, draft_length aside, which it fills in.
// kCorrupt: broken, and of no use to anyone; kUnsupported: whole, but of another model, prefix or version.
Result<std::vector<std::byte>> decode_disk_file(const PrefixHasher& hasher, std::vector<std::byte> file,
                                                DiskHeader& expected);

}  // namespace nautile
