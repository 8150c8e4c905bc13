// Measurements of the machine. Every measured sum is written to a sink, so that no loop is optimised away.
#include "sys/probe.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <numeric>

#include "sys/clock.h"
#include "sys/machine.h"
#include "sys/cpu_features.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace nautile {
namespace {

// A way to read: adds every word, taking turns among `streams` sequential runs. With `fetched`, lines are asked for early: far ahead
// into the second-level cache, then near into the first. Some cores (Intel's) have too few lines under way without.
using Sum = uint64_t (*)(const uint64_t* data, size_t words, int streams, bool fetched);

[[gnu::always_inline]] inline void fetch_ahead(const uint64_t* at) {
  for (int line = 0; line < 4; ++line) {
    __builtin_prefetch(at + 8 * line + (16 << 10) / 8, 0, 2);
    __builtin_prefetch(at + 8 * line + (2 << 10) / 8, 0, 3);
  }
}

uint64_t sum_plain(const uint64_t* data, size_t words, int streams, bool fetched) {
  uint64_t sum[4] = {};
  const size_t run = words / static_cast<size_t>(streams) / 32 * 32;
  for (size_t i = 0; i < run; i += 32) {
    for (int s = 0; s < streams; ++s) {
      const uint64_t* at = data + static_cast<size_t>(s) * run + i;
      if (fetched) fetch_ahead(at);
      for (int j = 0; j < 32; j += 4) {
        for (int k = 0; k < 4; ++k) sum[k] += at[j + k];
      }
    }
  }
  return sum[0] + sum[1] + sum[2] + sum[3];
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) uint64_t sum_avx2(const uint64_t* data, size_t words, int streams, bool fetched) {
  __m256i sum[4] = {};
  const size_t run = words / static_cast<size_t>(streams) / 32 * 32;
  for (size_t i = 0; i < run; i += 32) {
    for (int s = 0; s < streams; ++s) {
      const uint64_t* word = data + static_cast<size_t>(s) * run + i;
      if (fetched) fetch_ahead(word);
      const auto* at = reinterpret_cast<const __m256i*>(word);
      for (int j = 0; j < 8; ++j) sum[j & 3] = _mm256_add_epi64(sum[j & 3], _mm256_loadu_si256(at + j));
    }
  }
  alignas(32) uint64_t out[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(out),
                     _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3])));
  return out[0] + out[1] + out[2] + out[3];
}

__attribute__((target("avx512f"))) uint64_t sum_avx512(const uint64_t* data, size_t words, int streams, bool fetched) {
  __m512i sum[4] = {};
  const size_t run = words / static_cast<size_t>(streams) / 32 * 32;
  for (size_t i = 0; i < run; i += 32) {
    for (int s = 0; s < streams; ++s) {
      const uint64_t* at = data + static_cast<size_t>(s) * run + i;
      if (fetched) fetch_ahead(at);
      for (int j = 0; j < 4; ++j) sum[j] = _mm512_add_epi64(sum[j], _mm512_loadu_si512(at + 8 * j));
    }
  }
  alignas(64) uint64_t out[8];
  _mm512_store_si512(out, _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]), _mm512_add_epi64(sum[2], sum[3])));
  uint64_t all = 0;
  for (uint64_t word : out) all += word;
  return all;
}
#endif

Sum best_sum() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return sum_avx512;
  if (__builtin_cpu_supports("avx2")) return sum_avx2;
#endif
  return sum_plain;
}

// Multiply-add chains in registers; returns operations done and leaves the result in the sink.
using Chain = double (*)(int64_t rounds, volatile float* sink);

constexpr int kChains = 16;  // enough to hide the latency of any of these units

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) double chain_fma256(int64_t rounds, volatile float* sink) {
  __m256 sum[12];
  for (int j = 0; j < 12; ++j) sum[j] = _mm256_set1_ps(static_cast<float>(j));
  const __m256 a = _mm256_set1_ps(1 + *sink), b = _mm256_set1_ps(*sink + 1e-9f);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) sum[j] = _mm256_fmadd_ps(sum[j], a, b);
  }
  for (int j = 1; j < 12; ++j) sum[0] = _mm256_add_ps(sum[0], sum[j]);
  *sink = _mm256_cvtss_f32(sum[0]) * 0;
  return static_cast<double>(rounds) * 12 * 8 * 2;
}

