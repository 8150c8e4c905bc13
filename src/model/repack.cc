// Matrix by matrix, in pieces of a few megabytes that any thread may take.
#include "model/repack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "model/node_rows.h"
#include "model/weights.h"
#include "sys/memory.h"

namespace nautile {
namespace {

constexpr size_t kPieceBytes = 4 << 20;
// A disk is at its best with several megabytes asked for; a page fault asks for 128 KB.
constexpr size_t kAhead = 6;

struct Piece {
  size_t matrix, tile_begin, tile_end;
  size_t offset;  // in the node's memory
  auto operator<=>(const Piece&) const = default;
};

// What Weights::tiles keeps.
struct NodeTiles {
  std::vector<std::shared_ptr<std::byte>> memory;  // by node
  std::vector<const std::byte*> places;            // [matrices, nodes]: of tile 0
};

}  // namespace

std::vector<TileMatrix> tile_matrices(Weights& weights) {
  std::vector<TileMatrix> found;
  auto add = [&](std::string name, WeightView& view) {
    if (view.rows != 0 && view.format != WeightFormat::kF32) found.push_back({std::move(name), &view});
  };
  auto add_expert = [&](const std::string& name, Expert& expert) {
    add(name + ".w1", expert.w1);
    add(name + ".w3", expert.w3);
    add(name + ".w2", expert.w2);
  };
  auto add_layer = [&](const std::string& prefix, Layer& layer) {
    Attention& a = layer.attn;
    const std::string attn = prefix + "attn.", ffn = prefix + "ffn.";
    add(attn + "wq_a", a.wq_a);
    add(attn + "wq_b", a.wq_b);
    add(attn + "wkv", a.wkv);
    add(attn + "wo_a", a.wo_a);
    add(attn + "wo_b", a.wo_b);
    add(attn + "compressor.wkv", a.compressor.wkv);
    add(attn + "compressor.wgate", a.compressor.wgate);
    add(attn + "indexer.wq_b", a.indexer.wq_b);
    add(attn + "indexer.weights_proj", a.indexer.weights_proj);
    add(attn + "indexer.compressor.wkv", a.indexer.compressor.wkv);
    add(attn + "indexer.compressor.wgate", a.indexer.compressor.wgate);
    add(ffn + "gate", layer.moe.gate);
    for (size_t e = 0; e < layer.moe.experts.size(); ++e) {
      add_expert(fmt::format("{}experts.{}", ffn, e), layer.moe.experts[e]);
    }
    add_expert(ffn + "shared_experts", layer.moe.shared);
  };
  for (size_t i = 0; i < weights.layers.size(); ++i) add_layer(fmt::format("layers.{}.", i), weights.layers[i]);
  add("head", weights.head);
  if (weights.mtp != nullptr) {
    add_layer("mtp.0.", weights.mtp->layer);
    add("mtp.0.e_proj", weights.mtp->e_proj);
    add("mtp.0.h_proj", weights.mtp->h_proj);
  }
  return found;
}

bool takes_tiles(const Kernels* kernels, const Policy& policy, WeightFormat format) {
  if (kernels == nullptr || kernels->tiles == nullptr || !policy.tiles || format == WeightFormat::kF32) return false;
  return format != WeightFormat::kFp4 || policy.fast_experts || kernels->tiles->wide_fp4 != ActivationFormat::kF32;
}

void set_tiles(WeightView& view, const std::byte* tiles, const std::byte* const* by_node) {
  view.data = tiles;
  view.by_node = by_node;
  view.layout = WeightLayout::kTiles;
  if (view.format == WeightFormat::kFp4) view.scales = nullptr;
}

void prefetch_rows(const WeightView& rows, size_t tile_begin, size_t tile_end) {
  const size_t begin = tile_begin * kTileRows, end = std::min(rows.rows, tile_end * kTileRows);
  prefetch_pages(rows.data + begin * rows.row_bytes(), (end - begin) * rows.row_bytes());
  if (rows.format != WeightFormat::kFp4) return;
  prefetch_pages(rows.scales + begin * (rows.cols / 32), (end - begin) * (rows.cols / 32));
}

void release_rows(const WeightView& rows, size_t tile_begin, size_t tile_end) {
  const size_t begin = tile_begin * kTileRows, end = std::min(rows.rows, tile_end * kTileRows);
  release_pages(rows.data + begin * rows.row_bytes(), (end - begin) * rows.row_bytes());
  if (rows.format != WeightFormat::kFp4) return;  // FP8 scales stay where they are
  release_pages(rows.scales + begin * (rows.cols / 32), (end - begin) * (rows.cols / 32));
}

Status refuse_nan(const std::string& name) {
  return {Code::kCorrupt, "a NaN code stands among a matrix's values or scales", fmt::format("tensor {}.weight", name),
          "compare the checksum of its file with the publisher's, and download it again"};
}

Status pack_weights(Weights& weights, const Packing& packing) {
  std::vector<TileMatrix> all = tile_matrices(weights);
  std::erase_if(all,
                [&](const TileMatrix& m) { return !takes_tiles(packing.kernels, packing.policy, m.view->format); });
  if (all.empty()) return {};
  const size_t nodes = packing.pool == nullptr ? 1 : packing.pool->nodes();
  auto held = std::make_shared<NodeTiles>();
  held->places.resize(all.size() * nodes);
  std::vector<std::vector<Piece>> pieces(nodes);
  std::vector<size_t> counts;
  size_t total = 0;
  for (size_t node = 0; node < nodes; ++node) {
    size_t at = 0;
    std::vector<size_t> offsets;  // by matrix: of tile 0, as if the node had it
    for (size_t i = 0; i < all.size(); ++i) {
      const WeightView& view = *all[i].view;
      const RowRange rows = nodes == 1 ? RowRange{0, view.rows} : node_rows(*packing.pool, view.rows, node);
      const size_t bytes = tile_bytes(view.format, view.cols), begin = rows.begin / kTileRows, end = tile_count(rows.end);
      const size_t step = std::max<size_t>(1, kPieceBytes / bytes);
      offsets.push_back(at - begin * bytes);
      for (size_t tile = begin; tile < end; tile += step) {
        pieces[node].push_back({i, tile, std::min(end, tile + step), offsets.back() + tile * bytes});
      }
      at += (end - begin) * bytes;
    }
    NAUTILE_ASSIGN(std::shared_ptr<std::byte> memory, large_pages(at, nodes == 1 ? -1 : packing.pool->memory_of(node)));
    for (size_t i = 0; i < all.size(); ++i) held->places[i * nodes + node] = memory.get() + offsets[i];
    held->memory.push_back(std::move(memory));
    counts.push_back(pieces[node].size());
    total += at;
  }
  std::mutex mutex;  // of `done`, `broken` and the callback
  uint64_t done = 0;
  Status broken;
  Piece broken_at{SIZE_MAX, 0, 0, 0};  // the first one with a NaN code
  auto note = [&](const char* what, size_t bytes) {
    if (!packing.progress) return;
    const std::lock_guard lock(mutex);
    done += bytes;
    packing.progress({what, done, total});
  };
  auto pack = [&](int, size_t node, size_t index) {
    const Piece& piece = pieces[node][index];
    const WeightView& rows = *all[piece.matrix].view;
    const size_t bytes = tile_bytes(rows.format, rows.cols), first = piece.tile_begin * bytes,
                 size = (piece.tile_end - piece.tile_begin) * bytes;
    std::byte* const out = held->memory[node].get() + piece.offset;
    if (rows.layout == WeightLayout::kTiles) {
      std::memcpy(out, rows.data + first, size);
      if (packing.release_source) release_pages(rows.data + first, size);
      note("placing tiles", size);
      return;
    }
    if (packing.release_source && index + kAhead < counts[node]) {
      const Piece& later = pieces[node][index + kAhead];
      prefetch_rows(*all[later.matrix].view, later.tile_begin, later.tile_end);
    }
    if (pack_tiles(rows, piece.tile_begin, piece.tile_end, out - first)) {
      const std::lock_guard lock(mutex);
      if (piece < broken_at) {
        broken_at = piece;
        broken = refuse_nan(all[piece.matrix].name);
      }
    }
    if (packing.release_source) release_rows(rows, piece.tile_begin, piece.tile_end);
    note("repacking", size);
  };
  if (packing.pool != nullptr) {
    packing.pool->for_items(counts, pack);
  } else {
    for (size_t i = 0; i < counts[0]; ++i) pack(0, 0, i);
  }
  NAUTILE_RETURN_IF_ERROR(broken);
  for (size_t i = 0; i < all.size(); ++i) {
    set_tiles(*all[i].view, nodes == 1 ? held->places[i] : nullptr, nodes == 1 ? nullptr : &held->places[i * nodes]);
  }
  weights.tiles = std::move(held);
  weights.tile_bytes = total;
  weights.tiles_mapped = false;
  return {};
}

}  // namespace nautile
