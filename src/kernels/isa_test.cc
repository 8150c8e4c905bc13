// One table of the operations, one test: every version against ref within the operation's bound, for values and scales of
// every kind, at odd sizes, from addresses of every alignment. NaN must come out exactly where it does in ref.
// Products of tiles, which ref does not have, are in tiles_test.cc; quantisers to the bit in elements_test.cc.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "kernels/registry.h"
#include "kernels/tiles.h"
#include "tensor/formats.h"
#include "tensor/quantise.h"

using namespace nautile;

namespace {

enum class Kind { kNormal, kDenormal, kHuge, kMixed, kNan, kNanScale };
constexpr Kind kKinds[] = {Kind::kNormal, Kind::kDenormal, Kind::kHuge, Kind::kMixed, Kind::kNan, Kind::kNanScale};
constexpr const char* kNames[] = {"normal", "denormal", "huge", "mixed", "NaN", "NaN scale"};

// Inputs of one run, the same for every version: values of a kind; bytes lie `shift` bytes past an aligned address, floats so
// many floats.
class Inputs {
 public:
  Inputs(Kind kind, size_t size, size_t shift) : kind_(kind), shift_(shift), engine_(static_cast<uint32_t>(size * 7 + 1)) {}

  Kind kind() const { return kind_; }
  uint32_t bits() { return static_cast<uint32_t>(engine_()); }
  // All of one size of exponent, or of every size; `nan`: one of them is NaN when that is the kind.
  std::vector<float> values(size_t count, bool nan = true) {
    std::vector<float> x(count);
    for (float& v : x) {
      v = std::normal_distribution<float>()(engine_);
      if (kind_ == Kind::kDenormal) v = std::ldexp(v, -130);
      if (kind_ == Kind::kHuge) v = std::ldexp(v, 50);
      if (kind_ == Kind::kMixed) v = bits() % 5 == 0 ? 0.f : std::ldexp(v, static_cast<int>(bits() % 60) - 40);
    }
    if (kind_ == Kind::kNan && nan) x[count / 2] = std::numeric_limits<float>::quiet_NaN();
    return x;
  }
  std::vector<float> normals(size_t count) {
    std::vector<float> x(count);
    for (float& v : x) v = std::normal_distribution<float>()(engine_);
    return x;
  }
  // E8M0 around one; of the kind's exponents; 255 in one place when that is the kind.
  std::vector<uint8_t> scales(size_t count) {
    std::vector<uint8_t> s(count);
    for (uint8_t& v : s) {
      v = static_cast<uint8_t>(124 + bits() % 6);
      if (kind_ == Kind::kDenormal) v = static_cast<uint8_t>(bits() % 3);
      if (kind_ == Kind::kHuge) v = static_cast<uint8_t>(180 + bits() % 6);
      if (kind_ == Kind::kMixed) v = static_cast<uint8_t>(90 + bits() % 60);
    }
    if (kind_ == Kind::kNanScale) s[count / 2] = 255;
    return s;
  }
  template <class T>
  const T* place(const std::vector<T>& from) {
    std::vector<std::byte>& room = rooms_.emplace_back(from.size() * sizeof(T) + 64 + shift_ * sizeof(T));
    std::byte* at = room.data() + (64 - reinterpret_cast<uintptr_t>(room.data()) % 64) + shift_ * sizeof(T);
    std::memcpy(at, from.data(), from.size() * sizeof(T));
    return reinterpret_cast<const T*>(at);
  }

