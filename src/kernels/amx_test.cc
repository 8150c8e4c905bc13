// The matrix unit's own machine code on a CPU without one: each of its instructions raises SIGILL, and the handler carries it
// out on a unit in plain code (amx/scalar_unit.h). The bits must be those of the twin, whose loops never touch a register.
#include <doctest/doctest.h>
#include <signal.h>
#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/amx/kernels.h"
#include "kernels/amx/scalar_unit.h"
#include "kernels/registry.h"
#include "sys/cpu_features.h"

using namespace nautile;

namespace {

amx::ScalarUnit unit;
size_t carried_out = 0;

// What the instruction encodings need: the general registers by number.
constexpr int kRegisters[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

// Carries out the instruction at RIP when it is one of AMX's that the kernels use (VEX.128.0F38.W0), and steps over it.
bool carry_out(greg_t* registers) {
  const auto* at = reinterpret_cast<const uint8_t*>(registers[REG_RIP]);
  if (at[0] != 0xc4 || (at[1] & 0x1f) != 2 || (at[2] & 0x84) != 0) return false;
  const int prefix = at[2] & 3, third = ~at[2] >> 3 & 15, opcode = at[3];  // prefix: 0 none, 1 66, 2 F3, 3 F2
  const int mode = at[4] >> 6, reg = at[4] >> 3 & 7, rm = at[4] & 7;
  size_t length = 5;
  uintptr_t address = 0, stride = 0;
  if (mode != 3) {
    int base = rm | (at[1] & 0x20 ? 0 : 8);
    if (rm == 4) {
      const int sib = at[length++], index = (sib >> 3 & 7) | (at[1] & 0x40 ? 0 : 8);
      base = (sib & 7) | (at[1] & 0x20 ? 0 : 8);
      if (index != 4) stride = static_cast<uintptr_t>(registers[kRegisters[index]]) << (sib >> 6);
    }
    if (mode == 0 && (base & 7) == 5) return false;  // no base register: never made here
    address = static_cast<uintptr_t>(registers[kRegisters[base]]);
    int32_t offset = 0;
    if (mode == 1) offset = static_cast<int8_t>(at[length++]);
    if (mode == 2) {
      std::memcpy(&offset, at + length, 4);
      length += 4;
    }
    address += static_cast<uintptr_t>(static_cast<intptr_t>(offset));
  }
  if (opcode == 0x49 && prefix == 0 && mode != 3) {
    uint8_t c[64];
    std::memcpy(c, reinterpret_cast<const void*>(address), 64);
    if (c[0] != 1 || c[1] != 0) return false;
    for (int i = 0; i < 8; ++i) unit.configure(i, c[48 + i], c[16 + 2 * i] | static_cast<size_t>(c[17 + 2 * i]) << 8);
  } else if (opcode == 0x49 && prefix == 0 && at[4] == 0xc0) {
    unit.release();
  } else if (opcode == 0x49 && prefix == 3 && mode == 3 && rm == 0) {
    unit.zero(reg);
  } else if (opcode == 0x4b && prefix == 3 && mode != 3 && rm == 4) {
    unit.load(reg, reinterpret_cast<const void*>(address), stride);
  } else if (opcode == 0x4b && prefix == 2 && mode != 3 && rm == 4) {
    unit.store(reg, reinterpret_cast<void*>(address), stride);
  } else if (mode == 3 && opcode == 0x5c && prefix == 2) {
    unit.dot(reg, rm, third);
  } else {
    return false;
  }
  registers[REG_RIP] += static_cast<greg_t>(length);
  ++carried_out;
  return true;
}

void on_illegal(int, siginfo_t*, void* context) {
  if (!carry_out(static_cast<ucontext_t*>(context)->uc_mcontext.gregs)) signal(SIGILL, SIG_DFL);
}

// While it lives, tile instructions are carried out by the handler.
class Emulation {
 public:
  Emulation() {
    struct sigaction action = {};
    action.sa_sigaction = on_illegal;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &action, &before_);
  }
  ~Emulation() { sigaction(SIGILL, &before_, nullptr); }
  Emulation(const Emulation&) = delete;
  Emulation& operator=(const Emulation&) = delete;

 private:
  struct sigaction before_ = {};
};

bool runs_vector_part() {
  return std::ranges::any_of(all_kernels(), [](const Kernels* kernels) {
    return kernels->tiles != nullptr && kernels->tiles->wide == ActivationFormat::kBf16;
  });
}

}  // namespace