// Bytes in pairs to 16 bits, and their sum: what does for a dot instruction without VNNI. The instruction itself, since g++
// would make the product of two constants once.
__attribute__((target("avx2"))) double chain_int8_pairs(int64_t rounds, volatile float* sink) {
  __m256i sum[8];
  for (int j = 0; j < 8; ++j) sum[j] = _mm256_set1_epi16(static_cast<short>(j));
  const __m256i a = _mm256_set1_epi8(static_cast<char>(1 + static_cast<int>(*sink)));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      __m256i pairs;
      asm volatile("vpmaddubsw %1, %1, %0" : "=x"(pairs) : "x"(a));
      sum[j] = _mm256_add_epi16(sum[j], pairs);
    }
  }
  for (int j = 1; j < 8; ++j) sum[0] = _mm256_add_epi16(sum[0], sum[j]);
  alignas(32) int16_t out[16];
  _mm256_store_si256(reinterpret_cast<__m256i*>(out), sum[0]);
  *sink = static_cast<float>(out[0]) * 0;
  return static_cast<double>(rounds) * 8 * 32 * 2;
}

// The instruction itself: the intrinsic wants a target of its own.
__attribute__((target("avx2"))) double chain_int8_dots(int64_t rounds, volatile float* sink) {
  __m256i sum[12];
#pragma GCC unroll 12  // or the array stays in memory
  for (int j = 0; j < 12; ++j) sum[j] = _mm256_set1_epi32(j);
  const __m256i a = _mm256_set1_epi8(static_cast<char>(1 + static_cast<int>(*sink)));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) asm volatile("%{vex%} vpdpbusd %1, %1, %0" : "+x"(sum[j]) : "x"(a));
  }
#pragma GCC unroll 12
  for (int j = 1; j < 12; ++j) sum[0] = _mm256_add_epi32(sum[0], sum[j]);
  alignas(32) int32_t out[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(out), sum[0]);
  *sink = static_cast<float>(out[0]) * 0;
  return static_cast<double>(rounds) * 12 * 32 * 2;
}

__attribute__((target("avx512f"))) double chain_fma512(int64_t rounds, volatile float* sink) {
  __m512 sum[kChains];
  for (int j = 0; j < kChains; ++j) sum[j] = _mm512_set1_ps(static_cast<float>(j));
  const __m512 a = _mm512_set1_ps(1 + *sink), b = _mm512_set1_ps(*sink + 1e-9f);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kChains; ++j) sum[j] = _mm512_fmadd_ps(sum[j], a, b);
  }
  for (int j = 1; j < kChains; ++j) sum[0] = _mm512_add_ps(sum[0], sum[j]);
  *sink = _mm512_cvtss_f32(sum[0]) * 0;
  return static_cast<double>(rounds) * kChains * 16 * 2;
}

__attribute__((target("avx512f,avx512bf16"))) double chain_bf16(int64_t rounds, volatile float* sink) {
  __m512 sum[kChains];
  for (int j = 0; j < kChains; ++j) sum[j] = _mm512_set1_ps(static_cast<float>(j));
  const auto a =
      reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(0x3f803f80u + static_cast<unsigned>(*sink))));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kChains; ++j) sum[j] = _mm512_dpbf16_ps(sum[j], a, a);
  }
  for (int j = 1; j < kChains; ++j) sum[0] = _mm512_add_ps(sum[0], sum[j]);
  *sink = _mm512_cvtss_f32(sum[0]) * 0;
  return static_cast<double>(rounds) * kChains * 32 * 2;
}

__attribute__((target("avx512f,avx512vnni"))) double chain_int8(int64_t rounds, volatile float* sink) {
  __m512i sum[kChains];
  for (int j = 0; j < kChains; ++j) sum[j] = _mm512_set1_epi32(j);
  const __m512i a = _mm512_set1_epi32(0x01010101 + static_cast<int>(*sink));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kChains; ++j) sum[j] = _mm512_dpbusd_epi32(sum[j], a, a);
  }
  for (int j = 1; j < kChains; ++j) sum[0] = _mm512_add_epi32(sum[0], sum[j]);
  alignas(64) int32_t out[16];
  _mm512_store_si512(out, sum[0]);
  *sink = static_cast<float>(out[0]) * 0;
  return static_cast<double>(rounds) * kChains * 64 * 2;
}

__attribute__((target("amx-tile,amx-bf16"))) double chain_unit(int64_t rounds, volatile float*) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } configuration;
  alignas(64) uint8_t zeros[16 * 64] = {};
  asm volatile("" : : "r"(&configuration), "r"(zeros) : "memory");
  _tile_loadconfig(&configuration);
  _tile_loadd(4, zeros, 64);
  _tile_loadd(5, zeros, 64);
  _tile_loadd(6, zeros, 64);
  _tile_loadd(7, zeros, 64);
  rounds /= 16;
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return static_cast<double>(rounds) * 4 * 16 * 16 * 32 * 2;
}
#endif