 private:
  Kind kind_;
  size_t shift_;
  std::mt19937 engine_;
  std::vector<std::vector<std::byte>> rooms_;
};

// What a version made, and by what its errors are measured: the sum of the terms' sizes.
struct Outcome {
  std::vector<float> values;
  std::vector<double> sizes;
};

struct Operation {
  std::string name;
  double bound;  // of the difference to ref, by `sizes`
  double floor;  // differences below it do not count: what BF16 products take as zero
  std::function<Outcome(const Kernels&, Inputs&, size_t size)> run;
};

Outcome product(const Kernels& kernels, Inputs& in, size_t cols, WeightFormat format) {
  const size_t rows = 131, tokens = 5;
  if (format == WeightFormat::kFp4) cols = (cols + 31) / 32 * 32;
  WeightView w{format, rows, cols, nullptr, nullptr, WeightLayout::kRows};
  std::vector<std::byte> bytes(rows * w.row_bytes());
  for (std::byte& b : bytes) {
    b = static_cast<std::byte>(in.bits());
    if (format == WeightFormat::kFp8 && (b & std::byte{0x7f}) == std::byte{0x7f}) b = std::byte{3};
  }
  if (format == WeightFormat::kFp8 && in.kind() == Kind::kNan) {  // a NaN code of each sign, one of them in the tail
    bytes[2 * cols + cols / 2] = std::byte{0x7f};
    bytes[7 * cols + cols - 1] = std::byte{0xff};
  }
  if (format == WeightFormat::kF32 || format == WeightFormat::kBf16) {
    const std::vector<float> x = in.values(rows * cols);
    for (size_t i = 0; i < x.size(); ++i) {
      const uint16_t half = f32_to_bf16(x[i]);
      if (format == WeightFormat::kF32) std::memcpy(&bytes[4 * i], &x[i], 4);
      if (format == WeightFormat::kBf16) std::memcpy(&bytes[2 * i], &half, 2);
    }
  }
  const std::vector<uint8_t> scales = in.scales(format == WeightFormat::kFp4 ? rows * cols / 32 : 2 * ((cols + 127) / 128));
  w.data = in.place(bytes);
  w.scales = in.place(scales);
  const std::vector<float> x = in.kind() == Kind::kDenormal ? in.normals(tokens * cols) : in.values(tokens * cols, false);
  const float* at = in.place(x);
  Outcome out{std::vector<float>(tokens * rows), std::vector<double>(tokens * rows)};
  std::vector<const std::byte*> xs;
  std::vector<float*> ys;
  for (size_t t = 0; t < tokens; ++t) {
    xs.push_back(reinterpret_cast<const std::byte*>(at) + 4 * t * cols);
    ys.push_back(out.values.data() + t * rows);
  }
  kernels.matmul({w, ActivationFormat::kF32, xs.data(), ys.data(), 0, tokens, 0, rows});
  // Sizes: the product of absolute values, by ref.
  for (std::byte& b : bytes) {
    if (format == WeightFormat::kFp8) b &= std::byte{0x7f};
    if (format == WeightFormat::kFp4) b &= std::byte{0x77};
  }
  const size_t unit = format == WeightFormat::kF32 ? 4 : 2;
  if (unit * rows * cols == bytes.size()) {
    for (size_t i = unit - 1; i < bytes.size(); i += unit) bytes[i] &= std::byte{0x7f};
  }
  std::vector<float> positive(x.size()), sums(tokens * rows);
  for (size_t i = 0; i < x.size(); ++i) positive[i] = std::fabs(x[i]);
  w.data = bytes.data();
  w.scales = scales.data();
  for (size_t t = 0; t < tokens; ++t) {
    xs[t] = reinterpret_cast<const std::byte*>(positive.data() + t * cols);
    ys[t] = sums.data() + t * rows;
  }
  find_kernels("ref").value()->matmul({w, ActivationFormat::kF32, xs.data(), ys.data(), 0, tokens, 0, rows});
  out.sizes.assign(sums.begin(), sums.end());
  return out;
}

Outcome attention(const Kernels& kernels, Inputs& in, size_t count, KvFormat format) {
  const KvLayout kv{format, 96, 32};
  const size_t heads = 5;
  std::vector<std::byte> bytes(count * kv.row_bytes());
  double most = 0;
  for (size_t j = 0; j < count; ++j) {
    const std::vector<float> row = in.kind() == Kind::kNan && j != count / 3 ? in.normals(96) : in.values(96);
    std::byte* at = bytes.data() + j * kv.row_bytes();
    if (format == KvFormat::kF32) {
      std::memcpy(at, row.data(), kv.row_bytes());
    } else {
      auto* codes = reinterpret_cast<uint8_t*>(at);
      fp8_encode(row.data(), kv.nope(), 64, codes, codes + kv.nope() + 2 * kv.rope_dim);
      if (in.kind() == Kind::kNan && j == count / 3) codes[5] = j % 2 == 0 ? 0x7f : 0xff;
      if (in.kind() == Kind::kNanScale && j == count / 3) codes[kv.nope() + 2 * kv.rope_dim] = 255;
      if (in.kind() == Kind::kDenormal) codes[kv.nope() + 2 * kv.rope_dim] = static_cast<uint8_t>(in.bits() % 3);
      for (size_t i = 0; i < kv.rope_dim; ++i) {
        const uint16_t half = f32_to_bf16(row[kv.nope() + i]);
        std::memcpy(codes + kv.nope() + 2 * i, &half, 2);
      }
    }
    for (const float v : row) most = std::max(most, std::isnan(v) ? 0. : std::fabs(static_cast<double>(v)));
  }
  const std::byte* rows = in.place(bytes);
  std::vector<const std::byte*> pointers;
  for (size_t j = 0; j < count; ++j) pointers.push_back(rows + j * kv.row_bytes());
  const std::vector<float> q = in.normals(heads * 96), sink = in.normals(heads);
  Outcome out{std::vector<float>(heads * 96), std::vector<double>(heads * 96, most + 1e-30)};
  std::vector<float> scratch(attend_scratch_floats(heads, 96));
  // Huge rows: scores stay in a range where their rounding does not decide the softmax.
  const float scale = static_cast<float>(0.1 / std::max(1., most));
  kernels.attend({kv, pointers.data(), count, in.place(q), in.place(sink), heads, scale, AttendPrecision::kFloat,
                  out.values.data(), scratch.data()});
  return out;
}

Outcome index_keys(const Kernels& kernels, Inputs& in, size_t count, KvFormat format) {
  const IndexLayout layout{format, 64};
  const size_t heads = 6, block = 16;
  std::vector<std::byte> bytes((count + block) * layout.row_bytes());
  double most = 0;
  for (size_t j = 0; j < count; ++j) {
    const std::vector<float> key = in.kind() == Kind::kNan && j != count / 3 ? in.normals(64) : in.values(64);
    std::byte* at = bytes.data() + j * layout.row_bytes();
    if (format == KvFormat::kF32) {
      std::memcpy(at, key.data(), layout.row_bytes());
    } else {
      auto* codes = reinterpret_cast<uint8_t*>(at);
      fp4_encode(key.data(), 64, codes, codes + 32);
      if (in.kind() == Kind::kNanScale && j == count / 3) codes[33] = 255;
    }
    for (const float v : key) most = std::max(most, std::isnan(v) ? 0. : std::fabs(static_cast<double>(v)));
  }
  const std::byte* keys = in.place(bytes);
  std::vector<const std::byte*> blocks;
  for (size_t j = 0; j < count; j += block) blocks.push_back(keys + j * layout.row_bytes());
  std::vector<float> q = in.normals(heads * 64);
  fp4_quantise(q.data(), q.size());
  const std::vector<float> weights = in.normals(heads);
  Outcome out{std::vector<float>(count), std::vector<double>(count, most * 64 * 10 + 1e-30)};
  std::vector<float> scratch(index_scratch_floats(heads, 64, 1));
  kernels.index_scores({layout, blocks.data(), block, count, in.place(q), in.place(weights), heads, 1, false,
                        out.values.data(), count, scratch.data()});
  return out;
}

// Sums of a few products each: sizes by the largest input.
Outcome sized(std::vector<float> values, const std::vector<float>& inputs, double factor) {
  double most = 0;
  for (const float v : inputs) most = std::max(most, std::isnan(v) ? 0. : std::fabs(static_cast<double>(v)));
  std::vector<double> sizes(values.size(), most * factor + 1e-44);
  return {std::move(values), std::move(sizes)};
}

std::vector<Operation> operations() {
  std::vector<Operation> all;
  for (const auto& [name, format] : {std::pair{"F32", WeightFormat::kF32}, {"BF16", WeightFormat::kBf16},
                                     {"FP8", WeightFormat::kFp8}, {"FP4", WeightFormat::kFp4}}) {
    all.push_back({fmt::format("matmul {}", name), 6e-6, 1e-43, [format](const Kernels& k, Inputs& in, size_t n) {
                     return product(k, in, n, format);
                   }});
  }
  for (const auto& [name, format] : {std::pair{"float", KvFormat::kF32}, {"packed", KvFormat::kPacked}}) {
    all.push_back({fmt::format("attend {}", name), 4e-5, 1e-35,
                   [format](const Kernels& k, Inputs& in, size_t n) { return attention(k, in, n, format); }});
    all.push_back({fmt::format("index {}", name), 1e-5, 1e-35,
                   [format](const Kernels& k, Inputs& in, size_t n) { return index_keys(k, in, n, format); }});
  }
  auto add = [&](const char* name, double bound, std::function<Outcome(const Kernels&, Inputs&, size_t)> run) {
    all.push_back({name, bound, 1e-37, std::move(run)});
  };
  add("dot", 3e-6, [](const Kernels& k, Inputs& in, size_t n) {
    const std::vector<float> x = in.values(n), y = in.normals(n);
    return sized({k.dot(in.place(x), in.place(y), n)}, x, 4. * static_cast<double>(n));
  });
  add("axpy", 3e-7, [](const Kernels& k, Inputs& in, size_t n) {
    const std::vector<float> x = in.values(n);
    std::vector<float> y = in.normals(n);
    if (in.kind() == Kind::kDenormal) y.assign(n, 0.f);
    k.axpy(1.25f, in.place(x), y.data(), n);
    return sized(y, x, 4);
  });
  add("rms_norm", 3e-6, [](const Kernels& k, Inputs& in, size_t n) {
    const std::vector<float> x = in.values(n), weight = in.normals(n);
    std::vector<float> y(n);
    k.elements.rms_norm(in.place(x), in.place(weight), n, 1e-6f, y.data());
    return sized(y, weight, in.kind() == Kind::kDenormal ? 0 : std::sqrt(static_cast<double>(n)));
  });
  add("swiglu", 2e-6, [](const Kernels& k, Inputs& in, size_t n) {
    const std::vector<float> gate = in.values(n), up = in.values(n);
    std::vector<float> y(n);
    k.elements.swiglu(in.place(gate), in.place(up), n, 10.f, 0.5f, y.data());
    return sized(y, std::vector<float>{10.f}, in.kind() == Kind::kDenormal ? 0 : 10);
  });
  add("route_scores", 2e-6, [](const Kernels& k, Inputs& in, size_t n) {
    std::vector<float> x = in.values(n);
    const std::vector<float> logits = x;
    k.elements.route_scores(x.data(), n);
    return sized(x, logits, 1);
  });
  add("pool", 1e-5, [](const Kernels& k, Inputs& in, size_t n) {
    const std::vector<float> kv = in.values(3 * n), gates = in.kind() == Kind::kHuge ? in.normals(3 * n) : in.values(3 * n);
    const float *a = in.place(kv), *b = in.place(gates);
    const float* rows[] = {a, a + n, a + 2 * n};
    const float* weights[] = {b, b + n, b + 2 * n};
    std::vector<float> y(n);
    k.elements.pool({rows, weights, 3, n, y.data()});
    return sized(y, kv, 1);
  });
  add("collapse", 1e-6, [](const Kernels& k, Inputs& in, size_t n) {
    const std::vector<float> x = in.values(4 * n), factors = in.normals(4);
    std::vector<float> y(n);
    k.elements.collapse(in.place(factors), 4, in.place(x), n, y.data());
    return sized(y, x, 8);
  });
  add("expand", 1e-6, [](const Kernels& k, Inputs& in, size_t n) {
    const std::vector<float> y = in.values(n), post = in.normals(4), comb = in.normals(16);
    const std::vector<float> streams = in.values(4 * n, false);
    std::vector<float> x = streams, all = streams;
    k.elements.expand(in.place(post), in.place(comb), 4, in.place(y), n, x.data());
    all.insert(all.end(), y.begin(), y.end());
    return sized(x, all, 20);
  });
  add("mixing", 2e-5, [](const Kernels& k, Inputs& in, size_t n) {
    const size_t tokens = n % 7 + 1;
    const std::vector<float> raw = in.kind() == Kind::kHuge ? in.normals(24 * tokens) : in.values(24 * tokens), base = in.normals(24);
    const float scale[3] = {0.5f, 0.25f, 1.5f};
    std::vector<float> y(24 * tokens);
    k.elements.mixing({in.place(raw), tokens, 4, scale, in.place(base), 20, 1e-6f, y.data(), y.data() + 4, y.data() + 8, 24});
    return sized(y, std::vector<float>{1.f}, 2);
  });
  return all;
}

}  // namespace

