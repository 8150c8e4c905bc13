// Any bytes as a repacked file's header: it is refused, or its matrices tile the data exactly, its sums are all there,
// and it is written again as it was read.
#include <xxhash.h>

#include <cstdlib>
#include <cstring>

#include "model/repack_format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nautile;
  // A file is 2 MiB at least and its size must fit its header: the input is the header, the tiles are added as it calls
  // for them, within reason.
  static std::string file;
  const auto check = [&](bool sealed) {
    const Result<RepackedHeader> parsed = parse_repacked_header(std::as_bytes(std::span(file)), "fuzz");
    if (!parsed.ok()) return;
    const RepackedHeader& h = parsed.value();
    uint64_t next = 0;
    for (const RepackedMatrix& m : h.matrices) {
      if (m.offset != next || m.bytes() == 0) std::abort();
      next += m.bytes();
    }
    if (next != h.data_bytes || h.file_bytes() != file.size() || h.block_sums.size() != h.blocks()) std::abort();
    RepackedHeader again = h;
    lay_out(again);
    again.block_sums = h.block_sums;
    if (again.data_bytes != h.data_bytes) std::abort();
    if (sealed && again.data_begin == h.data_begin) {
      const std::string written = repacked_header_bytes(again) + std::string(h.data_bytes, '\0');
      const Result<RepackedHeader> twice = parse_repacked_header(std::as_bytes(std::span(written)), "fuzz");
      if (!twice.ok() || twice.value().matrices.size() != h.matrices.size()) std::abort();
    }
  };
  file.assign(reinterpret_cast<const char*>(data), size);
  check(false);
  if (size < 80) return 0;
  // The same with what no accident gets right: magic, version, layout, table size, digest, and the file's length.
  std::memcpy(file.data(), "NAUTTILE\1\0\0\0\0\0\0\0", 16);
  const uint64_t layout = tile_layout(), tables = size - 80, block = kRepackedBlock;
  std::memcpy(file.data() + 32, &layout, 8);
  std::memcpy(file.data() + 56, &tables, 8);
  std::memcpy(file.data() + 72, &block, 8);
  XXH3_state_t* state = XXH3_createState();
  XXH3_128bits_reset(state);
  XXH3_128bits_update(state, file.data(), 16);
  XXH3_128bits_update(state, file.data() + 32, size - 32);
  const XXH128_hash_t digest = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  std::memcpy(file.data() + 16, &digest.low64, 8);
  std::memcpy(file.data() + 24, &digest.high64, 8);
  uint64_t begin = 0, bytes = 0;
  std::memcpy(&begin, file.data() + 40, 8);
  std::memcpy(&bytes, file.data() + 48, 8);
  if (begin <= (8u << 20) && bytes <= (8u << 20) && begin + bytes >= size) file.resize(begin + bytes);
  check(true);
  return 0;
}
