// One step: choose the tokens, run the model over them, draw, deliver.
#include <algorithm>

#include "engine/engine_loop.h"
#include "sys/clock.h"

namespace nautile {
namespace {

// Logits of every prompt token of such a chunk are held at once.
constexpr size_t kScoredChunk = 32;

void smooth(double& average, double value) {
  average = average > 0 ? average + 0.1 * (value - average) : value;
}

}  // namespace

// Every decoding sequence takes part with its token and drafts; prefilling ones share what is left of the step's
// tokens. A sequence whose reader is behind sits out.
void EngineLoop::plan_step() {
  work_.clear();
  batch_tokens_.clear();
  size_t tokens = 0, prefilling = 0;
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& s = *running_[i];
    if (s.record.phase == Phase::kQueued || s.record.phase == Phase::kEnded) continue;
    if (!s.decoding()) {
      ++prefilling;
      continue;
    }
    s.delivery->paused = true;  // before the look at the room, so that a reader who makes some afterwards wakes us
    const size_t room = s.delivery->room();
    if (room == 0) continue;
    s.delivery->paused = false;
    if (s.draft.size() >= room) s.draft.resize(room - 1);
    const size_t count = 1 + s.draft.size();
    if (Sequence* victim = make_room(s, s.state->length() + static_cast<int64_t>(count)); victim != nullptr) {
      std::erase_if(work_, [&](const Work& w) { return w.sequence == victim; });
      if (victim == &s) continue;
      --i;  // try again with what the victim gave
      continue;
    }
    work_.push_back({&s, s.state->length(), count, count, 0, 0, true});
  }
  for (const Work& w : work_) tokens += w.count;

  size_t left =
      static_cast<size_t>(options_.step_tokens) > tokens ? static_cast<size_t>(options_.step_tokens) - tokens : 1;
  for (size_t i = 0; i < running_.size() && left > 0 && prefilling > 0; ++i) {
    Sequence& s = *running_[i];
    if (s.record.phase == Phase::kQueued || s.record.phase == Phase::kEnded || s.decoding()) continue;
    const size_t share = std::max<size_t>(left / prefilling, std::min<size_t>(left, kBlockTokens));
    --prefilling;
    const bool scored = s.request.prompt_logprobs >= 0;
    size_t count = std::min({share, s.pending(), scored ? kScoredChunk : s.pending()});
    const std::vector<int64_t>& points = points_[s.id];
    const auto next = std::upper_bound(points.begin(), points.end(), s.state->length());
    if (next != points.end()) count = std::min(count, static_cast<size_t>(*next - s.state->length()));
    const bool last = count == s.pending();
    if (last && s.max_tokens > 0) {
      s.delivery->paused = true;
      if (s.delivery->room() == 0) continue;
      s.delivery->paused = false;
    }
    if (Sequence* victim = make_room(s, s.state->length() + static_cast<int64_t>(count)); victim != nullptr) {
      std::erase_if(work_, [&](const Work& w) { return w.sequence == victim; });
      continue;
    }
    work_.push_back({&s, s.state->length(), count,
                     scored                     ? count
                     : last && s.max_tokens > 0 ? size_t{1}
                                                : size_t{0},
                     0, 0, false});
    left -= count;
  }

  size_t row = 0;
  for (Work& w : work_) {
    const auto first = w.sequence->tokens.begin() + w.begin;
    w.first_token = batch_tokens_.size();
    w.first_row = row;
    row += w.rows;
    const size_t known = w.decoding ? 1 : w.count;
    batch_tokens_.insert(batch_tokens_.end(), first, first + static_cast<std::ptrdiff_t>(known));
    if (w.decoding) batch_tokens_.insert(batch_tokens_.end(), w.sequence->draft.begin(), w.sequence->draft.end());
  }
  items_.clear();
  for (const Work& w : work_) {
    items_.push_back({w.sequence->state.get(), std::span(batch_tokens_).subspan(w.first_token, w.count), w.rows});
  }
}

