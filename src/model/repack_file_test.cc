// The repacked file: equal to packing anew, to the bit, or not used at all.
#include "model/repack_file.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>

#include "checkpoint/checkpoint.h"
#include "checkpoint/memory_files.h"
#include "model/repack_load.h"
#include "model/synthetic.h"

using namespace nautile;

namespace {

// Kernels that multiply everything in tiles, whatever this machine has. They are never called.
const Kernels& tile_kernels(bool wide_fp4 = true) {
  static const TileKernels wide{.wide = ActivationFormat::kBf16, .wide_fp4 = ActivationFormat::kBf16},
      narrow{.wide = ActivationFormat::kBf16};
  static Kernels both[2];
  both[0].tiles = &narrow;
  both[1].tiles = &wide;
  return both[wide_fp4];
}

Packing packing(ThreadPool* pool = nullptr, bool wide_fp4 = true) {
  return {&tile_kernels(wide_fp4), policy_of(wide_fp4 ? Numerics::kFast : Numerics::kReference), pool};
}

// Several blocks, with tiles that reach over their edges: the head has 12 MB of tiles.
ModelConfig test_config() {
  ModelConfig config = tiny_config();
  config.vocab_size = 47'000;
  return config;
}

struct Model {
  MemoryFiles files;
  ModelConfig config = test_config();
  std::vector<std::string> notices, parts;

  explicit Model(const Variant& variant = {}, uint64_t seed = 1) { REQUIRE(write(variant, seed).ok()); }
  Status write(const Variant& variant, uint64_t seed) {
    return write_synthetic_checkpoint(files, "m", config, variant, seed, 4 << 20);
  }
  Checkpoint open() {
    auto opened = open_checkpoint(files, "m");
    REQUIRE(opened.ok());
    return std::move(opened).value();
  }
  Status make(const Checkpoint& checkpoint, ThreadPool* pool = nullptr) {
    NAUTILE_ASSIGN(Weights rows, load_weights(checkpoint, config));
    return RepackedFile::make(files, "r", checkpoint, rows, pool, nullptr);
  }
  Result<Weights> load(const Checkpoint& checkpoint, bool compare = false, ThreadPool* pool = nullptr) {
    notices.clear();
    parts.clear();
    LoadWay way{"r", compare};
    way.notice = [this](const std::string& text) { notices.push_back(text); };
    way.progress = [this](const LoadProgress& p) {
      CHECK(p.done <= p.total);
      if (parts.empty() || parts.back() != p.what) parts.push_back(p.what);
    };
    return load_verified(files, checkpoint, config, packing(pool), way);
  }
};

void check_same_tiles(Weights& a, Weights& b) {
  const std::vector<TileMatrix> left = tile_matrices(a), right = tile_matrices(b);
  REQUIRE(left.size() == right.size());
  for (size_t i = 0; i < left.size(); ++i) {
    const WeightView &l = *left[i].view, &r = *right[i].view;
    INFO(left[i].name);
    REQUIRE(left[i].name == right[i].name);
    REQUIRE(l.layout == r.layout);
    REQUIRE(l.layout == WeightLayout::kTiles);
    REQUIRE(l.format == r.format);
    REQUIRE((l.scales == nullptr) == (r.scales == nullptr));
    const size_t bytes = tile_count(l.rows) * tile_bytes(l.format, l.cols);
    REQUIRE(std::memcmp(l.data, r.data, bytes) == 0);
  }
}

// The checkpoint's weights, by whatever way; and the way that was taken.
void check_loads(Model& model, const Checkpoint& checkpoint, bool mapped, const std::string& notice,
                 bool compare = false) {
  Result<Weights> weights = model.load(checkpoint, compare);
  REQUIRE_MESSAGE(weights.ok(), weights.status().message());
  CHECK(weights.value().tiles_mapped == mapped);
  std::string all;
  for (const std::string& text : model.notices) all += text;
  INFO(all);
  CHECK(all.empty() == notice.empty());
  CHECK(all.find(notice) != std::string::npos);
  Weights fresh = load_weights(checkpoint, model.config, packing()).value();
  check_same_tiles(weights.value(), fresh);
}

}  // namespace

