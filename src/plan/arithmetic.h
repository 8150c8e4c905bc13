// What a model amounts to: parameters, weight bytes in each format, cache bytes at any context, operations per token.
//
// Everything here is exact integer arithmetic on the config (spec planner.md sections 1 to 3); nothing is estimated.
// GB is 1e9 bytes and GiB 2^30 wherever a caller prints them.
// Thread-safety: values and pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/config.h"
#include "plan/data.h"

namespace nautile::plan {

// How the weights are stored. The GGUF mixes carry no MTP block.
enum class WeightFormat { kOfficial, kOfficialNoMtp, kNvfp4, kFp8, kBf16, kQ8_0, kQ4, kMxfp4Q8, kIq2 };
struct WeightFormatName {
  WeightFormat format;
  const char* id;
  const char* text;
};
const std::vector<WeightFormatName>& weight_formats();
// By its id; kInvalidArgument with near names at "--format".
Result<WeightFormat> weight_format(std::string_view id);
const char* weight_format_id(WeightFormat format);

// How the cache is stored: the attended entries and the index keys.
enum class KvFormat { kFp8Fp4, kFp8Fp8, kBf16, kNvfp4 };
struct KvFormatName {
  KvFormat format;
  const char* id;
  const char* text;
  int entry_bytes, index_bytes;  // of one entry, of one key
};
const std::vector<KvFormatName>& kv_formats();
// By its id; kInvalidArgument with near names at "--kv".
Result<KvFormat> kv_format(std::string_view id);
const KvFormatName& kv_format_name(KvFormat format);

struct ComponentRow {
  std::string name;
  int64_t params = 0, bytes = 0, active = 0;  // bytes as released; active per token
  bool draft = false;
};

struct Arithmetic {
  ModelConfig config;
  std::vector<ComponentRow> components;
  int swa_layers = 0, csa_layers = 0, hca_layers = 0;

  int64_t params = 0, draft_params = 0;  // main model; MTP block
  int64_t active = 0;                    // per token, main model, embedding left out
  int64_t embedding_params = 0, hash_entries = 0;
  int64_t bytes = 0, draft_bytes = 0;  // as released
  int64_t expert_params = 0, expert_bytes = 0, draft_expert_params = 0, draft_expert_bytes = 0;
  int64_t resident_only_bytes = 0;  // embedding and hash tables: a row a token is read, not the table
  int64_t head_params = 0, head_bytes = 0;
  // Parameters by the arithmetic they are multiplied in, per token (spec planner.md section 3).
  int64_t gemm_expert = 0, gemm_fp8 = 0, gemm_bf16 = 0;  // gemm_bf16 has head, gates, compressors, indexer heads, mHC
  int64_t gemm_mhc = 0;                                  // the part of gemm_bf16 that is mHC
  int64_t elementwise = 0;                               // norms, sinks, gate bias: not multiplied as matrices

  int64_t params_with_draft() const { return params + draft_params; }
  int64_t active_with_embedding() const { return active + embedding_params; }
};
Arithmetic count(const ModelConfig& config);

// Bytes of the whole checkpoint in a format, MTP as the format keeps it.
int64_t weight_bytes(const Arithmetic& model, WeightFormat format);
// The same without the MTP block.
int64_t weight_bytes_without_draft(const Arithmetic& model, WeightFormat format);
// Routed experts of the main layers, and the rest that is read for every token (without embedding and hash tables).
int64_t routed_bytes(const Arithmetic& model, WeightFormat format);
int64_t dense_bytes_read(const Arithmetic& model, WeightFormat format);

// Cache of one sequence of `tokens`, without the compressors' running state.
int64_t kv_bytes(const Arithmetic& model, int64_t tokens, KvFormat format);
// FP32 running state of the compressors, once a sequence.
int64_t compressor_state_bytes(const Arithmetic& model);
// Cache bytes read to decode one token at depth `tokens`.
int64_t kv_read_bytes(const Arithmetic& model, int64_t tokens, KvFormat format);

// Operations to decode one token at depth `tokens`; 1 multiply-add = 2.
struct Operations {
  int64_t weights = 0, index = 0, csa = 0, hca = 0, swa = 0;
  int64_t total() const { return weights + index + csa + hca + swa; }
};
Operations raw_operations(const Arithmetic& model, int64_t tokens);
// The technical report's unit, "FP8 equivalent": FP8 and FP4-weight products 1, FP4 index scores 0.5, BF16 work 2.
Operations fp8_operations(const Arithmetic& model, int64_t tokens);

// The V3.2 baseline (FP8 cache, FP8 index).
int64_t v32_kv_bytes(const BaselineV32& v32, int64_t tokens);
int64_t v32_raw_operations(const BaselineV32& v32, int64_t tokens);
int64_t v32_fp8_operations(const BaselineV32& v32, int64_t tokens);

}  // namespace nautile::plan
