// Life of the engine's thread, submission, statistics.
#include "engine/engine_loop.h"

#include <fmt/format.h>
#include <pthread.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>

#include "engine/fingerprint.h"
#include "sys/clock.h"
#include "sys/probe.h"

namespace nautile {
namespace {

constexpr size_t kStepsKept = 4096;
// How long the loop sleeps at most while something is on its way that will not wake it.
constexpr auto kPollInterval = std::chrono::milliseconds(2);

// Fills in what was left to the machine, and checks the rest.
Status complete(EngineOptions& options, LoadedModel& model) {
  auto wrong = [](const char* what, const char* where) { return Status(Code::kInvalidArgument, what, where); };
  if (options.max_sequences < 1 || options.max_sequences > 1024)
    return wrong("must be from 1 to 1024", "max_sequences");
  if (options.step_tokens < 1 || options.step_tokens > 65536) return wrong("must be from 1 to 65536", "step_tokens");
  if (options.max_queued < 0) return wrong("must not be negative", "max_queued");
  if (options.draft_depth < 0 || options.draft_depth >= kMaxRollback)
    return wrong("must be from 0 to 7", "draft_depth");
  if (options.snapshot_spacing < kBlockTokens || options.snapshot_spacing % kBlockTokens != 0) {
    return wrong("must be a multiple of 128", "snapshot_spacing");
  }
  if (!(options.canary_share >= 0 && options.canary_share <= 1)) return wrong("must be from 0 to 1", "canary_share");
  if (options.context_tokens < 0) return wrong("must not be negative", "context_tokens");
  const int64_t most = model.config().max_positions;
  options.context_tokens = options.context_tokens == 0 ? most : std::min(options.context_tokens, most);
  if (options.speculation == Speculation::kAlways && model.weights().mtp == nullptr) {
    return {Code::kUnsupported, "the checkpoint has no MTP block to draft with", "speculation",
            "leave it at auto or off"};
  }
  // The mapped weights count as free memory to the system, but must stay.
  const uint64_t available = probe_memory().available_bytes, mapped = model.mapped_bytes();
  const uint64_t free = available > mapped ? available - mapped : 0;
  // A fifth stays free for activations and everything else on the machine.
  const uint64_t usable = free - free / 5;
  if (options.prefix_cache && options.cache_bytes == 0) options.cache_bytes = usable / 4;
  const uint64_t cache = options.prefix_cache ? options.cache_bytes : 0;
  if (!options.disk_directory.empty() && !options.prefix_cache) {
    return {Code::kInvalidArgument, "the disk tier needs the prefix cache", "disk_directory"};
  }
  if (!options.disk_directory.empty() && options.disk_bytes == 0) {
    return {Code::kInvalidArgument, "the disk tier needs a budget", "disk_bytes"};
  }
  if (options.state_bytes == 0) options.state_bytes = usable > cache ? usable - cache : 0;
  const CacheLayout& layout = *model.layout();
  const uint64_t least = layout.private_bytes() + layout.block_bytes();
  if (options.state_bytes < least) {
    return {Code::kResourceExhausted,
            fmt::format("one sequence needs {} bytes at least, {} are planned for states", least, options.state_bytes),
            "state_bytes", "free some memory or give the prefix cache less"};
  }
  if (options.state_bytes + cache > free) {
    return {Code::kResourceExhausted,
            fmt::format("states ({} bytes) and prefix cache ({} bytes) are more than the {} bytes of free memory",
                        options.state_bytes, cache, free),
            "memory plan", "lower --state-memory or --cache-memory"};
  }
  return {};
}

// Cost by bytes of a step of n tokens, in bytes: the dense part once and each distinct expert once.
double step_bytes(const WeightCost& cost, const ModelConfig& config, double layers, int tokens) {
  const double experts = config.routed_experts, chosen = config.experts_per_token;
  const double distinct = experts * (1 - std::pow(1 - chosen / experts, tokens));
  return static_cast<double>(cost.dense_bytes + cost.head_bytes) +
         layers * distinct * static_cast<double>(cost.expert_bytes);
}

CacheScope scope_of(const std::string& name) {
  const XXH128_hash_t hash = XXH3_128bits(name.data(), name.size());
  return {hash.high64, hash.low64};
}

class Handle final : public Generation {
 public:
  Handle(EngineLoop& loop, std::shared_ptr<Delivery> delivery) : loop_(loop), delivery_(std::move(delivery)) {}
  ~Handle() override { cancel(); }
  bool poll(std::vector<TokenEvent>& out) override { return take(out, false); }
  bool wait(std::vector<TokenEvent>& out) override { return take(out, true); }
  void cancel() override {
    if (delivery_->ended() || delivery_->cancelled.exchange(true)) return;
    loop_.wake();
  }
  RequestRecord record() const override { return delivery_->record(); }
  std::vector<PromptScore> prompt_scores() const override { return delivery_->scores(); }