double chain_plain(int64_t rounds, volatile float* sink) {
  float sum[kChains];
  for (int j = 0; j < kChains; ++j) sum[j] = static_cast<float>(j);
  const float a = 1 + *sink, b = *sink + 1e-9f;
  for (int64_t i = 0; i < rounds; ++i) {
    for (float& value : sum) value = value * a + b;
  }
  for (int j = 1; j < kChains; ++j) sum[0] += sum[j];
  *sink = sum[0] * 0;
  return static_cast<double>(rounds) * kChains * 2;
}

struct Kind {
  const char* name;
  const char* isa;
  Chain chain;
};

std::vector<Kind> kinds() {
  std::vector<Kind> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    found.push_back({"fp32 FMA 256 bit", "avx2", chain_fma256});
  if (__builtin_cpu_supports("avx2")) found.push_back({"int8 pairs 256 bit", "avx2", chain_int8_pairs});
  if (avx_vnni_usable()) found.push_back({"int8 dot 256 bit", "avx2", chain_int8_dots});
  if (__builtin_cpu_supports("avx512f")) found.push_back({"fp32 FMA 512 bit", "avx512", chain_fma512});
  if (__builtin_cpu_supports("avx512bf16")) found.push_back({"BF16 dot 512 bit", "avx512", chain_bf16});
  if (__builtin_cpu_supports("avx512vnni")) found.push_back({"int8 dot 512 bit", "avx512", chain_int8});
  if (matrix_unit_usable()) found.push_back({"BF16 matrix unit", "amx", chain_unit});
#endif
  if (found.empty()) found.push_back({"fp32 multiply-add", "ref", chain_plain});
  return found;
}

struct Unmap {
  size_t bytes = 0;
  void operator()(void* at) const { munmap(at, bytes); }
};

}  // namespace

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

ReadProbe::ReadProbe() : ways_{{1, false, 0}, {2, false, 0}, {4, false, 0}, {8, false, 0}, {1, true, 0}, {2, true, 0}} {}
ReadProbe::~ReadProbe() = default;

Status ReadProbe::make(ThreadPool& pool, size_t bytes) {
  bytes = std::max<size_t>(bytes, 64u << 20);
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) {
    return Status(Code::kResourceExhausted, fmt::format("no {} bytes of memory for the bandwidth test", bytes), "probe",
                  "free some memory");
  }
  buffer_ = std::shared_ptr<uint64_t>(static_cast<uint64_t*>(at), Unmap{bytes});
  madvise(at, bytes, MADV_HUGEPAGE);
  share_ = bytes / 8 / static_cast<size_t>(pool.threads()) / 256 * 256;
  // Each worker touches its own part first, so that the pages lie on its node.
  pool.run([&](int worker) {
    uint64_t* own = buffer_.get() + share_ * static_cast<size_t>(worker);
    for (size_t i = 0; i < share_; ++i) own[i] = i;
  });
  return {};
}

double ReadProbe::pass(ThreadPool& pool, const Way& way, std::vector<double>& ends) {
  const Sum sum = best_sum();
  std::atomic<uint64_t> sink{0};
  const double begin = seconds_now();
  pool.run([&](int worker) {
    sink += sum(buffer_.get() + share_ * static_cast<size_t>(worker), share_, way.streams, way.fetched);
    ends[static_cast<size_t>(worker)] = seconds_now();
  });
  return std::max(seconds_now() - begin, 1e-9);
}

Result<BandwidthProbe> ReadProbe::measure(ThreadPool& pool, size_t bytes, double seconds) {
  if (buffer_ == nullptr) NAUTILE_RETURN_IF_ERROR(make(pool, bytes));
  const double until = seconds_now() + seconds;
  std::vector<double> ends(static_cast<size_t>(pool.threads()));
  for (Way& way : ways_) way.seconds += pass(pool, way, ends);
  const Way& best = *std::ranges::min_element(ways_, {}, &Way::seconds);

  BandwidthProbe probe;
  probe.streams = best.streams;
  probe.fetched = best.fetched;
  probe.threads = pool.threads();
  probe.bytes = share_ * 8 * static_cast<size_t>(pool.threads());
  std::vector<double> passes;
  std::vector<std::vector<double>> by_node(pool.nodes());
  do {
    const double begin = seconds_now();
    passes.push_back(pass(pool, best, ends));
    for (size_t node = 0; node < by_node.size(); ++node) {
      double read = 0, end = begin + 1e-9;
      for (int worker = 0; worker < pool.threads(); ++worker) {
        if (pool.node_of(worker) != node) continue;
        read += static_cast<double>(share_ * 8);
        end = std::max(end, ends[static_cast<size_t>(worker)]);
      }
      by_node[node].push_back(read / (end - begin) / 1e9);
    }
  } while (seconds_now() < until || passes.size() < 3);
  const auto rate = [&](double each) { return static_cast<double>(probe.bytes) / each / 1e9; };
  probe.gbs = rate(std::accumulate(passes.begin(), passes.end(), 0.0) / static_cast<double>(passes.size()));
  probe.low_gbs = rate(*std::ranges::max_element(passes));
  probe.high_gbs = rate(*std::ranges::min_element(passes));
  for (size_t node = 0; node < by_node.size(); ++node) {
    probe.nodes.push_back({pool.memory_of(node), median(by_node[node])});
  }
  return probe;
}

