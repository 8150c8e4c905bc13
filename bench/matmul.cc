// bench_matmul: the matrix products of tiles alone, each beside the read rate and the peaks of the same minute.
//
//   build/release/bench/bench_matmul [--scattered] [THREADS [ISA [FORMAT [TOKENS...]]]]
//
// Matrices of 2048 x 4096 (V4-Flash's experts), as many as 2 GB hold, one after the other with a barrier between, as in
// a decode step. Weights are normal (FP4: random codes), their scales one; activations are narrowed beforehand.
//
// --scattered: 18 matrices anywhere in 10 GB, as a step meets its experts, in one phase; beside each measurement a read
// of as many chosen likewise, the better of two ways, now before and now after it. What the memory gives moves within seconds here, so the figure is the
// median of product over read, for the half of the rounds with the slower and that with the faster reads.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/registry.h"
#include "kernels/tiles.h"
#include "sys/clock.h"
#include "sys/machine.h"
#include "sys/memory.h"
#include "sys/probe.h"
#include "tensor/formats.h"

using namespace nautile;

namespace {

constexpr size_t kRows = 2048, kCols = 4096, kBytes = size_t{2} << 30, kScattered = size_t{10} << 30;
constexpr size_t kItem = 64;  // rows
constexpr int kRepeats = 5;

struct Case {
  const char* name;
  WeightFormat format;
  ActivationFormat input;
};

// Matrices of one format, as many as fit.
struct Matrices {
  WeightFormat format;
  size_t bytes, count;  // of one; how many
  std::shared_ptr<std::byte> tiles;
  std::vector<uint8_t> scales = std::vector<uint8_t>(kRows / 128 * (kCols / 128), 127);

  Matrices(WeightFormat its_format, size_t room, ThreadPool& pool)
      : format(its_format),
        bytes(tile_count(kRows) * tile_bytes(format, kCols)),
        count(room / bytes),
        tiles(large_pages(count * bytes).value()) {
    // One matrix of normal weights, over and over; E4M3 as a block's scale has it, its largest about 400.
    WeightView rows{format, kRows, kCols, nullptr, scales.data(), WeightLayout::kRows};
    std::vector<std::byte> values(kRows * rows.row_bytes()), packed(bytes);
    const std::vector<uint8_t> fp4_scales(kRows * kCols / 32, 127);
    if (format == WeightFormat::kFp4) rows.scales = fp4_scales.data();
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < values.size(); ++i) {
      if (format == WeightFormat::kFp4) values[i] = static_cast<std::byte>(random());
      if (format == WeightFormat::kFp8) values[i] = static_cast<std::byte>(f32_to_e4m3(100 * normal(random)));
      if (format != WeightFormat::kBf16 || i % 2 == 1) continue;
      const uint16_t half = f32_to_bf16(normal(random));
      std::memcpy(&values[i], &half, 2);
    }
    rows.data = values.data();
    pack_tiles(rows, 0, tile_count(kRows), packed.data());
    pool.for_items(count, [&](int, size_t i) { std::memcpy(tiles.get() + i * bytes, packed.data(), bytes); });
  }
  WeightView view(size_t i) const {
    return {format, kRows, kCols, tiles.get() + i * bytes, scales.data(), WeightLayout::kTiles};
  }
};

struct Tokens {
  std::vector<std::byte> rows;
  std::vector<float> y;
  std::vector<const std::byte*> x_rows;
  std::vector<float*> y_rows;

  Tokens(const Case& c, const Kernels& kernels, size_t tokens) {
    std::mt19937 random(2);
    std::vector<float> x(kCols);
    const size_t stride = activation_bytes(c.input, kCols) + 64;
    rows.resize(tokens * stride);
    y.resize(tokens * kRows);
    for (size_t t = 0; t < tokens; ++t) {
      for (float& value : x) value = std::normal_distribution<float>()(random);
      std::byte* row = rows.data() + t * stride;
      kernels.tiles->narrow({x.data(), 0, kCols, kCols, kCols, c.input, row});
      x_rows.push_back(row);
      y_rows.push_back(y.data() + t * kRows);
    }
  }
  MatmulArgs item(const Case& c, const WeightView& weight, size_t i) const {
    return {weight, c.input, x_rows.data(), y_rows.data(), 0, x_rows.size(), i * kItem, (i + 1) * kItem};
  }
};

void measure(const Case& c, const Kernels& kernels, ThreadPool& pool, const std::vector<size_t>& only_tokens) {
  const Matrices all(c.format, kBytes, pool);
  for (const size_t tokens : only_tokens.empty() ? std::vector<size_t>{1, 2, 4, 8, 12, 24, 128, 512} : only_tokens) {
    const Tokens input(c, kernels, tokens);
    const size_t matrices = std::max<size_t>(8, std::min(all.count, 4000 / tokens));
    const double read_before = probe_read_bandwidth(pool, size_t{1} << 30, 0.3).value().gbs;
    const Peaks peaks = peaks_of(probe_peak(pool, 0.05), kernels.name);
    size_t step = 37;  // no two alike before all were read
    while (std::gcd(step, all.count) != 1) ++step;
    std::vector<double> seconds;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      const double begin = seconds_now();
      for (size_t i = 0; i < matrices; ++i) {
        const WeightView view = all.view(i * step % all.count);
        pool.for_items(kRows / kItem, [&](int, size_t item) { kernels.matmul(input.item(c, view, item)); });
      }
      seconds.push_back((seconds_now() - begin) / static_cast<double>(matrices));
    }
    const double read = (read_before + probe_read_bandwidth(pool, size_t{1} << 30, 0.3).value().gbs) / 2;
    const double middle = median(seconds), gbs = static_cast<double>(all.bytes) / middle / 1e9;
    const double tflops = 2e-12 * static_cast<double>(tokens * kRows * kCols) / middle;
    fmt::print("{:16} {:>6} {:>9.1f} {:>6.0f}% {:>9.3f} {:>6.0f}% {:>6.0f}%   read {:.1f} GB/s, float {:.2f}, int8 {:.2f}\n",
               c.name, tokens, gbs, 100 * gbs / read, tflops, 100 * tflops / peaks.float_tflops,
               100 * tflops / peaks.byte_tops, read, peaks.float_tflops, peaks.byte_tops);
  }
}

