// One thread that gives each running sequence its next token when it is due.
#include "serve/scripted_engine.h"

#include <algorithm>
#include <atomic>

#include "sys/clock.h"

namespace nautile::serve {
namespace {

constexpr double kPlay = 0.5;  // the longest nap, seconds

bool in_mask(std::span<const uint32_t> mask, TokenId id) {
  return mask.empty() || (static_cast<size_t>(id) / 32 < mask.size() && (mask[id / 32] >> (id % 32) & 1) != 0);
}

}  // namespace

struct ScriptedEngine::Sequence {
  GenerateRequest request;
  Script script;
  size_t at = 0;  // in the script
  std::vector<TokenId> said;
  double submitted = 0, due = 0, started = 0, decoding = 0;
  bool ended_by_script = false;

  mutable std::mutex mutex;  // of what follows
  std::condition_variable arrived;
  std::vector<TokenEvent> events;
  RequestRecord record;
  std::vector<PromptScore> scores;
  std::atomic<bool> cancelled = false;
};

class ScriptedEngine::Handle final : public Generation {
 public:
  Handle(ScriptedEngine& engine, std::shared_ptr<Sequence> sequence)
      : engine_(engine), sequence_(std::move(sequence)) {}
  ~Handle() override { cancel(); }
  bool poll(std::vector<TokenEvent>& out) override {
    const std::lock_guard lock(sequence_->mutex);
    const bool was_full = sequence_->events.size() >= sequence_->request.event_capacity;
    std::move(sequence_->events.begin(), sequence_->events.end(), std::back_inserter(out));
    sequence_->events.clear();
    if (was_full) engine_.changed_.notify_all();
    return sequence_->record.phase != Phase::kEnded;
  }
  bool wait(std::vector<TokenEvent>& out) override {
    {
      std::unique_lock lock(sequence_->mutex);
      sequence_->arrived.wait(lock,
                              [&] { return !sequence_->events.empty() || sequence_->record.phase == Phase::kEnded; });
    }
    return poll(out);
  }
  void cancel() override {
    {
      const std::lock_guard lock(sequence_->mutex);
      sequence_->cancelled = true;
    }
    const std::lock_guard lock(engine_.mutex_);
    engine_.changed_.notify_all();
  }
  RequestRecord record() const override {
    const std::lock_guard lock(sequence_->mutex);
    return sequence_->record;
  }
  std::vector<PromptScore> prompt_scores() const override {
    const std::lock_guard lock(sequence_->mutex);
    return sequence_->scores;
  }

 private:
  ScriptedEngine& engine_;
  std::shared_ptr<Sequence> sequence_;
};

ScriptedEngine::ScriptedEngine(const Tokenizer& tokenizer, ScriptedOptions options)
    : tokenizer_(tokenizer), options_(options) {
  stats_.max_sequences = options.max_sequences;
  stats_.context_tokens = options.context;
  stats_.memory_budget_bytes = 1 << 20;
  stats_.phase = "idle";
  thread_ = std::thread([this] { work(); });
}

ScriptedEngine::~ScriptedEngine() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Result<std::unique_ptr<Generation>> ScriptedEngine::submit(GenerateRequest request) {
  Script script = default_script(tokenizer_, request.prompt);
  return submit(std::move(request), std::move(script));
}

Result<std::unique_ptr<Generation>> ScriptedEngine::submit(GenerateRequest request, Script script) {
  if (request.prompt.empty()) return Status(Code::kInvalidArgument, "the prompt has no token", "prompt");
  NAUTILE_RETURN_IF_ERROR(request.sampling.check(tokenizer_.size()));
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt > options_.context) {
    return Status(Code::kResourceExhausted, "the prompt leaves no room in the context", "context");
  }
  const std::lock_guard lock(mutex_);
  if (draining_) return Status(Code::kCancelled, "the engine is draining");
  if (script.refuse || static_cast<int>(waiting_.size()) >= options_.max_queue) {
    ++stats_.refused;
    return Status(Code::kResourceExhausted, "the queue is full", "queue");
  }
  auto sequence = std::make_shared<Sequence>();
  request.max_tokens = std::min(request.max_tokens, options_.context - prompt);
  sequence->record.id = next_id_++;
  sequence->record.prompt_tokens = prompt;
  sequence->submitted = seconds_now();
  sequence->request = std::move(request);
  sequence->script = std::move(script);
  waiting_.push_back(sequence);
  ++stats_.submitted;
  changed_.notify_all();
  return std::unique_ptr<Generation>(std::make_unique<Handle>(*this, std::move(sequence)));
}

void ScriptedEngine::drain() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
}

EngineStats ScriptedEngine::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.queued = static_cast<int64_t>(waiting_.size());
  stats.running = static_cast<int64_t>(running_.size());
  return stats;
}

int64_t ScriptedEngine::cached(const GenerateRequest& request) const {
  if (!request.use_cache || request.prompt_logprobs >= 0) return 0;
  size_t best = 0;
  for (const auto& [scope, tokens] : seen_) {
    if (scope != request.cache_scope) continue;
    const auto [a, b] = std::mismatch(tokens.begin(), tokens.end(), request.prompt.begin(), request.prompt.end());
    best = std::max<size_t>(best, a - tokens.begin());
  }
  return static_cast<int64_t>(std::min(best, request.prompt.size() - 1));
}

