// Kills a process with SIGKILL while it writes the prefix cache's disk tier, again and again, and starts the next one
// on the same directory: it must find only right data, and everything that was on disk when the process said so. Every
// third time two processes write at once.
//
// usage: cache_kill [KILLS]
#include <fmt/format.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "cache/cache_for_test.h"
#include "cache/disk_tier.h"
#include "cache/prefix_cache.h"

using namespace nautile;

namespace {

constexpr CacheScope kScope{1, 2};
constexpr uint64_t kTurns = 4;  // of a conversation; a snapshot at the end of each

[[noreturn]] void fail(const std::string& what) {
  fmt::print(stderr, "FAILED: {}\n", what);
  std::exit(1);
}

// Conversation c up to the end of a turn. Every fourth starts as its neighbour does.
std::vector<int32_t> turn_end(uint64_t conversation, uint64_t turn) {
  std::mt19937_64 trunk(conversation / 4), own(conversation + (1 << 20));
  std::vector<int32_t> tokens = random_tokens(trunk, 256);
  const auto more = random_tokens(own, 256 * (turn + 1));
  tokens.insert(tokens.end(), more.begin(), more.end());
  return tokens;
}

// What a process holds.
struct Tier {
  explicit Tier(const std::string& path) {
    DiskOptions options;
    options.budget_bytes = 1ull << 30;
    options.warn = [this](const std::string& line) { warnings += line + "\n"; };
    auto opened = DiskTier::open(path, layout, options);
    if (!opened.ok()) fail(opened.status().message());
    tier = std::move(opened).value();
    cache = std::make_unique<PrefixCache>(layout, PrefixCacheOptions{.budget_bytes = 1 << 20}, tier.get());
  }
  // How many of the tokens come back, checked byte by byte.
  int64_t restored(const std::vector<int32_t>& tokens) {
    const int64_t length = static_cast<int64_t>(tokens.size());
    const auto read = cache->prefetch(kScope, tokens, length);
    while (!cache->poll(read)) std::this_thread::yield();
    const CacheHit hit = cache->find(kScope, tokens, length);
    if (hit.tokens > 0 &&
        !same(hit.snapshot, snapshot_of(*layout, std::span(tokens).first(static_cast<size_t>(hit.tokens))))) {
      fail("a snapshot came back with other bytes");
    }
    return hit.tokens;
  }

  std::shared_ptr<const CacheLayout> layout = small_layout();
  std::string warnings;
  std::unique_ptr<DiskTier> tier;
  std::unique_ptr<PrefixCache> cache;
};

// The process that will be killed: says "conversation, turn" once a snapshot is on disk.
[[noreturn]] void write_until_killed(const std::string& path, uint64_t first_conversation, int pipe) {
  Tier tier(path);
  for (uint64_t conversation = first_conversation;; ++conversation) {
    for (uint64_t turn = 0; turn < kTurns; ++turn) {
      const auto tokens = turn_end(conversation, turn);
      tier.cache->insert(kScope, tokens, snapshot_of(*tier.layout, tokens));
      tier.tier->drain();
      const uint64_t said[2] = {conversation, turn};
      if (::write(pipe, said, sizeof said) != sizeof said) std::_Exit(1);
    }
  }
}

struct Writer {
  pid_t pid = 0;
  int pipe = 0;
};

Writer start(const std::string& path, uint64_t first_conversation) {
  int ends[2];
  if (::pipe(ends) != 0) fail("no pipe");
  const pid_t pid = ::fork();
  if (pid < 0) fail("no process");
  if (pid == 0) {
    ::close(ends[0]);
    write_until_killed(path, first_conversation, ends[1]);
  }
  ::close(ends[1]);
  return {pid, ends[0]};
}

}  // namespace

int main(int argc, char** argv) {
  const int kills = argc > 1 ? std::atoi(argv[1]) : 20;
  char name[] = "/tmp/nautile_kill_XXXXXX";
  const std::string path = mkdtemp(name);
  std::mt19937_64 random(std::random_device{}());
  std::vector<std::pair<uint64_t, uint64_t>> on_disk;
  uint64_t next_conversation = 0, partial = 0, unfinished = 0;
  for (int kill = 0; kill < kills; ++kill) {
    std::vector<Writer> writers;
    for (int i = 0; i < (kill % 3 == 2 ? 2 : 1); ++i) {
      writers.push_back(start(path, next_conversation));
      next_conversation += 1000;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(2000 + random() % 60'000));
    std::vector<std::pair<uint64_t, uint64_t>> last;
    for (const Writer& writer : writers) ::kill(writer.pid, SIGKILL);
    for (const Writer& writer : writers) {
      int how = 0;
      ::waitpid(writer.pid, &how, 0);
      if (!WIFSIGNALED(how)) fail("a writer ended by itself");
      uint64_t said[2];
      while (::read(writer.pipe, said, sizeof said) == sizeof said) on_disk.emplace_back(said[0], said[1]);
      ::close(writer.pipe);
      // What it may have been at.
      last.emplace_back(on_disk.empty() ? std::pair<uint64_t, uint64_t>{} : on_disk.back());
    }

    Tier next(path);
    // All of the last writers', and some older ones.
    const size_t recent = on_disk.size() > 60 ? on_disk.size() - 60 : 0;
    for (size_t i = 0; i < on_disk.size(); ++i) {
      if (i < recent && random() % (on_disk.size() / 20) != 0) continue;
      const auto tokens = turn_end(on_disk[i].first, on_disk[i].second);
      if (next.restored(tokens) != static_cast<int64_t>(tokens.size())) {
        fail(fmt::format("conversation {}, turn {} was on disk and is lost", on_disk[i].first, on_disk[i].second));
      }
    }
    for (const auto& [conversation, turn] : last) {  // right or absent
      const auto tokens = turn + 1 < kTurns ? turn_end(conversation, turn + 1) : turn_end(conversation + 1, 0);
      unfinished += next.restored(tokens) < static_cast<int64_t>(tokens.size());
    }
    if (!next.warnings.empty()) fail(next.warnings);
  }
  for (const auto& entry : std::filesystem::directory_iterator(path)) partial += entry.path().extension() == ".partial";
  std::filesystem::remove_all(path);
  fmt::print(
      "{} kills: {} snapshots said to be on disk, all there and right; {} half-written files left, {} unfinished "
      "snapshots lost\n",
      kills, on_disk.size(), partial, unfinished);
  if (on_disk.empty()) fail("nothing was ever written");
  return 0;
}