TEST_CASE("mapped tiles equal packed ones to the bit, in every form of a checkpoint") {
  ThreadPool pool(3);
  for (const ExpertFormat experts : {ExpertFormat::kMxfp4, ExpertFormat::kFp8}) {
    for (const DraftKind draft : {DraftKind::kNone, DraftKind::kMtp}) {
      for (const uint64_t seed : {1, 2}) {
        Model model({experts, draft, experts}, seed);
        const Checkpoint checkpoint = model.open();
        check_loads(model, checkpoint, true, "made r");  // the first start makes it
        CHECK(model.parts == std::vector<std::string>{"writing tiles", "checking tiles"});
        const std::string first = model.files.contents["r"];
        CHECK(first.size() > 3 * kRepackedBlock);
        check_loads(model, checkpoint, true, "");
        CHECK(model.parts == std::vector<std::string>{"checking tiles"});
        check_loads(model, checkpoint, true, "", true);
        CHECK(model.parts == std::vector<std::string>{"comparing tiles", "checking tiles"});
        model.files.contents.erase("r");
        REQUIRE(model.make(checkpoint, &pool).ok());
        CHECK((model.files.contents["r"] == first));  // by any number of threads
      }
    }
  }
}

TEST_CASE("one file serves kernels that take fewer matrices in tiles, and those that take none") {
  Model model;
  const Checkpoint checkpoint = model.open();
  REQUIRE(model.make(checkpoint).ok());
  LoadWay way{"r"};
  std::string said;
  way.notice = [&](const std::string& text) { said += text; };
  Weights some = load_verified(model.files, checkpoint, model.config, packing(nullptr, false), way).value();
  CHECK(some.tiles_mapped);
  CHECK(some.layers[0].moe.experts[0].w1.layout == WeightLayout::kRows);
  CHECK(some.layers[0].moe.experts[0].w1.scales != nullptr);
  CHECK(some.layers[0].moe.shared.w1.layout == WeightLayout::kTiles);
  CHECK(said.empty());
  Weights none = load_verified(model.files, checkpoint, model.config, {}, way).value();
  CHECK(none.tiles == nullptr);
  CHECK(said.find("no repacked file is used") != std::string::npos);
}

TEST_CASE("any wrong byte of the header is refused, and any length but the right one") {
  Model model;
  const Checkpoint checkpoint = model.open();
  REQUIRE(model.make(checkpoint).ok());
  const std::string& file = model.files.contents["r"];
  std::vector<std::byte> bytes(file.size());
  std::memcpy(bytes.data(), file.data(), file.size());
  const Result<RepackedHeader> good = parse_repacked_header(bytes, "r");
  REQUIRE(good.ok());
  uint64_t used = 80 + 8 * good.value().block_sums.size();
  for (const auto& shard : good.value().shards) used += 36 + shard.name.size();
  for (const auto& matrix : good.value().matrices) used += 32 + matrix.name.size();
  REQUIRE(used < good.value().data_begin);
  for (uint64_t at = 0; at < used; ++at) {
    bytes[at] ^= std::byte{0x10};
    REQUIRE_FALSE(parse_repacked_header(bytes, "r").ok());
    bytes[at] ^= std::byte{0x10};
  }
  for (size_t length = 0; length < bytes.size(); length += length < 4096 ? 1 : 40'961) {
    REQUIRE_FALSE(parse_repacked_header(std::span(bytes).first(length), "r").ok());
  }
  bytes.push_back({});
  CHECK(parse_repacked_header(bytes, "r").status().code() == Code::kCorrupt);
}

