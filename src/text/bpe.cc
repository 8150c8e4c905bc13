// BPE merging: a plain scan for words, a linked list with a heap of (rank, place) for long pieces.
#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace nautile {
namespace {

// Up to here scanning for the lowest rank beats the heap.
constexpr size_t kShortPieceBytes = 48;
constexpr uint32_t kEnd = UINT32_MAX;

uint64_t pair_of(TokenId left, TokenId right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

uint64_t spread(uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15u;
  return pair ^ pair >> 32;
}

}  // namespace

Bpe::Bpe(const std::array<TokenId, 256>& bytes, std::span<const Merge> merges) : bytes_(bytes) {
  slots_.resize(std::bit_ceil(std::max<size_t>(2 * merges.size(), 16)));
  mask_ = slots_.size() - 1;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    const uint64_t pair = pair_of(merge.left, merge.right);
    uint64_t at = spread(pair) & mask_;
    while (slots_[at].rank != kNoRank && slots_[at].pair != pair) at = (at + 1) & mask_;
    if (slots_[at].rank == kNoRank) slots_[at] = {pair, static_cast<uint32_t>(rank), merge.product};
  }
}

const Bpe::Slot& Bpe::find(TokenId left, TokenId right) const {
  const uint64_t pair = pair_of(left, right);
  uint64_t at = spread(pair) & mask_;
  while (slots_[at].rank != kNoRank && slots_[at].pair != pair) at = (at + 1) & mask_;
  return slots_[at];
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& out) const {
  if (piece.size() == 1) {
    out.push_back(bytes_[static_cast<uint8_t>(piece[0])]);
  } else if (piece.size() <= kShortPieceBytes) {
    encode_short(piece, scratch, out);
  } else {
    encode_long(piece, scratch, out);
  }
}

void Bpe::encode_short(std::string_view piece, Scratch& scratch, std::vector<TokenId>& out) const {
  auto& ids = scratch.ids;
  auto& rank = scratch.rank;  // of the pair that begins at each place
  ids.clear();
  for (const char c : piece) ids.push_back(bytes_[static_cast<uint8_t>(c)]);
  rank.assign(ids.size(), kNoRank);
  const auto rate = [&](size_t i) { rank[i] = i + 1 < ids.size() ? find(ids[i], ids[i + 1]).rank : kNoRank; };
  for (size_t i = 0; i < ids.size(); ++i) rate(i);
  for (;;) {
    const size_t best = std::min_element(rank.begin(), rank.end()) - rank.begin();  // the leftmost of equals
    if (best == rank.size() || rank[best] == kNoRank) break;
    ids[best] = find(ids[best], ids[best + 1]).product;
    ids.erase(ids.begin() + best + 1);
    rank.erase(rank.begin() + best + 1);
    rate(best);
    if (best > 0) rate(best - 1);
  }
  out.insert(out.end(), ids.begin(), ids.end());
}

void Bpe::encode_long(std::string_view piece, Scratch& scratch, std::vector<TokenId>& out) const {
  auto& ids = scratch.ids;
  auto& next = scratch.next;
  auto& previous = scratch.previous;
  auto& rank = scratch.rank;  // of the pair that begins at each place; tells stale heap entries apart
  auto& heap = scratch.heap;
  const auto size = static_cast<uint32_t>(piece.size());
  ids.resize(size);
  next.resize(size);
  previous.resize(size);
  rank.resize(size);
  heap.clear();
  for (uint32_t i = 0; i < size; ++i) {
    ids[i] = bytes_[static_cast<uint8_t>(piece[i])];
    next[i] = i + 1 < size ? i + 1 : kEnd;
    previous[i] = i > 0 ? i - 1 : kEnd;
  }
  const auto entry = [](uint32_t pair_rank, uint32_t place) { return static_cast<uint64_t>(pair_rank) << 32 | place; };
  for (uint32_t i = 0; i < size; ++i) {
    rank[i] = next[i] == kEnd ? kNoRank : find(ids[i], ids[next[i]]).rank;
    if (rank[i] != kNoRank) heap.push_back(entry(rank[i], i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto rate = [&](uint32_t i) {
    rank[i] = next[i] == kEnd ? kNoRank : find(ids[i], ids[next[i]]).rank;
    if (rank[i] == kNoRank) return;
    heap.push_back(entry(rank[i], i));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const auto place = static_cast<uint32_t>(heap.back());
    const auto wanted = static_cast<uint32_t>(heap.back() >> 32);
    heap.pop_back();
    if (rank[place] != wanted) continue;  // the pair has changed since
    const uint32_t gone = next[place];
    ids[place] = find(ids[place], ids[gone]).product;
    next[place] = next[gone];
    if (next[gone] != kEnd) previous[next[gone]] = place;
    rank[gone] = kNoRank;
    rate(place);
    if (previous[place] != kEnd) rate(previous[place]);
  }
  for (uint32_t i = 0; i != kEnd; i = next[i]) out.push_back(ids[i]);
}

}  // namespace nautile
