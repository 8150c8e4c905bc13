// The repacked file as bytes: a header that says what it was made from and where each matrix lies, then the tiles.
// Written down in docs/design/checkpoint.md.
//
// Thread-safety: values and pure functions. The parser takes any bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/ops.h"

namespace nautile {

inline constexpr uint32_t kRepackedVersion = 1;
// Tiles begin at a multiple of this, so that a large page of memory can hold a large page of the file.
inline constexpr uint64_t kRepackedAlignment = 2 << 20;
// Each block of tiles has a checksum; also the unit of packing and writing.
inline constexpr uint64_t kRepackedBlock = 4 << 20;

using Digest = std::array<uint64_t, 2>;

// A file of the checkpoint that the tiles were made from.
struct RepackedShard {
  std::string name;  // without folders
  uint64_t bytes = 0;
  int64_t modified_ns = 0;
  Digest digest = {};  // of its header and of samples of its data
};

struct RepackedMatrix {
  std::string name;  // "layers.3.attn.wq_a"
  WeightFormat format = WeightFormat::kBf16;
  uint64_t rows = 0, cols = 0;
  uint64_t offset = 0;  // from the first tile

  uint64_t bytes() const;
};

struct RepackedHeader {
  uint64_t layout = 0;      // tile_layout() of the program that made it
  uint64_t data_begin = 0;  // of the first tile in the file
  uint64_t data_bytes = 0;
  std::vector<RepackedShard> shards;
  std::vector<RepackedMatrix> matrices;  // one after the other, by offset
  std::vector<uint64_t> block_sums;      // XXH3-64

  uint64_t blocks() const { return (data_bytes + kRepackedBlock - 1) / kRepackedBlock; }
  uint64_t file_bytes() const { return data_begin + data_bytes; }
};

// A digest of tiles that this program makes of fixed matrices: another order of bytes has another digest.
uint64_t tile_layout();

// Gives the matrices their offsets and fills in data_begin, data_bytes and as many zero sums as there are blocks.
void lay_out(RepackedHeader& header);
// Everything before the first tile. Precondition: laid out.
std::string repacked_header_bytes(const RepackedHeader& header);

bool is_repacked_file(std::span<const std::byte> file);
// The header of `file`, whose tiles are not touched. kCorrupt for bytes that break the format, kUnsupported for another
// version or layout. `where` is the file's name.
Result<RepackedHeader> parse_repacked_header(std::span<const std::byte> file, const std::string& where);

}  // namespace nautile
