// EngineLoop: the engine's thread and what it owns. Split over files by concern: engine_loop.cc (life, submission,
// statistics), admit.cc (who runs, with which bytes, from which snapshot), step.cc (one step of the batch), draft.cc
// (speculation).
//
// Thread-safety: the public functions from any thread; everything below "engine's thread" from that thread alone.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "cache/prefix_cache.h"
#include "engine/admission.h"
#include "engine/engine.h"
#include "engine/sequence.h"
#include "engine/speculation.h"

namespace nautile {

class EngineLoop final : public LocalEngine {
 public:
  EngineLoop(LoadedModel& model, const EngineOptions& options, std::unique_ptr<DiskTier> disk,
             std::unique_ptr<PrefixCache> cache);
  ~EngineLoop() override;

  Result<std::unique_ptr<Generation>> submit(GenerateRequest request) override;
  void drain() override;
  EngineStats stats() const override;
  std::vector<StepRecord> steps(size_t count) const override;

  // Called by handles. The loop looks at cancellations, readers and arrivals.
  void wake();

 private:
  using Sequences = std::vector<std::unique_ptr<Sequence>>;
  // Tokens of one sequence in this step.
  struct Work {
    Sequence* sequence;
    int64_t begin;       // its length before the step
    size_t count;        // tokens, drafts included
    size_t rows;         // of logits
    size_t first_row;    // in the logits
    size_t first_token;  // in the batch
    bool decoding;
  };

  Status check(const GenerateRequest& request) const;
  bool queue_has_room(const std::string& client) const;    // with mutex_
  int64_t limit_of(const GenerateRequest& request) const;  // output tokens

  // --- engine's thread
  void run();
  bool take_arrivals();
  void sweep();                   // cancellations and deadlines
  void doing(const char* phase);  // for stats().phase
  void publish();                 // the gauges
  void count_queued(const Sequence& sequence, int64_t change);

  // admit.cc
  void admit();
  Verdict offer(Sequence& sequence);
  bool held_by_another(const Sequence& sequence);
  void start(Sequence& sequence);
  bool grow(Sequence& sequence, int64_t tokens);
  Sequence* make_room(Sequence& sequence, int64_t tokens);  // the sequence that was preempted for it, if any
  void preempt(Sequence& sequence);
  void release(Sequence& sequence);
  void finish(Sequence& sequence, EndReason reason);  // not removed from running_ yet
  void remove_finished();

  // step.cc
  bool step();
  void plan_step();
  void draw(Work& work, std::span<const float> logits, Sampler& sampler);
  Result<Sample> draw_token(Sequence& sequence, std::span<const float> logits, Sampler& sampler);
  void score_prompt(Work& work, std::span<const float> logits, Sampler& sampler);
  void settle(Work& work);
  void keep_snapshots(Sequence& sequence, int64_t from);
  Snapshot snapshot_at(SequenceState& state, int64_t length);
  void compare_canary(Sequence& sequence);
  void deliver(Sequence& sequence);

  // draft.cc
  void draft_next(std::span<const float> streams);
  int draft_limit(const Sequence& sequence) const;
  void propose(size_t round, std::span<const float> logits);

  LoadedModel& model_;
  const EngineOptions options_;
  const size_t vocabulary_, logits_width_, stream_width_;
  const int64_t context_;
  std::unique_ptr<DiskTier> disk_;      // null: none
  std::unique_ptr<PrefixCache> cache_;  // null: off

  Sequences running_;  // in order of admission
  std::unordered_map<uint64_t, std::unique_ptr<Sequence>> waiting_;
  std::unordered_map<uint64_t, std::shared_ptr<DiskRead>> reads_;
  std::unordered_map<uint64_t, std::vector<int64_t>> points_;  // where each running sequence takes snapshots
  AdmissionQueue queue_;
  StateBudget budget_;
  bool admission_changed_ = false;

  std::vector<Work> work_;
  std::vector<BatchItem> items_;
  std::vector<TokenId> batch_tokens_;
  std::vector<Sampler> samplers_;  // one a worker

  bool can_draft_ = false;
  std::unique_ptr<DraftPolicy> policy_;
  int draft_depth_ = 0;       // chosen for the next step
  double draft_seconds_ = 0;  // that the next step's drafts took
  std::vector<float> draft_streams_;
  std::vector<Sequence*> drafting_;
  std::vector<const Acceptance*> acceptances_;
  std::vector<size_t> draft_rows_;  // batch token of each item's last stream

  // --- shared
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Sequences arrivals_;
  bool woken_ = false, stopping_ = false, draining_ = false;
  uint64_t next_id_ = 1;
  EngineStats stats_;
  std::vector<StepRecord> steps_;  // a ring: step n lies at n % size
  int64_t queued_ = 0;
  std::map<std::string, int64_t> queued_by_client_;
  std::atomic<const char*> phase_{"idle"};
  std::atomic<double> phase_since_{0};
  std::thread thread_;
};

}  // namespace nautile