 private:
  bool take(std::vector<TokenEvent>& out, bool block) {
    const bool more = delivery_->take(out, block);
    if (delivery_->paused.exchange(false)) loop_.wake();
    return more;
  }
  EngineLoop& loop_;
  const std::shared_ptr<Delivery> delivery_;
};

}  // namespace

const char* name_of(Phase phase) {
  switch (phase) {
    case Phase::kQueued:
      return "queued";
    case Phase::kPrefill:
      return "prefill";
    case Phase::kDecode:
      return "decode";
    case Phase::kEnded:
      return "ended";
  }
  return "?";
}

const char* name_of(EndReason reason) {
  switch (reason) {
    case EndReason::kNone:
      return "none";
    case EndReason::kEndToken:
      return "end_token";
    case EndReason::kGuide:
      return "guide";
    case EndReason::kLength:
      return "length";
    case EndReason::kCancelled:
      return "cancelled";
    case EndReason::kDeadline:
      return "deadline";
    case EndReason::kFailed:
      return "failed";
  }
  return "?";
}

Result<std::unique_ptr<LocalEngine>> start_engine(LoadedModel& model, const EngineOptions& wanted,
                                                  std::unique_ptr<DiskTier> disk) {
  EngineOptions options = wanted;
  NAUTILE_RETURN_IF_ERROR(complete(options, model));
  std::unique_ptr<PrefixCache> cache;
  if (options.prefix_cache) {
    if (disk == nullptr && !options.disk_directory.empty()) {
      DiskOptions disk_options;
      disk_options.budget_bytes = options.disk_bytes;
      disk_options.model = fingerprint(model);
      disk_options.warn = options.warn;
      NAUTILE_ASSIGN(disk, DiskTier::open(options.disk_directory, model.layout(), disk_options));
    }
    PrefixCacheOptions cache_options;
    cache_options.budget_bytes = options.cache_bytes;
    if (options.cache_owner_bytes > 0) cache_options.owner_budget_bytes = options.cache_owner_bytes;
    cache_options.snapshot_spacing = options.snapshot_spacing;
    cache_options.canary_share = options.canary_share;
    cache = std::make_unique<PrefixCache>(model.layout(), cache_options, disk.get());
  }
  return std::unique_ptr<LocalEngine>(std::make_unique<EngineLoop>(model, options, std::move(disk), std::move(cache)));
}

EngineLoop::EngineLoop(LoadedModel& model, const EngineOptions& options, std::unique_ptr<DiskTier> disk,
                       std::unique_ptr<PrefixCache> cache)
    : model_(model),
      options_(options),
      vocabulary_(model.has_tokenizer() ? model.tokenizer().size() : static_cast<size_t>(model.config().vocab_size)),
      logits_width_(static_cast<size_t>(model.config().vocab_size)),
      stream_width_(static_cast<size_t>(model.config().hc_mult * model.config().hidden)),
      context_(options.context_tokens),
      disk_(std::move(disk)),
      cache_(std::move(cache)),
      budget_(options.state_bytes, model.layout()->private_bytes(), model.layout()->block_bytes(), kBlockTokens),
      samplers_(static_cast<size_t>(model.pool().threads()), Sampler(model.kernels())) {
  const size_t batch = static_cast<size_t>(options_.max_sequences);
  steps_.resize(kStepsKept);
  running_.reserve(batch);
  work_.reserve(batch);
  items_.reserve(batch);
  batch_tokens_.reserve(batch * (kMaxRollback + 1) + static_cast<size_t>(options_.step_tokens));
  drafting_.reserve(batch);
  acceptances_.reserve(batch);
  draft_rows_.reserve(batch);
  can_draft_ = options_.speculation != Speculation::kOff && model_.weights().mtp != nullptr && options_.draft_depth > 0;
  if (can_draft_) {
    const WeightCost cost = weight_cost(model_.weights());
    const ModelConfig& config = model_.config();
    const double layers = static_cast<double>(model_.weights().layers.size());
    policy_ = std::make_unique<DraftPolicy>(
        options_.draft_depth, static_cast<int>(options_.max_sequences),
        [=](int tokens) { return step_bytes(cost, config, layers, tokens); },
        [=](int tokens) {
          return step_bytes(cost, config, layers, tokens) / layers + static_cast<double>(cost.head_bytes);
        });
    draft_streams_.reserve((batch + 1) * kBlockTokens * stream_width_);
  }
  stats_.memory_budget_bytes = options_.state_bytes + (cache_ ? options_.cache_bytes : 0);
  stats_.cache_budget_bytes = cache_ ? options_.cache_bytes : 0;
  stats_.max_sequences = options_.max_sequences;
  stats_.context_tokens = context_;
  phase_since_ = seconds_now();
  thread_ = std::thread([this, &pool = model.pool()] {
    pthread_setname_np(pthread_self(), "nautile-engine");
    pool.pin_caller();
    run();
  });
}

EngineLoop::~EngineLoop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

// Output tokens that the context leaves to it.
int64_t EngineLoop::limit_of(const GenerateRequest& request) const {
  return std::min(request.max_tokens, context_ - static_cast<int64_t>(request.prompt.size()));
}

Status EngineLoop::check(const GenerateRequest& request) const {
  if (request.prompt.empty()) return {Code::kInvalidArgument, "the prompt is empty", "prompt"};
  const auto wrong = std::find_if(request.prompt.begin(), request.prompt.end(),
                                  [&](TokenId id) { return id < 0 || static_cast<size_t>(id) >= vocabulary_; });
  if (wrong != request.prompt.end()) {
    return {Code::kInvalidArgument, fmt::format("token {} is not in the vocabulary of {}", *wrong, vocabulary_),
            fmt::format("prompt, token {}", wrong - request.prompt.begin())};
  }
  NAUTILE_RETURN_IF_ERROR(request.sampling.check(vocabulary_));
  if (request.prompt_logprobs < -1 || request.prompt_logprobs > 20) {
    return {Code::kInvalidArgument,
            fmt::format("prompt_logprobs is {}, but must be from 0 to 20", request.prompt_logprobs), "prompt_logprobs"};
  }
  if (request.max_tokens < 0 || (request.max_tokens == 0 && request.prompt_logprobs < 0)) {
    return {Code::kInvalidArgument, fmt::format("max_tokens is {}, but must be at least 1", request.max_tokens),
            "max_tokens"};
  }
  if (request.min_tokens < 0) return {Code::kInvalidArgument, "min_tokens is negative", "min_tokens"};
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt + (request.max_tokens > 0 ? 1 : 0) > context_) {
    return {Code::kResourceExhausted, fmt::format("the prompt has {} tokens, the context holds {}", prompt, context_),
            "context", "shorten the prompt"};
  }
  const uint64_t bytes = budget_.bytes_for(prompt + limit_of(request));
  if (bytes > budget_.budget()) {
    return {Code::kResourceExhausted,
            fmt::format("{} tokens need {} bytes of state, the plan holds {}", prompt + limit_of(request), bytes,
                        budget_.budget()),
            "memory", "shorten the prompt, lower max_tokens, or give the engine more memory"};
  }
  return {};
}

