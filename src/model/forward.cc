// The forward pass, top to bottom.
#include "model/forward.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "model/memory_plan.h"
#include "model/rope.h"
#include "tensor/formats.h"
#include "tensor/quantise.h"

namespace nautile {
namespace {

std::shared_ptr<const CacheLayout> make_layout(const Weights& weights, const Policy& policy) {
  return std::make_shared<CacheLayout>(cache_shape(weights.config, weights.mtp != nullptr, policy.kv_format()));
}

}  // namespace

Result<Numerics> parse_numerics(std::string_view name) {
  if (name == "reference") return Numerics::kReference;
  if (name == "fast") return Numerics::kFast;
  if (name == "exact") return Numerics::kExact;
  return Status(Code::kInvalidArgument, fmt::format("no numerics \"{}\"", name), "--numerics",
                "choose reference, fast or exact");
}

Forward::Forward(const Weights& weights, Numerics numerics, const Kernels& kernels, ThreadPool& pool)
    : weights_(weights),
      policy_(policy_of(numerics)),
      kernels_(kernels),
      pool_(pool),
      layout_(make_layout(weights, policy_)),
      window_frequencies_(rope_frequencies(weights.config, false)),
      compress_frequencies_(rope_frequencies(weights.config, true)),
      attention_(weights.config) {}

Result<ForwardOutput> Forward::operator()(std::span<const BatchItem> batch, Logits wanted) {
  NAUTILE_RETURN_IF_ERROR(make_runs(batch, false));
  Step step = make_step();
  const size_t m = static_cast<size_t>(step.config.hc_mult), d = static_cast<size_t>(step.config.hidden);

  float* streams = streams_.floats(step.count() * m * d);
  float* embedded = embedded_.floats(step.count() * d);
  embed(step, embedded);
  pool_.for_range(step.count(), 1, [&](int, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      for (size_t j = 0; j < m; ++j) std::memcpy(streams + (t * m + j) * d, embedded + t * d, d * sizeof(float));
    }
  });
  for (size_t i = 0; i < weights_.layers.size(); ++i) layer(step, i, weights_.layers[i], streams);

  for (const TokenRun& run : runs_) run.state->advance(static_cast<int64_t>(run.count));
  return ForwardOutput{head(step, weights_.hc_head, weights_.norm, streams, batch, wanted),
                       {streams, step.count() * m * d}};
}

void Forward::layer(Step& step, size_t index, const Layer& layer, float* streams) {
  const size_t d = static_cast<size_t>(step.config.hidden);
  float *u = u_.floats(step.count() * d), *x = x_.floats(step.count() * d), *y = y_.floats(step.count() * d);

  clock_.enter(Op::kStreams);
  hyper_.collapse(step, layer.hc_attn, streams, u, mixing_);
  rms_norm(step, u, d, layer.attn_norm, x, step.count());
  attention_(step, index, layer.ratio, layer.attn, x, y);
  clock_.enter(Op::kStreams);
  hyper_.expand(step, mixing_, y, streams);

  hyper_.collapse(step, layer.hc_ffn, streams, u, mixing_);
  rms_norm(step, u, d, layer.ffn_norm, x, step.count());
  clock_.enter(Op::kExperts);
  moe_(step, layer.moe, x, y);
  clock_.enter(Op::kStreams);
  hyper_.expand(step, mixing_, y, streams);
  clock_.enter(Op::kOther);
}

Result<ForwardOutput> Forward::draft(std::span<const BatchItem> batch, std::span<const float> streams, Logits wanted) {
  if (weights_.mtp == nullptr) {
    return Status(Code::kUnsupported, "the checkpoint has no MTP block to draft with");
  }
  NAUTILE_RETURN_IF_ERROR(make_runs(batch, true));
  Step step = make_step();
  const Mtp& mtp = *weights_.mtp;
  const size_t m = static_cast<size_t>(step.config.hc_mult), d = static_cast<size_t>(step.config.hidden);
  if (streams.size() != step.count() * m * d) {
    return Status(Code::kInvalidArgument, fmt::format("{} stream values for {} tokens", streams.size(), step.count()));
  }
  // Z_j = e_proj rms(embed(next token)) + h_proj rms(X_j)
  float *e = embedded_.floats(step.count() * d), *projected = projected_.floats(step.count() * d);
  embed(step, e);
  rms_norm(step, e, d, mtp.enorm, e, step.count());
  linear_(step, mtp.e_proj, e, d, step.count(), projected, d, Rounding::kOfficial);
  float* h = u_.floats(step.count() * m * d);
  rms_norm(step, streams.data(), d, mtp.hnorm, h, step.count() * m);
  float* z = drafted_.floats(step.count() * m * d);  // after the last use of `streams`, which may lie there
  linear_(step, mtp.h_proj, h, d, step.count() * m, z, d, Rounding::kOfficial);
  for (size_t t = 0; t < step.count(); ++t) {
    for (size_t j = 0; j < m; ++j) kernels_.axpy(1.f, projected + t * d, z + (t * m + j) * d, d);
  }
  if (policy_.round_bf16) round_bf16(z, step.count() * m * d);
  layer(step, weights_.layers.size(), mtp.layer, z);

  for (const TokenRun& run : runs_) run.state->advance_draft(static_cast<int64_t>(run.count));
  return ForwardOutput{head(step, mtp.head, mtp.norm, z, batch, wanted), {z, step.count() * m * d}};
}

