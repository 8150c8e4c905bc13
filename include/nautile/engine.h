// Engine: many generations at once on one model. Requests of token ids go in, token events come out.
//
// The same request gives the same tokens alone, in a full batch, from a cache hit, with or without speculation, after a
// preemption and after a restart: what a token is depends on the weights, the kernels, the numerics policy, the tokens
// before it and (seed, position) alone (design section 4).
//
// Thread-safety: every function of Engine and Generation may be called from any thread. Callbacks (TokenGuide,
// on_event) run on the engine's threads, never two at once for one generation; they must return soon, must not throw
// and must not call the engine. Lifetime: a Generation must be destroyed before its Engine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nautile/sampling.h"
#include "nautile/status.h"

namespace nautile {

// Steers one generation: says before each token which ones may come, and learns which one did. A grammar, a stop string
// or a reasoning budget is a guide. It sees only tokens that stand: drafts that were not accepted are never shown.
class TokenGuide {
 public:
  virtual ~TokenGuide() = default;
  // One bit a token, 32 to a word, lowest bit first; empty allows all. Valid until accept().
  virtual std::span<const uint32_t> allowed() = 0;
  // The token that was drawn, before its event is delivered. False: it is the last one (EndReason::kGuide).
  virtual bool accept(TokenId id) = 0;
};

struct GenerateRequest {
  std::vector<TokenId> prompt;  // at least one token
  // Of output, at least 1; clamped to what the context leaves. 0 with prompt_logprobs set: score the prompt and end.
  int64_t max_tokens = 0;
  int64_t min_tokens = 0;  // end tokens cannot come before so many
  SamplingParams sampling;
  std::vector<TokenId> end_tokens;  // any of them ends the generation; it is delivered as the last event
  std::unique_ptr<TokenGuide> guide;
  int prompt_logprobs = -1;  // -1: none; 0..20: for every prompt token but the first. Turns the prefix cache off.

  // Only requests of one scope share cached prefixes: a tenant, a key, a salt.
  std::string cache_scope;
  std::string cache_owner;  // whose share of the cache it counts to; empty: the scope's own
  bool use_cache = true;  // false: neither read nor write it
  bool speculate = true;

  std::string client;                // requests of different clients are admitted in turn
  int priority = 0;                  // lower first; waiting raises it, so nothing starves
  std::optional<double> deadline_s;  // seconds from submission to the last token; then EndReason::kDeadline

  // Tokens that may wait for the reader; a generation whose queue is full pauses and costs nothing.
  size_t event_capacity = 1024;
  // Called when poll() has something new: tokens, progress or, with `ended`, the end, after which it is not called again.
  std::function<void(bool ended)> on_event;
};

struct TokenEvent {
  TokenId id = -1;
  float logprob = 0;                  // set if sampling.top_logprobs >= 0
  std::vector<Logprob> top_logprobs;  // descending
};

// One prompt token's score (prompt_logprobs).
struct PromptScore {
  float logprob = 0;
  std::vector<Logprob> top_logprobs;
};

enum class Phase { kQueued, kPrefill, kDecode, kEnded };
enum class EndReason {
  kNone,      // still running
  kEndToken,  // one of end_tokens came
  kGuide,     // the guide ended it
  kLength,    // max_tokens, or the context is full
  kCancelled,
  kDeadline,
  kFailed,  // record().status says why
};

const char* name_of(Phase phase);
const char* name_of(EndReason reason);

// What is known of one generation; final once `phase` is kEnded.
struct RequestRecord {
  uint64_t id = 0;
  Phase phase = Phase::kQueued;
  EndReason end = EndReason::kNone;
  Status status;  // of a failure

  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;     // of the prompt, not computed again
  int64_t prefilled_tokens = 0;  // of the prompt, computed so far
  int64_t output_tokens = 0;
  int64_t drafted_tokens = 0, accepted_tokens = 0;  // by speculation
  int64_t preemptions = 0;                          // how often its memory was given to another
  int64_t steps = 0;                                // forward passes it took part in
  uint64_t state_bytes = 0;                         // held now, or at the end
  std::string cache_decision;  // "hit 2,048 of 2,100 tokens in memory", "miss: no common prefix", ...

  double queue_s = 0, prefill_s = 0, decode_s = 0;  // seconds in each phase
  double first_token_s = 0;                         // from submission to the first token; 0 before it
};

class Generation {
 public:
  virtual ~Generation() = default;  // cancels what still runs
  // Appends the tokens that have come since the last call. True while more may follow: once false, everything has been
  // handed over and record() is final. Never blocks.
  virtual bool poll(std::vector<TokenEvent>& out) = 0;
  // The same, but waits until there is a token or the end.
  virtual bool wait(std::vector<TokenEvent>& out) = 0;
  // Ends it within one step. Tokens not yet read are dropped.
  virtual void cancel() = 0;
  virtual RequestRecord record() const = 0;
  // [prompt_tokens - 1], complete at the end. Empty unless asked for.
  virtual std::vector<PromptScore> prompt_scores() const = 0;
};

// Counters since the start, and gauges of this moment.
struct EngineStats {
  // gauges
  int64_t queued = 0, running = 0, prefilling = 0, paused = 0;
  uint64_t memory_budget_bytes = 0, memory_bytes = 0;  // states and cache: planned, used
  uint64_t cache_bytes = 0, cache_budget_bytes = 0, disk_bytes = 0;
  int64_t max_sequences = 0, context_tokens = 0;
  double prefill_rate = 0, decode_rate = 0;  // tokens/s, moving averages
  std::string phase;                         // what the engine thread does now, for a watchdog
  double phase_s = 0;                        // since when
  // counters
  uint64_t submitted = 0, refused = 0, finished = 0, cancelled = 0, failed = 0, preemptions = 0;
  uint64_t prompt_tokens = 0, cached_tokens = 0, cached_disk_tokens = 0, output_tokens = 0;
  uint64_t drafted_tokens = 0, accepted_tokens = 0;
  uint64_t steps = 0, batch_tokens = 0;  // batch_tokens: sum over steps
  uint64_t cache_hits = 0, cache_misses = 0, cache_evictions = 0;
  double busy_s = 0;  // in forward passes
};

class Engine {
 public:
  virtual ~Engine() = default;  // cancels everything and waits for the step in progress

  // kInvalidArgument: a request that can never run (empty prompt, id outside the vocabulary, a field out of range).
  // kResourceExhausted: the prompt leaves no room in the context, one sequence of it is more than the memory plan
  // holds, or the queue is full; what() says which. kCancelled: the engine is draining. On an error on_event is never
  // called.
  virtual Result<std::unique_ptr<Generation>> submit(GenerateRequest request) = 0;
  // Refuses new requests from now on; those submitted before go on.
  virtual void drain() = 0;
  virtual EngineStats stats() const = 0;
};

}  // namespace nautile
