// Measures the prefix cache at V4-Flash's sizes: find and insert of a long prefix, and the disk tier's rates, with the
// files out of the page cache for the read.
//
// usage: cache_speed DIRECTORY [TOKENS]
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <thread>

#include "cache/disk_tier.h"
#include "cache/prefix_cache.h"
#include "model/memory_plan.h"
#include "sys/clock.h"

using namespace nautile;

namespace {

Snapshot filled(const CacheLayout& layout, int64_t length) {
  Snapshot out;
  out.length = length;
  for (int64_t i = 0; i < length / kBlockTokens; ++i) {
    out.blocks.push_back(std::make_shared<CacheBlock>(layout.block_bytes(), static_cast<std::byte>(i)));
  }
  out.rows = std::make_shared<const std::vector<std::byte>>(SequenceState::snapshot_bytes(layout, length, 0));
  return out;
}

Snapshot cut(const Snapshot& whole, int64_t length) {
  Snapshot out = whole;
  out.length = length;
  out.blocks.resize(static_cast<size_t>(length / kBlockTokens));
  return out;
}

void drop_from_page_cache(const std::string& directory) {
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const int fd = ::open(entry.path().c_str(), O_RDONLY);
    if (fd < 0) continue;
    ::fsync(fd);
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
  }
}

double median_ms(int runs, const auto& body) {
  std::vector<double> seconds;
  for (int i = 0; i < runs; ++i) {
    const double begin = seconds_now();
    body();
    seconds.push_back(seconds_now() - begin);
  }
  std::ranges::nth_element(seconds, seconds.begin() + runs / 2);
  return seconds[static_cast<size_t>(runs) / 2] * 1e3;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: cache_speed DIRECTORY [TOKENS]\n");
    return 2;
  }
  const std::string directory = argv[1];
  const int64_t length = (argc > 2 ? std::atoll(argv[2]) : 100'000) / kBlockTokens * kBlockTokens;
  const auto layout =
      std::make_shared<const CacheLayout>(cache_shape(*shape_config("v4-flash"), true, KvFormat::kPacked));
  std::mt19937_64 random(1);
  std::vector<int32_t> tokens(static_cast<size_t>(length));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 129280);
  const Snapshot whole = filled(*layout, length);
  fmt::print("{} tokens: {} blocks of {} bytes, {} bytes a snapshot\n", length, whole.blocks.size(),
             layout->block_bytes(), whole.bytes());

  {
    SequenceState state(layout);
    state.reserve(2048);
    state.advance(2048);
    fmt::print("taking a snapshot: {:.2f} ms\n", median_ms(21, [&] { (void)state.snapshot(); }));
    const Snapshot snapshot = std::move(state.snapshot()).value();
    fmt::print("starting from one: {:.2f} ms\n", median_ms(21, [&] { SequenceState(layout, snapshot); }));
  }
  {
    PrefixCache cache(layout, {.budget_bytes = 1ull << 40});
    const double begin = seconds_now();
    cache.insert({}, tokens, whole);
    fmt::print("insert, all new: {:.2f} ms\n", (seconds_now() - begin) * 1e3);
    for (int64_t end = 2048; end < length; end += 2048) {
      cache.insert({}, std::span(tokens).first(static_cast<size_t>(end)), cut(whole, end));
    }
    fmt::print("insert, known path: {:.2f} ms\n", median_ms(21, [&] { cache.insert({}, tokens, whole); }));
    fmt::print("find, whole: {:.2f} ms\n", median_ms(21, [&] { (void)cache.find({}, tokens, length); }));
    fmt::print("find, leaves half-way: {:.2f} ms\n", median_ms(21, [&] {
                 tokens[tokens.size() / 2] ^= 1;
                 (void)cache.find({}, tokens, length);
                 tokens[tokens.size() / 2] ^= 1;
               }));
  }
  {
    // A full cache of short conversations over one shared beginning: every insert evicts.
    const uint64_t bytes = uint64_t{2000} * (4 * (layout->block_bytes() + PrefixTree::kNodeBytes) + whole.bytes());
    PrefixCache cache(layout, {.budget_bytes = bytes});
    const auto one = [&] {
      std::vector<int32_t> mine(tokens.begin(), tokens.begin() + 512);
      for (size_t i = 256; i < 512; ++i) mine[i] = static_cast<int32_t>(random() % 129280);
      cache.insert({}, mine, cut(whole, 512));
    };
    for (int i = 0; i < 4000; ++i) one();
    fmt::print("insert of 512 tokens that evicts, {} snapshots there: {:.3f} ms\n", cache.stats().snapshots,
               median_ms(201, one));
  }
  DiskOptions options;
  options.budget_bytes = options.queue_bytes = 1ull << 40;
  options.warn = [](const std::string& line) { fmt::print("{}\n", line); };
  for (const bool write : {true, false}) {
    auto opened = DiskTier::open(directory, layout, options);
    if (!opened.ok()) {
      fmt::print(stderr, "{}\n", opened.status().message());
      return 1;
    }
    DiskTier& tier = **opened;
    PrefixCache cache(layout, {.budget_bytes = 1ull << 40}, &tier);
    double begin = seconds_now();
    if (write) {
      cache.insert({}, tokens, whole);
      fmt::print("insert with a disk tier: {:.2f} ms\n", (seconds_now() - begin) * 1e3);
      tier.drain();
      const double seconds = seconds_now() - begin, bytes = static_cast<double>(tier.stats().written_bytes);
      fmt::print("disk write: {:.0f} MB in {:.2f} s, {:.0f} MB/s, every file synced\n", bytes / 1e6, seconds,
                 bytes / 1e6 / seconds);
      continue;
    }
    for (const bool cold : {true, false}) {
      PrefixCache empty(layout, {.budget_bytes = 1ull << 40}, &tier);
      if (cold) drop_from_page_cache(directory);
      const double before = static_cast<double>(tier.stats().read_bytes);
      begin = seconds_now();
      const auto read = empty.prefetch({}, tokens, length);
      fmt::print("prefetch call: {:.2f} ms\n", (seconds_now() - begin) * 1e3);
      while (!empty.poll(read)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      const double seconds = seconds_now() - begin, bytes = static_cast<double>(tier.stats().read_bytes) - before;
      fmt::print("disk read, {} page cache: {:.0f} MB in {:.2f} s, {:.0f} MB/s; hit of {} tokens\n",
                 cold ? "not in the" : "from the", bytes / 1e6, seconds, bytes / 1e6 / seconds,
                 empty.find({}, tokens, length).tokens);
    }
  }
  return 0;
}