// Checks the whole batch before anything is touched, then makes room in the states.
Status Forward::make_runs(std::span<const BatchItem> batch, bool draft) {
  const ModelConfig& c = weights_.config;
  if (batch.empty()) return {Code::kInvalidArgument, "the batch is empty"};
  runs_.clear();
  size_t first = 0;
  for (size_t i = 0; i < batch.size(); ++i) {
    const BatchItem& item = batch[i];
    auto refuse = [i](Code code, std::string what) { return Status(code, std::move(what), fmt::format("batch item {}", i)); };
    if (item.tokens.empty()) return refuse(Code::kInvalidArgument, "no tokens");
    if (item.logits > item.tokens.size())
      return refuse(Code::kInvalidArgument, "more logits are wanted than there are tokens");
    if (&item.state->layout() != layout_.get()) return refuse(Code::kInvalidArgument, "the state is of another model");
    for (size_t j = 0; j < i; ++j) {
      if (batch[j].state == item.state)
        return refuse(Code::kInvalidArgument, "one sequence stands in the batch twice");
    }
    for (const int32_t token : item.tokens) {
      if (token < 0 || token >= c.vocab_size) {
        return refuse(Code::kInvalidArgument,
                      fmt::format("token {} is not in the vocabulary of {}", token, c.vocab_size));
      }
    }
    TokenRun run{item.state, first, item.tokens.size(), draft ? item.state->draft_length() : item.state->length()};
    if (run.end() > c.max_positions) {
      return refuse(Code::kResourceExhausted,
                    fmt::format("{} tokens are more than the context of {}", run.end(), c.max_positions));
    }
    first += run.count;
    runs_.push_back(run);
  }
  tokens_.clear();
  for (const BatchItem& item : batch) tokens_.insert(tokens_.end(), item.tokens.begin(), item.tokens.end());
  if (!draft) {
    for (const TokenRun& run : runs_) run.state->reserve(run.end());
  }
  return {};
}

Step Forward::make_step() {
  positions_.clear();
  for (const TokenRun& run : runs_) {
    for (int64_t p = run.begin; p < run.end(); ++p) positions_.push_back(p);
  }
  rope_table(window_frequencies_, positions_, window_rope_);
  rope_table(compress_frequencies_, positions_, compress_rope_);
  return Step{weights_.config, policy_, pool_, kernels_, clock_, runs_, tokens_, positions_, window_rope_, compress_rope_};
}

// out[t] = embed[token t], [tokens, D]
void Forward::embed(Step& step, float* out) {
  const size_t d = weights_.embed.cols;
  for (size_t t = 0; t < step.count(); ++t) {
    const std::byte* row = weights_.embed.data + static_cast<size_t>(step.tokens[t]) * weights_.embed.row_bytes();
    if (weights_.embed.format == WeightFormat::kF32) {
      std::memcpy(out + t * d, row, d * sizeof(float));
      continue;
    }
    for (size_t i = 0; i < d; ++i) {
      uint16_t half;
      std::memcpy(&half, row + 2 * i, sizeof half);
      out[t * d + i] = bf16_to_f32(half);
    }
  }
}

// logits = head rms(hc_head(streams)) of the wanted tokens
std::span<const float> Forward::head(Step& step, const HyperHead& head, const std::vector<float>& norm,
                                     const float* streams, std::span<const BatchItem> batch, Logits wanted) {
  if (wanted == Logits::kNone) return {};
  clock_.enter(Op::kHead);
  const size_t d = static_cast<size_t>(step.config.hidden), width = static_cast<size_t>(step.config.hc_mult) * d;
  size_t rows = step.count();
  if (wanted != Logits::kAll) {
    rows = 0;
    for (const BatchItem& item : batch) rows += wanted == Logits::kLast ? 1 : item.logits;
    if (rows == 0) return {};
    float* gathered = gathered_.floats(rows * width);
    for (size_t i = 0; i < batch.size(); ++i) {
      const size_t count = wanted == Logits::kLast ? 1 : batch[i].logits;
      const TokenRun& run = step.runs[i];
      std::memcpy(gathered, streams + (run.first + run.count - count) * width, count * width * sizeof(float));
      gathered += count * width;
    }
    streams = gathered - rows * width;
  }
  float* x = x_.floats(rows * d);
  hyper_.collapse_head(step, head, streams, rows, x);
  rms_norm(step, x, d, norm, x, rows);
  const size_t vocab = weights_.head.rows;
  float* logits = logits_.floats(rows * vocab);
  linear_(step, weights_.head, x, d, rows, logits, vocab, Rounding::kNone);
  clock_.enter(Op::kOther);
  return {logits, rows * vocab};
}

}  // namespace nautile