TEST_CASE("every operation in every version is ref within its bound: any size, alignment, and kind of value or scale") {
  const Kernels& ref = *find_kernels("ref").value();
  for (const Operation& operation : operations()) {
    for (const Kernels* version : all_kernels()) {
      if (version == &ref) continue;
      const Kernels& kernels = *version;
      for (const Kind kind : kKinds) {
        for (const size_t size : {1u, 7u, 31u, 32u, 65u, 129u, 200u}) {
          for (const size_t shift : {0u, 1u, 13u}) {
            Inputs in(kind, size, shift), same(kind, size, shift);
            const Outcome expected = operation.run(ref, in, size), got = operation.run(kernels, same, size);
            REQUIRE(got.values.size() == expected.values.size());
            size_t wrong = 0, first = 0;
            for (size_t i = 0; i < got.values.size(); ++i) {
              const float a = got.values[i], b = expected.values[i];
              const double allowed = operation.bound * expected.sizes[i] + operation.floor;
              const bool right = std::isnan(b) ? std::isnan(a) : a == b || std::fabs(static_cast<double>(a) - b) <= allowed ||
                                                                     (!std::isnan(a) && std::isnan(allowed));
              if (!right && wrong++ == 0) first = i;
            }
            CHECK_MESSAGE(wrong == 0, fmt::format("{} in {}, {} values, size {}, shift {}: {} of {} wrong, at {} {} for {}",
                                                  operation.name, kernels.name, kNames[static_cast<int>(kind)], size, shift, wrong,
                                                  got.values.size(), first, got.values[first], expected.values[first]));
          }
        }
      }
    }
  }
}
