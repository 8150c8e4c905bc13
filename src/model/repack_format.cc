// Little-endian, in the order of the structs. A digest over the whole header comes first to be checked, so that what
// follows only has to be safe, not kind, with bytes that nobody wrote by accident.
#include "model/repack_format.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <cstring>
#include <unordered_set>

#include "kernels/tiles.h"

namespace nautile {
namespace {

constexpr char kMagic[8] = {'N', 'A', 'U', 'T', 'T', 'I', 'L', 'E'};
constexpr size_t kDigestAt = 16, kDigestEnd = 32, kFixedBytes = 80;
constexpr uint64_t kMaxTableBytes = 64u << 20;  // Pro's is 5 MB
constexpr uint64_t kMaxSide = 1 << 24;          // rows or columns of a matrix

void put(std::string& out, const void* data, size_t bytes) {
  out.append(static_cast<const char*>(data), bytes);
}
template <class T>
void put(std::string& out, T value) {
  put(out, &value, sizeof value);
}
void put(std::string& out, const std::string& name) {
  put(out, static_cast<uint32_t>(name.size()));
  out += name;
}

Digest digest_of(std::string_view fixed, std::string_view tables) {
  XXH3_state_t* state = XXH3_createState();
  XXH3_128bits_reset(state);
  XXH3_128bits_update(state, fixed.data(), kDigestAt);
  XXH3_128bits_update(state, fixed.data() + kDigestEnd, kFixedBytes - kDigestEnd);
  XXH3_128bits_update(state, tables.data(), tables.size());
  const XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  return {hash.low64, hash.high64};
}

// What follows the fixed part, as far as it reaches.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}
  bool ok() const { return ok_; }
  bool at_end() const { return left_.empty(); }
  size_t left() const { return left_.size(); }
  template <class T>
  T number() {
    T value{};
    if (left_.size() < sizeof value) {
      ok_ = false;
      left_ = {};
      return value;
    }
    std::memcpy(&value, left_.data(), sizeof value);
    left_.remove_prefix(sizeof value);
    return value;
  }
  std::string name() {
    const uint32_t size = number<uint32_t>();
    if (size == 0 || size > left_.size()) {
      ok_ = false;
      left_ = {};
      return {};
    }
    std::string text(left_.substr(0, size));
    left_.remove_prefix(size);
    return text;
  }

 private:
  std::string_view left_;
  bool ok_ = true;
};

uint64_t rounded_up(uint64_t value, uint64_t step) {
  return (value + step - 1) / step * step;
}

uint64_t table_bytes(const RepackedHeader& h) {
  uint64_t bytes = 8 * h.block_sums.size();
  for (const RepackedShard& shard : h.shards) bytes += 4 + shard.name.size() + 32;
  for (const RepackedMatrix& matrix : h.matrices) bytes += 4 + matrix.name.size() + 28;
  return bytes;
}

}  // namespace

uint64_t RepackedMatrix::bytes() const {
  return tile_count(rows) * tile_bytes(format, cols);
}

uint64_t tile_layout() {
  // Odd numbers of tiles and of groups of columns; 32 a scale is what FP4 needs.
  constexpr size_t kRows = 45, kCols = 96;
  std::vector<std::byte> rows(kRows * kCols * 2), tiles;
  std::vector<uint8_t> scales(kRows * kCols / 32);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::byte>((i * 2654435761u) >> 13);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<uint8_t>((i * 40503u) >> 3);
  uint64_t layout = kRepackedVersion;
  for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kFp8, WeightFormat::kFp4}) {
    tiles.assign(tile_count(kRows) * tile_bytes(format, kCols), std::byte{});
    pack_tiles({format, kRows, kCols, rows.data(), scales.data()}, 0, tile_count(kRows), tiles.data());
    layout = XXH3_64bits_withSeed(tiles.data(), tiles.size(), layout);
  }
  return layout;
}

void lay_out(RepackedHeader& header) {
  header.data_bytes = 0;
  for (RepackedMatrix& matrix : header.matrices) {
    matrix.offset = header.data_bytes;
    header.data_bytes += matrix.bytes();
  }
  header.block_sums.assign(header.blocks(), 0);
  header.data_begin = rounded_up(kFixedBytes + table_bytes(header), kRepackedAlignment);
}

std::string repacked_header_bytes(const RepackedHeader& h) {
  std::string tables;
  tables.reserve(table_bytes(h));
  for (const RepackedShard& shard : h.shards) {
    put(tables, shard.name);
    put(tables, shard.bytes);
    put(tables, shard.modified_ns);
    put(tables, shard.digest[0]);
    put(tables, shard.digest[1]);
  }
  for (const RepackedMatrix& matrix : h.matrices) {
    put(tables, matrix.name);
    put(tables, static_cast<uint32_t>(matrix.format));
    put(tables, matrix.rows);
    put(tables, matrix.cols);
    put(tables, matrix.offset);
  }
  put(tables, h.block_sums.data(), 8 * h.block_sums.size());
  std::string out;
  put(out, kMagic, sizeof kMagic);
  put(out, kRepackedVersion);
  put(out, uint32_t{0});
  out.resize(kDigestEnd);
  put(out, h.layout);
  put(out, h.data_begin);
  put(out, h.data_bytes);
  put(out, uint64_t{tables.size()});
  put(out, static_cast<uint32_t>(h.shards.size()));
  put(out, static_cast<uint32_t>(h.matrices.size()));
  put(out, kRepackedBlock);
  const Digest digest = digest_of(out, tables);
  std::memcpy(out.data() + kDigestAt, digest.data(), sizeof digest);
  out += tables;
  out.resize(h.data_begin);
  return out;
}

