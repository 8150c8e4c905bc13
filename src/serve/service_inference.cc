// The way of an inference request: admitted, translated on a worker, run as a job, counted.
#include <fmt/format.h>

#include <algorithm>

#include "serve/service.h"
#include "sys/clock.h"

namespace nautile::serve {

// What travels to a worker and back.
struct Service::Prepared {
  std::shared_ptr<http::Exchange> exchange;
  const Route* route = nullptr;
  Client client;
  std::shared_ptr<const KeyRing> keys;  // keeps client.key alive over a reload
  std::shared_ptr<Backend> backend;
  std::string body;
  bool strict = false;
  std::optional<Ask> ask;
  std::optional<ApiError> error;
  bool counted = false;  // in the key's usage
};

void Service::infer(std::shared_ptr<http::Exchange> exchange, const Route& route) {
  auto work = std::make_shared<Prepared>();
  work->client = client_of(exchange->request);
  if (const auto error = admit(work->client)) return answer(*exchange, route, *error);
  work->exchange = exchange;
  work->route = &route;
  work->keys = keys_;
  work->backend = backend_;
  work->body = std::move(exchange->request.body);
  work->strict = options_.strict_params || exchange->request.header("x-strict-params") == "1";
  if (work->client.key != nullptr) {
    usage_[work->client.name].begin(seconds_now());
    work->counted = true;
  }
  ++preparing_;
  workers_->run([this, work] {
    TranslateContext context{work->backend->model, options_.limits, &replay_, &grammars_, work->client.name};
    context.default_model = options_.default_model;
    context.may_set_priority = work->client.key == nullptr || work->client.key->may_set_priority;
    context.strict = work->strict;
    context.strict_replay = options_.strict_replay;
    context.ignore_hosted_tools = options_.ignore_hosted_tools;
    context.responses = responses_.on() ? &responses_ : nullptr;
    auto json = parse_body(work->body, options_.limits.max_json_depth);
    if (!json.ok()) {
      work->error = json.error();
    } else {
      auto translate = [&]() -> Outcome<Ask> {
        switch (work->route->action) {
          case Action::kCompletions:
          case Action::kRenderCompletions:
            return translate_completions(*json, context);
          case Action::kMessages:
            return translate_messages(*json, context, false);
          case Action::kCountTokens:
            return translate_messages(*json, context, true);
          case Action::kResponses:
          case Action::kInputTokens:
            return translate_responses(*json, context);
          default:
            return translate_chat(*json, context);
        }
      };
      auto ask = translate();
      if (!ask.ok()) {
        work->error = ask.error();
      } else {
        work->ask = std::move(*ask);
        work->error = prepare(*work->ask, context);
        const Action action = work->route->action;
        const bool runs = action == Action::kChat || action == Action::kCompletions || action == Action::kMessages ||
                          action == Action::kResponses;
        if (runs && !work->error) work->error = constrain(*work->ask, context);
      }
    }
    work->body = {};
    server_->loop().post([this, work] { prepared(work); });
  });
}

void Service::prepared(std::shared_ptr<Prepared> work) {
  --preparing_;
  work->exchange->request.body_room.reset();
  const double now = seconds_now();
  auto give_back = [&] {
    if (work->counted) usage_[work->client.name].end(now, 0);
    work->counted = false;
    maybe_stopped();
  };
  if (work->ask && work->ask->grammar_s > 0) {
    metrics_.observe("nautile_grammar_compile_seconds", work->ask->grammar_s);
    if (work->error) metrics_.count("nautile_grammar_rejects_total");
  }
  if (work->exchange->gone()) return give_back();
  if (work->error) {
    const std::string& code = work->error->code;
    reject(code == "context_length_exceeded" ? "context" : code == "json_too_deep" ? "depth" : "invalid");
    answer(*work->exchange, *work->route, *work->error);
    return give_back();
  }
  const Action action = work->route->action;
  if (action == Action::kCountTokens || action == Action::kInputTokens || action == Action::kRenderChat ||
      action == Action::kRenderCompletions) {
    count_or_render(*work);
    return give_back();
  }
  Ask& ask = *work->ask;
  if (work->counted) {
    usage_[work->client.name].more(now, static_cast<int>(ask.prompts.size()) * std::max(ask.n, ask.best_of) - 1);
  }
  JobSettings settings;
  settings.queue_timeout_s = options_.queue_timeout_s;
  settings.request_timeout_s = options_.request_timeout_s;
  settings.keep_alive_s = options_.keep_alive_s;
  settings.unsent_limit = options_.unsent_bytes;
  settings.reasoning_alias = options_.reasoning_alias;
  settings.per_request_metrics = options_.per_request_metrics;
  settings.client = work->client.name;
  settings.owner = work->client.name;
  // Prefixes are shared within a key and, inside it, within a user or salt; global scope is for single tenants.
  if (!options_.cache_global) {
    settings.scope = work->client.name + "\n" + (!ask.user.empty() ? ask.user : ask.cache_salt);
    if (work->client.key != nullptr) settings.cache_owner = "key\n" + work->client.name;
  }
  settings.script = std::string(work->exchange->request.header("x-script"));
  metrics_.count("nautile_requests_by_mode_total",
                 label("reasoning_mode", name_of(ask.encode.mode)) + "," + label("dialect", name_of(ask.dialect)));
  if (!ask.replay.empty()) metrics_.count("nautile_replay_lookups_total", label("result", ask.replay));
  auto job = std::make_shared<Job>(
      *work->backend, replay_, server_->loop(), *pacer_, work->exchange, std::move(ask), std::move(settings),
      [this, work](Job& done, const JobReport& report) { finished(done, report, *work->route, work->client); });
  jobs_.insert(job);
  job->start();
}

void Service::count_or_render(Prepared& work) {
  const Ask& ask = *work.ask;
  const auto tokens = static_cast<int64_t>(ask.prompts[0].size());
  switch (work.route->action) {
    case Action::kCountTokens:
      return answer_json(*work.exchange, *work.route, {{"input_tokens", tokens}});
    case Action::kInputTokens:
      return answer_json(*work.exchange, *work.route, {{"object", "response.input_tokens"}, {"input_tokens", tokens}});
    default:
      break;
  }
  auto text = backend_->model.tokenizer->decode(ask.prompts[0]);
  answer_json(*work.exchange, *work.route,
              {{"prompt", text.ok() ? *text : ""},
               {"token_ids", ask.prompts[0]},
               {"prompt_tokens", tokens},
               {"reasoning_mode", name_of(ask.encode.mode)}});
}

void Service::cancel_response(http::Exchange& exchange, const Route& route, const std::string& id) {
  const Client client = client_of(exchange.request);
  for (const auto& job : jobs_) {
    if (job->reply_id() != id || job->owner() != client.name) continue;
    const auto held = job;
    held->cancel_by_api();
    return answer_json(exchange, route, {{"id", id}, {"object", "response"}, {"status", "cancelled"}});
  }
  answer(exchange, route, {404, "response_not_found", "No running response has this id.", "response_id"});
}

void Service::stored_response(http::Exchange& exchange, const Route& route, const std::string& id) {
  const Client client = client_of(exchange.request);
  const double now = seconds_now();
  const auto stored = responses_.find(client.name, id, now);
  if (!stored) {
    return answer(
        exchange, route,
        {404, "response_not_found",
         responses_.on() ? "No stored response has this id." : "Responses are not stored here.", "response_id"});
  }
  if (route.action == Action::kResponseDelete) {
    responses_.forget(client.name, id, now);
    return answer_json(exchange, route, {{"id", id}, {"object", "response"}, {"deleted", true}});
  }
  if (route.action == Action::kResponseGet) {
    return answer_json(exchange, route, Json::parse(stored->response, nullptr, false));
  }
  // The newest first, texts as parts, every item with an id.
  Json items = Json::parse(stored->input, nullptr, false), list = Json::array();
  for (size_t i = items.size(); i-- > 0;) {
    Json& item = items[i];
    if (!item.contains("type")) item["type"] = "message";
    if (!item.contains("id")) item["id"] = fmt::format("item_{}_{}", id.substr(std::min<size_t>(5, id.size())), i);
    if (item["type"] == "message" && item.contains("content") && item["content"].is_string()) {
      const bool said = item.contains("role") && item["role"] == "assistant";
      Json part = {{"type", said ? "output_text" : "input_text"}, {"text", item["content"]}};
      if (said) part["annotations"] = Json::array();
      item["content"] = Json::array({part});
    }
    list.push_back(std::move(item));
  }
  const Json first = list.front()["id"], last = list.back()["id"];
  answer_json(exchange, route,
              {{"object", "list"}, {"data", list}, {"first_id", first}, {"last_id", last}, {"has_more", false}});
}

void Service::finished(Job& job, const JobReport& report, const Route& route, const Client& client) {
  const Ask& ask = job.ask();
  const double now = seconds_now();
  const UsageCount& u = report.usage;
  observe_http(job.exchange().request, route.path, report.status);
  const bool ran = !report.choices.empty() && report.choices.front()->record.prompt_tokens > 0;
  const RequestRecord empty;
  const RequestRecord& first = ran ? report.choices.front()->record : empty;
  std::string finish = report.cause;
  if (report.cause.empty()) {
    for (const ChoiceState* choice : report.choices) {
      const char* reason = choice->finish_reason();
      finish = reason;
      metrics_.count("vllm:request_success_total", label("finished_reason", reason[0] == 'l' ? "length" : "stop"));
      if (choice->summary.reasoning_unclosed) metrics_.count("nautile_unclosed_think_total");
      if (choice->summary.budget_hit) metrics_.count("nautile_thinking_budget_hit_total");
      for (const Call& call : choice->calls) {
        metrics_.count("nautile_tool_calls_total", label("result", call.complete ? "complete" : "truncated"));
      }
    }
  } else if (report.cause == "error") {
    metrics_.count("vllm:request_success_total", label("finished_reason", "error"));
  } else {
    metrics_.count("vllm:request_success_total", label("finished_reason", "abort"));
    const char* phase = report.phase == Phase::kQueued    ? "queue"
                        : report.phase == Phase::kPrefill ? "prefill"
                                                          : "decode";
    metrics_.count("nautile_requests_cancelled_total", label("phase", phase) + "," + label("cause", report.cause));
  }
  if (ran) {
    metrics_.count("vllm:prompt_tokens_total", {}, static_cast<double>(u.prompt));
    metrics_.count("vllm:prompt_tokens_cached_total", {}, static_cast<double>(u.cached));
    metrics_.count("vllm:prompt_tokens_by_source_total", label("source", "local_cache_hit"),
                   static_cast<double>(u.cached));
    metrics_.count("vllm:prompt_tokens_by_source_total", label("source", "local_compute"),
                   static_cast<double>(u.prompt - u.cached));
    metrics_.count("vllm:generation_tokens_total", {}, static_cast<double>(u.completion));
    metrics_.count("nautile_reasoning_tokens_total", {}, static_cast<double>(u.reasoning));
    metrics_.count("nautile_answer_tokens_total", {}, static_cast<double>(u.completion - u.reasoning));
    metrics_.observe("vllm:request_prompt_tokens", static_cast<double>(u.prompt));
    metrics_.observe("vllm:request_generation_tokens", static_cast<double>(u.completion));
    int64_t longest = 0;
    for (const ChoiceState* choice : report.choices) longest = std::max(longest, choice->record.output_tokens);
    metrics_.observe("vllm:request_max_num_generation_tokens", static_cast<double>(longest));
    metrics_.observe("vllm:request_params_n", ask.n);
    metrics_.observe("vllm:request_params_max_tokens", static_cast<double>(ask.effective_max_tokens));
    metrics_.observe("vllm:request_prefill_kv_computed_tokens", static_cast<double>(u.prompt - u.cached));
    if (report.first_token_s > 0)
      metrics_.observe("vllm:time_to_first_token_seconds", report.first_token_s - report.submitted_s);
    for (const double gap : report.gaps) metrics_.observe("vllm:inter_token_latency_seconds", gap);
    if (first.output_tokens > 1) {
      metrics_.observe("vllm:request_time_per_output_token_seconds",
                       first.decode_s / static_cast<double>(first.output_tokens - 1));
    }
    metrics_.observe("vllm:e2e_request_latency_seconds", now - report.arrived_s);
    metrics_.observe("vllm:request_queue_time_seconds", first.queue_s);
    metrics_.observe("vllm:request_inference_time_seconds", first.prefill_s + first.decode_s);
    metrics_.observe("vllm:request_prefill_time_seconds", first.prefill_s);
    metrics_.observe("vllm:request_decode_time_seconds", first.decode_s);
    metrics_.observe("nautile_queue_wait_seconds", first.queue_s,
                     label("priority", ask.priority < 0   ? "high"
                                       : ask.priority > 0 ? "low"
                                                          : "normal"));
  }
  auto ms = [](double seconds) { return std::round(seconds * 1e4) / 10; };
  log_.request(
      {{"request_id", job.exchange().request.id},
       {"key", client.name},
       {"dialect", name_of(ask.dialect)},
       {"route", route.path},
       {"model", backend_->model.name},
       {"mode", name_of(ask.encode.mode)},
       {"stream", ask.stream},
       {"prompt_tokens", u.prompt},
       {"completion_tokens", u.completion},
       {"cached_tokens", u.cached},
       {"reasoning_tokens", u.reasoning},
       {"cache", first.cache_decision},
       {"queue_ms", ms(first.queue_s)},
       {"prefill_ms", ms(first.prefill_s)},
       {"decode_ms", ms(first.decode_s)},
       {"ttft_ms", report.first_token_s > 0 ? ms(report.first_token_s - report.submitted_s) : 0},
       {"tokens_per_s",
        first.decode_s > 0 ? std::round(10 * static_cast<double>(first.output_tokens) / first.decode_s) / 10 : 0},
       {"total_ms", ms(now - report.arrived_s)},
       {"preemptions", first.preemptions},
       {"finish", finish},
       {"status", report.status}});
  if (const Json* kept = job.kept(); kept != nullptr && report.cause.empty()) {
    responses_.keep(client.name, job.reply_id(),
                    {ask.stored_input, kept->dump(-1, ' ', false, Json::error_handler_t::replace)}, now);
  }
  if (client.key != nullptr) usage_[client.name].end(now, u.prompt + u.completion);
  // The job ends itself; it goes once this call is over.
  const auto found = std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& held) { return held.get() == &job; });
  if (found != jobs_.end()) {
    server_->loop().post([held = *found] {});
    jobs_.erase(found);
  }
  maybe_stopped();
}

}  // namespace nautile::serve