void ScriptedEngine::finish(Sequence& sequence, EndReason reason) {
  std::function<void()> call;
  {
    const std::lock_guard lock(sequence.mutex);
    RequestRecord& record = sequence.record;
    record.end = reason;
    record.phase = Phase::kEnded;
    if (record.output_tokens > 0) record.decode_s = seconds_now() - sequence.decoding;
    if (reason == EndReason::kCancelled) sequence.events.clear();
    ++(reason == EndReason::kFailed      ? stats_.failed
       : reason == EndReason::kCancelled ? stats_.cancelled
                                         : stats_.finished);
  }
  sequence.arrived.notify_all();
  if (sequence.request.on_event) sequence.request.on_event(true);
  sequence.request.on_event = nullptr;
  sequence.request.guide.reset();
  if (seen_.size() >= 256) seen_.pop_front();
  // The last token is never computed.
  std::vector<TokenId> tokens = sequence.request.prompt;
  if (!sequence.said.empty()) tokens.insert(tokens.end(), sequence.said.begin(), sequence.said.end() - 1);
  seen_.push_back({sequence.request.cache_scope, std::move(tokens)});
}

double ScriptedEngine::step(Sequence& s, double now) {
  GenerateRequest& request = s.request;
  {
    const std::lock_guard lock(s.mutex);
    if (s.cancelled) s.record.status = Status(Code::kCancelled, "cancelled");
  }
  if (s.cancelled) return finish(s, EndReason::kCancelled), 0;
  if (request.deadline_s && now - s.submitted > *request.deadline_s) return finish(s, EndReason::kDeadline), 0;
  if (now < s.due) return s.due - now;
  RequestRecord& record = s.record;
  if (record.phase == Phase::kPrefill) {
    const std::lock_guard lock(s.mutex);
    record.phase = Phase::kDecode;
    record.prefilled_tokens = record.prompt_tokens - record.cached_tokens;
    record.prefill_s = now - s.started;
    record.queue_s = s.started - s.submitted;
    s.decoding = now;
    if (request.prompt_logprobs >= 0) {
      for (size_t i = 1; i < request.prompt.size(); ++i) {
        s.scores.push_back({-0.5f, {{request.prompt[i], -0.5f}}});
      }
    }
  }
  if (request.max_tokens <= 0) return finish(s, EndReason::kLength), 0;
  {
    const std::lock_guard lock(s.mutex);
    if (s.events.size() >= request.event_capacity) return kPlay;  // the reader is slow: pause
  }
  if (s.script.fail_after >= 0 && record.output_tokens >= s.script.fail_after) {
    record.status = Status(Code::kInternal, "the script says so");
    return finish(s, EndReason::kFailed), 0;
  }
  if (s.script.stall_after >= 0 && record.output_tokens >= s.script.stall_after) return kPlay;

  const TokenId end = request.end_tokens.empty() ? 1 : request.end_tokens.front();
  if (s.script.loop && s.at >= s.script.tokens.size()) s.at = 0;
  TokenId id = s.at < s.script.tokens.size() ? s.script.tokens[s.at] : end;
  const auto mask = request.guide && !s.script.ignore_mask ? request.guide->allowed() : std::span<const uint32_t>();
  auto ends = [&](TokenId token) {
    return std::find(request.end_tokens.begin(), request.end_tokens.end(), token) != request.end_tokens.end();
  };
  const bool early = ends(id) && record.output_tokens < request.min_tokens;
  if (in_mask(mask, id) && !early) {
    ++s.at;
  } else {  // the lowest that may come
    ++s.at;
    TokenId other = 3;
    while (static_cast<size_t>(other) < tokenizer_.size() && (!in_mask(mask, other) || ends(other))) ++other;
    if (static_cast<size_t>(other) == tokenizer_.size() || (!in_mask(mask, other))) other = end;
    id = other;
  }
  s.said.push_back(id);
  bool more = true;
  if (request.guide) more = request.guide->accept(id);
  TokenEvent event;
  event.id = id;
  if (request.sampling.top_logprobs >= 0) {
    event.logprob = -0.25f;
    event.top_logprobs.push_back({id, -0.25f});
    for (int i = 1; i < request.sampling.top_logprobs; ++i) {
      event.top_logprobs.push_back({static_cast<TokenId>((id + i) % tokenizer_.size()), -1.0f - static_cast<float>(i)});
    }
  }
  {
    const std::lock_guard lock(s.mutex);
    if (record.output_tokens == 0) record.first_token_s = now - s.submitted;
    ++record.output_tokens;
    ++record.steps;
    s.events.push_back(std::move(event));
  }
  ++stats_.output_tokens;
  ++stats_.steps;
  ++stats_.batch_tokens;
  s.arrived.notify_all();
  if (ends(id)) return finish(s, EndReason::kEndToken), 0;
  if (!more) return finish(s, EndReason::kGuide), 0;
  if (record.output_tokens >= request.max_tokens) return finish(s, EndReason::kLength), 0;
  if (request.on_event) request.on_event(false);
  s.due = now + s.script.token_s;
  return s.script.token_s;
}