Result<std::unique_ptr<Generation>> EngineLoop::submit(GenerateRequest request) {
  NAUTILE_RETURN_IF_ERROR(check(request));
  auto sequence = std::make_unique<Sequence>();
  sequence->max_tokens = limit_of(request);
  sequence->scope = scope_of(request.cache_scope);
  sequence->cache_owner = request.cache_owner.empty() ? sequence->scope : scope_of(request.cache_owner);
  sequence->prompt_size = request.prompt.size();
  sequence->tokens = std::move(request.prompt);
  sequence->tokens.reserve(sequence->prompt_size + static_cast<size_t>(sequence->max_tokens));
  const SamplingParams& sampling = request.sampling;
  sequence->needs_history =
      sampling.repetition_penalty != 1 || sampling.presence_penalty != 0 || sampling.frequency_penalty != 0;
  if (sequence->needs_history) sequence->history.add_prompt(sequence->tokens);
  sequence->draft_sampling = sampling;
  sequence->draft_sampling.top_logprobs = -1;
  if (request.min_tokens > 0) sequence->mask.resize((logits_width_ + 31) / 32);
  sequence->draft.reserve(kMaxRollback);
  sequence->drawn.reserve(kMaxRollback + 1);
  sequence->delivery = std::make_shared<Delivery>(request.event_capacity, request.on_event);
  sequence->submitted_s = sequence->phase_since_s = seconds_now();
  sequence->record.prompt_tokens = static_cast<int64_t>(sequence->prompt_size);
  sequence->request = std::move(request);
  auto handle = std::make_unique<Handle>(*this, sequence->delivery);
  {
    const std::lock_guard lock(mutex_);
    if (draining_ || stopping_) return Status(Code::kCancelled, "the engine takes no more requests");
    if (!queue_has_room(sequence->request.client)) {
      ++stats_.refused;
      return Status(Code::kResourceExhausted, fmt::format("{} requests wait already", queued_), "queue",
                    "try again later");
    }
    ++queued_;
    ++queued_by_client_[sequence->request.client];
    ++stats_.submitted;
    sequence->id = sequence->record.id = next_id_++;
    sequence->delivery->start(sequence->record);
    arrivals_.push_back(std::move(sequence));
    woken_ = true;
  }
  changed_.notify_all();
  return std::unique_ptr<Generation>(std::move(handle));
}

