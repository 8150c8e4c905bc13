// Step: what every part of one forward pass can see: the tokens, whose they are, and the machine to compute on.
//
// Thread-safety: the workers of a pass read it; the clock is the caller's alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/sequence_state.h"
#include "kernels/ops.h"
#include "model/config.h"
#include "model/numerics.h"
#include "model/op_clock.h"
#include "sys/threads.h"

namespace nautile {

// Consecutive tokens of one sequence: batch tokens [first, first + count) stand at positions begin, begin + 1, ...
struct TokenRun {
  SequenceState* state = nullptr;
  size_t first = 0, count = 0;
  int64_t begin = 0;

  int64_t end() const { return begin + static_cast<int64_t>(count); }
};

// cos and sin of every token's angles, for one rope profile.
struct RopeTable {
  std::vector<float> cos, sin;  // [tokens, rope_dim / 2]
};

struct Step {
  const ModelConfig& config;
  const Policy policy;
  ThreadPool& pool;
  const Kernels& kernels;
  OpClock& clock;
  std::span<const TokenRun> runs;
  std::span<const int32_t> tokens;     // ids
  std::span<const int64_t> positions;  // [tokens]
  const RopeTable &window_rope, &compress_rope;

  size_t count() const { return tokens.size(); }
  const RopeTable& rope(int ratio) const { return ratio == 0 ? window_rope : compress_rope; }
};

// A buffer that only grows, so that a decode step allocates nothing once it has run. It starts with a cache line: vectors of a row
// whose length is a multiple of 16 do not straddle two.
class Buffer {
 public:
  std::byte* bytes(size_t count) {
    const size_t lines = (count + 63) / 64;
    if (lines_.size() < lines) lines_.resize(lines);
    return reinterpret_cast<std::byte*>(lines_.data());
  }
  float* floats(size_t count) { return reinterpret_cast<float*>(bytes(count * sizeof(float))); }

 private:
  struct alignas(64) Line {
    std::byte of[64];
  };
  std::vector<Line> lines_;
};

}  // namespace nautile