bool EngineLoop::step() {
  doing("plan");
  const double begin = seconds_now();
  plan_step();
  if (work_.empty()) return false;

  doing("forward");
  const uint64_t experts = model_.forward().experts_read();
  auto out = model_.forward()(items_, Logits::kEach);
  if (!out.ok()) {
    for (Work& w : work_) {
      w.sequence->record.status = out.status();
      finish(*w.sequence, EndReason::kFailed);
    }
    return true;
  }
  doing("draw");
  const std::span<const float> logits = out->logits;
  model_.pool().for_range(work_.size(), 1, [&](int worker, size_t first, size_t last) {
    for (size_t i = first; i < last; ++i) {
      Work& w = work_[i];
      if (w.rows == 0) continue;
      const auto rows = logits.subspan(w.first_row * logits_width_, w.rows * logits_width_);
      if (w.sequence->request.prompt_logprobs >= 0 && !w.decoding) score_prompt(w, rows, samplers_[static_cast<size_t>(worker)]);
      const bool last_chunk =
          w.begin + static_cast<int64_t>(w.count) >= static_cast<int64_t>(w.sequence->tokens.size());
      if (w.decoding || (last_chunk && w.sequence->max_tokens > 0)) {
        draw(w, w.decoding ? rows : rows.last(logits_width_), samplers_[static_cast<size_t>(worker)]);
      }
    }
  });

  StepRecord record;
  record.begin_s = begin;
  record.draft_seconds = draft_seconds_;
  bool uniform = true;
  for (Work& w : work_) {
    record.decoding += w.decoding;
    record.prefilling += !w.decoding;
    record.drafts += static_cast<int>(w.sequence->draft_rows);
    record.prefill_tokens += w.decoding ? 0 : static_cast<int64_t>(w.count);
    record.new_tokens += static_cast<int64_t>(w.sequence->drawn.size());
    uniform = uniform && w.decoding && static_cast<int>(w.sequence->draft_rows) == draft_depth_;
    settle(w);
  }
  record.seconds = seconds_now() - begin;
  record.experts_read = model_.forward().experts_read() - experts;
  if (policy_ && uniform) policy_->took(record.decoding, draft_depth_, record.seconds + draft_seconds_);

  doing("draft");
  const double draft_begin = seconds_now();
  if (can_draft_) draft_next(out->streams);
  draft_seconds_ = seconds_now() - draft_begin;

  doing("deliver");
  for (Work& w : work_) deliver(*w.sequence);
  if (record.prefilling > 0 && !waiting_.empty()) admission_changed_ = true;

  const std::lock_guard lock(mutex_);
  steps_[stats_.steps++ % steps_.size()] = record;
  stats_.batch_tokens += batch_tokens_.size();
  stats_.output_tokens += static_cast<uint64_t>(record.new_tokens);
  stats_.busy_s += record.seconds;
  if (record.prefilling == 0)
    smooth(stats_.decode_rate, static_cast<double>(record.new_tokens) / (record.seconds + draft_seconds_));
  if (record.decoding == 0) smooth(stats_.prefill_rate, static_cast<double>(record.prefill_tokens) / record.seconds);
  return true;
}

// logits: one row for the last known token, one for each draft. Runs on any worker.
void EngineLoop::draw(Work& work, std::span<const float> logits, Sampler& sampler) {
  Sequence& s = *work.sequence;
  s.draft_rows = logits.size() / logits_width_ - 1;
  for (size_t row = 0; row <= s.draft_rows; ++row) {
    auto sample = draw_token(s, logits.subspan(row * logits_width_, vocabulary_), sampler);
    if (!sample.ok()) {
      s.failure = sample.status();
      s.record.end = EndReason::kFailed;
      return;
    }
    const TokenId id = sample->id;
    s.tokens.push_back(id);
    s.drawn.push_back({id, sample->logprob, std::move(sample->top_logprobs)});
    if (s.needs_history) s.history.add_output(id);
    const bool stays = s.request.guide == nullptr || s.request.guide->accept(id);
    if (std::find(s.request.end_tokens.begin(), s.request.end_tokens.end(), id) != s.request.end_tokens.end()) {
      s.record.end = EndReason::kEndToken;
    } else if (!stays) {
      s.record.end = EndReason::kGuide;
    } else if (s.output() >= s.max_tokens) {
      s.record.end = EndReason::kLength;
    }
    if (s.record.end != EndReason::kNone || row == s.draft_rows || s.draft[row] != id) return;
  }
}

Result<Sample> EngineLoop::draw_token(Sequence& s, std::span<const float> logits, Sampler& sampler) {
  std::span<const uint32_t> allowed;
  if (s.request.guide != nullptr) allowed = s.request.guide->allowed();
  if (s.output() < s.request.min_tokens) {
    if (allowed.empty()) {
      std::fill(s.mask.begin(), s.mask.end(), ~0u);
    } else {
      std::copy_n(allowed.begin(), std::min(allowed.size(), s.mask.size()), s.mask.begin());
    }
    for (const TokenId id : s.request.end_tokens) {
      if (id >= 0 && static_cast<size_t>(id) < vocabulary_) s.mask[static_cast<size_t>(id) / 32] &= ~(1u << (id % 32));
    }
    allowed = s.mask;
  }
  return sampler.sample(logits, s.request.sampling, s.history, s.tokens.size(), allowed);
}

void EngineLoop::score_prompt(Work& work, std::span<const float> logits, Sampler& sampler) {
  Sequence& s = *work.sequence;
  for (size_t row = 0; row < work.rows; ++row) {
    const size_t next = static_cast<size_t>(work.begin) + row + 1;
    if (next >= s.prompt_size) return;
    TokenScore score =
        sampler.score(logits.subspan(row * logits_width_, vocabulary_), s.tokens[next], s.request.prompt_logprobs);
    s.scores.push_back({score.logprob, std::move(score.top)});
  }
}