std::atomic<uint64_t> keep;  // so that reads are not left out

// Plainly, or with lines asked for early (sys/probe.cc).
void read(const std::byte* from, size_t bytes, bool fetched) {
  uint64_t sums[8] = {}, words[8];
  for (size_t i = 0; i + sizeof words <= bytes; i += sizeof words) {
    if (fetched) {
      __builtin_prefetch(from + i + (16 << 10), 0, 2);
      __builtin_prefetch(from + i + (2 << 10), 0, 3);
    }
    std::memcpy(words, from + i, sizeof words);
    for (size_t j = 0; j < 8; ++j) sums[j] ^= words[j];
  }
  keep.fetch_add(std::accumulate(sums, sums + 8, uint64_t{0}), std::memory_order_relaxed);
}

void measure_scattered(const Case& c, const Kernels& kernels, ThreadPool& pool, const std::vector<size_t>& only_tokens) {
  constexpr size_t kMatrices = 18, kItems = kRows / kItem;
  constexpr int kRounds = 150;
  const Matrices all(c.format, kScattered, pool);
  std::mt19937 random(3);
  for (const size_t tokens : only_tokens.empty() ? std::vector<size_t>{1, 2, 3, 4, 6, 8} : only_tokens) {
    const Tokens input(c, kernels, tokens);
    std::vector<std::pair<double, double>> rounds;  // GB/s of the read, product over read
    enum class Way { kProduct, kPlain, kFetched };
    const auto rate = [&](Way way) {
      std::vector<size_t> places(kMatrices);
      for (size_t& place : places) place = random() % all.count;
      const double begin = seconds_now();
      pool.for_items(kMatrices * kItems, [&](int, size_t i) {
        const WeightView view = all.view(places[i / kItems]);
        if (way == Way::kProduct) return kernels.matmul(input.item(c, view, i % kItems));
        read(view.data + i % kItems * (all.bytes / kItems), all.bytes / kItems, way == Way::kFetched);
      });
      return static_cast<double>(kMatrices * all.bytes) / (seconds_now() - begin) / 1e9;
    };
    for (int round = 0; round < kRounds; ++round) {
      const bool first = random() % 2 == 0;
      double product = first ? rate(Way::kProduct) : 0;
      const double read = std::max(rate(Way::kPlain), rate(Way::kFetched));
      if (!first) product = rate(Way::kProduct);
      rounds.emplace_back(read, product / read);
    }
    std::ranges::sort(rounds);
    for (const bool faster : {false, true}) {
      std::vector<double> reads, shares;
      for (size_t i = faster ? kRounds / 2 : 0; i < (faster ? kRounds : kRounds / 2); ++i) {
        reads.push_back(rounds[i].first);
        shares.push_back(rounds[i].second);
      }
      std::ranges::sort(shares);
      fmt::print("{:16} {:>6} {} half: read {:>5.1f} GB/s, product {:.2f} of it ({:.2f} - {:.2f})\n", c.name, tokens,
                 faster ? "faster" : "slower", median(reads), median(shares), shares[shares.size() / 4],
                 shares[shares.size() * 3 / 4]);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool scattered = argc > 1 && std::string_view(argv[1]) == "--scattered";
  if (scattered) --argc, ++argv;
  ThreadPool pool(argc > 1 ? std::max(1, std::atoi(argv[1])) : usable_cores());
  const auto kernels = find_kernels(argc > 2 ? argv[2] : "auto");
  if (!kernels.ok() || kernels.value()->tiles == nullptr) {
    fmt::print(stderr, "these kernels have no tiles\n");
    return 2;
  }
  const std::string only = argc > 3 ? argv[3] : "";
  std::vector<size_t> tokens;
  for (int i = 4; i < argc; ++i) tokens.push_back(static_cast<size_t>(std::max(1, std::atoi(argv[i]))));
  fmt::print("{} threads, {} kernels, matrices of {} x {}\n", pool.threads(), kernels.value()->name, kRows, kCols);
  if (!scattered) {
    fmt::print("{:16} {:>6} {:>9} {:>7} {:>9} {:>7} {:>7}\n", "", "tokens", "GB/s", "% read", "TFLOP/s", "% float",
               "% int8");
  }
  const TileKernels& tiles = *kernels.value()->tiles;
  for (const Case& c : {Case{"fp4", WeightFormat::kFp4, tiles.fp4}, Case{"fp4-wide", WeightFormat::kFp4, tiles.wide_fp4},
                        Case{"fp8", WeightFormat::kFp8, tiles.wide}, Case{"bf16", WeightFormat::kBf16, tiles.wide}}) {
    if (!only.empty() && only != c.name) continue;
    if (c.name == std::string_view("fp4-wide") && (c.input == ActivationFormat::kF32 || c.input == tiles.fp4)) continue;
    (scattered ? measure_scattered : measure)(c, *kernels.value(), pool, tokens);
  }
  return 0;
}
