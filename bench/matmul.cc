// bench_matmul: the matrix products of tiles alone, each beside the read rate and the peaks of the same minute.
//
//   build/release/bench/bench_matmul [THREADS [ISA [FORMAT [TOKENS...]]]]
//
// Matrices of 2048 x 4096 (V4-Flash's experts), as many as 2 GB hold, one after the other with a barrier between, as in
// a decode step. Weights are random codes with scales around one; activations are narrowed beforehand.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/registry.h"
#include "kernels/tiles.h"
#include "sys/clock.h"
#include "sys/machine.h"
#include "sys/memory.h"
#include "sys/probe.h"

using namespace nautile;

namespace {

constexpr size_t kRows = 2048, kCols = 4096, kBytes = size_t{2} << 30;
constexpr int kRepeats = 5;

struct Case {
  const char* name;
  WeightFormat format;
  ActivationFormat input;
};

double peak_of(const std::vector<PeakRow>& rows, std::string_view start) {
  for (const PeakRow& row : rows) {
    if (row.name.starts_with(start)) return row.tflops;
  }
  return 0;
}

void measure(const Case& c, const Kernels& kernels, ThreadPool& pool, const std::vector<size_t>& only_tokens) {
  const size_t bytes = tile_count(kRows) * tile_bytes(c.format, kCols), count = kBytes / bytes;
  const auto tiles = large_pages(count * bytes).value();
  // A quarter of a megabyte of random words, over and over; E4M3 without NaN, BF16 without large exponents.
  std::mt19937 random(1);
  std::vector<uint32_t> words(1 << 16);
  for (uint32_t& word : words) {
    word = static_cast<uint32_t>(random());
    if (c.format == WeightFormat::kFp8) word &= 0xbfbfbfbfu;
    if (c.format == WeightFormat::kBf16) word = (word & 0x83ff83ffu) | 0x3c003c00u;
  }
  pool.for_items(count, [&](int, size_t i) {
    std::byte* to = tiles.get() + i * bytes;
    for (size_t at = 0; at < bytes; at += words.size() * 4) {
      std::memcpy(to + at, words.data(), std::min(words.size() * 4, bytes - at));
    }
    if (c.format != WeightFormat::kFp4) return;
    for (size_t at = 0; at < bytes; at += 17 * 64) std::memset(to + at, 127, 64);
  });
  const std::vector<uint8_t> scales(kRows / 128 * (kCols / 128), 127);
  for (const size_t tokens : only_tokens.empty() ? std::vector<size_t>{1, 2, 4, 8, 12, 24, 128, 512} : only_tokens) {
    std::vector<float> x(kCols);
    const size_t stride = activation_bytes(c.input, kCols) + 64;
    std::vector<std::byte> rows(tokens * stride);
    std::vector<float> y(tokens * kRows);
    std::vector<const std::byte*> x_rows;
    std::vector<float*> y_rows;
    for (size_t t = 0; t < tokens; ++t) {
      for (float& value : x) value = std::normal_distribution<float>()(random);
      std::byte* row = rows.data() + t * stride;
      kernels.tiles->narrow({x.data(), 0, kCols, kCols, kCols, c.input, row});
      x_rows.push_back(row);
      y_rows.push_back(y.data() + t * kRows);
    }
    const size_t matrices = std::max<size_t>(8, std::min(count, 4000 / tokens));
    const double read_before = probe_read_bandwidth(pool, size_t{1} << 30, 0.3).value().gbs;
    const std::vector<PeakRow> peaks = probe_peak(pool, 0.05);
    std::vector<double> seconds;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      const double begin = seconds_now();
      for (size_t i = 0; i < matrices; ++i) {
        const WeightView view{c.format, kRows, kCols, tiles.get() + i * 37 % count * bytes, scales.data(),
                              WeightLayout::kTiles};
        constexpr size_t kItem = 64;
        pool.for_items(kRows / kItem, [&](int, size_t item) {
          kernels.matmul({view, c.input, x_rows.data(), y_rows.data(), 0, tokens, item * kItem, (item + 1) * kItem});
        });
      }
      seconds.push_back((seconds_now() - begin) / static_cast<double>(matrices));
    }
    const double read = (read_before + probe_read_bandwidth(pool, size_t{1} << 30, 0.3).value().gbs) / 2;
    const double middle = median(seconds), gbs = static_cast<double>(bytes) / middle / 1e9;
    const double tflops = 2e-12 * static_cast<double>(tokens * kRows * kCols) / middle;
    const double bf16 = peak_of(peaks, "BF16"), int8 = peak_of(peaks, "int8");
    fmt::print("{:16} {:>6} {:>9.1f} {:>6.0f}% {:>9.3f} {:>6.0f}% {:>6.0f}%   read {:.1f} GB/s, BF16 {:.2f}, int8 {:.2f}\n",
               c.name, tokens, gbs, 100 * gbs / read, tflops, 100 * tflops / bf16, 100 * tflops / int8, read, bf16, int8);
  }
}

}  // namespace

int main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::max(1, std::atoi(argv[1])) : usable_cores());
  const auto kernels = find_kernels(argc > 2 ? argv[2] : "auto");
  if (!kernels.ok() || kernels.value()->tiles == nullptr) {
    fmt::print(stderr, "these kernels have no tiles\n");
    return 2;
  }
  const std::string only = argc > 3 ? argv[3] : "";
  std::vector<size_t> tokens;
  for (int i = 4; i < argc; ++i) tokens.push_back(static_cast<size_t>(std::max(1, std::atoi(argv[i]))));
  const ActivationFormat wide = kernels.value()->tiles->wide;
  fmt::print("{} threads, {} kernels, matrices of {} x {}\n", pool.threads(), kernels.value()->name, kRows, kCols);
  fmt::print("{:16} {:>6} {:>9} {:>7} {:>9} {:>7} {:>7}\n", "", "tokens", "GB/s", "% read", "TFLOP/s", "% BF16",
             "% int8");
  for (const Case& c : {Case{"fp4-int8", WeightFormat::kFp4, ActivationFormat::kInt8}, Case{"fp4-wide", WeightFormat::kFp4, wide},
                        Case{"fp8", WeightFormat::kFp8, wide}, Case{"bf16", WeightFormat::kBf16, wide}}) {
    if (!only.empty() && only != c.name) continue;
    if (c.format == WeightFormat::kFp4 && c.input == wide && !kernels.value()->tiles->wide_fp4) continue;
    measure(c, *kernels.value(), pool, tokens);
  }
  return 0;
}
