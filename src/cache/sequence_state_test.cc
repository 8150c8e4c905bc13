// Layout sizes, rollback limits, copy on write, and a snapshot that gives back every row a later token can see.
#include "cache/sequence_state.h"

#include <doctest/doctest.h>

#include <cstring>

using namespace nautile;

namespace {

std::shared_ptr<const CacheLayout> flash_like() {
  CacheShape shape;
  shape.ratios = {0, 4, 128, 0};
  shape.main_layers = 3;
  shape.window = 128;
  shape.kv = {KvFormat::kPacked, 512, 64};
  shape.index = {KvFormat::kPacked, 128};
  return std::make_shared<CacheLayout>(shape);
}

}  // namespace

TEST_CASE("row and block sizes are the published ones") {
  auto layout = flash_like();
  CHECK(layout->shape().kv.row_bytes() == 584);
  CHECK(layout->shape().index.row_bytes() == 68);
  CHECK(layout->block_bytes() == 32 * 584 + 32 * 68 + (584 + 63) / 64 * 64);
  CHECK(layout->layer(1).state_rows == 16);
  CHECK(layout->layer(2).state_rows == 136);
}

TEST_CASE("rollback stays within its limit") {
  SequenceState state(flash_like());
  state.reserve(300);
  state.advance(300);
  CHECK(state.rollback(291).code() == Code::kInvalidArgument);
  CHECK(state.rollback(301).code() == Code::kInvalidArgument);
  CHECK(state.rollback(292).ok());
  CHECK(state.length() == 292);
}

TEST_CASE("a snapshot restores what it took, and a shared block is copied before it is written") {
  auto layout = flash_like();
  SequenceState state(layout);
  state.reserve(256);
  state.advance(256);
  for (int64_t p = 129; p < 256; ++p) std::memset(state.window_row(0, p), static_cast<int>(p), 584);
  for (int64_t p = 252; p < 256; ++p) state.state_row(1, p)[0] = static_cast<float>(p);
  std::memset(state.writable_entry(1, 63), 7, 584);

  Snapshot snapshot = state.snapshot().value();
  SequenceState other(layout, snapshot);
  CHECK(other.length() == 256);
  for (int64_t p = 129; p < 256; ++p) CHECK(other.window_row(0, p)[583] == static_cast<std::byte>(p));
  for (int64_t p = 252; p < 256; ++p) CHECK(other.state_row(1, p)[0] == static_cast<float>(p));
  CHECK(other.entry(1, 63)[0] == std::byte{7});

  // Going back into the shared block and writing again must not be seen by the first sequence.
  REQUIRE(other.rollback(250).ok());
  other.reserve(256);
  std::memset(other.writable_entry(1, 63), 9, 584);
  CHECK(state.entry(1, 63)[0] == std::byte{7});
  CHECK(other.entry(1, 63)[0] == std::byte{9});
  CHECK(state.rows_equal(snapshot));
  CHECK_FALSE(other.rows_equal(snapshot));  // its length
  other.advance(6);
  CHECK_FALSE(other.rows_equal(snapshot));  // its block
  SequenceState third(layout, snapshot);
  CHECK(third.rows_equal(snapshot));
  third.state_row(1, 255)[0] += 1;
  CHECK_FALSE(third.rows_equal(snapshot));
  // The first sequence's block is in a snapshot too, which must not change under it.
  REQUIRE(state.rollback(250).ok());
  state.reserve(256);
  state.writable_entry(1, 63)[0] = std::byte{5};
  CHECK((*snapshot.blocks[1])[layout->layer(1).entry_offset + 31 * 584] == std::byte{7});
  state.advance(6);

  REQUIRE(state.rollback(255).ok());
  CHECK(state.snapshot().status().code() == Code::kInvalidArgument);
}