// After the draw: takes drafts back that did not stand, keeps snapshots, moves the phase on.
void EngineLoop::settle(Work& work) {
  Sequence& s = *work.sequence;
  if (work.decoding) {
    const size_t accepted = s.drawn.empty() ? 0 : s.drawn.size() - 1;
    for (size_t i = 0; i < s.draft_rows && i <= accepted; ++i) {
      policy_->saw(s.acceptance, static_cast<int>(i), i < accepted);
    }
    s.record.drafted_tokens += static_cast<int64_t>(s.draft_rows);
    s.record.accepted_tokens += static_cast<int64_t>(accepted);
    if (s.draft_rows > accepted) {
      // Cannot fail: at most kMaxRollback - 1 tokens were drafted.
      const Status back = s.state->rollback(s.state->length() - static_cast<int64_t>(s.draft_rows - accepted));
      if (!back.ok()) s.failure = back;
    }
    const std::lock_guard lock(mutex_);
    stats_.drafted_tokens += s.draft_rows;
    stats_.accepted_tokens += accepted;
  } else {
    s.record.prefilled_tokens += static_cast<int64_t>(work.count);
  }
  s.draft.clear();
  ++s.record.steps;
  keep_snapshots(s, work.begin);
  if (!s.drawn.empty() && s.record.phase == Phase::kPrefill) {
    const double now = seconds_now();
    s.record.prefill_s += now - s.phase_since_s;
    if (s.record.first_token_s == 0) s.record.first_token_s = now - s.submitted_s;
    s.phase_since_s = now;
    s.record.phase = Phase::kDecode;
  }
  if (s.max_tokens == 0 && s.state->length() == static_cast<int64_t>(s.prompt_size)) s.record.end = EndReason::kLength;
  if (!s.failure.ok()) s.record.end = EndReason::kFailed;
}

// Snapshots go to the cache at the chosen points of a prefill. While decoding the last block end is remembered, for the
// end of the turn.
void EngineLoop::keep_snapshots(Sequence& s, int64_t from) {
  const int64_t length = s.state->length(), at = length / kBlockTokens * kBlockTokens;
  if (cache_ == nullptr || !s.request.use_cache || at <= from || at == 0) return;
  const std::vector<int64_t>& points = points_[s.id];
  const bool point = std::binary_search(points.begin(), points.end(), at);
  const bool decoding = length >= static_cast<int64_t>(s.prompt_size);
  if (!point && !decoding) return;
  if (s.canary && s.canary->length == at) compare_canary(s);
  Snapshot snapshot = snapshot_at(*s.state, at);
  if (point || at % cache_->options().snapshot_spacing == 0) {
    cache_->insert(s.scope, std::span(s.tokens).first(static_cast<size_t>(at)), snapshot, s.cache_owner);
  }
  if (decoding) s.turn_end = std::move(snapshot);
}

// The snapshot at a block end that the state has passed by no more than it can take back. The draft module's row before
// the block end depends on the token after it, so it stays out.
Snapshot EngineLoop::snapshot_at(SequenceState& state, int64_t length) {
  const int64_t ahead = state.length() - length,
                draft_ahead = std::max<int64_t>(0, state.draft_length() - (length - 1));
  (void)state.rollback(length);
  if (draft_ahead <= kMaxRollback) (void)state.rollback_draft(state.draft_length() - draft_ahead);
  Snapshot snapshot = std::move(state.snapshot()).value();
  if (draft_ahead <= kMaxRollback) state.advance_draft(draft_ahead);
  state.advance(ahead);
  return snapshot;
}

// A hit that was computed again must be what the cache said, to the bit.
void EngineLoop::compare_canary(Sequence& s) {
  const int64_t ahead = s.state->length() - s.canary->length;
  (void)s.state->rollback(s.canary->length);
  if (!s.state->rows_equal(*s.canary)) {
    s.failure = Status(Code::kInternal, "a cached prefix differs from what was computed again",
                       "prefix cache, " + std::to_string(s.canary->length) + " tokens",
                       "report this; run without the prefix cache until it is understood");
  }
  s.state->advance(ahead);
  s.canary.reset();
}

void EngineLoop::deliver(Sequence& s) {
  if (s.record.phase == Phase::kEnded) return;
  s.record.output_tokens = s.output();
  s.delivery->push(s.drawn, s.record);
  s.drawn.clear();
  s.draft_rows = 0;
  if (s.record.end != EndReason::kNone) {
    s.record.status = s.failure;
    finish(s, s.record.end);
  }
}

}  // namespace nautile
