// RepackedFile: a model's tiles in a file, made once and mapped at later starts.
//
// The file belongs to one checkpoint and to no machine: tiles are the same for every instruction set, and what the
// kernels in use do not multiply in tiles is left aside. It never stands in for the checkpoint, which still has the
// vectors, the scales of FP8, the embedding and the FP32 matrices. Thread-safety: one caller at a time; work is spread
// over the pool it gives.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "checkpoint/tensor_table.h"
#include "model/repack.h"
#include "model/repack_format.h"
#include "model/weights.h"
#include "sys/file.h"

namespace nautile {

class RepackedFile {
 public:
  // Opens the file and holds it against the checkpoint: names, sizes and headers of the shards, and samples of their
  // data. No tile is touched. kNotFound, kIo; kCorrupt or kUnsupported when the file is no good; kInvalidArgument when
  // it was made from another checkpoint.
  static Result<RepackedFile> open(FileSystem& files, const std::string& path, const Checkpoint& checkpoint);

  // Writes the file for `rows`, which must be as load_weights() arranges them without packing, from `checkpoint`. Takes
  // a few megabytes of memory a thread. kResourceExhausted when the disk is full; nothing is left of a failure.
  static Status make(FileSystem& files, const std::string& path, const Checkpoint& checkpoint, Weights& rows,
                     ThreadPool* pool, const LoadProgressFunction& progress);

  // Whether a shard has been written to (or copied) since: its contents may be others without a sample showing it.
  bool times_differ() const { return times_differ_; }
  // Whether the file holds this tensor of the checkpoint: "layers.0.attn.wq_a.weight", "....w1.scale".
  bool holds(std::string_view tensor) const;
  uint64_t bytes() const { return header_.file_bytes(); }

  // Every tile's checksum. Brings the tiles into memory on the way. kCorrupt names the matrix; kIo.
  Status check(ThreadPool* pool, const LoadProgressFunction& progress) const;
  // Packs the checkpoint's matrices again and compares each. kInvalidArgument names the first that differs.
  Status compare(Weights& rows, ThreadPool* pool, const LoadProgressFunction& progress) const;
  // Puts the file's tiles in place of the rows, where `packing` calls for tiles. Nothing is changed on an error:
  // kInvalidArgument when a matrix is missing or has another shape.
  Status attach(Weights& rows, const Packing& packing) const;

 private:
  RepackedFile(std::string path, std::shared_ptr<const MappedFile> file, RepackedHeader header);
  const std::byte* tiles() const { return file_->bytes().data() + header_.data_begin; }
  const RepackedMatrix* find(std::string_view name) const;
  // "FILE, matrix layers.0.attn.wq_a, byte 2097152": the first matrix in a block.
  std::string where(uint64_t block) const;

  std::string path_;
  std::shared_ptr<const MappedFile> file_;
  RepackedHeader header_;
  std::unordered_map<std::string_view, size_t> by_name_;  // into header_.matrices
  bool times_differ_ = false;
};

}  // namespace nautile
