// The guide's work, token by token.
#include "serve/output.h"

#include <algorithm>

namespace nautile::serve {
namespace {

class Guide final : public TokenGuide {
 public:
  explicit Guide(std::shared_ptr<Output> output) : output_(std::move(output)) {}
  std::span<const uint32_t> allowed() override { return output_->allowed(); }
  bool accept(TokenId id) override { return output_->accept(id); }

 private:
  std::shared_ptr<Output> output_;
};

StopMatcher matcher(const OutputPlan& plan) {
  auto made = StopMatcher::make(plan.stop, plan.include_stop);
  return made.ok() ? std::move(made).value() : StopMatcher::make({}).value();
}

bool newlines_only(std::string_view text) {
  return text.find_first_not_of('\n') == std::string_view::npos;
}

}  // namespace

std::vector<uint32_t> all_tokens(size_t vocabulary) {
  std::vector<uint32_t> mask((vocabulary + 31) / 32, ~0u);
  if (vocabulary % 32 != 0) mask.back() = (1u << (vocabulary % 32)) - 1;
  return mask;
}

Output::Output(OutputPlan plan)
    : plan_(std::move(plan)), parser_(plan_.tokens, {plan_.start, plan_.tools, {}}), stop_(matcher(plan_)) {
  const size_t vocabulary = plan_.tokenizer->size();
  base_ = all_tokens(vocabulary);
  bool narrows = false;
  auto never = [&](TokenId id) {
    forbid(base_, id);
    narrows = true;
  };
  if (!plan_.allowed_ids.empty()) {
    std::fill(base_.begin(), base_.end(), 0);
    for (const TokenId id : plan_.allowed_ids) base_[id / 32] |= 1u << (id % 32);
    if (!plan_.ignore_eos) base_[plan_.tokens.eos / 32] |= 1u << (plan_.tokens.eos % 32);
    if (plan_.chat) base_[plan_.tokens.think_close / 32] |= 1u << (plan_.tokens.think_close % 32);
    narrows = true;
  }
  if (plan_.chat) {
    // Markup that would otherwise reach a client as text, or be taken for a call nobody can make.
    never(plan_.tokens.think_open);
    if (plan_.tools.empty()) never(plan_.tokens.dsml);
  }
  if (plan_.ignore_eos) {
    for (const TokenId id : {plan_.tokens.eos, plan_.tokens.bos, plan_.tokens.user, plan_.tokens.assistant,
                             plan_.tokens.latest_reminder}) {
      never(id);
    }
  }
  std::erase_if(plan_.bad_words, [&](const std::vector<TokenId>& word) {
    if (word.size() == 1) never(word[0]);
    return word.size() <= 1;
  });
  for (const auto& word : plan_.bad_words) longest_bad_word_ = std::max(longest_bad_word_, word.size());
  if (!narrows) base_.clear();
  if (plan_.grammar == nullptr) return;
  matcher_.emplace(plan_.grammar);
  if (!plan_.chat) return;
  // A call inside the reasoning would escape the grammar.
  thinking_ = base_.empty() ? all_tokens(vocabulary) : base_;
  forbid(thinking_, plan_.tokens.dsml);
  if (plan_.must_answer) {
    for (const TokenId id : {plan_.tokens.eos, plan_.tokens.bos, plan_.tokens.user, plan_.tokens.assistant,
                             plan_.tokens.latest_reminder}) {
      forbid(thinking_, id);
    }
  }
}

std::unique_ptr<TokenGuide> Output::guide(std::shared_ptr<Output> self) {
  return std::make_unique<Guide>(std::move(self));
}

bool Output::is_end(TokenId id) const {
  return plan_.chat ? plan_.tokens.is_stop(id) : id == plan_.tokens.eos;
}

// A code point the model is in the middle of may be finished first.
bool Output::over_budget() const {
  if (!plan_.thinking_budget || !parser_.in_reasoning() || reasoning_tokens_ < *plan_.thinking_budget) return false;
  return !thought_.holding() || reasoning_tokens_ >= *plan_.thinking_budget + 3;
}

void Output::single(TokenId id) {
  scratch_.assign((plan_.tokenizer->size() + 31) / 32, 0);
  scratch_[id / 32] = 1u << (id % 32);
}

std::span<const uint32_t> Output::by_grammar() {
  scratch_.assign((plan_.tokenizer->size() + 31) / 32, 0);
  matcher_->fill_mask(scratch_);
  if (base_.empty()) return scratch_;
  uint32_t any = 0;
  for (size_t i = 0; i < base_.size(); ++i) any |= base_[i] & scratch_[i];
  if (any == 0) return scratch_;  // all that is left was banned: the grammar's is the stronger word
  for (size_t i = 0; i < base_.size(); ++i) scratch_[i] &= base_[i];
  return scratch_;
}

std::span<const uint32_t> Output::allowed() {
  if (plan_.chat && over_budget()) {
    budget_hit_ = true;
    single(plan_.tokens.think_close);
    return scratch_;
  }
  const bool reasoning = plan_.chat && parser_.in_reasoning();
  if (matcher_ && !reasoning) return by_grammar();
  const std::vector<uint32_t>& base = reasoning && !thinking_.empty() ? thinking_ : base_;
  if (plan_.bad_words.empty()) return base;
  bool changed = false;
  for (const auto& word : plan_.bad_words) {
    if (recent_.size() + 1 < word.size() || !std::equal(word.rbegin() + 1, word.rend(), recent_.rbegin())) continue;
    if (!changed) scratch_ = base.empty() ? all_tokens(plan_.tokenizer->size()) : base;
    changed = true;
    forbid(scratch_, word.back());
  }
  return changed ? std::span<const uint32_t>(scratch_) : std::span<const uint32_t>(base);
}

bool Output::accept(TokenId id) {
  const std::lock_guard lock(mutex_);
  ++accepted_;
  if (longest_bad_word_ > 0) {
    recent_.push_back(id);
    if (recent_.size() > longest_bad_word_) recent_.erase(recent_.begin());
  }
  if (std::find(plan_.stop_ids.begin(), plan_.stop_ids.end(), id) != plan_.stop_ids.end()) {
    stop_id_ = id;
    return false;
  }
  // An engine that does not hold to the mask (a script may) goes on without it.
  if (matcher_ && !(plan_.chat && parser_.in_reasoning()) && !matcher_->accept(id)) matcher_.reset();
  if (matcher_ && matcher_->finished()) return false;  // an end token, of whichever kind
  const bool more = plan_.chat ? accept_chat(id) : accept_raw(id);
  return more && !stopped_;
}

bool Output::accept_raw(TokenId id) {
  if (is_end(id)) return plan_.ignore_eos;
  std::string_view bytes = plan_.tokenizer->bytes_of(id);
  if (plan_.skip_special && plan_.tokenizer->is_special(id)) bytes = {};
  wait_for(waiting_[1], bytes);
  std::string text;
  raw_.push(bytes, text);
  content(std::move(text));
  return true;
}

bool Output::accept_chat(TokenId id) {
  if (is_end(id)) return plan_.ignore_eos;
  const bool marker = id == plan_.tokens.think_close || id == plan_.tokens.dsml;
  std::string_view bytes = plan_.tokenizer->bytes_of(id);
  // Any other added token is control, not text.
  if (!marker && plan_.skip_special && plan_.tokenizer->is_added(id)) bytes = {};
  const bool reasoning = parser_.in_reasoning();
  if (!marker && reasoning) wait_for(waiting_[0], bytes);
  if (!marker && parser_.in_content()) wait_for(waiting_[1], bytes);

  std::vector<OutputEvent> events;
  parser_.push(id, bytes, events);
  if (reasoning && parser_.in_reasoning()) {
    ++reasoning_tokens_;
    std::string ignored;
    thought_.push(bytes, ignored);
  }
  for (OutputEvent& event : events) {
    if (event.kind == OutputEvent::kToolStart && ++calls_begun_ > 1 && !plan_.parallel_calls) {
      stopped_ = true;  // one call was all that was allowed
      return false;
    }
    const bool matched = event.kind == OutputEvent::kContent ||
                         (event.kind == OutputEvent::kReasoning && plan_.stop_in_reasoning && !plan_.stop.empty());
    if (!matched) {
      put(event.kind, event.call, std::move(event.text));
    } else if (event.kind == OutputEvent::kContent) {
      content(std::move(event.text));
    } else {
      std::string text;
      stopped_ |= stop_.push(event.text, text);
      put(OutputEvent::kReasoning, -1, std::move(text));
    }
    if (stopped_) return false;
  }
  return !parser_.block_closed();
}

void Output::content(std::string text) {
  if (!plan_.stop.empty() && accepted_ > plan_.min_tokens) {
    std::string passed;
    stopped_ |= stop_.push(text, passed);
    text = std::move(passed);
  }
  put(OutputEvent::kContent, -1, std::move(text));
}

void Output::wait_for(Waiting& waiting, std::string_view bytes) {
  if (!plan_.track_tokens) return;
  // Leading newlines are no content in chat.
  if (plan_.chat && !waiting.begun && newlines_only(bytes)) return;
  waiting.begun = true;
  waiting.tokens.push_back({accepted_ - 1, waiting.fed});
  waiting.fed += bytes.size();
}

void Output::put(OutputEvent::Kind kind, int call, std::string text) {
  const bool marks = kind == OutputEvent::kToolStart || kind == OutputEvent::kToolEnd;
  if (text.empty() && !marks) return;
  Piece piece{kind, call, std::move(text), {}, accepted_};
  if (plan_.track_tokens && (kind == OutputEvent::kReasoning || kind == OutputEvent::kContent)) {
    Waiting& waiting = waiting_[kind == OutputEvent::kContent];
    waiting.sent += piece.text.size();
    while (!waiting.tokens.empty() && waiting.tokens.front().second < waiting.sent) {
      piece.tokens.push_back(waiting.tokens.front().first);
      waiting.tokens.pop_front();
    }
  }
  pieces_.push_back(std::move(piece));
}

void Output::take(uint32_t tokens, std::vector<Piece>& out) {
  const std::lock_guard lock(mutex_);
  while (!pieces_.empty() && pieces_.front().after <= tokens) {
    out.push_back(std::move(pieces_.front()));
    pieces_.pop_front();
  }
}

OutputSummary Output::finish(EndReason end, std::vector<Piece>& out) {
  const std::lock_guard lock(mutex_);
  OutputSummary summary;
  if (plan_.chat) {
    std::vector<OutputEvent> events;
    const OutputEnd why = stop_.matched()             ? OutputEnd::kStopString
                          : end == EndReason::kLength ? OutputEnd::kLimit
                                                      : OutputEnd::kEndOfTurn;
    const bool cut_short = stopped_;
    const ParsedMessage message = parser_.finish(why, events);
    if (!cut_short) {
      for (OutputEvent& event : events) {
        if (event.kind == OutputEvent::kContent) {
          content(std::move(event.text));
        } else {
          put(event.kind, event.call, std::move(event.text));
        }
      }
    }
    summary.finish = message.finish;
    summary.reasoning_unclosed = message.reasoning_unclosed;
    summary.incomplete_call = message.incomplete_call;
    summary.whole = !cut_short && !stop_id_ && (end == EndReason::kEndToken || end == EndReason::kGuide) &&
                    !message.reasoning_unclosed && !message.incomplete_call;
    if (cut_short && !stop_.matched() && calls_begun_ > 1) {
      summary.finish = FinishReason::kToolCalls;
      summary.incomplete_call = false;
    }
  } else {
    std::string text;
    raw_.finish(text);
    if (!stopped_) content(std::move(text));
    summary.finish = end == EndReason::kLength ? FinishReason::kLength : FinishReason::kStop;
  }
  if (!stop_.matched()) {
    std::string held;
    stop_.finish(held);
    put(OutputEvent::kContent, -1, std::move(held));
  } else {
    summary.finish = FinishReason::kStop;
    summary.stop_string = stop_.matched_string();
  }
  summary.stop_id = stop_id_;
  summary.reasoning_tokens = reasoning_tokens_;
  summary.budget_hit = budget_hit_;
  for (Piece& piece : pieces_) out.push_back(std::move(piece));
  pieces_.clear();
  return summary;
}

int64_t Output::reasoning_tokens() const {
  const std::lock_guard lock(mutex_);
  return reasoning_tokens_;
}

bool Output::in_reasoning() const {
  const std::lock_guard lock(mutex_);
  return parser_.in_reasoning();
}

}  // namespace nautile::serve
