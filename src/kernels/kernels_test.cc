// Every version of every operation against a float64 computation, at odd sizes and unaligned, and the promise that a
// result does not depend on the tokens and rows it was computed with.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/registry.h"
#include "tensor/formats.h"
#include "tensor/quantise.h"

using namespace nautile;

namespace {

struct Random {
  std::mt19937 engine{7};
  float normal() { return std::normal_distribution<float>()(engine); }
  uint32_t bits() { return static_cast<uint32_t>(engine()); }
  std::vector<float> floats(size_t count) {
    std::vector<float> x(count);
    for (float& v : x) v = normal();
    return x;
  }
};

// A weight matrix with its float64 twin; the bytes start one past an aligned address.
struct Weight {
  WeightView view;
  std::vector<std::byte> bytes;
  std::vector<uint8_t> scales;
  std::vector<double> values;  // [rows, cols]
};

Weight make_weight(WeightFormat format, size_t rows, size_t cols, Random& random) {
  Weight w;
  w.view = {format, rows, cols, nullptr, nullptr, WeightLayout::kRows};
  w.bytes.resize(rows * w.view.row_bytes() + 1);
  std::byte* data = w.bytes.data() + 1;
  w.values.resize(rows * cols);
  const size_t scale_cols = format == WeightFormat::kFp4 ? cols / 32 : (cols + 127) / 128;
  const size_t scale_rows = format == WeightFormat::kFp4 ? rows : (rows + 127) / 128;
  w.scales.resize(scale_rows * scale_cols);
  for (uint8_t& s : w.scales) s = static_cast<uint8_t>(119 + random.bits() % 12);
  if (!w.scales.empty()) w.scales[0] = 1;  // 2^-126: products are denormal
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < cols; ++c) {
      double& value = w.values[r * cols + c];
      switch (format) {
        case WeightFormat::kF32: {
          const float x = random.normal();
          std::memcpy(data + 4 * (r * cols + c), &x, 4);
          value = x;
          break;
        }
        case WeightFormat::kBf16: {
          const uint16_t x = f32_to_bf16(random.normal());
          std::memcpy(data + 2 * (r * cols + c), &x, 2);
          value = bf16_to_f32(x);
          break;
        }
        case WeightFormat::kFp8: {
          uint8_t code = static_cast<uint8_t>(random.bits());
          if ((code & 0x7f) == 0x7f) code = 0x7e;
          data[r * cols + c] = static_cast<std::byte>(code);
          value = static_cast<double>(e4m3_to_f32(code)) * e8m0_to_f32(w.scales[r / 128 * scale_cols + c / 128]);
          break;
        }
        case WeightFormat::kFp4: {
          const uint8_t code = random.bits() % 16;
          std::byte& pair = data[(r * cols + c) / 2];
          pair = c % 2 == 0 ? static_cast<std::byte>(code) : pair | static_cast<std::byte>(code << 4);
          value = static_cast<double>(e2m1_to_f32(code)) * e8m0_to_f32(w.scales[r * scale_cols + c / 32]);
          break;
        }
      }
    }
  }
  w.view.data = data;
  w.view.scales = w.scales.data();
  return w;
}

// The product of float rows, x_stride apart, into y, y_stride apart.
void matmul(const Kernels& kernels, const WeightView& view, const float* x, size_t x_stride, size_t tokens, float* y,
            size_t y_stride, size_t row_begin, size_t row_end) {
  std::vector<const std::byte*> xs;
  std::vector<float*> ys;
  for (size_t t = 0; t < tokens; ++t) {
    xs.push_back(reinterpret_cast<const std::byte*>(x + t * x_stride));
    ys.push_back(y + t * y_stride);
  }
  kernels.matmul({view, ActivationFormat::kF32, xs.data(), ys.data(), 0, tokens, row_begin, row_end});
}

}  // namespace

