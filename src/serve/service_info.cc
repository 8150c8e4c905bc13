// Probes, models, metadata, tokenising, static pages (spec api.md 14).
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "serve/service.h"
#include "sys/clock.h"

namespace nautile::serve {
namespace {

constexpr const char* kApiVersion = "1.0.0";

Json health(const char* status, const char* message) {
  return {{"object", "health.response"}, {"message", message}, {"status", status}};
}

Json license_json() {
  return {{"name", "MIT License"},
          {"path", ""},
          {"sha", ""},
          {"size", 0},
          {"url", "https://opensource.org/license/mit"},
          {"type", "text"},
          {"content",
           "Nautile is licensed under the MIT License. The model's weights have their own licence, which is in their "
           "directory."}};
}

Json anthropic_model(const ServedModel& model) {
  const std::time_t when = model.created;
  char text[32];
  std::tm parts{};
  gmtime_r(&when, &parts);
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return {{"type", "model"}, {"id", model.name}, {"display_name", model.name}, {"created_at", text}};
}

}  // namespace

void Service::inform(std::shared_ptr<http::Exchange> exchange, const Match& match) {
  const Route& route = *match.route;
  const bool ready = state_ == State::kReady;
  switch (route.action) {
    case Action::kHealth:
    case Action::kPing: {
      http::Response response;
      response.status = ready ? 200 : 503;
      response.type.clear();
      return answer(*exchange, route, std::move(response));
    }
    case Action::kLive: {
      const bool live = state_ != State::kFailed;
      return answer_json(*exchange, route,
                         health(live ? "live" : "failed", live ? "Service is live." : "Service has failed."),
                         live ? 200 : 503);
    }
    case Action::kReady: {
      if (ready) return answer_json(*exchange, route, health("ready", "Service is ready."));
      const char* status = state_ == State::kLoading ? "loading" : state_ == State::kDraining ? "draining" : "failed";
      const bool loading = state_ == State::kLoading;
      const ApiError error =
          loading ? not_loaded()
                  : overloaded(state_ == State::kDraining ? "server_draining" : "model_loading", "Service is not ready.", 5);
      http::Response response = error_response(error, Dialect::kOpenAi, exchange->request.id);
      Json body = error_body(error, Dialect::kOpenAi, exchange->request.id);
      body.update(health(status, error.message.c_str()));
      if (loading) body["loading"] = loading_json();
      response.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
      return answer(*exchange, route, std::move(response));
    }
    case Action::kVersion:
      return answer_json(*exchange, route, {{"release", options_.version}, {"api", kApiVersion}});
    case Action::kPlainVersion:
      return answer_json(*exchange, route, {{"version", options_.version}});
    case Action::kLicense:
      return answer_json(*exchange, route, license_json());
    case Action::kMetadata:
      return answer_json(*exchange, route, metadata());
    case Action::kStatus:
      return answer_json(*exchange, route, status(client_of(exchange->request)));
    case Action::kManifest:
      return answer_json(*exchange, route, {{"manifest_file", metadata().dump(2)}});
    case Action::kLoad:
      return answer_json(*exchange, route, {{"server_load", jobs_.size() + preparing_}});
    case Action::kMetrics:
    case Action::kNimMetrics: {
      http::Response response;
      const bool open_metrics =
          exchange->request.header("accept").find("application/openmetrics-text") != std::string_view::npos;
      response.type = "text/plain; version=0.0.4; charset=utf-8";
      response.body = route.action == Action::kMetrics ? metrics_page() : nim_metrics_page();
      (void)open_metrics;  // one form serves both: 0.0.4 is what every scraper still reads
      return answer(*exchange, route, std::move(response));
    }
    case Action::kTokenizerInfo: {
      if (!backend_)
        return answer(*exchange, route, not_loaded());
      const ServedModel& model = backend_->model;
      auto text = [&](TokenId id) { return std::string(model.tokenizer->bytes_of(id)); };
      // No chat template: conversations are rendered by /v1/chat/completions/render.
      return answer_json(*exchange, route,
                         {{"tokenizer_class", "PreTrainedTokenizerFast"},
                          {"vocab_size", model.tokenizer->size()},
                          {"model_max_length", model.context},
                          {"add_bos_token", true},
                          {"bos_token", text(model.tokens.bos)},
                          {"eos_token", text(model.tokens.eos)},
                          {"pad_token", text(model.tokens.eos)}});
    }
    case Action::kOpenApi:
      return answer_json(*exchange, route, openapi(options_.version));
    case Action::kPage:
      return page(*exchange, route, exchange->request.path);
    case Action::kModels:
    case Action::kAnthropicModels:
    case Action::kModel: {
      if (!backend_)
        return answer(*exchange, route, not_loaded());
      const ServedModel& model = backend_->model;
      const bool anthropic =
          route.action == Action::kAnthropicModels || !exchange->request.header("anthropic-version").empty();
      if (route.action == Action::kModel) {
        if (model.answers_to(match.argument)) {
          return answer_json(*exchange, route, anthropic ? anthropic_model(model) : model_json(model.name));
        }
        return answer(
            *exchange, route,
            {404, "model_not_found", fmt::format("The model \"{}\" is not served here.", match.argument), "model"});
      }
      if (anthropic) {
        const Json entry = anthropic_model(model);
        return answer_json(
            *exchange, route,
            {{"data", Json::array({entry})}, {"has_more", false}, {"first_id", model.name}, {"last_id", model.name}});
      }
      Json data = Json::array({model_json(model.name)});
      if (options_.list_aliases) {
        for (const std::string& name : model.names) data.push_back(model_json(name));
      }
      return answer_json(*exchange, route, {{"object", "list"}, {"data", data}});
    }
    case Action::kResponseGet:
    case Action::kResponseDelete:
    case Action::kResponseItems:
      return stored_response(*exchange, route, match.argument);
    default:
      return answer(*exchange, route, internal_error());
  }
}

Json Service::model_json(const std::string& id) const {
  const ServedModel& model = backend_->model;
  Json modes = Json::array();
  for (const ReasoningMode mode :
       {ReasoningMode::kNonThink, ReasoningMode::kThinkLow, ReasoningMode::kThinkHigh, ReasoningMode::kThinkMax}) {
    if (mode == ReasoningMode::kThinkLow && model.profile == EncodingProfile::kPreview) continue;
    modes.push_back(name_of(mode));
  }
  return {{"id", id},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "nautile"},
          {"root", model.name},
          {"parent", nullptr},
          {"max_model_len", model.context},
          {"permission", Json::array()},
          {"context_length", model.context},
          {"max_output_tokens", std::min(model.max_output, model.context)},
          {"reasoning_modes", modes},
          {"effort_profile", name_of(model.profile)},
          {"aliases", model.names}};
}

