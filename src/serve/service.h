// The service behind the HTTP server: routing, keys, admission, jobs, probes, metrics, draining.
//
// States: loading (no backend yet), ready, draining, failed. The port is open in all of them; only ready ones admit.
// Thread-safety: the io thread, but for loading(), became_ready() and load_failed(), which the loading thread calls.
// Source: spec api.md 3, 14.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "serve/auth.h"
#include "serve/backend.h"
#include "serve/http.h"
#include "serve/job.h"
#include "serve/log.h"
#include "serve/metrics.h"
#include "serve/router.h"
#include "serve/translate.h"
#include "serve/workers.h"
#include "sys/file.h"

namespace nautile::serve {

struct CorsOptions {
  std::vector<std::string> origins;  // exact, or "*"; empty: off
  std::string methods = "GET, POST, DELETE, OPTIONS", headers = "*", expose;
  int max_age_s = 600;
};

struct ServiceOptions {
  std::vector<std::string> api_keys;  // each may be a comma-separated list
  std::string api_key_file;
  bool loopback_only = true;  // what Host may say is checked
  std::vector<std::string> allowed_hosts;
  bool metrics_public = false;
  int metrics_listener = -1;  // a listener that serves metrics and probes alone, without key
  CorsOptions cors;
  bool strict_params = false, strict_replay = false, default_model = false, ignore_hosted_tools = false;
  bool cache_global = false;  // one scope of cached prefixes for all keys
  bool list_aliases = false, reasoning_alias = false, per_request_metrics = false, ui = true;
  double stuck_after_s = 60;  // an engine in one phase for so long is named in the log
  double drain_timeout_s = 60, request_timeout_s = 0, queue_timeout_s = 600, keep_alive_s = 15;
  int workers = 2;
  size_t replay_bytes = 64 << 20;
  size_t responses_kept = 0, responses_bytes = 64 << 20;  // stored responses; 0: none
  double responses_age_s = 3600;
  size_t max_prepared = 512;  // requests being parsed or running at once
  size_t unsent_bytes = 1 << 20;
  Limits limits;
  std::string version = "0.1.0";
  double usd_per_hour = 0;  // what the machine costs, for the cost metrics; 0: unknown
  double hosted_hit = 0, hosted_miss = 0, hosted_output = 0;  // USD per million tokens of a hosted price row
  std::string model_shown;                                    // while loading
};

class Service final : public http::Handler {
 public:
  Service(ServiceOptions options, FileSystem& files, RequestLog& log);
  ~Service() override;

  // Reads the keys. kInvalidArgument or kIo naming the file.
  Status load_keys();
  bool has_keys() const { return !keys_->empty(); }
  void attach(http::Server& server) {
    server_ = &server;
    pacer_ = std::make_unique<Pacer>(server.loop());
  }

  // From the thread that loads. `what` is being done; bytes, 0 of 0 where nothing can be counted. Of static lifetime.
  void loading(const char* what, uint64_t done, uint64_t total);
  void became_ready(std::shared_ptr<Backend> backend);
  void load_failed(const Status& status);
  // After the server has stopped and before it goes: ends workers, jobs and engine, which post to its loop.
  void close();
  // How the process ends once the server has stopped: what the load failed with, else done.
  const Status& end() const { return end_; }

  std::optional<http::Response> head(const http::Request& request) override;
  void handle(std::shared_ptr<http::Exchange> exchange) override;
  http::Response fault(const http::Request& request, const http::Fault& fault) override;
  void decorate(const http::Request& request, http::Response& response) override;
  void on_signal(int signal) override;

 private:
  enum class State { kLoading, kReady, kDraining, kFailed };
  struct Client {
    std::string name = "anonymous";
    const Key* key = nullptr;
  };
  struct Prepared;

  // service.cc
  Client client_of(const http::Request& request) const;
  std::optional<ApiError> admit(const Client& client);
  Json loading_json() const;   // what is being done, how far it has come, for how long the server has been loading
  ApiError not_loaded() const;
  bool needs_key(const http::Request& request, const Route* route) const;
  void drain();
  void stop_now();
  void maybe_stopped();
  void stop_when_sent();
  void reload();
  void watch();
  void observe_http(const http::Request& request, const char* route, int status);
  void reject(const char* reason);
  void answer(http::Exchange& exchange, const Route& route, http::Response response);
  void answer(http::Exchange& exchange, const Route& route, const ApiError& error);
  void answer_json(http::Exchange& exchange, const Route& route, const Json& body, int status = 200);

  // service_inference.cc
  void infer(std::shared_ptr<http::Exchange> exchange, const Route& route);
  void prepared(std::shared_ptr<Prepared> work);
  void count_or_render(Prepared& work);
  void finished(Job& job, const JobReport& report, const Route& route, const Client& client);
  void cancel_response(http::Exchange& exchange, const Route& route, const std::string& id);
  void stored_response(http::Exchange& exchange, const Route& route, const std::string& id);

  // service_info.cc
  void inform(std::shared_ptr<http::Exchange> exchange, const Match& match);
  void tokens(std::shared_ptr<http::Exchange> exchange, const Route& route);
  Json model_json(const std::string& id) const;
  void page(http::Exchange& exchange, const Route& route, const std::string& path);
  Json metadata() const;
  Json status(const Client& client) const;  // service_status.cc
  std::string metrics_page() const;
  std::string nim_metrics_page() const;

  ServiceOptions options_;
  FileSystem& files_;
  RequestLog& log_;
  http::Server* server_ = nullptr;
  std::unique_ptr<Pacer> pacer_;
  std::shared_ptr<const KeyRing> keys_;
  std::map<std::string, Usage> usage_;  // by key name
  Metrics metrics_;
  ReplayStore replay_;
  ResponseStore responses_;
  GrammarCache grammars_;
  std::shared_ptr<Backend> backend_;
  State state_ = State::kLoading;
  mutable std::mutex loading_mutex_;
  struct {
    const char* what = "opening";
    uint64_t done = 0, total = 0;
    double began_s = 0;  // this part
  } loading_;
  std::set<std::shared_ptr<Job>> jobs_;
  size_t preparing_ = 0;
  Status end_;
  bool stopping_ = false;  // the last answers are leaving
  double stop_by_s_ = 0;   // draining: when it stops whatever has not left
  std::string stuck_phase_;
  double started_s_ = 0;
  int64_t started_unix_ = 0;
  std::string cache_secret_;
  // Last: its threads are joined before anything they use goes.
  std::unique_ptr<Workers> workers_;
};

// Requests in the engine's batch now, those whose prompt is being computed included. From its counters: its gauges are
// those of the last finished step, and a step that reads a long prompt takes seconds.
int64_t in_batch(const EngineStats& stats);

// A static file compiled in from src/serve/page.
struct Asset {
  std::string_view path, type, body;
};
const Asset* find_asset(std::string_view path);

// The OpenAPI 3.1 description.
Json openapi(const std::string& version);

}  // namespace nautile::serve
