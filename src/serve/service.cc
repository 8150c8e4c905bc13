// Who may come in, what happens at the door, and how the house is closed.
#include "serve/service.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "sys/clock.h"

namespace nautile::serve {
namespace {

constexpr size_t kMaxKeyFile = 1 << 20;
constexpr double kLastBytesSeconds = 0.2;  // for the errors of requests that were ended, to those who read them

std::string_view media_type(std::string_view content_type) {
  std::string_view type = content_type.substr(0, content_type.find(';'));
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  while (!type.empty() && type.front() == ' ') type.remove_prefix(1);
  return type;
}

bool utf8_charset(std::string_view content_type) {
  std::string lower(content_type);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  const size_t at = lower.find("charset=");
  if (at == std::string::npos) return true;
  std::string_view charset = std::string_view(lower).substr(at + 8);
  if (charset.starts_with('"')) charset.remove_prefix(1);
  return charset.starts_with("utf-8") || charset.starts_with("utf8");
}

bool for_probes(Action action) {
  switch (action) {
    case Action::kHealth:
    case Action::kPing:
    case Action::kLive:
    case Action::kReady:
    case Action::kMetrics:
    case Action::kNimMetrics:
      return true;
    default:
      return false;
  }
}

}  // namespace

Service::Service(ServiceOptions options, FileSystem& files, RequestLog& log)
    : options_(std::move(options)),
      files_(files),
      log_(log),
      keys_(std::make_shared<KeyRing>()),
      replay_(options_.replay_bytes),
      responses_(options_.responses_kept, options_.responses_bytes, options_.responses_age_s),
      started_s_(seconds_now()),
      started_unix_(std::time(nullptr)),
      cache_secret_(http::random_hex(16)),
      workers_(std::make_unique<Workers>(options_.workers)) {}

Service::~Service() {
  close();
}

void Service::close() {
  workers_.reset();
  jobs_.clear();
  pacer_.reset();
  if (backend_) backend_->engine.reset();
}

// Names the phase that the engine is stuck in, once for each time.
void Service::watch() {
  if (backend_) {
    const EngineStats stats = backend_->engine->stats();
    const bool busy = stats.running + stats.prefilling + stats.queued > 0;
    if (busy && stats.phase_s > options_.stuck_after_s && stats.phase != stuck_phase_) {
      stuck_phase_ = stats.phase;
      log_.note(fmt::format("the engine has been in \"{}\" for {:.0f} s, with {} running and {} waiting", stats.phase,
                            stats.phase_s, stats.running, stats.queued));
    } else if (stats.phase_s < options_.stuck_after_s) {
      stuck_phase_.clear();
    }
  }
  server_->loop().after(5, [this] { watch(); });
}

Status Service::load_keys() {
  auto ring = std::make_shared<KeyRing>();
  for (const std::string& keys : options_.api_keys) ring->add(keys);
  if (!options_.api_key_file.empty()) {
    NAUTILE_ASSIGN(const std::string text, files_.read(options_.api_key_file, kMaxKeyFile));
    NAUTILE_RETURN_IF_ERROR(ring->add_file(text, options_.api_key_file));
    if (ring->empty()) return {Code::kInvalidArgument, "the file holds no key", options_.api_key_file};
  }
  keys_ = std::move(ring);
  return {};
}

void Service::became_ready(std::shared_ptr<Backend> backend) {
  server_->loop().post([this, backend = std::move(backend)] {
    backend_ = backend;
    if (state_ == State::kLoading) state_ = State::kReady;
    watch();
    log_.note(fmt::format("ready after {:.1f} s: {}", backend_->load_s, backend_->model.name));
  });
}

void Service::loading(const char* what, uint64_t done, uint64_t total) {
  const std::lock_guard lock(loading_mutex_);
  if (std::strcmp(loading_.what, what) != 0) loading_.began_s = seconds_now();
  loading_.what = what;
  loading_.done = done;
  loading_.total = total;
}

Json Service::loading_json() const {
  const std::lock_guard lock(loading_mutex_);
  Json json = {{"phase", loading_.what}, {"seconds", seconds_now() - started_s_}};
  if (loading_.total > 0) {
    json["percent"] = 100 * static_cast<double>(loading_.done) / static_cast<double>(loading_.total);
    json["done_bytes"] = loading_.done;
    json["total_bytes"] = loading_.total;
  }
  return json;
}

// Comes back when this part will be done by its rate so far, within a minute.
ApiError Service::not_loaded() const {
  const Json progress = loading_json();
  int wait_s = 5;
  std::string message = "The model is still being loaded: " + progress["phase"].get<std::string>();
  if (progress.contains("percent")) {
    const std::lock_guard lock(loading_mutex_);
    message += fmt::format(", {:.0f}% of {:.1f} GB", progress["percent"].get<double>(),
                           static_cast<double>(loading_.total) / 1e9);
    const double spent = seconds_now() - loading_.began_s, done = static_cast<double>(loading_.done);
    if (done > 0) {
      wait_s = static_cast<int>(std::clamp(spent * (static_cast<double>(loading_.total) - done) / done, 1.0, 60.0));
    }
  }
  ApiError error = overloaded("model_loading", message + ".", wait_s);
  error.extra = {{"loading", progress}};
  error.details = {{"loading", progress}};
  return error;
}

void Service::load_failed(const Status& status) {
  server_->loop().post([this, status] {
    state_ = State::kFailed;
    end_ = status;
    log_.note("the model could not be loaded: " + status.message());
    server_->loop().after(0.05, [this] { server_->stop(); });
  });
}

bool Service::needs_key(const http::Request& request, const Route* route) const {
  if (keys_->empty()) return false;
  if (request.method == "OPTIONS") return false;
  if (route == nullptr) return true;
  if (route->open) return false;
  const bool metrics = route->action == Action::kMetrics || route->action == Action::kNimMetrics;
  return !(metrics && (options_.metrics_public || request.listener == options_.metrics_listener));
}

// Everything that can be refused on the head alone, in this order: host, key, path, method, type.
std::optional<http::Response> Service::head(const http::Request& request) {
  const Dialect prefix = dialect_of_path(request.path);
  const Match found = match(request.method, request.path);
  const Dialect dialect = found.route != nullptr ? found.route->dialect : prefix;
  auto refuse = [&](ApiError error, const char* reason) {
    reject(reason);
    observe_http(request, found.route != nullptr ? found.route->path : "other", error.status);
    return error_response(error, dialect, request.id);
  };
  if (options_.loopback_only && !request.header("host").empty() &&
      !host_allowed(request.header("host"), options_.allowed_hosts)) {
    return refuse({403, "host_not_allowed", "This Host is not allowed; see --allowed-hosts."}, "host");
  }
  if (request.method == "OPTIONS") {
    const Match any = match("", request.path);
    http::Response response;
    response.status = any.allow.empty() ? 404 : 204;
    response.type.clear();
    if (!any.allow.empty()) response.headers.push_back({"Allow", any.allow});
    observe_http(request, "options", response.status);
    return response;
  }
  if (needs_key(request, found.route) && keys_->find(presented_key(request)) == nullptr) {
    return refuse({401, "invalid_api_key", "A valid API key is needed: Authorization: Bearer KEY, or x-api-key."},
                  "auth");
  }
  const bool side_door = request.listener != 0;
  if (request.path.empty() || (found.route == nullptr && found.allow.empty()) ||
      (side_door && found.route != nullptr && !for_probes(found.route->action)) ||
      (found.route != nullptr && found.route->action == Action::kPage &&
       (!options_.ui || find_asset(request.path) == nullptr))) {
    return refuse({404, "unknown_url", fmt::format("There is nothing at {} {}.", request.method, request.path)},
                  "invalid");
  }
  if (found.route == nullptr) {
    auto response = refuse({405, "method_not_allowed", fmt::format("This path takes {}.", found.allow)}, "invalid");
    response.headers.push_back({"Allow", found.allow});
    return response;
  }
  const std::string_view coding = request.header("content-encoding");
  if (!coding.empty() && !http::same_name(coding, "identity")) {
    return refuse({415, "unsupported_media_type", "Compressed bodies are not accepted."}, "invalid");
  }
  if (request.method == "POST") {
    const std::string_view type = request.header("content-type");
    if (!http::same_name(media_type(type), "application/json") || !utf8_charset(type)) {
      return refuse({415, "unsupported_media_type",
                     "The body must be JSON in UTF-8: send the header Content-Type: application/json."},
                    "invalid");
    }
  }
  return std::nullopt;
}

http::Response Service::fault(const http::Request& request, const http::Fault& fault) {
  reject(fault.status == 413 ? "body" : fault.status == 503 ? "memory" : "invalid");
  observe_http(request, "other", fault.status);
  ApiError error{fault.status, fault.code, fault.message};
  if (fault.status == 503) error.retry_after_s = 1;
  return error_response(error, dialect_of_path(request.path), request.id);
}

void Service::decorate(const http::Request& request, http::Response& response) {
  response.headers.push_back({"X-Request-Id", request.id});
  if (dialect_of_path(request.path) == Dialect::kMessages) response.headers.push_back({"request-id", request.id});
  if (state_ == State::kDraining) response.close = true;
  const CorsOptions& cors = options_.cors;
  const std::string_view origin = request.header("origin");
  if (cors.origins.empty() || origin.empty()) return;
  const bool any = std::find(cors.origins.begin(), cors.origins.end(), "*") != cors.origins.end();
  if (!any && std::find(cors.origins.begin(), cors.origins.end(), origin) == cors.origins.end()) return;
  response.headers.push_back({"Access-Control-Allow-Origin", any ? "*" : std::string(origin)});
  response.headers.push_back({"Vary", "Origin"});
  const std::string expose = cors.expose.empty() ? "X-Request-Id, x-seed, x-ignored-fields, Retry-After" : cors.expose;
  response.headers.push_back({"Access-Control-Expose-Headers", expose});
  if (request.method != "OPTIONS") return;
  response.headers.push_back({"Access-Control-Allow-Methods", cors.methods});
  response.headers.push_back({"Access-Control-Allow-Headers", cors.headers});
  response.headers.push_back({"Access-Control-Max-Age", std::to_string(cors.max_age_s)});
}

void Service::handle(std::shared_ptr<http::Exchange> exchange) {
  const Match found = match(exchange->request.method, exchange->request.path);
  if (found.route == nullptr) return answer(*exchange, routes()[0], internal_error());
  switch (found.route->action) {
    case Action::kChat:
    case Action::kCompletions:
    case Action::kMessages:
    case Action::kCountTokens:
    case Action::kResponses:
    case Action::kInputTokens:
    case Action::kRenderChat:
    case Action::kRenderCompletions:
      return infer(std::move(exchange), *found.route);
    case Action::kTokenize:
    case Action::kDetokenize:
      return tokens(std::move(exchange), *found.route);
    case Action::kResponseCancel:
      return cancel_response(*exchange, *found.route, found.argument);
    default:
      return inform(std::move(exchange), found);
  }
}

Service::Client Service::client_of(const http::Request& request) const {
  Client client;
  client.key = keys_->empty() ? nullptr : keys_->find(presented_key(request));
  if (client.key != nullptr) client.name = client.key->name;
  return client;
}

std::optional<ApiError> Service::admit(const Client& client) {
  if (state_ == State::kLoading) {
    reject("loading");
    return not_loaded();
  }
  if (state_ == State::kDraining) {
    reject("draining");
    return overloaded("server_draining", "The server is shutting down.", 5);
  }
  if (state_ == State::kFailed || !backend_) {
    reject("loading");
    return overloaded("model_loading", "The model could not be loaded.", 60);
  }
  if (client.key != nullptr) {
    if (const int wait = usage_[client.name].refuse_s(*client.key, seconds_now()); wait > 0) {
      reject("rate");
      ApiError error{429, "rate_limit_exceeded", "This key's rate limit is reached."};
      error.retry_after_s = wait;
      return error;
    }
  }
  if (preparing_ + jobs_.size() >= options_.max_prepared) {
    reject("queue_full");
    return overloaded("server_overloaded", "The server is full; try again soon.", 2);
  }
  return std::nullopt;
}

void Service::on_signal(int signal) {
  if (signal == SIGHUP) return reload();
  if (state_ == State::kDraining) return stop_now();
  drain();
}

void Service::drain() {
  state_ = State::kDraining;
  log_.note(fmt::format("draining: {} requests are running", jobs_.size()));
  stop_by_s_ = seconds_now() + options_.drain_timeout_s;
  if (options_.drain_timeout_s <= 0) return stop_now();
  server_->loop().after(options_.drain_timeout_s, [this] { stop_now(); });
  maybe_stopped();
}

void Service::stop_now() {
  stop_by_s_ = std::min(stop_by_s_, seconds_now() + kLastBytesSeconds);
  const std::set<std::shared_ptr<Job>> jobs = jobs_;
  for (const auto& job : jobs) job->abort(overloaded("server_draining", "The server is shutting down.", 5), "drain");
  maybe_stopped();
}

void Service::maybe_stopped() {
  if (state_ != State::kDraining || !jobs_.empty() || preparing_ > 0 || stopping_) return;
  stopping_ = true;
  stop_when_sent();
}

// The last job may have ended with a megabyte of its answer unsent. Nothing is admitted any more, so that what is under
// way grows no longer.
void Service::stop_when_sent() {
  server_->loop().after(0.02, [this] {
    if (server_->answering() > 0 && seconds_now() < stop_by_s_) return stop_when_sent();
    server_->stop();
  });
}

void Service::reload() {
  const Status status = load_keys();
  metrics_.count(status.ok() ? "nautile_config_reloads_total" : "nautile_config_reload_failures_total");
  log_.note(status.ok() ? "reloaded the keys" : "the keys stay as they were: " + status.message());
}

void Service::reject(const char* reason) {
  metrics_.count("nautile_requests_rejected_total", label("reason", reason));
}

void Service::observe_http(const http::Request& request, const char* route, int status) {
  const char* method =
      request.method == "GET" || request.method == "POST" || request.method == "DELETE" || request.method == "OPTIONS"
          ? request.method.c_str()
          : "other";
  metrics_.count("nautile_http_requests_total",
                 label("route", route) + "," + label("method", method) + "," + label("status", std::to_string(status)));
  if (request.arrived_s > 0) {
    metrics_.observe("nautile_http_request_duration_seconds", seconds_now() - request.arrived_s, label("route", route));
  }
}

void Service::answer(http::Exchange& exchange, const Route& route, http::Response response) {
  observe_http(exchange.request, route.path, response.status);
  exchange.respond(std::move(response));
}

void Service::answer(http::Exchange& exchange, const Route& route, const ApiError& error) {
  answer(exchange, route, error_response(error, route.dialect, exchange.request.id));
}

void Service::answer_json(http::Exchange& exchange, const Route& route, const Json& body, int status) {
  http::Response response;
  response.status = status;
  response.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  answer(exchange, route, std::move(response));
}

}  // namespace nautile::serve
