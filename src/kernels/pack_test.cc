// Packing: every version writes the bytes of the plain one, which tiles_test.cc holds against the formats; finds every NaN
// code and no other; reads nothing behind the matrix.
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/tiles.h"

using namespace nautile;

namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::kFp4, WeightFormat::kFp8, WeightFormat::kBf16};

// Bytes that end where memory ends.
class AtEnd {
 public:
  explicit AtEnd(size_t bytes) {
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE)), whole = (bytes + page) / page * page;
    size_ = whole + page;
    base_ = static_cast<std::byte*>(::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(base_ != MAP_FAILED);
    REQUIRE(::mprotect(base_ + whole, page, PROT_NONE) == 0);
    data_ = base_ + whole - bytes;
  }
  AtEnd(const AtEnd&) = delete;
  AtEnd& operator=(const AtEnd&) = delete;
  ~AtEnd() { ::munmap(base_, size_); }
  std::byte* data() const { return data_; }

 private:
  std::byte *base_ = nullptr, *data_ = nullptr;
  size_t size_ = 0;
};

size_t scale_count(const WeightView& w) {
  if (w.format == WeightFormat::kFp4) return w.rows * (w.cols / 32);
  return w.format == WeightFormat::kFp8 ? (w.rows + 127) / 128 * ((w.cols + 127) / 128) : 0;
}

// A matrix without NaN codes whose values and scales end where memory ends.
struct Matrix {
  WeightView w;
  AtEnd values, scales;

  Matrix(WeightFormat format, size_t rows, size_t cols)
      : w{format, rows, cols, nullptr, nullptr, WeightLayout::kRows},
        values(rows * w.row_bytes()),
        scales(scale_count(w)) {
    std::mt19937 random(7);
    for (size_t i = 0; i < rows * w.row_bytes(); ++i) {
      std::byte& b = values.data()[i] = static_cast<std::byte>(random());
      if (format == WeightFormat::kFp8 && (b & std::byte{0x7f}) == std::byte{0x7f}) b ^= std::byte{1};
    }
    for (size_t i = 0; i < scale_count(w); ++i) scales.data()[i] = static_cast<std::byte>(random() % 255);
    w.data = values.data();
    w.scales = reinterpret_cast<const uint8_t*>(scales.data());
  }
};

constexpr size_t kAround = 65;

// Tiles [begin, end) at an odd address, with what lies before and behind them.
std::vector<std::byte> packed(const Packer& packer, const WeightView& w, size_t begin, size_t end, bool& nan) {
  const size_t bytes = tile_bytes(w.format, w.cols);
  std::vector<std::byte> out((end - begin) * bytes + 2 * kAround, std::byte{0xa5});
  nan = pack_tiles(packer, w, begin, end, out.data() + kAround - begin * bytes);
  return out;
}

std::vector<size_t> columns(WeightFormat format) {
  if (format == WeightFormat::kFp4) return {32, 64, 96, 480, 512, 544, 1024, 1120};
  return {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 40, 64, 127, 128, 131, 256, 384, 392};
}

}  // namespace

