// Block by block of the file: whatever thread takes a block packs the tiles that reach into it, so that every write is
// aligned and the system can keep the file in large pages.
#include "model/repack_file.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>

#include "sys/memory.h"

namespace nautile {
namespace {

// What is hashed of a shard beside its header: enough that other weights of the same shapes show, little enough that a
// cold disk does not mind.
constexpr uint64_t kSamples = 16, kSampleBytes = 4096;

RepackedShard identify(const CheckpointFile& file) {
  XXH3_state_t* state = XXH3_createState();
  XXH3_128bits_reset(state);
  const std::span<const std::byte> all = file.contents;
  XXH3_128bits_update(state, all.data(), file.header_bytes);
  const uint64_t data = all.size() - file.header_bytes;
  for (uint64_t i = 0; i < kSamples; ++i) {
    const uint64_t begin = file.header_bytes + data / kSamples * i;
    XXH3_128bits_update(state, all.data() + begin, std::min(kSampleBytes, all.size() - begin));
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  // A touch maps as much as the system has in one piece, which may be 2 MiB.
  release_pages(all.data() + file.header_bytes, data);
  return {file.name.substr(file.name.find_last_of('/') + 1), file.bytes, file.modified_ns, {hash.low64, hash.high64}};
}

Result<std::vector<RepackedShard>> identify(const Checkpoint& checkpoint) {
  std::vector<RepackedShard> shards;
  for (const CheckpointFile& file : checkpoint.files()) {
    if (file.contents.empty()) {
      return Status(Code::kUnsupported, "these weights come from no file, so no repacked file can be theirs",
                    file.name);
    }
    shards.push_back(identify(file));
  }
  return shards;
}

// Runs work(block) -> Status for all blocks; the error of the lowest block, the same for any number of threads.
template <class Work>
Status for_blocks(uint64_t blocks, uint64_t total, ThreadPool* pool, const char* what,
                  const LoadProgressFunction& progress, Work work) {
  std::mutex mutex;  // of the three below and the callback
  uint64_t done = 0, failed_at = UINT64_MAX;
  Status failed;
  std::atomic<bool> stop{false};
  const auto one = [&](int worker, size_t block) {
    if (stop.load(std::memory_order_relaxed)) return;
    Status status = work(worker, block);
    const std::lock_guard lock(mutex);
    if (!status.ok()) {
      // An I/O error ends it; a wrong block may have a wrong one before it that is still to come.
      if (status.code() == Code::kIo || status.code() == Code::kResourceExhausted) stop.store(true);
      if (block < failed_at) {
        failed_at = block;
        failed = std::move(status);
      }
      return;
    }
    done += std::min(kRepackedBlock, total - block * kRepackedBlock);
    if (progress && failed_at == UINT64_MAX) progress({what, done, total});
  };
  if (pool != nullptr) {
    pool->for_items(blocks, one);
  } else {
    for (uint64_t block = 0; block < blocks; ++block) one(0, block);
  }
  return failed;
}

// Packs one block of the file into memory of its own.
class BlockPacker {
 public:
  // views[i] are the rows of header.matrices[i].
  BlockPacker(const RepackedHeader& header, std::vector<const WeightView*> views, int threads)
      : header_(header), views_(std::move(views)), buffers_(static_cast<size_t>(threads)) {}

  Result<std::span<const std::byte>> pack(int worker, uint64_t block) {
    Buffer& buffer = buffers_[static_cast<size_t>(worker)];
    buffer.block.resize(kRepackedBlock);
    // A disk is at its best with several megabytes asked for; a page fault asks for 128 KB.
    for_parts(block + kAhead, [](const RepackedMatrix&, const WeightView& rows, uint64_t first, uint64_t last) {
      prefetch_rows(rows, first, last);
    });
    const uint64_t begin = block * kRepackedBlock, end = block_end(block);
    Status fine;
    for_parts(block, [&](const RepackedMatrix& m, const WeightView& rows, uint64_t first, uint64_t last) {
      bool nan = false;
      const uint64_t bytes = tile_bytes(m.format, m.cols);
      for (uint64_t t = first; t < last; ++t) {
        const uint64_t tile = m.offset + t * bytes;
        const uint64_t from = std::max(tile, begin), to = std::min(tile + bytes, end);
        std::byte* const place = buffer.block.data() + (from - begin);
        if (to - from == bytes) {
          nan |= pack_tiles(rows, t, t + 1, place - t * bytes);
        } else {  // reaches over an edge of the block
          buffer.tile.resize(std::max(buffer.tile.size(), bytes));
          nan |= pack_tiles(rows, t, t + 1, buffer.tile.data() - t * bytes);
          std::memcpy(place, buffer.tile.data() + (from - tile), to - from);
        }
      }
      if (nan && fine.ok()) fine = refuse_nan(m.name);
      release_rows(rows, first, last);
    });
    if (!fine.ok()) return fine;
    return std::span<const std::byte>(buffer.block.data(), end - begin);
  }

 private:
  static constexpr uint64_t kAhead = 6;
  struct Buffer {
    std::vector<std::byte> block, tile;
  };

  uint64_t block_end(uint64_t block) const { return std::min((block + 1) * kRepackedBlock, header_.data_bytes); }

  // Calls body for each matrix that reaches into the block, with its tiles [first, last) that do; none past the end.
  template <class Body>
  void for_parts(uint64_t block, Body body) const {
    uint64_t at = block * kRepackedBlock;
    const uint64_t end = block_end(block);
    auto matrix = std::upper_bound(header_.matrices.begin(), header_.matrices.end(), at,
                                   [](uint64_t offset, const RepackedMatrix& m) { return offset < m.offset; }) -
                  header_.matrices.begin() - 1;
    for (; at < end; ++matrix) {
      const RepackedMatrix& m = header_.matrices[static_cast<size_t>(matrix)];
      const uint64_t tile = tile_bytes(m.format, m.cols), until = std::min(end, m.offset + m.bytes());
      body(m, *views_[static_cast<size_t>(matrix)], (at - m.offset) / tile, (until - m.offset + tile - 1) / tile);
      at = until;
    }
  }

  const RepackedHeader& header_;
  std::vector<const WeightView*> views_;
  std::vector<Buffer> buffers_;  // by worker
};

uint64_t sum_of(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

bool same_shape(const RepackedMatrix& m, const WeightView& view) {
  return m.format == view.format && m.rows == view.rows && m.cols == view.cols;
}

}  // namespace

RepackedFile::RepackedFile(std::string path, std::shared_ptr<const MappedFile> file, RepackedHeader header)
    : path_(std::move(path)), file_(std::move(file)), header_(std::move(header)) {
  for (size_t i = 0; i < header_.matrices.size(); ++i) by_name_.emplace(header_.matrices[i].name, i);
}

Result<RepackedFile> RepackedFile::open(FileSystem& files, const std::string& path, const Checkpoint& checkpoint) {
  NAUTILE_ASSIGN(MappedFile mapped, files.map(path));
  auto file = std::make_shared<const MappedFile>(std::move(mapped));
  NAUTILE_ASSIGN(RepackedHeader header, parse_repacked_header(file->bytes(), path));
  NAUTILE_ASSIGN(const std::vector<RepackedShard> shards, identify(checkpoint));
  const auto other = [&](std::string what, const std::string& where) {
    return Status(Code::kInvalidArgument, std::move(what), fmt::format("{}, made from {}", path, where),
                  "make it again with `nautile repack`, or name the file of this checkpoint");
  };
  if (header.shards.size() != shards.size()) {
    return other(fmt::format("the checkpoint has {} shards, the repacked file was made from {}", shards.size(),
                             header.shards.size()),
                 "another checkpoint");
  }
  bool times_differ = false;
  for (size_t i = 0; i < shards.size(); ++i) {
    const RepackedShard &now = shards[i], &then = header.shards[i];
    if (now.name != then.name || now.bytes != then.bytes) {
      return other(fmt::format("the checkpoint has {} with {} bytes in that place", now.name, now.bytes),
                   fmt::format("{} with {} bytes", then.name, then.bytes));
    }
    if (now.digest != then.digest) return other("the checkpoint's shard has other contents now", then.name);
    times_differ |= now.modified_ns != then.modified_ns;
  }
  RepackedFile out(path, std::move(file), std::move(header));
  out.times_differ_ = times_differ;
  return out;
}

Status RepackedFile::make(FileSystem& files, const std::string& path, const Checkpoint& checkpoint, Weights& rows,
                          ThreadPool* pool, const LoadProgressFunction& progress) {
  RepackedHeader header;
  header.layout = tile_layout();
  NAUTILE_ASSIGN(header.shards, identify(checkpoint));
  std::vector<const WeightView*> views;
  for (const TileMatrix& m : tile_matrices(rows)) {
    header.matrices.push_back({m.name, m.view->format, m.view->rows, m.view->cols});
    views.push_back(m.view);
  }
  if (views.empty()) return {Code::kUnsupported, "the checkpoint has no matrix that can be repacked", path};
  lay_out(header);
  NAUTILE_ASSIGN(const std::unique_ptr<FileWriter> writer, files.create(path, header.file_bytes()));
  BlockPacker packer(header, std::move(views), pool != nullptr ? pool->threads() : 1);
  NAUTILE_RETURN_IF_ERROR(for_blocks(header.blocks(), header.data_bytes, pool, "writing tiles", progress,
                                     [&](int worker, uint64_t block) -> Status {
                                       NAUTILE_ASSIGN(const std::span<const std::byte> bytes, packer.pack(worker, block));
                                       header.block_sums[block] = sum_of(bytes);
                                       return writer->write(header.data_begin + block * kRepackedBlock, bytes);
                                     }));
  const std::string head = repacked_header_bytes(header);
  NAUTILE_RETURN_IF_ERROR(writer->write(0, std::as_bytes(std::span(head))));
  return writer->finish();
}

const RepackedMatrix* RepackedFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &header_.matrices[found->second];
}

bool RepackedFile::holds(std::string_view tensor) const {
  const size_t dot = tensor.find_last_of('.');
  if (dot == std::string_view::npos) return false;
  const RepackedMatrix* m = find(tensor.substr(0, dot));
  return m != nullptr &&
         (tensor.substr(dot) == ".weight" || (tensor.substr(dot) == ".scale" && m->format == WeightFormat::kFp4));
}

std::string RepackedFile::where(uint64_t block) const {
  const uint64_t at = block * kRepackedBlock;
  const auto after = std::upper_bound(header_.matrices.begin(), header_.matrices.end(), at,
                                      [](uint64_t offset, const RepackedMatrix& m) { return offset < m.offset; });
  return fmt::format("{}, from matrix {} on, byte {}", path_, (after - 1)->name, header_.data_begin + at);
}

Status RepackedFile::check(ThreadPool* pool, const LoadProgressFunction& progress) const {
  return for_blocks(
      header_.blocks(), header_.data_bytes, pool, "checking tiles", progress, [&](int, uint64_t block) -> Status {
        const uint64_t begin = block * kRepackedBlock;
        const std::span<const std::byte> bytes(tiles() + begin, std::min(kRepackedBlock, header_.data_bytes - begin));
        if (Status read = populate_pages(bytes.data(), bytes.size()); !read.ok())
          return std::move(read).at(where(block));
        if (sum_of(bytes) == header_.block_sums[block]) return {};
        return {Code::kCorrupt, "the tiles' checksum is wrong: the file was damaged after it was made", where(block),
                "make it again with `nautile repack`, and have an eye on this disk"};
      });
}

Status RepackedFile::compare(Weights& rows, ThreadPool* pool, const LoadProgressFunction& progress) const {
  std::vector<const WeightView*> views;
  std::vector<TileMatrix> all = tile_matrices(rows);
  for (const RepackedMatrix& m : header_.matrices) {
    const size_t i = views.size();
    if (i >= all.size() || all[i].name != m.name || !same_shape(m, *all[i].view)) {
      return {Code::kInvalidArgument, fmt::format("the checkpoint has no {} of that shape in that place", m.name),
              path_, "make the file again with `nautile repack`"};
    }
    views.push_back(all[i].view);
  }
  BlockPacker packer(header_, std::move(views), pool != nullptr ? pool->threads() : 1);
  return for_blocks(header_.blocks(), header_.data_bytes, pool, "comparing tiles", progress,
                    [&](int worker, uint64_t block) -> Status {
                      NAUTILE_ASSIGN(const std::span<const std::byte> bytes, packer.pack(worker, block));
                      if (sum_of(bytes) == header_.block_sums[block]) return {};
                      return {Code::kInvalidArgument, "the checkpoint has other weights than the repacked file", where(block),
                              "make the file again with `nautile repack`"};
                    });
}

Status RepackedFile::attach(Weights& rows, const Packing& packing) const {
  std::vector<TileMatrix> all = tile_matrices(rows);
  std::erase_if(all,
                [&](const TileMatrix& m) { return !takes_tiles(packing.kernels, packing.policy, m.view->format); });
  for (const TileMatrix& m : all) {
    const RepackedMatrix* stored = find(m.name);
    if (stored == nullptr || !same_shape(*stored, *m.view)) {
      return {Code::kInvalidArgument, fmt::format("the file has no {} of the checkpoint's shape and format", m.name),
              path_, "make it again with `nautile repack`"};
    }
  }
  for (const TileMatrix& m : all) {
    const RepackedMatrix& stored = *find(m.name);
    set_tiles(*m.view, tiles() + stored.offset);
    rows.tile_bytes += stored.bytes();
  }
  rows.tiles = file_;
  rows.tiles_mapped = true;
  return {};
}

}  // namespace nautile
