// An engine without a model: it plays token lists back, so that every rule of the API can be tested on a laptop.
//
// The same Engine interface as the real one: queueing, masks, guides, events, pauses of full queues, deadlines,
// cancellation, prefix hits. What it plays comes from a script, chosen per request (header x-script).
// Thread-safety: as Engine. Source: spec api.md 1.13, 18.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "base/json.h"
#include "nautile/engine.h"
#include "text/tokenizer.h"

namespace nautile::serve {

struct Script {
  std::vector<TokenId> tokens;  // played once; then the end token, unless `loop`
  bool loop = false;
  double prefill_s = 0, token_s = 0;
  int64_t fail_after = -1;   // tokens, then kFailed
  int64_t stall_after = -1;  // tokens, then nothing until it is cancelled
  bool ignore_mask = false;  // as an engine that enforces nothing
  bool refuse = false;       // submit says that the queue is full

  // {"text": "...", "tokens": [ids], "bytes": bool, "loop": bool, "prefill_ms": n, "token_ms": n, "fail_after": n,
  //  "stall_after": n, "ignore_mask": bool, "refuse": bool}. `bytes` plays the text byte by byte. "choices": [scripts]
  // gives each choice its own. kInvalidArgument at "x-script"; text that cannot be encoded fails as Tokenizer::encode().
  static Result<Script> parse(const Json& json, const Tokenizer& tokenizer);
};

struct ScriptedOptions {
  int64_t context = 16384;
  int max_sequences = 64, max_queue = 256;
};

class ScriptedEngine final : public Engine {
 public:
  ScriptedEngine(const Tokenizer& tokenizer, ScriptedOptions options);
  ~ScriptedEngine() override;

  Result<std::unique_ptr<Generation>> submit(GenerateRequest request) override;
  Result<std::unique_ptr<Generation>> submit(GenerateRequest request, Script script);
  void drain() override;
  EngineStats stats() const override;

 private:
  struct Sequence;
  class Handle;
  void work();
  // One step of one sequence; the seconds until its next.
  double step(Sequence& sequence, double now);
  int64_t cached(const GenerateRequest& request) const;
  void finish(Sequence& sequence, EndReason reason);

  const Tokenizer& tokenizer_;
  ScriptedOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Sequence>> waiting_;
  std::vector<std::shared_ptr<Sequence>> running_;
  std::deque<std::pair<std::string, std::vector<TokenId>>> seen_;  // scope and tokens, for prefix hits
  EngineStats stats_;
  uint64_t next_id_ = 1;
  bool draining_ = false, stopping_ = false;
  std::thread thread_;
};

// What it says when no script is named: some reasoning if the prompt asks for it, then a greeting.
Script default_script(const Tokenizer& tokenizer, const std::vector<TokenId>& prompt);

}  // namespace nautile::serve