Result<BandwidthProbe> probe_read_bandwidth(ThreadPool& pool, size_t bytes, double seconds) {
  return ReadProbe().measure(pool, bytes, seconds);
}

std::vector<PeakRow> probe_peak(ThreadPool& pool, double seconds) {
  std::vector<PeakRow> rows;
  for (const Kind& kind : kinds()) {
    constexpr int64_t kRounds = 100000;
    double best = 0;
    const double until = seconds_now() + seconds;
    do {
      std::vector<double> done(static_cast<size_t>(pool.threads()));
      const double begin = seconds_now();
      pool.run([&](int worker) {
        volatile float sink = 0;
        double sum = 0;
        for (int i = 0; i < 8; ++i) sum += kind.chain(kRounds, &sink);
        done[static_cast<size_t>(worker)] = sum;
      });
      double all = 0;
      for (double part : done) all += part;
      best = std::max(best, all / (seconds_now() - begin) / 1e12);
    } while (seconds_now() < until);
    rows.push_back({kind.name, kind.isa, best});
  }
  return rows;
}

Peaks peaks_of(const std::vector<PeakRow>& rows, std::string_view isa) {
  // "ref" is plain code, which the compiler may turn into the narrowest of these instructions.
  constexpr std::string_view kLevels[] = {"ref", "avx2", "avx512", "amx"};
  const auto level = [&](std::string_view name) { return std::find(std::begin(kLevels), std::end(kLevels), name); };
  const auto highest = std::max(level(isa), kLevels + 1);
  Peaks peaks;
  for (const PeakRow& row : rows) {
    if (level(row.isa) > highest) continue;
    if (!row.name.starts_with("int8")) peaks.float_tflops = std::max(peaks.float_tflops, row.tflops);
    peaks.byte_tops = std::max(peaks.byte_tops, row.tflops);
  }
  return peaks;
}

Result<DiskProbe> probe_disk(const std::string& path, double seconds) {
  DiskProbe probe;
  int file = open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  probe.direct = file >= 0;
  if (file < 0) file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    const Code code = errno == ENOENT ? Code::kNotFound : Code::kIo;
    return Status(code, fmt::format("cannot open the file: {}", std::strerror(errno)), path);
  }
  constexpr size_t kPiece = 8u << 20;
  void* piece = nullptr;
  if (posix_memalign(&piece, 4096, kPiece) != 0) {
    close(file);
    return Status(Code::kResourceExhausted, "no memory for the read buffer", path);
  }
  const double begin = seconds_now();
  Status problem;
  while (seconds_now() - begin < seconds) {
    const ssize_t got = read(file, piece, kPiece);
    if (got < 0) {
      problem = Status(Code::kIo, fmt::format("cannot read the file: {}", std::strerror(errno)), path);
      break;
    }
    if (got == 0) break;
    probe.bytes += static_cast<size_t>(got);
  }
  probe.gbs = static_cast<double>(probe.bytes) / std::max(seconds_now() - begin, 1e-9) / 1e9;
  free(piece);
  close(file);
  if (!problem.ok()) return problem;
  if (probe.bytes == 0) return Status(Code::kInvalidArgument, "the file is empty", path);
  return probe;
}

MemoryFound probe_memory() {
  MemoryFound found;
  std::ifstream info("/proc/meminfo");
  std::string name;
  size_t kilobytes = 0;
  std::string unit;
  while (info >> name >> kilobytes) {
    std::getline(info, unit);
    if (name == "MemTotal:") found.total_bytes = kilobytes * 1024;
    if (name == "MemAvailable:") found.available_bytes = kilobytes * 1024;
  }
  if (const Limits limits = read_limits(); limits.memory_bytes != 0) {
    found.total_bytes = std::min<size_t>(found.total_bytes, limits.memory_bytes);
    found.available_bytes = std::min<size_t>(found.available_bytes, limits.memory_left);
  }
  return found;
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line)) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

}  // namespace nautile