void ScriptedEngine::work() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const double now = seconds_now();
    while (!waiting_.empty() && static_cast<int>(running_.size()) < options_.max_sequences) {
      auto s = waiting_.front();
      waiting_.pop_front();
      {
        const std::lock_guard inner(s->mutex);
        s->record.cached_tokens = cached(s->request);
        s->record.phase = Phase::kPrefill;
        s->record.cache_decision = s->record.cached_tokens > 0 ? "hit in memory" : "miss: no common prefix";
        stats_.prompt_tokens += static_cast<uint64_t>(s->record.prompt_tokens);
        stats_.cached_tokens += static_cast<uint64_t>(s->record.cached_tokens);
        ++(s->record.cached_tokens > 0 ? stats_.cache_hits : stats_.cache_misses);
      }
      s->started = now;
      s->due = now + s->script.prefill_s;
      running_.push_back(std::move(s));
    }
    double nap = kPlay;
    for (const auto& s : running_) nap = std::min(nap, step(*s, now));
    std::erase_if(running_, [](const auto& s) { return s->record.phase == Phase::kEnded; });
    // Waiting ones may have been cancelled or be late.
    for (const auto& s : waiting_) {
      const bool late = s->request.deadline_s && now - s->submitted > *s->request.deadline_s;
      if (s->cancelled || late) finish(*s, s->cancelled ? EndReason::kCancelled : EndReason::kDeadline);
    }
    std::erase_if(waiting_, [](const auto& s) { return s->record.phase == Phase::kEnded; });
    stats_.phase = running_.empty() ? "idle" : "decode";
    if (nap > 0 || (running_.empty() && waiting_.empty())) {
      changed_.wait_for(lock, std::chrono::duration<double>(nap));
    } else {
      lock.unlock();  // let stats() and submit() in
      lock.lock();
    }
  }
  for (auto* list : {&running_}) {
    for (const auto& s : *list) finish(*s, EndReason::kCancelled);
  }
  for (const auto& s : waiting_) finish(*s, EndReason::kCancelled);
}

Script default_script(const Tokenizer& tokenizer, const std::vector<TokenId>& prompt) {
  Script script;
  std::string text = "Hello from the scripted backend.";
  const auto open = tokenizer.id_of("<think>");
  if (open && !prompt.empty() && prompt.back() == *open) text = "A greeting is asked for.</think>" + text;
  auto ids = tokenizer.encode(text, true);
  if (ids.ok()) script.tokens = std::move(ids).value();
  return script;
}

Result<Script> Script::parse(const Json& json, const Tokenizer& tokenizer) {
  Script script;
  if (!json.is_object()) return Status(Code::kInvalidArgument, "a script is an object", "x-script");
  auto number = [&](const char* key, double fallback) {
    const auto found = json.find(key);
    return found != json.end() && found->is_number() ? found->get<double>() : fallback;
  };
  auto flag = [&](const char* key) { return json.contains(key) && json[key] == true; };
  if (json.contains("text")) {
    NAUTILE_ASSIGN(const std::string text, json_string(json, "text", "x-script"));
    NAUTILE_ASSIGN(script.tokens, tokenizer.encode(text, true));
    if (flag("bytes")) {  // each byte of plain text as its own token
      std::vector<TokenId> single(256, -1), cut;
      for (size_t id = 0; id < tokenizer.size(); ++id) {
        const auto token = static_cast<TokenId>(id);
        const std::string_view bytes = tokenizer.bytes_of(token);
        if (bytes.size() == 1 && !tokenizer.is_added(token)) single[static_cast<unsigned char>(bytes[0])] = token;
      }
      for (const TokenId id : script.tokens) {
        if (tokenizer.is_added(id)) {
          cut.push_back(id);
          continue;
        }
        for (const unsigned char c : tokenizer.bytes_of(id)) {
          if (single[c] >= 0) cut.push_back(single[c]);
        }
      }
      script.tokens = std::move(cut);
    }
  }
  if (json.contains("tokens")) {
    for (const Json& id : json["tokens"]) {
      if (!id.is_number_integer() || !tokenizer.has(id.get<TokenId>())) {
        return Status(Code::kInvalidArgument, "a token of the script is out of vocabulary", "x-script");
      }
      script.tokens.push_back(id.get<TokenId>());
    }
  }
  script.loop = flag("loop");
  script.prefill_s = number("prefill_ms", 0) / 1000;
  script.token_s = number("token_ms", 0) / 1000;
  script.fail_after = static_cast<int64_t>(number("fail_after", -1));
  script.stall_after = static_cast<int64_t>(number("stall_after", -1));
  script.ignore_mask = flag("ignore_mask");
  script.refuse = flag("refuse");
  if (script.loop && script.tokens.empty()) script.loop = false;
  return script;
}

}  // namespace nautile::serve
