// Speculation: the MTP block follows the main model and proposes what comes next; the next step verifies it.
//
// A proposal is drawn with the noise of its own position, the same that will draw the true token. So a sampled token
// and its draft agree wherever the two distributions make the same choice, and what is delivered is what would have
// been drawn without drafts.
#include <algorithm>
#include <cstring>

#include "engine/engine_loop.h"

namespace nautile {

// Drafts the sequence could use: not past its end, its reader, or what can be taken back.
int EngineLoop::draft_limit(const Sequence& s) const {
  if (!s.request.speculate || s.record.end != EndReason::kNone || !s.decoding()) return 0;
  return static_cast<int>(std::clamp<int64_t>(s.max_tokens - s.output() - 1, 0, options_.draft_depth));
}

// streams: of the step's tokens, batch order. Follows the sequences that will draft and draws their drafts.
void EngineLoop::draft_next(std::span<const float> streams) {
  acceptances_.clear();
  int limit = 0;
  for (const Work& w : work_) {
    const int most = draft_limit(*w.sequence);
    if (most > 0) acceptances_.push_back(&w.sequence->acceptance);
    limit = std::max(limit, most);
  }
  if (options_.speculation == Speculation::kAlways) {
    draft_depth_ = limit;
  } else {
    draft_depth_ = policy_->depth(acceptances_, limit);
  }

  // First pass: the tokens whose streams this step made. A prefilling sequence only lets its window fill.
  items_.clear();
  drafting_.clear();
  draft_rows_.clear();
  draft_streams_.clear();
  for (const Work& w : work_) {
    Sequence& s = *w.sequence;
    const bool proposes = draft_depth_ > 0 && draft_limit(s) > 0;
    const bool follows = proposes || (!w.decoding && s.request.speculate && s.record.end == EndReason::kNone &&
                                      (draft_depth_ > 0 || options_.speculation == Speculation::kAlways));
    if (!follows || s.state == nullptr) continue;
    const int64_t end = std::min(s.state->length(), static_cast<int64_t>(s.tokens.size()) - 1);
    const int64_t begin = std::max(w.begin, end - kBlockTokens);
    if (begin >= end) continue;
    // What was drafted ahead of the main model is computed again from its true streams; what was missed is left out.
    if (s.state->draft_length() < begin || !s.state->rollback_draft(begin).ok()) s.state->skip_draft(begin);
    const size_t count = static_cast<size_t>(end - begin);
    const size_t first = w.first_token + static_cast<size_t>(begin - w.begin);
    const auto rows = streams.subspan(first * stream_width_, count * stream_width_);
    draft_streams_.insert(draft_streams_.end(), rows.begin(), rows.end());
    items_.push_back(
        {s.state.get(), std::span(s.tokens).subspan(static_cast<size_t>(begin) + 1, count), proposes ? 1u : 0u});
    drafting_.push_back(&s);
  }
  if (items_.empty()) return;
  auto out = model_.forward().draft(items_, draft_streams_, Logits::kEach);

  for (int round = 0;; ++round) {
    if (!out.ok()) {
      // Drafts are a help, not a need: without them the next step decodes plainly.
      for (Sequence* s : drafting_) s->draft.clear();
      return;
    }
    // Streams of each proposer's last token, gathered before the next pass overwrites them.
    size_t token = 0, kept = 0;
    const std::span<const float> made = out->streams;
    draft_streams_.clear();
    for (size_t i = 0; i < items_.size(); ++i) {
      token += items_[i].tokens.size();
      if (items_[i].logits == 0) continue;
      const auto last = made.subspan((token - 1) * stream_width_, stream_width_);
      draft_streams_.insert(draft_streams_.end(), last.begin(), last.end());
      drafting_[kept++] = drafting_[i];
    }
    drafting_.resize(kept);
    if (kept == 0) return;
    propose(static_cast<size_t>(round), out->logits);
    if (round + 1 >= draft_depth_) return;
    // Those that may draft further, with their streams.
    items_.clear();
    size_t row = 0;
    kept = 0;
    for (size_t i = 0; i < drafting_.size(); ++i) {
      Sequence& s = *drafting_[i];
      if (static_cast<int>(s.draft.size()) >= draft_limit(s)) continue;
      if (row != i) {
        std::memmove(draft_streams_.data() + row * stream_width_, draft_streams_.data() + i * stream_width_,
                     stream_width_ * sizeof(float));
      }
      ++row;
      items_.push_back({s.state.get(), std::span<const int32_t>(&s.draft.back(), 1), 1});
      drafting_[kept++] = &s;
    }
    drafting_.resize(kept);
    draft_streams_.resize(row * stream_width_);
    if (items_.empty()) return;
    out = model_.forward().draft(items_, draft_streams_, Logits::kEach);
  }
}

// logits: one row for each of drafting_. The next draft of each.
void EngineLoop::propose(size_t round, std::span<const float> logits) {
  model_.pool().for_range(drafting_.size(), 1, [&](int worker, size_t first, size_t last) {
    for (size_t i = first; i < last; ++i) {
      Sequence& s = *drafting_[i];
      auto sample = samplers_[static_cast<size_t>(worker)].sample(logits.subspan(i * logits_width_, vocabulary_),
                                                                  s.draft_sampling, s.history, s.tokens.size() + round);
      // A draft that cannot be drawn is no draft; the main model's own logits decide whether something is wrong.
      s.draft.push_back(sample.ok() ? sample->id : 0);
    }
  });
}

}  // namespace nautile
