// Prefix reuse, prefill in chunks, and the token loop.
#include "engine/chat_session.h"

#include <fmt/format.h>

#include <algorithm>

#include "sys/clock.h"
#include "text/stop.h"

namespace nautile {
namespace {

constexpr size_t kPrefillChunk = 512;
// One at the last block of each prompt, since agents branch at the ends of turns, and one every so many tokens.
constexpr size_t kSnapshotSpacing = 2048;
constexpr size_t kMaxSnapshots = 64;

size_t common_prefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(std::min(a.size(), b.size())), b.begin()).first -
      a.begin());
}

}  // namespace

ChatSession::ChatSession(LoadedModel& model) : model_(model) {
  reset();
}

void ChatSession::reset() {
  state_ = std::make_unique<SequenceState>(model_.forward().layout());
  tokens_.clear();
  snapshots_.clear();
}

// Leaves state_ at the longest prefix of `prompt` that can be reached, at least one token short of it.
void ChatSession::start_from(const std::vector<int32_t>& prompt) {
  const size_t shared = std::min(common_prefix(tokens_, prompt), prompt.size() - 1);
  while (!snapshots_.empty() && static_cast<size_t>(snapshots_.back().length) > shared) snapshots_.pop_back();
  if (tokens_.size() - shared <= static_cast<size_t>(kMaxRollback) &&
      state_->rollback(static_cast<int64_t>(shared)).ok()) {
    tokens_.resize(shared);
    return;
  }
  if (snapshots_.empty()) {
    state_ = std::make_unique<SequenceState>(model_.forward().layout());
    tokens_.clear();
    return;
  }
  state_ = std::make_unique<SequenceState>(model_.forward().layout(), snapshots_.back());
  tokens_.resize(static_cast<size_t>(snapshots_.back().length));
}

Status ChatSession::prefill(const std::vector<int32_t>& prompt, const ReplyHooks& hooks, Reply& reply,
                            std::span<const float>& logits) {
  const double begin = seconds_now();
  const int64_t total = static_cast<int64_t>(prompt.size());
  while (tokens_.size() < prompt.size()) {
    if (hooks.cancelled && hooks.cancelled()) {
      reply.cancelled = true;
      break;
    }
    // Chunks end on block ends, so that a snapshot can be taken there.
    const size_t done = tokens_.size();
    size_t end = std::min(prompt.size(), (done + kPrefillChunk) / kBlockTokens * kBlockTokens);
    const size_t last_block = prompt.size() / kBlockTokens * kBlockTokens;
    if (done < last_block && end > last_block) {
      end = last_block;
    }
    const BatchItem item{state_.get(), std::span(prompt).subspan(done, end - done)};
    NAUTILE_ASSIGN(const ForwardOutput out,
                   model_.forward()({&item, 1}, end == prompt.size() ? Logits::kLast : Logits::kNone));
    logits = out.logits;
    tokens_.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(end));
    if ((end == last_block || end % kSnapshotSpacing == 0) && end % kBlockTokens == 0 &&
        snapshots_.size() < kMaxSnapshots) {
      NAUTILE_ASSIGN(Snapshot snapshot, state_->snapshot());
      snapshots_.push_back(std::move(snapshot));
    }
    if (hooks.prefill) hooks.prefill(static_cast<int64_t>(end), total);
  }
  reply.prefill_seconds = seconds_now() - begin;
  return {};
}

Result<Reply> ChatSession::reply(const Conversation& conversation, const ReplyOptions& options,
                                 const ReplyHooks& hooks) {
  const Tokenizer& tokenizer = model_.tokenizer();
  NAUTILE_RETURN_IF_ERROR(options.sampling.check(tokenizer.size()));
  NAUTILE_ASSIGN(const ChatTokens chat_tokens, ChatTokens::find(tokenizer));
  NAUTILE_ASSIGN(const std::vector<int32_t> prompt, encode(tokenizer, conversation, options.encode));
  NAUTILE_ASSIGN(StopMatcher stop, StopMatcher::make(options.stop));
  const int64_t context = model_.config().max_positions;
  const int64_t room = context - static_cast<int64_t>(prompt.size());
  if (room < 1) {
    return Status(Code::kResourceExhausted,
                  fmt::format("the prompt has {} tokens, the context holds {}", prompt.size(), context), {},
                  "shorten the conversation");
  }
  const int64_t limit = options.max_tokens > 0 ? std::min(options.max_tokens, room) : room;

  Reply reply;
  reply.prompt_tokens = static_cast<int64_t>(prompt.size());
  start_from(prompt);
  reply.cached_tokens = static_cast<int64_t>(tokens_.size());
  std::span<const float> logits;  // of the last token; valid until the next forward
  NAUTILE_RETURN_IF_ERROR(prefill(prompt, hooks, reply, logits));

  OutputParser parser(chat_tokens, {output_start(prompt, chat_tokens), conversation.declared_tools(), {}});
  TokenHistory history;
  history.add_prompt(prompt);
  // Content passes the stop matcher on its way out; everything else goes straight through.
  auto deliver = [&](const std::vector<OutputEvent>& events) {
    for (const OutputEvent& event : events) {
      if (event.kind != OutputEvent::kContent) {
        if (hooks.event) hooks.event(event);
        continue;
      }
      std::string text;
      if (!stop.matched()) stop.push(event.text, text);
      reply.message.content += text;
      if (!text.empty() && hooks.event) hooks.event({OutputEvent::kContent, -1, text});
    }
  };
  OutputEnd end = OutputEnd::kLimit;
  std::vector<OutputEvent> events;
  const double begin = seconds_now();
  while (!reply.cancelled && reply.output_tokens < limit) {
    if (hooks.cancelled && hooks.cancelled()) {
      reply.cancelled = true;
      break;
    }
    NAUTILE_ASSIGN(const Sample sample,
                   sampler_.sample(logits.first(tokenizer.size()), options.sampling, history, tokens_.size()));
    history.add_output(sample.id);
    ++reply.output_tokens;
    if (parser.in_reasoning()) ++reply.reasoning_tokens;
    events.clear();
    const bool more = parser.push(sample.id, tokenizer.bytes_of(sample.id), events);
    deliver(events);
    if (!more || parser.block_closed()) {
      end = OutputEnd::kEndOfTurn;
      break;
    }
    if (stop.matched()) {
      end = OutputEnd::kStopString;
      break;
    }
    if (reply.output_tokens == limit) break;
    const BatchItem item{state_.get(), {&sample.id, 1}};
    NAUTILE_ASSIGN(const ForwardOutput out, model_.forward()({&item, 1}, Logits::kLast));
    logits = out.logits;
    tokens_.push_back(sample.id);
  }
  reply.decode_seconds = seconds_now() - begin;

  events.clear();
  ParsedMessage message = parser.finish(end, events);
  deliver(events);
  std::string tail;
  stop.finish(tail);
  if (!tail.empty() && hooks.event) hooks.event({OutputEvent::kContent, -1, tail});
  message.content = reply.message.content + tail;  // up to the stop string
  reply.message = std::move(message);
  reply.stop_string = stop.matched_string();
  return reply;
}

}  // namespace nautile
