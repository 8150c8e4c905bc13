// The disk tier's files: what is written comes back, and no changed byte, cut or stranger is taken for it.
#include "cache/disk_format.h"

#include <doctest/doctest.h>

#include "cache/cache_for_test.h"

using namespace nautile;

namespace {

DiskHeader header_for(DiskKind kind) {
  DiskHeader header{kind, {5, 6}, {3, 4}, {7, 8}, 384, kind == DiskKind::kSnapshot ? 383 : 0, {}};
  for (size_t i = 0; i < header.tokens.size(); ++i) header.tokens[i] = static_cast<int32_t>(i * 11);
  return header;
}

}  // namespace

TEST_CASE("file names say what they name, and nothing else is one") {
  const DiskName block{{0xabc, 0x1}, DiskKind::kBlock, 17}, snapshot{{~0ull, 2}, DiskKind::kSnapshot, 1};
  CHECK(block.text() == "0000000000000abc0000000000000001-17.block");
  CHECK(DiskName::parse(block.text()) == block);
  CHECK(DiskName::parse(snapshot.text()) == snapshot);
  for (const char* bad :
       {"", "key", ".block", "0000000000000abc0000000000000001.block", "0000000000000abc0000000000000001-.block",
        "0000000000000abc0000000000000001-0.block", "0000000000000abc0000000000000001--3.block",
        "0000000000000abc0000000000000001-3x.block", "g000000000000abc0000000000000001-3.block",
        "0000000000000abc0000000000000001-3.block.partial",
        "0000000000000abc0000000000000001-99999999999999999999.snapshot"}) {
    CAPTURE(bad);
    CHECK_FALSE(DiskName::parse(bad));
  }
}

TEST_CASE("a file of each kind comes back, and with any bit flipped or any byte missing does not") {
  const PrefixHasher hasher(random_prefix_key(), {5, 6});
  const std::vector<std::byte> body(300, std::byte{42});
  for (const DiskKind kind : {DiskKind::kBlock, DiskKind::kSnapshot}) {
    const std::vector<std::byte> file = encode_disk_file(hasher, header_for(kind), body);
    REQUIRE(file.size() == kDiskHeaderBytes + 300 + kDiskChecksumBytes);
    DiskHeader expected = header_for(kind);
    expected.draft_length = -1;
    CHECK(decode_disk_file(hasher, file, expected).value() == body);
    CHECK(expected.draft_length == header_for(kind).draft_length);

    size_t taken = 0;
    for (size_t i = 0; i < file.size(); ++i) {
      for (int bit = 0; bit < 8; ++bit) {
        std::vector<std::byte> flipped = file;
        flipped[i] ^= static_cast<std::byte>(1 << bit);
        taken += decode_disk_file(hasher, flipped, expected).ok();
      }
    }
    for (size_t size = 0; size < file.size(); ++size) {
      taken +=
          decode_disk_file(hasher, {file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size)}, expected).ok();
    }
    CHECK(taken == 0);
    std::vector<std::byte> longer = file;
    longer.push_back({});
    CHECK(decode_disk_file(hasher, longer, expected).status().what() == "the file is torn");
  }
}

TEST_CASE("a whole file of another key, model, prefix or kind is told apart from a broken one") {
  const PrefixKey key = random_prefix_key();
  const PrefixHasher hasher(key, {5, 6});
  const auto file = encode_disk_file(hasher, header_for(DiskKind::kBlock), {});
  const auto code = [&](auto change) {
    DiskHeader expected = header_for(DiskKind::kBlock);
    change(expected);
    return decode_disk_file(hasher, file, expected).status().code();
  };
  CHECK(code([](DiskHeader&) {}) == Code::kOk);
  CHECK(code([](DiskHeader& h) { h.model.low = 9; }) == Code::kUnsupported);
  CHECK(code([](DiskHeader& h) { h.scope.low = 9; }) == Code::kUnsupported);
  CHECK(code([](DiskHeader& h) { h.id.low = 9; }) == Code::kUnsupported);
  CHECK(code([](DiskHeader& h) { h.kind = DiskKind::kSnapshot; }) == Code::kUnsupported);
  CHECK(code([](DiskHeader& h) { h.length = 128; }) == Code::kUnsupported);
  CHECK(code([](DiskHeader& h) { h.tokens[127] += 1; }) == Code::kUnsupported);
  DiskHeader expected = header_for(DiskKind::kBlock);
  CHECK(decode_disk_file(PrefixHasher(random_prefix_key(), {5, 6}), file, expected).status().code() == Code::kCorrupt);
}

TEST_CASE("ids depend on key, model, scope and every token") {
  const PrefixKey key = random_prefix_key();
  const PrefixHasher hasher(key, {1, 1});
  std::mt19937_64 random(1);
  std::vector<int32_t> tokens = random_tokens(random, 300);
  const auto ids = hasher.chain({1, 2}, tokens);
  REQUIRE(ids.size() == 2);
  CHECK(PrefixHasher(key, {1, 1}).chain({1, 2}, tokens) == ids);
  CHECK(PrefixHasher(key, {1, 2}).chain({1, 2}, tokens) != ids);
  CHECK(PrefixHasher(random_prefix_key(), {1, 1}).chain({1, 2}, tokens) != ids);
  CHECK(hasher.chain({1, 3}, tokens) != ids);
  tokens[299] += 1;
  CHECK(hasher.chain({1, 2}, tokens) == ids);
  tokens[0] += 1;
  CHECK(hasher.chain({1, 2}, tokens)[1] != ids[1]);
}