// A client that fills the queue must not keep the others out: each may have a share waiting beyond the common bound.
bool EngineLoop::queue_has_room(const std::string& client) const {
  if (queued_ < options_.max_queued) return true;
  const auto own = queued_by_client_.find(client);
  const int64_t waiting = own == queued_by_client_.end() ? 0 : own->second;
  return queued_ < 2 * options_.max_queued && waiting < std::max<int64_t>(1, options_.max_queued / 8);
}

void EngineLoop::count_queued(const Sequence& sequence, int64_t change) {
  const std::lock_guard lock(mutex_);
  queued_ += change;
  const auto own = queued_by_client_.try_emplace(sequence.request.client, 0).first;
  own->second += change;
  if (own->second == 0) queued_by_client_.erase(own);
}

void EngineLoop::drain() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
}

void EngineLoop::wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  changed_.notify_all();
}

EngineStats EngineLoop::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.queued = queued_;
  stats.phase = phase_.load();
  stats.phase_s = seconds_now() - phase_since_;
  return stats;
}

std::vector<StepRecord> EngineLoop::steps(size_t count) const {
  const std::lock_guard lock(mutex_);
  std::vector<StepRecord> out(std::min<uint64_t>({count, steps_.size(), stats_.steps}));
  for (size_t i = 0; i < out.size(); ++i) out[i] = steps_[(stats_.steps - out.size() + i) % steps_.size()];
  return out;
}

void EngineLoop::doing(const char* phase) {
  phase_ = phase;
  phase_since_ = seconds_now();
}

void EngineLoop::publish() {
  int64_t decoding = 0, prefilling = 0, paused = 0;
  for (const auto& s : running_) {
    ++(s->record.phase == Phase::kDecode ? decoding : prefilling);
    paused += s->delivery->paused;
  }
  const CacheStats cached = cache_ ? cache_->stats() : CacheStats();
  const std::lock_guard lock(mutex_);
  stats_.running = decoding;
  stats_.prefilling = prefilling;
  stats_.paused = paused;
  stats_.cache_bytes = cached.bytes;
  stats_.cache_evictions = cached.evictions;
  stats_.memory_bytes = budget_.used() + cached.bytes;
  if (disk_) stats_.disk_bytes = disk_->stats().bytes;
}

void EngineLoop::run() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      if (stopping_) break;
      woken_ = false;
    }
    take_arrivals();
    sweep();
    if (admission_changed_ || !reads_.empty()) admit();
    const bool worked = step();
    remove_finished();
    publish();
    if (worked) continue;
    doing("idle");
    std::unique_lock lock(mutex_);
    const auto ready = [&] { return woken_ || stopping_; };
    // Deadlines and reads from disk do not wake the loop.
    const bool poll = !waiting_.empty() || !running_.empty();
    if (poll) {
      changed_.wait_for(lock, kPollInterval, ready);
    } else {
      changed_.wait(lock, ready);
    }
  }
  take_arrivals();
  for (auto& [id, sequence] : waiting_) finish(*sequence, EndReason::kCancelled);
  for (auto& sequence : running_) finish(*sequence, EndReason::kCancelled);
}

bool EngineLoop::take_arrivals() {
  Sequences arrived;
  {
    const std::lock_guard lock(mutex_);
    if (arrivals_.empty()) return false;
    arrived.swap(arrivals_);
  }
  for (auto& sequence : arrived) {
    queue_.push({sequence->id, sequence->request.client, sequence->request.priority, sequence->submitted_s});
    waiting_.emplace(sequence->id, std::move(sequence));
  }
  admission_changed_ = true;
  return true;
}

void EngineLoop::sweep() {
  auto reason = [now = seconds_now()](const Sequence& s) {
    if (s.delivery->cancelled) return EndReason::kCancelled;
    if (s.request.deadline_s && now - s.submitted_s > *s.request.deadline_s) return EndReason::kDeadline;
    return EndReason::kNone;
  };
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    const EndReason why = reason(*it->second);
    if (why == EndReason::kNone) {
      ++it;
      continue;
    }
    queue_.erase(it->first);
    reads_.erase(it->first);
    finish(*it->second, why);
    count_queued(*it->second, -1);
    it = waiting_.erase(it);
  }
  for (auto& sequence : running_) {
    const EndReason why = reason(*sequence);
    if (why != EndReason::kNone) finish(*sequence, why);
  }
  remove_finished();
}

}  // namespace nautile
