// A conversation becomes a request, and its tokens become a reply.
#include "engine/chat_session.h"

#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "engine/reply_stream.h"

namespace nautile {
namespace {

// How long the reader waits at most before it asks whether it should go on.
constexpr auto kAskInterval = std::chrono::milliseconds(20);

// Rung by the engine when there is something to read.
class Bell {
 public:
  void ring() {
    const std::lock_guard lock(mutex_);
    rung_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kAskInterval, [this] { return rung_; });
    rung_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool rung_ = false;
};

}  // namespace

Result<Reply> ChatSession::reply(const Conversation& conversation, const ReplyOptions& options,
                                 const ReplyHooks& hooks) {
  const Tokenizer& tokenizer = model_.tokenizer();
  NAUTILE_ASSIGN(const ChatTokens chat_tokens, ChatTokens::find(tokenizer));
  NAUTILE_ASSIGN(std::vector<TokenId> prompt, encode(tokenizer, conversation, options.encode));
  NAUTILE_ASSIGN(StopMatcher stop, StopMatcher::make(options.stop));
  const auto stream = std::make_shared<ReplyStream>(
      tokenizer, chat_tokens, OutputParserOptions{output_start(prompt, chat_tokens), conversation.declared_tools(), {}},
      std::move(stop));
  const auto bell = std::make_shared<Bell>();

  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = options.max_tokens > 0 ? options.max_tokens : model_.config().max_positions;
  request.sampling = options.sampling;
  request.guide = ReplyStream::guide(stream);
  request.on_event = [bell](bool) { bell->ring(); };
  NAUTILE_ASSIGN(const std::unique_ptr<Generation> generation, engine_.submit(std::move(request)));

  std::vector<TokenEvent> tokens;
  std::vector<OutputEvent> events;
  int64_t shown = 0;
  bool asked_to_stop = false;
  for (bool more = true; more;) {
    bell->wait();
    if (!asked_to_stop && hooks.cancelled && hooks.cancelled()) {
      asked_to_stop = true;
      generation->cancel();
    }
    tokens.clear();
    more = generation->poll(tokens);
    const RequestRecord record = generation->record();
    const int64_t done = record.cached_tokens + record.prefilled_tokens;
    if (hooks.prefill && done != shown) hooks.prefill(done, record.prompt_tokens);
    shown = done;
    events.clear();
    stream->take(events);
    if (!hooks.event) continue;
    for (const OutputEvent& event : events) hooks.event(event);
  }
  const RequestRecord record = generation->record();
  if (record.end == EndReason::kFailed) return record.status;

  Reply reply;
  events.clear();
  reply.message = stream->finish(events);
  if (hooks.event) {
    for (const OutputEvent& event : events) hooks.event(event);
  }
  reply.stop_string = stream->stop_string();
  reply.cancelled = record.end == EndReason::kCancelled;
  reply.prompt_tokens = record.prompt_tokens;
  reply.cached_tokens = record.cached_tokens;
  reply.output_tokens = record.output_tokens;
  reply.reasoning_tokens = stream->reasoning_tokens();
  reply.drafted_tokens = record.drafted_tokens;
  reply.accepted_tokens = record.accepted_tokens;
  reply.prefill_seconds = record.prefill_s;
  reply.decode_seconds = record.decode_s;
  reply.record = record;
  return reply;
}

}  // namespace nautile
