// One inference request from admission to its last byte: owns its generations, its writer and its answer.
//
// The engine's threads only say that something has come; the io thread polls, at once or when the pacer says so. When
// the client is gone, or reads too slowly for too long, the generations are cancelled. While much is unsent, nothing is
// polled, and the engine pauses. Thread-safety: the io thread. Lifetime: the service holds every running job.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "serve/backend.h"
#include "serve/http.h"
#include "serve/pacer.h"
#include "serve/replay.h"
#include "serve/reply.h"

namespace nautile::serve {

struct JobSettings {
  double queue_timeout_s = 600;
  double request_timeout_s = 0;  // 0: none
  double keep_alive_s = 15;
  size_t unsent_limit = 1 << 20;
  bool reasoning_alias = false;
  bool per_request_metrics = false;
  std::string client, scope;  // for the engine: whose turn it is, whose prefixes it may share
  std::string cache_owner;    // whose share of the cache it fills
  std::string owner;          // of replays
  std::string script;         // x-script
};

// How a job ended, for the log and the metrics.
struct JobReport {
  int status = 200;
  std::string cause;             // empty, or client_disconnected, timeout, drain, api, error
  Phase phase = Phase::kQueued;  // of a cancellation
  UsageCount usage;
  std::vector<const ChoiceState*> choices;
  double arrived_s = 0, submitted_s = 0, first_token_s = 0, last_token_s = 0;
  std::vector<double> gaps;  // between tokens that came one by one, sampled
};

class Job final : public Paced, public std::enable_shared_from_this<Job> {
 public:
  Job(Backend& backend, ReplayStore& replay, http::Loop& loop, Pacer& pacer, std::shared_ptr<http::Exchange> exchange,
      Ask ask, JobSettings settings, std::function<void(Job&, const JobReport&)> done);

  // Submits to the engine. On a refusal the answer is sent and done is called.
  void start();
  void turn() override;
  // Ends it: in a stream an error event, else an error answer.
  void abort(const ApiError& error, const char* cause);
  // A cancel asked for through the API (Responses).
  void cancel_by_api();

  const Ask& ask() const { return ask_; }
  http::Exchange& exchange() { return *exchange_; }
  std::string reply_id() const { return writer_->id(); }
  const Json* kept() const { return writer_->kept(); }
  const std::string& owner() const { return settings_.owner; }
  const std::string& request_id() const { return exchange_->request.id; }
  double arrived_s() const { return exchange_->request.arrived_s; }
  // Of all choices together; the phase is that of the one that has come least far.
  RequestRecord progress() const;

 private:
  struct Choice {
    ChoiceState state;
    std::shared_ptr<Output> output;
    std::unique_ptr<Generation> generation;
    uint32_t polled = 0;
    std::vector<TokenId> turn;   // all tokens so far, when they may have to be replayed
    std::string held_reasoning;  // of stream_reasoning: false
  };
  std::optional<ApiError> submit_all();
  GenerateRequest request_for(const Choice& choice, int k) const;
  void echo_prefix(Choice& choice, std::string& out);
  OutputPlan plan(const std::vector<TokenId>& prompt) const;
  void woken();
  size_t pump();  // how many tokens there were
  bool pump_choice(Choice& choice, std::string& out);
  void deliver(Choice& choice, std::vector<Piece>& pieces, std::string& out);
  void deliver_one(Choice& choice, Piece& piece, std::string& out);
  void end_choice(Choice& choice, std::string& out);
  void complete();
  void lost();
  void leave(const char* cause, int status);
  void open_stream();
  UsageCount usage() const;
  void keep_replay(Choice& choice);
  std::vector<const ChoiceState*> answered() const;
  http::Response head() const;

  Backend& backend_;
  ReplayStore& replay_;
  http::Loop& loop_;
  Pacer& pacer_;
  std::shared_ptr<http::Exchange> exchange_;
  Ask ask_;
  JobSettings settings_;
  std::function<void(Job&, const JobReport&)> done_;
  std::unique_ptr<ReplyWriter> writer_;
  std::vector<Choice> choices_;
  std::unique_ptr<http::Timer> queue_timer_;
  // True while a turn is to come, so that the engine's threads need not ask for one.
  std::shared_ptr<std::atomic<bool>> scheduled_ = std::make_shared<std::atomic<bool>>(false);
  bool replays_ = false;    // the turn may come back: tools are declared
  Pacer::Pace pace_ = Pacer::kSteady;
  double turned_s_ = 0, next_turn_s_ = 0;  // the last turn with tokens; the next one is not before
  std::vector<TokenEvent> events_;
  std::vector<Piece> pieces_;
  bool streaming_ = false, over_ = false, paused_ = false;
  double submitted_s_ = 0, first_token_s_ = 0, last_token_s_ = 0;
  std::vector<double> gaps_;
};

}  // namespace nautile::serve
