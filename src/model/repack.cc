// Matrix by matrix, in pieces of a few megabytes that any thread may take.
#include "model/repack.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "model/weights.h"
#include "sys/memory.h"

namespace nautile {
namespace {

constexpr size_t kPieceBytes = 4 << 20;

struct Matrix {
  WeightView* view;
  std::byte* out = nullptr;
};

struct Piece {
  size_t matrix, tile_begin, tile_end;
};

std::vector<Matrix> matrices(Weights& weights) {
  std::vector<Matrix> found;
  auto add = [&](std::initializer_list<WeightView*> views) {
    for (WeightView* view : views) found.push_back({view});
  };
  auto add_layer = [&](Layer& layer) {
    Attention& a = layer.attn;
    add({&a.wq_a, &a.wq_b, &a.wkv, &a.wo_a, &a.wo_b, &a.compressor.wkv, &a.compressor.wgate, &a.indexer.wq_b,
         &a.indexer.weights_proj, &a.indexer.compressor.wkv, &a.indexer.compressor.wgate, &layer.moe.gate});
    for (Expert& expert : layer.moe.experts) add({&expert.w1, &expert.w3, &expert.w2});
    add({&layer.moe.shared.w1, &layer.moe.shared.w3, &layer.moe.shared.w2});
  };
  for (Layer& layer : weights.layers) add_layer(layer);
  add({&weights.head});
  if (weights.mtp != nullptr) {
    add_layer(weights.mtp->layer);
    add({&weights.mtp->e_proj, &weights.mtp->h_proj});
  }
  return found;
}

void release(const WeightView& view, size_t tile_begin, size_t tile_end) {
  const size_t begin = tile_begin * kTileRows, end = std::min(view.rows, tile_end * kTileRows);
  release_pages(view.data + begin * view.row_bytes(), (end - begin) * view.row_bytes());
  if (view.format != WeightFormat::kFp4) return;  // FP8 scales stay where they are
  release_pages(view.scales + begin * (view.cols / 32), (end - begin) * (view.cols / 32));
}

}  // namespace

Status pack_weights(Weights& weights, const Packing& packing) {
  if (packing.kernels == nullptr || packing.kernels->tiles == nullptr || !packing.policy.tiles) return {};
  const TileKernels& kernels = *packing.kernels->tiles;
  std::vector<Matrix> all = matrices(weights);
  std::erase_if(all, [&](const Matrix& m) {
    const WeightFormat format = m.view->format;
    return m.view->rows == 0 || format == WeightFormat::kF32 ||
           (format == WeightFormat::kFp4 && !packing.policy.int8_experts && !kernels.wide_fp4);
  });
  size_t total = 0;
  for (const Matrix& m : all) total += tile_count(m.view->rows) * tile_bytes(m.view->format, m.view->cols);
  NAUTILE_ASSIGN(weights.tiles, large_pages(total));
  std::vector<Piece> pieces;
  size_t at = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    all[i].out = weights.tiles.get() + at;
    const size_t bytes = tile_bytes(all[i].view->format, all[i].view->cols), tiles = tile_count(all[i].view->rows);
    const size_t step = std::max<size_t>(1, kPieceBytes / bytes);
    for (size_t tile = 0; tile < tiles; tile += step) pieces.push_back({i, tile, std::min(tiles, tile + step)});
    at += tiles * bytes;
  }
  std::mutex mutex;  // of `done` and the callback
  uint64_t done = 0;
  auto pack = [&](int, size_t index) {
    const Piece& piece = pieces[index];
    const Matrix& m = all[piece.matrix];
    pack_tiles(*m.view, piece.tile_begin, piece.tile_end, m.out);
    if (packing.release_source) release(*m.view, piece.tile_begin, piece.tile_end);
    if (!packing.progress) return;
    const std::lock_guard lock(mutex);
    done += (piece.tile_end - piece.tile_begin) * tile_bytes(m.view->format, m.view->cols);
    packing.progress(done, total);
  };
  if (packing.pool != nullptr) {
    packing.pool->for_items(pieces.size(), pack);
  } else {
    for (size_t i = 0; i < pieces.size(); ++i) pack(0, i);
  }
  for (const Matrix& m : all) {
    m.view->data = m.out;
    m.view->layout = WeightLayout::kTiles;
    if (m.view->format == WeightFormat::kFp4) m.view->scales = nullptr;
  }
  return {};
}

}  // namespace nautile