TEST_CASE("a damaged, cut, foreign or outdated file is said aloud, and the checkpoint is packed") {
  Model model;
  const Checkpoint checkpoint = model.open();
  REQUIRE(model.make(checkpoint).ok());
  const std::string good = model.files.contents["r"];
  std::vector<std::byte> bytes(good.size());
  std::memcpy(bytes.data(), good.data(), good.size());
  RepackedHeader header = parse_repacked_header(bytes, "r").value();

  // Tiles: each matrix's first and last byte.
  for (size_t i = 0; i < header.matrices.size(); i += 7) {
    const RepackedMatrix& m = header.matrices[i];
    for (const uint64_t at : {m.offset, m.offset + m.bytes() - 1}) {
      std::string& bad = model.files.contents["r"] = good;
      bad[header.data_begin + at] = static_cast<char>(bad[header.data_begin + at] ^ 1);
      const RepackedFile file = RepackedFile::open(model.files, "r", checkpoint).value();
      const Status status = file.check(nullptr, nullptr);
      CHECK(status.code() == Code::kCorrupt);
      const uint64_t block = at / kRepackedBlock * kRepackedBlock;
      CHECK(status.where().find(std::to_string(header.data_begin + block)) != std::string::npos);
    }
  }
  check_loads(model, checkpoint, false, "checksum is wrong");
  model.files.contents["r"] = good;
  model.files.contents["r"][60] ^= 1;
  check_loads(model, checkpoint, false, "nautile repack");
  for (const size_t length : {size_t{0}, size_t{7}, size_t{50}, size_t{3000}, good.size() / 2, good.size() - 1}) {
    model.files.contents["r"] = good.substr(0, length);
    check_loads(model, checkpoint, false, "not used");
  }
  model.files.contents["r"] = "#!/bin/sh\necho a file of somebody's\n";
  check_loads(model, checkpoint, false, "no repacked file");
  CHECK(model.files.contents["r"].starts_with("#!/bin/sh"));  // left as it is

  const auto with_header = [&](const RepackedHeader& h) {
    const std::string head = repacked_header_bytes(h);
    model.files.contents["r"] = head + good.substr(header.data_begin);
  };
  RepackedHeader other = header;
  other.layout ^= 1;
  with_header(other);
  check_loads(model, checkpoint, false, "another layout of tiles");
  other = header;
  other.matrices[3].name += "x";
  with_header(other);
  check_loads(model, checkpoint, false, "no ");
  other = header;
  std::swap(other.matrices[0].rows, other.matrices[0].cols);
  with_header(other);
  check_loads(model, checkpoint, false, "not used");
  model.files.contents["r"] = good;
  model.files.contents["r"][8] = 2;
  check_loads(model, checkpoint, false, "version 2");
  model.files.contents["r"] = good;
  check_loads(model, checkpoint, true, "");
}

TEST_CASE("the file of another checkpoint is refused") {
  Model model;
  REQUIRE(model.make(model.open()).ok());
  const std::string file = model.files.contents["r"];
  // The same shapes and names, other weights.
  Model other({}, 2);
  other.files.contents["r"] = file;
  check_loads(other, other.open(), false, "other contents");
  // Other shapes.
  Model fp8({ExpertFormat::kFp8, DraftKind::kNone, ExpertFormat::kFp8});
  fp8.files.contents["r"] = file;
  check_loads(fp8, fp8.open(), false, "not used");
}