bool is_repacked_file(std::span<const std::byte> file) {
  return file.size() >= sizeof kMagic && std::memcmp(file.data(), kMagic, sizeof kMagic) == 0;
}

Result<RepackedHeader> parse_repacked_header(std::span<const std::byte> file, const std::string& where) {
  const auto corrupt = [&](std::string what) {
    return Status(Code::kCorrupt, std::move(what), where, "make it again with `nautile repack`");
  };
  if (!is_repacked_file(file)) {
    return Status(Code::kCorrupt, "this is no repacked file", where,
                  "name another file, or make one with `nautile repack`");
  }
  const std::string_view all(reinterpret_cast<const char*>(file.data()), file.size());
  if (all.size() < kFixedBytes)
    return corrupt(fmt::format("the file ends after {} bytes, within its header", all.size()));
  Reader fixed(all.substr(sizeof kMagic, kFixedBytes - sizeof kMagic));
  const auto version = fixed.number<uint32_t>();
  if (version != kRepackedVersion) {
    return Status(
        Code::kUnsupported,
        fmt::format("the file has version {} of the format, this program reads {}", version, kRepackedVersion), where,
        "make it again with `nautile repack`");
  }
  RepackedHeader h;
  (void)fixed.number<uint32_t>();
  Digest stored{};
  stored[0] = fixed.number<uint64_t>();
  stored[1] = fixed.number<uint64_t>();
  h.layout = fixed.number<uint64_t>();
  h.data_begin = fixed.number<uint64_t>();
  h.data_bytes = fixed.number<uint64_t>();
  const auto tables_size = fixed.number<uint64_t>();
  const auto shards = fixed.number<uint32_t>(), matrices = fixed.number<uint32_t>();
  const auto block = fixed.number<uint64_t>();
  if (tables_size > kMaxTableBytes || tables_size > all.size() - kFixedBytes) {
    return corrupt(fmt::format("the header has tables of {} bytes, the file {} bytes in all", tables_size, all.size()));
  }
  const std::string_view tables = all.substr(kFixedBytes, tables_size);
  if (digest_of(all.substr(0, kFixedBytes), tables) != stored) return corrupt("the header's checksum is wrong");
  if (h.layout != tile_layout() || block != kRepackedBlock) {
    return Status(Code::kUnsupported, "the file has another layout of tiles than this program", where,
                  "make it again with `nautile repack`");
  }
  if (h.data_begin % kRepackedAlignment != 0 || h.data_begin < kFixedBytes + tables_size ||
      h.data_begin > 2 * kMaxTableBytes || h.data_bytes == 0 || h.data_bytes > (uint64_t{1} << 50)) {
    return corrupt("the header puts the tiles where they cannot be");
  }
  if (h.file_bytes() != all.size()) {
    return corrupt(fmt::format("the file has {} bytes, its header calls for {}", all.size(), h.file_bytes()));
  }
  Reader r(tables);
  for (uint32_t i = 0; i < shards && r.ok(); ++i) {
    RepackedShard shard;
    shard.name = r.name();
    shard.bytes = r.number<uint64_t>();
    shard.modified_ns = r.number<int64_t>();
    shard.digest[0] = r.number<uint64_t>();
    shard.digest[1] = r.number<uint64_t>();
    if (r.ok()) h.shards.push_back(std::move(shard));
  }
  uint64_t next = 0;
  std::unordered_set<std::string> names;
  for (uint32_t i = 0; i < matrices && r.ok(); ++i) {
    RepackedMatrix m;
    m.name = r.name();
    const auto format = r.number<uint32_t>();
    m.rows = r.number<uint64_t>();
    m.cols = r.number<uint64_t>();
    m.offset = r.number<uint64_t>();
    if (!r.ok()) break;
    m.format = static_cast<WeightFormat>(format);
    const bool packed =
        m.format == WeightFormat::kBf16 || m.format == WeightFormat::kFp8 || m.format == WeightFormat::kFp4;
    if (format > 3 || !packed || m.rows == 0 || m.rows > kMaxSide || m.cols == 0 || m.cols > kMaxSide) {
      return corrupt(fmt::format("the header describes {} as no matrix of tiles can be", m.name));
    }
    if (m.offset != next || m.bytes() > h.data_bytes - next) {
      return corrupt(fmt::format("the header puts {} outside the tiles or over another matrix", m.name));
    }
    if (!names.insert(m.name).second) return corrupt(fmt::format("the header lists {} twice", m.name));
    next += m.bytes();
    h.matrices.push_back(std::move(m));
  }
  if (!r.ok() || next != h.data_bytes || r.left() != 8 * h.blocks())
    return corrupt("the header's tables have another length");
  h.block_sums.resize(h.blocks());
  for (uint64_t& sum : h.block_sums) sum = r.number<uint64_t>();
  return h;
}

}  // namespace nautile
