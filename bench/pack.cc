// bench_pack: packing rows into tiles alone, one thread, every version that this CPU runs in turn.
//
//   build/release/bench/bench_pack
//
// GB/s of rows read. "cache": 256 KB over and over; "memory": a stretch of 256 MB to as much that was written before.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/tiles.h"
#include "sys/clock.h"
#include "sys/memory.h"

using namespace nautile;

int main() {
  constexpr size_t kCols = 4096, kMemory = size_t{256} << 20, kCache = 256 << 10;
  constexpr int kRounds = 5;
  const std::vector<Packer> versions = packers();
  fmt::print("GB/s, median of {}: ", kRounds);
  for (const Packer& version : versions) fmt::print(" {:>8}", version.name);
  fmt::print("\n");
  for (const auto& [name, format] : {std::pair{"FP4", WeightFormat::kFp4}, {"FP8", WeightFormat::kFp8}, {"BF16", WeightFormat::kBf16}}) {
    for (const auto& [place, size] : {std::pair{"cache", kCache}, {"memory", kMemory}}) {
      WeightView w{format, 0, kCols, nullptr, nullptr, WeightLayout::kRows};
      w.rows = size / w.row_bytes();
      const auto rows = large_pages(size).value(), tiles = large_pages(tile_count(w.rows) * tile_bytes(format, kCols)).value();
      std::vector<uint8_t> scales(w.rows * (kCols / 32), 127);
      std::mt19937 random(1);
      for (size_t i = 0; i < size; i += 4) {
        const uint32_t word = static_cast<uint32_t>(random()) & 0xbfbfbfbfu;
        std::memcpy(rows.get() + i, &word, 4);
      }
      w.data = rows.get();
      w.scales = scales.data();
      const size_t times = size == kCache ? 256 : 1;
      std::vector<std::vector<double>> rates(versions.size());
      for (int round = 0; round <= kRounds; ++round) {
        for (size_t v = 0; v < versions.size(); ++v) {
          const double begin = seconds_now();
          for (size_t i = 0; i < times; ++i) {
            if (pack_tiles(versions[v], w, 0, tile_count(w.rows), tiles.get())) return 1;
          }
          const double rate = static_cast<double>(size * times) / (seconds_now() - begin) / 1e9;
          if (round > 0) rates[v].push_back(rate);
        }
      }
      fmt::print("{:<5} {:<14}", name, place);
      for (std::vector<double>& of : rates) {
        std::ranges::sort(of);
        fmt::print(" {:>8.2f}", of[of.size() / 2]);
      }
      fmt::print("\n");
    }
  }
  return 0;
}
