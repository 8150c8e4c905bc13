// Submitting, polling, delivering, ending.
#include "serve/job.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "serve/translate.h"
#include "sys/clock.h"
#include "text/exact_json.h"

namespace nautile::serve {
namespace {

constexpr size_t kMaxGaps = 100000;
constexpr size_t kSlowBytes = 16 << 10;

std::unique_ptr<ReplyWriter> writer_for(const Ask& ask, const ReplyContext& context) {
  switch (ask.dialect) {
    case Dialect::kCompletions:
      return completions_writer(ask, context);
    case Dialect::kMessages:
      return messages_writer(ask, context);
    case Dialect::kResponses:
      return responses_writer(ask, context);
    case Dialect::kOpenAi:
      break;
  }
  return chat_writer(ask, context);
}

// Why the engine would not take a request, in a client's terms.
ApiError refusal(const Status& status, const Ask& ask, const ServedModel& model) {
  if (status.code() == Code::kResourceExhausted && status.where() != "queue" && status.where() != "x-script") {
    return context_exceeded(ask.dialect, static_cast<int64_t>(ask.prompts.front().size()), model.context);
  }
  if (status.code() == Code::kResourceExhausted) {
    return overloaded("server_overloaded", "The server is full; try again soon.", 2);
  }
  return from_status(status);
}

}  // namespace

Job::Job(Backend& backend, ReplayStore& replay, http::Loop& loop, Pacer& pacer,
         std::shared_ptr<http::Exchange> exchange, Ask ask, JobSettings settings,
         std::function<void(Job&, const JobReport&)> done)
    : backend_(backend),
      replay_(replay),
      loop_(loop),
      pacer_(pacer),
      exchange_(std::move(exchange)),
      ask_(std::move(ask)),
      settings_(std::move(settings)),
      done_(std::move(done)) {
  ReplyContext context{backend_.model, exchange_->request.id, static_cast<int64_t>(std::time(nullptr)),
                       settings_.reasoning_alias};
  writer_ = writer_for(ask_, context);
  replays_ = ask_.chat && !ask_.conversation.declared_tools().empty();
}

OutputPlan Job::plan(const std::vector<TokenId>& prompt) const {
  const ServedModel& model = backend_.model;
  OutputPlan plan;
  plan.tokenizer = model.tokenizer;
  plan.tokens = model.tokens;
  plan.chat = ask_.chat;
  if (ask_.chat) plan.start = output_start(prompt, model.tokens);
  plan.tools = ask_.conversation.declared_tools();
  plan.parallel_calls = ask_.parallel_calls;
  plan.grammar = ask_.grammar;
  const ToolChoice::Kind choice = ask_.conversation.tool_choice.kind;
  plan.must_answer =
      ask_.constraint.kind != Constraint::kNone || choice == ToolChoice::kRequired || choice == ToolChoice::kNamed;
  plan.stop = ask_.stop;
  plan.include_stop = ask_.include_stop;
  plan.stop_in_reasoning = ask_.stop_in_reasoning;
  plan.stop_ids = ask_.stop_ids;
  plan.min_tokens = ask_.min_tokens;
  plan.ignore_eos = ask_.ignore_eos;
  plan.skip_special = ask_.skip_special;
  plan.thinking_budget = ask_.thinking_budget;
  plan.allowed_ids = ask_.allowed_ids;
  for (const std::string& word : ask_.bad_words) {
    for (const char* before : {"", " "}) {
      auto ids = model.tokenizer->encode(before + word, false);
      if (ids.ok()) plan.bad_words.push_back(std::move(ids).value());
    }
  }
  plan.track_tokens = ask_.logprobs;
  return plan;
}

GenerateRequest Job::request_for(const Choice& choice, int k) const {
  GenerateRequest request;
  request.prompt = ask_.prompts[choice.state.prompt];
  request.max_tokens = ask_.effective_max_tokens;
  request.min_tokens = ask_.grammar ? 0 : ask_.min_tokens;  // a grammar knows where it ends
  request.sampling = ask_.sampling;
  request.sampling.seed += static_cast<uint64_t>(k);
  const ChatTokens& t = backend_.model.tokens;
  if (!ask_.ignore_eos) {
    request.end_tokens = {t.eos};
    if (ask_.chat) request.end_tokens = {t.eos, t.bos, t.user, t.assistant};
    if (ask_.chat && t.latest_reminder >= 0) request.end_tokens.push_back(t.latest_reminder);
  }
  request.end_tokens.insert(request.end_tokens.end(), ask_.stop_ids.begin(), ask_.stop_ids.end());
  request.guide = choice.output->guide(choice.output);
  request.prompt_logprobs = ask_.prompt_logprobs;
  request.cache_scope = settings_.scope;
  request.cache_owner = settings_.cache_owner;
  request.client = settings_.client;
  request.priority = ask_.priority;
  if (settings_.request_timeout_s > 0) request.deadline_s = settings_.request_timeout_s;
  request.on_event = [weak = std::weak_ptr<Job>(const_cast<Job*>(this)->shared_from_this()), flag = scheduled_,
                      loop = &loop_](bool ended) {
    const bool scheduled = flag->exchange(true);
    if (scheduled && !ended) return;
    loop->post([weak, scheduled, ended] {
      const auto job = weak.lock();
      if (!job) return;
      if (scheduled) {
        job->pump();  // the end does not wait for the turn, which stays scheduled
      } else if (ended) {
        job->turn();
      } else {
        job->woken();
      }
    });
  };
  return request;
}

std::optional<ApiError> Job::submit_all() {
  const int per_prompt = std::max(ask_.n, ask_.best_of);
  choices_.reserve(ask_.prompts.size() * static_cast<size_t>(per_prompt));
  for (size_t p = 0; p < ask_.prompts.size(); ++p) {
    for (int k = 0; k < per_prompt; ++k) {
      Choice& choice = choices_.emplace_back();
      choice.state.index = static_cast<int>(choices_.size()) - 1;
      choice.state.prompt = static_cast<int>(p);
      choice.output = std::make_shared<Output>(plan(ask_.prompts[p]));
      for (;;) {
        auto submitted = backend_.submit(request_for(choice, k), settings_.script, k);
        if (submitted.ok()) {
          choice.generation = std::move(submitted).value();
          break;
        }
        // The memory plan may hold less than the context: a limit that is too large is clamped, not refused.
        if (submitted.status().where() != "memory" || ask_.effective_max_tokens <= 1) {
          return refusal(submitted.status(), ask_, backend_.model);
        }
        ask_.effective_max_tokens /= 2;
      }
    }
  }
  return std::nullopt;
}

// A continued message, given back with its beginning.
void Job::echo_prefix(Choice& choice, std::string& out) {
  if (!ask_.chat || !ask_.echo || !ask_.conversation.messages.back().wo_eos) return;
  const Message& last = ask_.conversation.messages.back();
  for (const auto& [kind, text] :
       {std::pair(OutputEvent::kReasoning, last.reasoning_content), std::pair(OutputEvent::kContent, last.content)}) {
    if (text.empty() || (kind == OutputEvent::kReasoning && ask_.encode.mode == ReasoningMode::kNonThink)) continue;
    Piece piece{kind, -1, text, {}, 0};
    deliver_one(choice, piece, out);
  }
}

void Job::start() {
  submitted_s_ = seconds_now();
  if (const auto error = submit_all()) return abort(*error, "error");
  exchange_->on_gone = [weak = weak_from_this()] {
    if (const auto job = weak.lock()) job->lost();
  };
  exchange_->on_drained = [weak = weak_from_this()] {
    if (const auto job = weak.lock(); job && job->paused_) job->pump();
  };
  if (ask_.stream) open_stream();
  std::string out;
  for (Choice& choice : choices_) echo_prefix(choice, out);
  if (streaming_) exchange_->write(out);
  if (settings_.queue_timeout_s > 0) {
    queue_timer_ = loop_.timer(settings_.queue_timeout_s, [weak = weak_from_this()] {
      const auto job = weak.lock();
      if (!job || job->over_ || job->choices_.empty()) return;
      const bool waiting = std::all_of(job->choices_.begin(), job->choices_.end(), [](const Choice& choice) {
        return choice.generation && choice.generation->record().phase == Phase::kQueued;
      });
      if (waiting) job->abort(overloaded("queue_timeout", "The request waited too long for its turn.", 10), "timeout");
    });
  }
  pump();
}

http::Response Job::head() const {
  http::Response response;
  response.headers.push_back({"x-seed", std::to_string(static_cast<int64_t>(ask_.sampling.seed))});
  response.headers.push_back({"x-effective-max-tokens", std::to_string(ask_.effective_max_tokens)});
  if (!ask_.replay.empty()) response.headers.push_back({"x-reasoning-replay", ask_.replay});
  if (!ask_.ignored.empty()) {
    std::string names;
    for (size_t i = 0; i < ask_.ignored.size() && i < 10; ++i) {
      if (i > 0) names += ", ";
      for (const char c : ask_.ignored[i].substr(0, 100)) names += c > 0x20 && c < 0x7F ? c : '?';
    }
    response.headers.push_back({"x-ignored-fields", names});
  }
  return response;
}

void Job::open_stream() {
  http::Response response = head();
  response.type = "text/event-stream; charset=utf-8";
  response.headers.push_back({"Cache-Control", "no-cache"});
  response.headers.push_back({"X-Accel-Buffering", "no"});
  exchange_->start_stream(std::move(response));
  exchange_->idle_s = settings_.keep_alive_s;
  exchange_->on_idle = [weak = weak_from_this()] {
    const auto job = weak.lock();
    return job ? job->writer_->keep_alive() : std::string();
  };
  streaming_ = true;
  std::string out;
  writer_->start(out);
  exchange_->write(out);
}

UsageCount Job::usage() const {
  UsageCount usage;
  int last_prompt = -1;
  for (const Choice& choice : choices_) {
    if (!choice.generation && !choice.state.done) continue;
    const RequestRecord record = choice.state.done ? choice.state.record : choice.generation->record();
    if (choice.state.prompt != last_prompt) {
      last_prompt = choice.state.prompt;
      const auto prompt = static_cast<int64_t>(ask_.prompts[choice.state.prompt].size());
      usage.prompt += prompt;
      usage.cached += std::clamp<int64_t>(record.cached_tokens, 0, prompt - 1);
    }
    usage.completion += record.output_tokens;
    usage.reasoning += choice.state.done ? choice.state.summary.reasoning_tokens : choice.output->reasoning_tokens();
  }
  return usage;
}

RequestRecord Job::progress() const {
  RequestRecord sum;
  sum.phase = Phase::kEnded;
  for (const Choice& choice : choices_) {
    if (!choice.generation && !choice.state.done) continue;
    const RequestRecord record = choice.state.done ? choice.state.record : choice.generation->record();
    sum.phase = std::min(sum.phase, record.phase);
    sum.prompt_tokens += record.prompt_tokens;
    sum.cached_tokens += record.cached_tokens;
    sum.prefilled_tokens += record.prefilled_tokens;
    sum.output_tokens += record.output_tokens;
    sum.state_bytes += record.state_bytes;
  }
  return sum;
}

// The engine has something: now, unless the last turn was a moment ago.
void Job::woken() {
  if (seconds_now() >= next_turn_s_) return turn();
  pacer_.add(weak_from_this(), pace_);
}

void Job::turn() {
  scheduled_->store(false);  // before the look, so that what comes during it asks for the next turn
  const size_t tokens = pump();
  if (tokens == 0 || over_) return;
  const double now = seconds_now();
  pace_ = Pacer::pace_of(tokens, now - turned_s_);
  turned_s_ = now;
  next_turn_s_ = now + Pacer::kInterval_s[pace_];
  if (!scheduled_->exchange(true)) pacer_.add(weak_from_this(), pace_);
}

size_t Job::pump() {
  if (over_) return 0;
  paused_ = streaming_ && exchange_->unsent() >= settings_.unsent_limit;
  if (paused_) return 0;
  const auto self = shared_from_this();
  std::string out;
  size_t tokens = 0;
  bool all_done = true;
  for (Choice& choice : choices_) {
    if (choice.state.done) continue;
    const uint32_t before = choice.polled;
    if (!pump_choice(choice, out)) {
      all_done = false;
      if (over_) return 0;
    }
    tokens += choice.polled - before;
  }
  if (streaming_ && !out.empty()) exchange_->write(out);
  if (all_done) complete();
  return tokens;
}

// True once the choice has ended. A failure ends the whole job.
bool Job::pump_choice(Choice& choice, std::string& out) {
  std::vector<TokenEvent>& events = events_;
  events.clear();
  const bool more = choice.generation->poll(events);
  if (!events.empty()) {
    const double now = seconds_now();
    if (first_token_s_ == 0) {
      first_token_s_ = now;
    } else if (gaps_.size() < kMaxGaps) {
      for (size_t i = 0; i < events.size(); ++i)
        gaps_.push_back((now - last_token_s_) / static_cast<double>(events.size()));
    }
    last_token_s_ = now;
  }
  choice.polled += static_cast<uint32_t>(events.size());
  if (replays_) {
    for (const TokenEvent& event : events) choice.turn.push_back(event.id);
  }
  if (ask_.logprobs || ask_.return_token_ids || ask_.best_of > ask_.n) {
    std::move(events.begin(), events.end(), std::back_inserter(choice.state.tokens));
  }
  std::vector<Piece>& pieces = pieces_;
  pieces.clear();
  choice.output->take(choice.polled, pieces);
  deliver(choice, pieces, out);
  if (more) return false;

  choice.state.record = choice.generation->record();
  const RequestRecord& record = choice.state.record;
  switch (record.end) {
    case EndReason::kDeadline: {
      if (streaming_ && !out.empty()) exchange_->write(out);
      abort({504, "deadline_exceeded", "The request took longer than it may."}, "timeout");
      return false;
    }
    case EndReason::kCancelled: {
      if (streaming_ && !out.empty()) exchange_->write(out);
      abort(overloaded("server_draining", "The server is shutting down.", 5), "drain");
      return false;
    }
    case EndReason::kFailed: {
      if (streaming_ && !out.empty()) exchange_->write(out);
      ApiError error = internal_error();
      if (record.status.code() == Code::kInvalidArgument) error.message = "no token satisfies the constraints";
      abort(error, "error");
      return false;
    }
    default:
      break;
  }
  pieces.clear();
  choice.state.summary = choice.output->finish(record.end, pieces);
  if (record.end == EndReason::kEndToken && choice.state.summary.stop_id)
    choice.state.summary.finish = FinishReason::kStop;
  deliver(choice, pieces, out);
  end_choice(choice, out);
  return true;
}

void Job::deliver(Choice& choice, std::vector<Piece>& pieces, std::string& out) {
  // While the socket is slow, text that came together goes out together.
  const bool slow = streaming_ && exchange_->unsent() > kSlowBytes && !ask_.logprobs;
  for (size_t i = 0; i < pieces.size(); ++i) {
    while (slow && i + 1 < pieces.size() && pieces[i + 1].kind == pieces[i].kind &&
           pieces[i + 1].call == pieces[i].call && pieces[i].kind != OutputEvent::kToolStart &&
           pieces[i].kind != OutputEvent::kToolEnd) {
      pieces[i + 1].text.insert(0, pieces[i].text);
      ++i;
    }
    deliver_one(choice, pieces[i], out);
  }
}

void Job::deliver_one(Choice& choice, Piece& piece, std::string& out) {
  ChoiceState& state = choice.state;
  switch (piece.kind) {
    case OutputEvent::kReasoning:
      state.reasoning += piece.text;
      state.reasoning_at.insert(state.reasoning_at.end(), piece.tokens.begin(), piece.tokens.end());
      break;
    case OutputEvent::kContent:
      state.content += piece.text;
      state.content_at.insert(state.content_at.end(), piece.tokens.begin(), piece.tokens.end());
      break;
    case OutputEvent::kToolStart: {
      const char* prefix = ask_.dialect == Dialect::kMessages ? "toolu_" : "call_";
      state.calls.push_back({prefix + http::random_hex(16), piece.text, {}, false});
      break;
    }
    case OutputEvent::kToolArguments:
      if (piece.call >= 0 && piece.call < static_cast<int>(state.calls.size()))
        state.calls[piece.call].arguments += piece.text;
      break;
    case OutputEvent::kToolEnd:
      if (piece.call >= 0 && piece.call < static_cast<int>(state.calls.size())) state.calls[piece.call].complete = true;
      break;
  }
  if (!streaming_) return;
  if (piece.kind == OutputEvent::kReasoning) {
    if (!ask_.include_reasoning) return;
    if (!ask_.stream_reasoning) {
      choice.held_reasoning += piece.text;
      return;
    }
  } else if (!choice.held_reasoning.empty()) {
    Piece whole{OutputEvent::kReasoning, -1, std::move(choice.held_reasoning), {}, piece.after};
    choice.held_reasoning.clear();
    writer_->piece(state, whole, usage(), out);
  }
  const UsageCount so_far = ask_.continuous_usage ? usage() : UsageCount();
  writer_->piece(state, piece, so_far, out);
}

// The turn may come back, perhaps without its reasoning, and is then to be what was generated.
void Job::keep_replay(Choice& choice) {
  const ChoiceState& state = choice.state;
  if (const std::string handle = writer_->reasoning_handle(); !handle.empty() && !state.reasoning.empty()) {
    replay_.keep(settings_.owner, handle, {state.reasoning, {}, {}, nullptr});
  }
  if (!replays_) return;
  const std::vector<Message>& messages = ask_.conversation.messages;
  std::string id = answer_id(messages, state.content);
  if (!state.calls.empty()) {
    id = state.calls.front().id;
  } else if (id.empty() || !replay_.find(settings_.owner, id.substr(0, id.find(' ')))) {
    return;  // nothing tells this answer from others, or the call before it was not made here
  }
  Replay turn{state.reasoning, state.content, {}, nullptr};
  bool known = state.summary.whole && !messages.back().wo_eos;
  for (const Call& call : state.calls) {
    auto arguments = python_members(call.arguments, "arguments");
    known = known && call.complete && arguments.ok();
    if (arguments.ok()) turn.calls.push_back({call.id, call.name, std::move(arguments).value()});
  }
  const ChatTokens& tokens = backend_.model.tokens;
  auto generated = std::make_shared<GeneratedTurn>();
  generated->thinking = output_start(ask_.prompts[state.prompt], tokens) == OutputStart::kReasoning;
  generated->tokens = std::move(choice.turn);
  if (!generated->tokens.empty() && tokens.is_stop(generated->tokens.back())) generated->tokens.pop_back();
  const bool closed = std::ranges::find(generated->tokens, tokens.think_close) != generated->tokens.end();
  if (known && !generated->tokens.empty() && closed == generated->thinking) turn.generated = std::move(generated);
  // A client may spread parallel calls over several messages.
  for (size_t i = 1; i < state.calls.size(); ++i) {
    if (!state.reasoning.empty()) replay_.keep(settings_.owner, state.calls[i].id, {state.reasoning, {}, {}, nullptr});
  }
  replay_.keep(settings_.owner, id, std::move(turn));
}

void Job::end_choice(Choice& choice, std::string& out) {
  choice.state.done = true;
  keep_replay(choice);
  if (ask_.prompt_logprobs >= 0) choice.state.scores = choice.generation->prompt_scores();
  if (!streaming_) return;
  if (!choice.held_reasoning.empty()) {
    Piece whole{OutputEvent::kReasoning, -1, std::move(choice.held_reasoning), {}, 0};
    writer_->piece(choice.state, whole, usage(), out);
  }
  writer_->end_choice(choice.state, usage(), out);
}

// The choices that the answer holds: with best_of, the best n of each prompt.
std::vector<const ChoiceState*> Job::answered() const {
  std::vector<const ChoiceState*> chosen;
  for (const Choice& choice : choices_) chosen.push_back(&choice.state);
  if (ask_.best_of <= ask_.n) return chosen;
  std::vector<const ChoiceState*> best;
  for (size_t p = 0; p < ask_.prompts.size(); ++p) {
    const auto begin = chosen.begin() + static_cast<ptrdiff_t>(p) * ask_.best_of;
    std::stable_sort(begin, begin + ask_.best_of,
                     [](auto* a, auto* b) { return a->mean_logprob() > b->mean_logprob(); });
    for (int k = 0; k < ask_.n; ++k) {
      const_cast<ChoiceState*>(begin[k])->index = static_cast<int>(best.size());
      best.push_back(begin[k]);
    }
  }
  return best;
}

void Job::complete() {
  const UsageCount counted = usage();
  if (streaming_) {
    std::string out;
    writer_->finish(answered(), counted, out);
    exchange_->write(out);
    exchange_->end();
  } else {
    http::Response response = head();
    Json body = writer_->body(answered(), counted);
    if (settings_.per_request_metrics) {
      const RequestRecord& record = choices_[0].state.record;
      const double tokens = static_cast<double>(std::max<int64_t>(1, record.output_tokens));
      body["metrics"] = {{"time_to_first_token_ms", 1000 * record.first_token_s},
                         {"generation_time_ms", 1000 * record.decode_s},
                         {"queue_time_ms", 1000 * record.queue_s},
                         {"mean_itl_ms", 1000 * record.decode_s / tokens},
                         {"tokens_per_second", record.decode_s > 0 ? tokens / record.decode_s : 0}};
    }
    response.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
    exchange_->respond(std::move(response));
  }
  leave("", 200);
}

void Job::abort(const ApiError& error, const char* cause) {
  if (over_) return;
  for (Choice& choice : choices_) {
    if (choice.generation) choice.generation->cancel();
  }
  if (streaming_) {
    std::string out;
    writer_->fail(error, out);
    exchange_->write(out);
    exchange_->end();
  } else {
    exchange_->respond(error_response(error, ask_.dialect, exchange_->request.id));
  }
  leave(cause, error.status);
}

void Job::cancel_by_api() {
  abort({500, "cancelled", "The response was cancelled."}, "api");
}

void Job::lost() {
  if (!over_) leave("client_disconnected", 499);
}

void Job::leave(const char* cause, int status) {
  over_ = true;
  queue_timer_.reset();
  JobReport report;
  report.cause = cause;
  report.status = status;
  report.usage = usage();
  report.arrived_s = exchange_->request.arrived_s;
  report.submitted_s = submitted_s_;
  report.first_token_s = first_token_s_;
  report.last_token_s = last_token_s_;
  for (Choice& choice : choices_) {
    if (choice.generation && !choice.state.done) {
      if (!choice.state.calls.empty()) keep_replay(choice);  // the client may go on from what it has
      choice.state.record = choice.generation->record();
      report.phase = std::max(report.phase,
                              choice.state.record.phase == Phase::kEnded ? Phase::kDecode : choice.state.record.phase);
    }
    report.choices.push_back(&choice.state);
  }
  report.gaps.swap(gaps_);
  const auto self = shared_from_this();
  exchange_->on_gone = nullptr;
  exchange_->on_drained = nullptr;
  exchange_->on_idle = nullptr;
  done_(*this, report);
  for (Choice& choice : choices_) choice.generation.reset();  // cancels what still runs
}

}  // namespace nautile::serve