TEST_CASE("a checkpoint written to since is compared in full") {
  Model model;
  REQUIRE(model.make(model.open()).ok());
  // Copied: other times, the same bytes.
  const std::string shard = model.open().files()[1].name;
  model.files.modified_ns[shard] = 77;
  check_loads(model, model.open(), true, "other times");
  CHECK(model.parts == std::vector<std::string>{"comparing tiles", "checking tiles"});
  // One byte between the samples.
  const Checkpoint before = model.open();
  const TensorView* head = before.find("head.weight");
  REQUIRE(head != nullptr);
  char& byte = model.files.contents[head->file][head->file_offset + head->bytes / 2 + 12'345];
  byte = static_cast<char>(byte ^ 2);
  const Checkpoint changed = model.open();
  REQUIRE(RepackedFile::open(model.files, "r", changed).ok());  // no sample shows it
  model.files.modified_ns[head->file] = 99;
  check_loads(model, model.open(), false, "other weights");
  // With the old time it takes --compare-repacked to see it.
  model.files.modified_ns.erase(head->file);
  model.files.modified_ns.erase(shard);
  check_loads(model, model.open(), false, "other weights", true);
  // What is not in the file comes from the checkpoint, so it is never stale; and it is still verified.
  Model broken;
  REQUIRE(broken.make(broken.open()).ok());
  const Checkpoint sound = broken.open();
  const TensorView* norm = sound.find("layers.1.attn_norm.weight");
  REQUIRE(norm != nullptr);
  for (int i = 0; i < 2; ++i) broken.files.contents[norm->file][norm->file_offset + 64 + i] = '\xFF';
  CHECK(broken.load(broken.open()).status().code() == Code::kCorrupt);
}

TEST_CASE("a disk that is full or broken leaves nothing behind, and the model loads") {
  Model model;
  const Checkpoint checkpoint = model.open();
  REQUIRE(model.make(checkpoint).ok());
  const size_t whole = model.files.contents["r"].size();
  model.files.contents.erase("r");
  const auto nothing_left = [&] {
    return !model.files.contents.contains("r") && !model.files.contents.contains("r.partial");
  };
  for (const bool reserves : {true, false}) {
    for (const size_t room : {size_t{0}, whole / 2, whole - 1}) {
      model.files.reserves = reserves;
      model.files.room_bytes = room;
      if (!reserves && room == whole - 1) continue;  // the header's padding is never written twice
      CHECK(model.make(checkpoint).code() == Code::kResourceExhausted);
      CHECK(nothing_left());
      check_loads(model, checkpoint, false, "no repacked file was made");
      CHECK(nothing_left());
    }
  }
  model.files.room_bytes = UINT64_MAX;
  for (int64_t write = 0; write < 5; ++write) {
    model.files.failing_write = write;
    CHECK(model.make(checkpoint).code() == Code::kIo);
    CHECK(nothing_left());
  }
  model.files.failing_write = -1;
  model.files.failing_finish = true;
  check_loads(model, checkpoint, false, "input/output error");
  CHECK(nothing_left());
  model.files.failing_finish = false;
  check_loads(model, checkpoint, true, "made r");
}

TEST_CASE("weights without files have no repacked file") {
  const Checkpoint checkpoint = synthetic_checkpoint(test_config(), {}, 1).value();
  Weights rows = load_weights(checkpoint, test_config()).value();
  MemoryFiles files;
  CHECK(RepackedFile::make(files, "r", checkpoint, rows, nullptr, nullptr).code() == Code::kUnsupported);
}

namespace {

// A checkpoint in a folder of the real file system.
struct Folder {
  Folder() {
    char name[] = "/tmp/nautile_repack_XXXXXX";
    path = mkdtemp(name);
    REQUIRE(write_synthetic_checkpoint(*files, path, config, {}, 1, 4 << 20).ok());
    out = join_path(path, kRepackedName);
  }
  ~Folder() { std::filesystem::remove_all(path); }

  // In a process of its own: makes the file until it is killed, or `times` times; 0 when one was made.
  pid_t maker(int times) {
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    const Checkpoint checkpoint = open_checkpoint(*files, path).value();
    bool made = false;
    for (int i = 0; i < times; ++i) {
      Weights rows = load_weights(checkpoint, config).value();
      made |= RepackedFile::make(*files, out, checkpoint, rows, nullptr, nullptr).ok();
    }
    ::_exit(made ? 0 : 1);
  }
  bool sound() {
    const Checkpoint checkpoint = open_checkpoint(*files, path).value();
    const Result<RepackedFile> file = RepackedFile::open(*files, out, checkpoint);
    if (!file.ok() || !file.value().check(nullptr, nullptr).ok()) return false;
    Weights rows = load_weights(checkpoint, config).value();
    return file.value().compare(rows, nullptr, nullptr).ok();
  }

  std::unique_ptr<FileSystem> files = real_files();
  ModelConfig config = test_config();
  std::string path, out;
};

}  // namespace

TEST_CASE("processes that make the same file at once, and some that are killed while they do") {
  Folder folder;
  int made = 0;
  pid_t makers[3];
  for (pid_t& pid : makers) pid = folder.maker(2);
  for (const pid_t pid : makers) {
    int status = 0;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    made += WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  CHECK(made >= 1);
  CHECK(folder.sound());
  CHECK_FALSE(folder.files->exists(folder.out + ".partial"));

  std::filesystem::remove(folder.out);
  for (int round = 0; round < 12; ++round) {
    const pid_t pid = folder.maker(1000);
    ::usleep(static_cast<useconds_t>(2'000 + 7'000 * round));
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    if (folder.files->exists(folder.out)) CHECK(folder.sound());
  }
  const pid_t last = folder.maker(1);
  int status = 0;
  ::waitpid(last, &status, 0);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  CHECK(folder.sound());
  CHECK_FALSE(folder.files->exists(folder.out + ".partial"));
}