TEST_CASE("the matrix unit's machine code, carried out instruction by instruction, gives the twin's bits") {
  if (!runs_vector_part()) return;  // its vector part needs AVX-512
  std::mt19937 random(3);
  const TileKernels& twin = amx::twin::tile_kernels();
  const size_t before = carried_out;
  for (const auto& [format, cols] :
       {std::pair{WeightFormat::kFp4, 160u}, {WeightFormat::kFp8, 261u}, {WeightFormat::kBf16, 131u}}) {
    const size_t rows = 70;
    WeightView w{format, rows, cols, nullptr, nullptr, WeightLayout::kRows};
    std::vector<std::byte> bytes(rows * w.row_bytes());
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    if (format == WeightFormat::kBf16) {
      for (size_t i = 1; i < bytes.size(); i += 2) bytes[i] = (bytes[i] & std::byte{0xbf}) | std::byte{0x3c};
    }
    std::vector<uint8_t> scales(rows * (cols / 32 + 1));
    for (uint8_t& s : scales) s = static_cast<uint8_t>(120 + random() % 12);
    w.data = bytes.data();
    w.scales = scales.data();
    std::vector<std::byte> packed(tile_count(rows) * tile_bytes(format, cols));
    pack_tiles(w, 0, tile_count(rows), packed.data());
    w.layout = WeightLayout::kTiles;
    w.data = packed.data();
    for (const ActivationFormat input : {twin.wide, twin.wide_fp4, twin.fp4}) {
      if ((input == twin.wide) == (format == WeightFormat::kFp4)) continue;
      const size_t padded = padded_cols(format, cols), most = 131;
      std::vector<std::vector<std::byte>> inputs;
      for (size_t t = 0; t < most; ++t) {
        std::vector<float> x(cols);
        for (float& v : x) v = std::normal_distribution<float>()(random);
        inputs.emplace_back(activation_bytes(input, padded));
        twin.narrow({x.data(), 0, cols, cols, padded, input, inputs.back().data()});
      }
      for (const size_t tokens : {size_t{1}, size_t{5}, size_t{12}, size_t{16}, size_t{23}, size_t{40}, most}) {
        std::vector<const std::byte*> x;
        for (size_t t = 0; t < tokens; ++t) x.push_back(inputs[t].data());
        std::vector<float> real(tokens * rows, -1), plain(tokens * rows, -2);
        auto run = [&](void (*matmul)(const MatmulArgs&), std::vector<float>& to) {
          std::vector<float*> y;
          for (size_t t = 0; t < tokens; ++t) y.push_back(to.data() + t * rows);
          matmul({w, input, x.data(), y.data(), 0, tokens, 0, 37});
          matmul({w, input, x.data(), y.data(), 0, tokens, 37, rows});
        };
        {
          const Emulation emulation;
          run(amx::kernels().matmul, real);
        }
        run(twin.matmul, plain);
        for (size_t i = 0; i < real.size(); ++i) {
          const bool same = std::memcmp(&real[i], &plain[i], 4) == 0 || (real[i] != real[i] && plain[i] != plain[i]);
          REQUIRE_MESSAGE(same, tokens << " tokens, output " << i);
        }
      }
    }
  }
  if (!matrix_unit_usable()) CHECK(carried_out - before > 1000);
}

TEST_CASE("so does its attention") {
  if (!runs_vector_part()) return;
  std::mt19937 random(5);
  const KvLayout kv{KvFormat::kPacked, 96, 32};
  const size_t heads = 32, most = 130;
  std::vector<std::byte> bytes(most * kv.row_bytes());
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  std::vector<const std::byte*> rows;
  for (size_t j = 0; j < most; ++j) {
    std::byte* row = bytes.data() + j * kv.row_bytes();
    for (size_t i = 0; i < kv.nope(); ++i) {
      if ((row[i] & std::byte{0x7f}) == std::byte{0x7f}) row[i] = std::byte{1};  // no NaN
    }
    for (size_t i = kv.nope() + 1; i < kv.nope() + 2 * kv.rope_dim; i += 2) row[i] = (row[i] & std::byte{0x80}) | std::byte{0x3f};
    for (size_t i = kv.nope() + 2 * kv.rope_dim; i < kv.row_bytes(); ++i) row[i] = std::byte{124};
    rows.push_back(row);
  }
  std::vector<float> q(heads * kv.head_dim), sink(heads);
  for (float& v : q) v = std::normal_distribution<float>()(random);
  for (float& v : sink) v = std::normal_distribution<float>()(random);
  const size_t before = carried_out;
  size_t products = 0;  // of 16 x 16 x 32, scores and sums of values
  for (const size_t count : {size_t{1}, size_t{31}, size_t{32}, size_t{128}, most}) {
    std::vector<float> real(heads * kv.head_dim, -1), plain(heads * kv.head_dim, -2);
    std::vector<float> scratch(attend_scratch_floats(heads, kv.head_dim));
    auto run = [&](void (*attend)(const AttendArgs&), std::vector<float>& out) {
      attend({kv, rows.data(), count, q.data(), sink.data(), heads, 0.1f, AttendPrecision::kFast, out.data(), scratch.data()});
    };
    {
      const Emulation emulation;
      run(amx::kernels().attend, real);
    }
    run(amx::twin::attend, plain);
    REQUIRE(std::memcmp(real.data(), plain.data(), 4 * real.size()) == 0);
    products += 2 * heads * count * kv.head_dim / (16 * 16 * 32);
  }
  if (!matrix_unit_usable()) CHECK(carried_out - before > products);
}
