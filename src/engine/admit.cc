// Who runs, with which bytes, from which snapshot.
#include <fmt/format.h>

#include <algorithm>

#include "engine/engine_loop.h"
#include "sys/clock.h"

namespace nautile {
namespace {

// Output tokens whose memory a sequence gets with its prompt's; it asks again when they are used up.
constexpr int64_t kHeadroomTokens = 1024;
// A prompt waits for another that is computing its beginning if at least so much is shared.
constexpr int64_t kWorthWaiting = 2 * kBlockTokens;

int64_t common_prefix(const std::vector<TokenId>& a, const std::vector<TokenId>& b) {
  const size_t most = std::min(a.size(), b.size());
  return std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(most), b.begin()).first - a.begin();
}

std::string describe(const CacheHit& hit, size_t tokens) {
  if (hit.tokens == 0) return fmt::format("miss: {}", hit.reason.empty() ? "nothing to share" : hit.reason);
  std::string text = fmt::format("hit {} of {} tokens {}", hit.tokens, tokens,
                                 hit.source == CacheHit::Source::kDisk ? "from disk" : "in memory");
  if (!hit.reason.empty()) text += fmt::format(", not more: {}", hit.reason);
  return text;
}

}  // namespace

void EngineLoop::admit() {
  doing("admit");
  admission_changed_ = false;
  while (static_cast<int64_t>(running_.size()) < options_.max_sequences && !queue_.empty()) {
    const uint64_t id = queue_.next(seconds_now(), [&](uint64_t one) { return offer(*waiting_.at(one)); });
    if (id == 0) break;
    auto node = waiting_.extract(id);
    running_.push_back(std::move(node.mapped()));
    count_queued(*running_.back(), -1);
    start(*running_.back());
  }
}

Verdict EngineLoop::offer(Sequence& sequence) {
  const bool cached = cache_ != nullptr && sequence.request.use_cache && sequence.request.prompt_logprobs < 0;
  if (cached && held_by_another(sequence)) return Verdict::kSkip;
  if (cached && !sequence.asked_disk) {
    sequence.asked_disk = true;
    if (auto read = cache_->prefetch(sequence.scope, sequence.tokens, static_cast<int64_t>(sequence.tokens.size()) - 1,
                                     sequence.cache_owner)) {
      reads_.emplace(sequence.id, std::move(read));
    }
  }
  if (const auto read = reads_.find(sequence.id); read != reads_.end() && !cache_->poll(read->second)) {
    return Verdict::kSkip;
  }
  const int64_t tokens = static_cast<int64_t>(sequence.tokens.size());
  const int64_t most = static_cast<int64_t>(sequence.prompt_size) + sequence.max_tokens;
  const int64_t granted = std::min(most, tokens + kHeadroomTokens);
  if (!budget_.take(budget_.bytes_for(granted))) return Verdict::kWait;
  sequence.granted_tokens = granted;
  sequence.granted_bytes = budget_.bytes_for(granted);
  reads_.erase(sequence.id);
  return Verdict::kAdmit;
}

// Another sequence is on its way through a beginning that this one shares: it will leave a snapshot where they part.
bool EngineLoop::held_by_another(const Sequence& sequence) {
  for (const auto& other : running_) {
    if (other->scope != sequence.scope || !other->request.use_cache) continue;
    if (other->record.end != EndReason::kNone || other->pending() <= 1) continue;
    const int64_t shared =
        std::min(common_prefix(other->tokens, sequence.tokens), static_cast<int64_t>(sequence.tokens.size()) - 1) /
        kBlockTokens * kBlockTokens;
    if (shared < kWorthWaiting || other->state->length() >= shared) continue;
    std::vector<int64_t>& points = points_[other->id];
    const auto at = std::lower_bound(points.begin(), points.end(), shared);
    if (at == points.end() || *at != shared) points.insert(at, shared);
    return true;
  }
  return false;
}

void EngineLoop::start(Sequence& sequence) {
  const double now = seconds_now();
  sequence.record.queue_s += now - sequence.phase_since_s;
  sequence.phase_since_s = now;
  sequence.record.phase = Phase::kPrefill;
  const bool cached = cache_ != nullptr && sequence.request.use_cache && sequence.request.prompt_logprobs < 0;
  const bool first = sequence.record.preemptions == 0;
  std::vector<int64_t> points;
  const auto& layout = model_.layout();
  if (cached) {
    const int64_t last = static_cast<int64_t>(sequence.tokens.size()) - 1;
    CacheHit hit = cache_->find(sequence.scope, sequence.tokens, last);
    points = cache_->snapshot_points(hit.tokens, last, hit.common_tokens);
    if (first) sequence.record.cache_decision = describe(hit, sequence.tokens.size());
    if (hit.verify && hit.tokens > 0) {
      if (first) sequence.record.cache_decision += ", computed again to compare";
      points = cache_->snapshot_points(0, last, hit.tokens);
      sequence.canary = std::move(hit.snapshot);
      sequence.state = std::make_unique<SequenceState>(layout);
    } else if (hit.tokens > 0) {
      sequence.state = std::make_unique<SequenceState>(layout, hit.snapshot);
      if (first) sequence.record.cached_tokens = hit.tokens;
    } else {
      sequence.state = std::make_unique<SequenceState>(layout);
    }
    const std::lock_guard lock(mutex_);
    if (first && sequence.record.cached_tokens > 0) {
      ++stats_.cache_hits;
      stats_.cached_tokens += static_cast<uint64_t>(hit.tokens);
      if (hit.source == CacheHit::Source::kDisk) stats_.cached_disk_tokens += static_cast<uint64_t>(hit.tokens);
    } else if (first) {
      ++stats_.cache_misses;
    }
  } else {
    sequence.state = std::make_unique<SequenceState>(layout);
    sequence.record.cache_decision = cache_ == nullptr                       ? "off"
                                     : sequence.request.prompt_logprobs >= 0 ? "off: every prompt token is scored"
                                                                             : "off for this request";
  }
  points_[sequence.id] = std::move(points);
  sequence.record.state_bytes = sequence.granted_bytes;
  if (first) {
    const std::lock_guard lock(mutex_);
    stats_.prompt_tokens += sequence.prompt_size;
  }
}