TEST_CASE("every version packs the same bytes: odd rows and columns, unaligned, any range of tiles, no byte too far") {
  const std::vector<Packer> versions = packers();
  REQUIRE(versions[0].name == std::string("plain"));
  for (const WeightFormat format : kFormats) {
    for (const size_t rows : {1u, 15u, 16u, 17u, 31u, 32u, 33u, 48u, 100u}) {
      for (const size_t cols : columns(format)) {
        const Matrix m(format, rows, cols);
        for (size_t begin = 0; begin < tile_count(rows); ++begin) {
          for (size_t end = begin + 1; end <= tile_count(rows); ++end) {
            bool nan = true;
            const std::vector<std::byte> expected = packed(versions[0], m.w, begin, end, nan);
            REQUIRE(!nan);
            for (const Packer& version : versions) {
              const std::vector<std::byte> got = packed(version, m.w, begin, end, nan);
              REQUIRE_MESSAGE(std::ranges::equal(got, expected), version.name, " ", rows, "x", cols);
              REQUIRE(!nan);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("a NaN code is found at every place, in its own tile only, and in no format without one") {
  for (const WeightFormat format : kFormats) {
    for (const auto& [rows, cols] : {std::pair<size_t, size_t>{49, 64}, {160, 32}, {17, 544}, {33, 160}}) {
      const Matrix m(format, rows, cols);
      const size_t tiles = tile_count(rows);
      std::vector<std::byte> out(tiles * tile_bytes(format, cols));
      const auto found = [&](const Packer& packer, size_t begin, size_t end) {
        return pack_tiles(packer, m.w, begin, end, out.data());
      };
      // The whole is held for every place, tile by tile for a few.
      const auto hold = [&](std::byte& place, std::byte code, bool counts, size_t first_row, size_t last_row, bool each) {
        const std::byte kept = place;
        place = code;
        for (const Packer& packer : packers()) {
          REQUIRE(found(packer, 0, tiles) == counts);
          for (size_t tile = 0; each && tile < tiles; ++tile) {
            const bool here = tile >= first_row / kTileRows && tile <= last_row / kTileRows;
            REQUIRE(found(packer, tile, tile + 1) == (counts && here));
          }
        }
        place = kept;
      };
      const size_t bytes = rows * m.w.row_bytes();
      for (size_t i = 0; i < bytes; i += format == WeightFormat::kFp8 ? 1 : 61) {
        const size_t row = i / m.w.row_bytes();
        for (const int code : {0x7f, 0xff}) {
          hold(m.values.data()[i], static_cast<std::byte>(code), format == WeightFormat::kFp8, row, row, i % 97 == 0);
        }
      }
      for (size_t i = 0; i < scale_count(m.w); ++i) {
        const bool fp4 = format == WeightFormat::kFp4;
        const size_t row = fp4 ? i / (cols / 32) : i / ((cols + 127) / 128) * 128;
        hold(m.scales.data()[i], std::byte{0xff}, true, row, fp4 ? row : row + 127, true);
        hold(m.scales.data()[i], std::byte{0xfe}, false, row, row, false);
      }
    }
  }
}

TEST_CASE("the list of faint codes: all that are in rows and columns, or none when it has no room or shifts would not do") {
  for (const auto& [rows, cols] : {std::pair<size_t, size_t>{32, 128}, {45, 384}, {96, 260}, {7, 4096}, {40, 3}}) {
    Matrix m(WeightFormat::kFp8, rows, cols);
    const size_t padded = padded_cols(WeightFormat::kFp8, cols), room = faint_room(padded);
    std::byte* const codes = m.values.data();
    for (size_t i = 0; i < rows * cols; ++i) codes[i] |= std::byte{0x08};
    for (size_t i = 0; i < rows * cols; ++i) {
      if ((codes[i] & std::byte{0x7f}) == std::byte{0x7f}) codes[i] ^= std::byte{1};
    }
    for (size_t i = 0; i < scale_count(m.w); ++i) m.scales.data()[i] = std::byte{kMostListedScale};
    const auto list = [&](size_t tile) {
      bool nan = false;
      const std::vector<std::byte> out = packed(packers().back(), m.w, tile, tile + 1, nan);
      std::vector<uint32_t> words(1 + room);
      std::memcpy(words.data(), out.data() + kAround + faint_list_place(padded), 4 * words.size());
      return words;
    };
    for (size_t tile = 0; tile < tile_count(rows); ++tile) REQUIRE(list(tile)[0] == 0);

    // As many as there is room for in the last tile, its last code among them; one more is too many.
    const size_t tile = tile_count(rows) - 1, first = tile * kTileRows * cols, here = rows * cols - first;
    std::vector<uint32_t> expected;
    for (size_t i = 0; i < std::min(room, here); ++i) {
      const size_t at = here - 1 - i * (here / std::min(room, here));
      codes[first + at] = static_cast<std::byte>(i % 8 | i % 2 << 7);
      expected.push_back(static_cast<uint32_t>(at % cols << 16 | at / cols << 8 | (i % 8 | i % 2 << 7)));
    }
    std::vector<uint32_t> got = list(tile);
    REQUIRE(got[0] == expected.size());
    got.erase(got.begin());
    got.resize(expected.size());
    std::ranges::sort(got);
    std::ranges::sort(expected);
    CHECK(got == expected);
    for (size_t other = 0; other < tile; ++other) CHECK(list(other)[0] == 0);
    for (size_t i = 0; i < here && room < here; ++i) {
      std::byte& code = codes[first + i];
      if ((code & std::byte{0x78}) == std::byte{0}) continue;
      const std::byte kept = code;
      code = std::byte{0};
      CHECK(list(tile)[0] == kNoList);
      code = std::byte{0x7f};
      CHECK(list(tile)[0] == kNoList);
      code = kept;
      break;
    }
    m.scales.data()[scale_count(m.w) - 1] = std::byte{kMostListedScale + 1};
    CHECK(list(tile)[0] == kNoList);
  }
}
