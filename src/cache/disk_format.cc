// Fixed offsets, copied field by field.
#include "cache/disk_format.h"

#include <fmt/format.h>

#include <bit>
#include <charconv>
#include <cstring>

namespace nautile {
namespace {

static_assert(std::endian::native == std::endian::little, "the fields are copied as they are");

constexpr std::string_view kMagic = "NTLCACHE";
constexpr std::string_view kBlockEnd = ".block", kSnapshotEnd = ".snapshot";

template <class T>
void put(std::vector<std::byte>& file, size_t offset, const T& value) {
  std::memcpy(file.data() + offset, &value, sizeof value);
}

template <class T>
T get(std::span<const std::byte> file, size_t offset) {
  T value;
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}

}  // namespace

std::string DiskName::text() const {
  return fmt::format("{}-{}{}", hex(id), blocks, kind == DiskKind::kBlock ? kBlockEnd : kSnapshotEnd);
}

std::optional<DiskName> DiskName::parse(std::string_view text) {
  DiskName name;
  if (text.ends_with(kBlockEnd)) {
    text.remove_suffix(kBlockEnd.size());
  } else if (text.ends_with(kSnapshotEnd)) {
    name.kind = DiskKind::kSnapshot;
    text.remove_suffix(kSnapshotEnd.size());
  } else {
    return std::nullopt;
  }
  const auto number = [&](std::string_view digits, auto& out, int base) {
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out, base);
    return error == std::errc() && end == digits.data() + digits.size();
  };
  if (text.size() < 34 || text[32] != '-' || !number(text.substr(0, 16), name.id.high, 16) ||
      !number(text.substr(16, 16), name.id.low, 16) || !number(text.substr(33), name.blocks, 10) || name.blocks < 1) {
    return std::nullopt;
  }
  return name;
}

std::vector<std::byte> encode_disk_file(const PrefixHasher& hasher, const DiskHeader& header,
                                        std::span<const std::byte> body) {
  std::vector<std::byte> file(kDiskHeaderBytes + body.size() + kDiskChecksumBytes);
  std::memcpy(file.data(), kMagic.data(), kMagic.size());
  put(file, 8, kDiskVersion);
  put(file, 12, header.kind);
  put(file, 16, header.model);
  put(file, 32, header.scope);
  put(file, 48, header.id);
  put(file, 64, header.length);
  put(file, 72, header.draft_length);
  put(file, 80, static_cast<uint64_t>(body.size()));
  put(file, 88, header.tokens);
  if (!body.empty()) std::memcpy(file.data() + kDiskHeaderBytes, body.data(), body.size());
  const size_t checked = kDiskHeaderBytes + body.size();
  put(file, checked, hasher.checksum(std::span(file).first(checked)));
  return file;
}

Result<std::vector<std::byte>> decode_disk_file(const PrefixHasher& hasher, std::vector<std::byte> file,
                                                DiskHeader& expected) {
  if (file.size() < kDiskHeaderBytes + kDiskChecksumBytes) return Status(Code::kCorrupt, "the file is torn");
  if (std::memcmp(file.data(), kMagic.data(), kMagic.size()) != 0) {
    return Status(Code::kCorrupt, "the file is not of this kind");
  }
  const size_t checked = file.size() - kDiskChecksumBytes;
  if (get<uint64_t>(file, 80) != checked - kDiskHeaderBytes) return Status(Code::kCorrupt, "the file is torn");
  if (get<Hash128>(file, checked) != hasher.checksum(std::span(file).first(checked))) {
    return Status(Code::kCorrupt, "the file is damaged, its checksum is wrong");
  }
  if (get<uint32_t>(file, 8) != kDiskVersion) return Status(Code::kUnsupported, "the file is of another version");
  if (get<Hash128>(file, 16) != expected.model) return Status(Code::kUnsupported, "the file is of another model");
  if (get<DiskKind>(file, 12) != expected.kind || get<CacheScope>(file, 32) != expected.scope ||
      get<PrefixId>(file, 48) != expected.id || get<int64_t>(file, 64) != expected.length ||
      get<decltype(expected.tokens)>(file, 88) != expected.tokens) {
    return Status(Code::kUnsupported, "the file holds another prefix than its name says");
  }
  expected.draft_length = get<int64_t>(file, 72);
  file.resize(checked);
  file.erase(file.begin(), file.begin() + kDiskHeaderBytes);
  return file;
}

}  // namespace nautile