Json Service::metadata() const {
  Json made = {{"version", options_.version}, {"modelInfo", Json::array()}, {"licenseInfo", license_json()},
               {"assetInfo", Json::array()},  {"repository_override", ""},  {"selectedModelProfileId", ""}};
  if (!backend_) return made;
  const ServedModel& model = backend_->model;
  made["modelInfo"].push_back({{"shortName", model.name}, {"modelUrl", ""}});
  made["selectedModelProfileId"] = model.fingerprint;
  made["effort_profile"] = name_of(model.profile);
  made["quantization"] = model.quantization;
  made["parallelism"] = {{"tensor", 1}, {"pipeline", 1}};
  made["max_model_len"] = model.context;
  made["build"] = options_.version;
  return made;
}

// Text or messages to ids, and back, on a worker.
void Service::tokens(std::shared_ptr<http::Exchange> exchange, const Route& route) {
  const Client client = client_of(exchange->request);
  if (const auto error = admit(client)) return answer(*exchange, route, *error);
  ++preparing_;
  auto body = std::make_shared<std::string>(std::move(exchange->request.body));
  auto made = std::make_shared<Json>();
  auto failed = std::make_shared<std::optional<ApiError>>();
  workers_->run([this, exchange, body, made, failed, backend = backend_, owner = client.name, &route] {
    const ServedModel& model = backend->model;
    const Tokenizer& tokenizer = *model.tokenizer;
    auto work = [&]() -> std::optional<ApiError> {
      auto json = parse_body(*body, options_.limits.max_json_depth);
      if (!json.ok()) return json.error();
      FieldNotes notes;
      Fields fields(*json, "", notes);
      std::string name;
      if (fields.text("model", name) && !name.empty() && !model.answers_to(name)) {
        return ApiError{404, "model_not_found", "The model is not served here.", "model"};
      }
      if (route.action == Action::kDetokenize) {
        std::vector<TokenId> ids;
        if (!fields.ids("tokens", ids, SIZE_MAX, tokenizer.size()) && !notes.error) {
          fields.fail("tokens", "missing_required_parameter", "is missing");
        }
        if (notes.error) return notes.error;
        auto text = tokenizer.decode(ids);
        if (!text.ok()) return from_status(text.status());
        *made = {{"prompt", *text}};
        return std::nullopt;
      }
      std::vector<TokenId> ids;
      bool strings = false, bos = true;
      fields.boolean("return_token_strs", strings);
      fields.boolean("add_special_tokens", bos);
      if (fields.has("messages")) {
        TranslateContext context{model, options_.limits, &replay_, &grammars_, owner};
        context.default_model = true;
        auto ask = translate_chat(*json, context);
        if (!ask.ok()) return ask.error();
        if (auto error = prepare(*ask, context)) return error;
        ids = ask->prompts[0];
      } else {
        std::string prompt;
        if (!fields.text("prompt", prompt) && !notes.error)
          fields.fail("prompt", "missing_required_parameter", "is missing");
        if (notes.error) return notes.error;
        auto encoded = tokenizer.encode(prompt, true);
        if (!encoded.ok()) return from_status(encoded.status());
        ids = std::move(encoded).value();
        if (bos && (ids.empty() || ids.front() != model.tokens.bos)) ids.insert(ids.begin(), model.tokens.bos);
      }
      if (notes.error) return notes.error;
      *made = {{"count", ids.size()}, {"max_model_len", model.context}, {"tokens", ids}, {"token_strs", nullptr}};
      if (strings) {
        Json list = Json::array();
        for (const TokenId id : ids) list.push_back(std::string(tokenizer.bytes_of(id)));
        (*made)["token_strs"] = list;
      }
      return std::nullopt;
    };
    *failed = work();
    server_->loop().post([this, exchange, made, failed, &route] {
      --preparing_;
      if (*failed) {
        answer(*exchange, route, **failed);
      } else {
        answer_json(*exchange, route, *made);
      }
      maybe_stopped();
    });
  });
}

void Service::page(http::Exchange& exchange, const Route& route, const std::string& path) {
  const Asset* asset = find_asset(path);
  if (asset == nullptr) return answer(exchange, route, {404, "unknown_url", "There is no such page."});
  http::Response response;
  response.type = asset->type;
  response.body = asset->body;
  response.headers.push_back({"Cache-Control", "no-cache"});
  response.headers.push_back({"X-Content-Type-Options", "nosniff"});
  response.headers.push_back(
      {"Content-Security-Policy",
       "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
       "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"});
  response.headers.push_back({"Referrer-Policy", "no-referrer"});
  answer(exchange, route, std::move(response));
}

}  // namespace nautile::serve