TEST_CASE("the registry names what there is") {
  CHECK(available_isas().front() == "ref");
  CHECK(find_kernels("auto").ok());
  CHECK(std::ranges::count(all_kernels(), find_kernels("auto").value()) == 1);
  const auto status = find_kernels("sse9").status();
  CHECK(status.code() == Code::kInvalidArgument);
  CHECK(status.fix().find("ref") != std::string::npos);
  CHECK(built_isas() == std::vector<std::string>{"ref", "avx2", "avx512", "amx"});
  for (const std::string& isa : built_isas()) {
    const std::vector<std::string> able = available_isas();
    const bool here = std::ranges::find(able, isa) != able.end();
    const auto found = find_kernels(isa);
    CHECK(found.ok() == here);
    if (here) {
      CHECK(found.value()->name == isa);
    } else {
      CHECK(found.status().code() == Code::kInvalidArgument);
      CHECK(found.status().message().find("cannot run the " + isa) != std::string::npos);
    }
  }
}

TEST_CASE("matmul equals float64 for every format, and each element is the same in every batch and row range") {
  Random random;
  for (auto [format, rows, cols] : {std::tuple{WeightFormat::kF32, 7u, 37u},
                                    {WeightFormat::kF32, 24u, 256u},
                                    {WeightFormat::kBf16, 5u, 100u},
                                    {WeightFormat::kBf16, 33u, 65u},
                                    {WeightFormat::kFp8, 131u, 200u},
                                    {WeightFormat::kFp8, 3u, 129u},
                                    {WeightFormat::kFp4, 9u, 32u},
                                    {WeightFormat::kFp4, 17u, 416u}}) {
    const Weight w = make_weight(format, rows, cols, random);
    const size_t tokens = 7;
    const std::vector<float> x = random.floats(tokens * (cols + 3));
    for (const Kernels* kernels : all_kernels()) {
      std::vector<float> y(tokens * rows);
      matmul(*kernels, w.view, x.data(), cols + 3, tokens, y.data(), rows, 0, rows);
      for (size_t t = 0; t < tokens; ++t) {
        for (size_t r = 0; r < rows; ++r) {
          double sum = 0, size = 0;
          for (size_t k = 0; k < cols; ++k) {
            const double term = static_cast<double>(x[t * (cols + 3) + k]) * w.values[r * cols + k];
            sum += term;
            size += std::fabs(term);
          }
          CHECK_MESSAGE(std::fabs(y[t * rows + r] - sum) <= 3e-6 * size + 1e-30, kernels->name);
        }
      }
      // One token and a few rows at a time must give the same bits.
      std::vector<float> alone(rows);
      for (size_t t = 0; t < tokens; ++t) {
        for (size_t begin = 0; begin < rows; begin += 3) {
          matmul(*kernels, w.view, x.data() + t * (cols + 3), cols + 3, 1, alone.data(), rows, begin,
                 std::min<size_t>(rows, begin + 3));
        }
        CHECK(std::memcmp(alone.data(), y.data() + t * rows, rows * 4) == 0);
      }
    }
  }
}

TEST_CASE("a NaN scale gives NaN and an E8M0 zero is 2^-127, in every version") {
  Random random;
  Weight w = make_weight(WeightFormat::kFp4, 2, 32, random);
  std::memset(w.bytes.data(), 0x22, w.bytes.size());  // every code is 1.0
  w.scales = {255, 0};
  w.view.scales = w.scales.data();
  const std::vector<float> x(32, 1.f);
  for (const Kernels* kernels : all_kernels()) {
    float y[2];
    matmul(*kernels, w.view, x.data(), 32, 1, y, 2, 0, 2);
    CHECK(std::isnan(y[0]));
    CHECK(y[1] == 0x1p-122f);
  }
}

TEST_CASE("FP8 scales from the smallest to the largest are applied exactly") {
  Random random;
  for (const uint8_t scale : {1, 100, 127, 134, 135, 200, 245}) {
    Weight w = make_weight(WeightFormat::kFp8, 1, 40, random);
    w.scales = {scale};
    w.view.scales = w.scales.data();
    std::vector<float> x(40, 0.f);
    for (size_t k = 0; k < 40; ++k) {
      std::fill(x.begin(), x.end(), 0.f);
      x[k] = 1;
      const float expected = e4m3_to_f32(static_cast<uint8_t>(w.view.data[k])) * e8m0_to_f32(scale);
      for (const Kernels* kernels : all_kernels()) {
        float y = 0;
        matmul(*kernels, w.view, x.data(), 40, 1, &y, 1, 0, 1);
        CHECK_MESSAGE(y == expected, kernels->name << " scale " << int{scale});
      }
    }
  }
}