// Counts memory for `tokens` tokens, and some in advance; false if the plan has no more.
bool EngineLoop::grow(Sequence& sequence, int64_t tokens) {
  if (tokens <= sequence.granted_tokens) return true;
  const int64_t most = static_cast<int64_t>(sequence.prompt_size) + sequence.max_tokens;
  for (const int64_t wanted : {std::min(most, tokens + kHeadroomTokens), tokens}) {
    const uint64_t bytes = budget_.bytes_for(wanted);
    if (bytes > sequence.granted_bytes && !budget_.take(bytes - sequence.granted_bytes)) continue;
    sequence.granted_tokens = wanted;
    sequence.granted_bytes = std::max(bytes, sequence.granted_bytes);
    sequence.record.state_bytes = sequence.granted_bytes;
    return true;
  }
  return false;
}

// Preempts the least urgent, latest sequence, which may be the asking one.
Sequence* EngineLoop::make_room(Sequence& sequence, int64_t tokens) {
  if (grow(sequence, tokens)) return nullptr;
  Sequence* victim = &sequence;
  for (const auto& other : running_) {
    if (other->state == nullptr || other->record.end != EndReason::kNone) continue;
    if (other->request.priority > victim->request.priority ||
        (other->request.priority == victim->request.priority && other->id > victim->id)) {
      victim = other.get();
    }
  }
  preempt(*victim);
  return victim;
}

// The sequence gives its memory back and waits in front. What it computed is remembered as far as its last snapshot;
// the rest will be computed again, to the same bits.
void EngineLoop::preempt(Sequence& sequence) {
  if (sequence.turn_end && cache_ != nullptr) {
    cache_->insert(sequence.scope, std::span(sequence.tokens).first(static_cast<size_t>(sequence.turn_end->length)),
                   *sequence.turn_end, sequence.cache_owner);
  }
  release(sequence);
  sequence.draft.clear();
  ++sequence.record.preemptions;
  const double now = seconds_now();
  (sequence.output() > 0 ? sequence.record.decode_s : sequence.record.prefill_s) += now - sequence.phase_since_s;
  sequence.phase_since_s = now;
  sequence.record.phase = Phase::kQueued;
  const std::lock_guard lock(mutex_);
  ++stats_.preemptions;
}

void EngineLoop::release(Sequence& sequence) {
  sequence.state.reset();
  sequence.turn_end.reset();
  sequence.canary.reset();
  points_.erase(sequence.id);
  budget_.give(sequence.granted_bytes);
  sequence.granted_bytes = 0;
  sequence.granted_tokens = 0;
  admission_changed_ = true;
}

void EngineLoop::finish(Sequence& sequence, EndReason reason) {
  if (sequence.record.phase == Phase::kEnded) return;
  const double now = seconds_now();
  const double spent = now - sequence.phase_since_s;
  RequestRecord& record = sequence.record;
  (record.phase == Phase::kQueued    ? record.queue_s
   : record.phase == Phase::kPrefill ? record.prefill_s
                                     : record.decode_s) += spent;
  record.phase = Phase::kEnded;
  record.end = reason;
  record.output_tokens = sequence.output();
  if (sequence.state != nullptr) {
    // The end of a turn is where the next request of a conversation will branch off.
    if (sequence.turn_end && cache_ != nullptr && reason != EndReason::kFailed) {
      cache_->insert(sequence.scope, std::span(sequence.tokens).first(static_cast<size_t>(sequence.turn_end->length)),
                     *sequence.turn_end, sequence.cache_owner);
    }
    release(sequence);
  }
  {
    const std::lock_guard lock(mutex_);
    ++(reason == EndReason::kCancelled || reason == EndReason::kDeadline ? stats_.cancelled
       : reason == EndReason::kFailed                                    ? stats_.failed
                                                                         : stats_.finished);
  }
  sequence.delivery->end(record, std::move(sequence.scores));
}

void EngineLoop::remove_finished() {
  for (auto& sequence : running_) {
    if (sequence->record.phase != Phase::kQueued) continue;
    queue_.push_front({sequence->id, sequence->request.client, sequence->request.priority, sequence->submitted_s});
    count_queued(*sequence, 1);
    const uint64_t id = sequence->id;
    waiting_.emplace(id, std::move(sequence));
  }
  std::erase_if(running_, [](const auto& s) { return s == nullptr || s->record.phase == Phase::kEnded; });
}

}  // namespace nautile
