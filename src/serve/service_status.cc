// GET /v1/status: what a person wants to see at a glance, as one JSON object (docs/page.md). The page at / draws it.
//
// Scrapers read /metrics; this is that page's figures without parsing, and the caller's own running requests with how
// far each has come, so that a long prompt can show its progress.
#include <algorithm>

#include "serve/service.h"
#include "sys/clock.h"

namespace nautile::serve {
namespace {

// Prompt tokens computed so far: what steps took, less what decoding took of it (a token a step, and the drafts).
uint64_t prefilled(const EngineStats& stats) {
  const uint64_t decoding = stats.drafted_tokens + stats.output_tokens;
  const uint64_t all = stats.batch_tokens + stats.accepted_tokens;
  return all > decoding ? all - decoding : 0;
}

Json request_json(const Job& job, double now) {
  const RequestRecord record = job.progress();
  return {{"id", job.request_id()},
          {"phase", name_of(record.phase)},
          {"age_s", now - job.arrived_s()},
          {"prompt_tokens", record.prompt_tokens},
          {"cached_tokens", record.cached_tokens},
          {"prefilled_tokens", record.prefilled_tokens},
          {"output_tokens", record.output_tokens},
          {"state_bytes", record.state_bytes}};
}

}  // namespace

Json Service::status(const Client& client) const {
  const char* state = state_ == State::kReady      ? "ready"
                      : state_ == State::kLoading  ? "loading"
                      : state_ == State::kDraining ? "draining"
                                                   : "failed";
  const double now = seconds_now();
  const EngineStats s = backend_ ? backend_->engine->stats() : EngineStats();
  const int64_t running = in_batch(s);
  Json requests = Json::array();
  for (const auto& job : jobs_) {
    if (job->owner() == client.name) requests.push_back(request_json(*job, now));
  }
  const Json loading = state_ == State::kLoading ? loading_json() : Json(nullptr);
  return {{"object", "nautile.status"},
          {"state", state},
          {"loading", loading},
          {"version", options_.version},
          {"model", backend_ ? backend_->model.name : options_.model_shown},
          {"uptime_s", now - started_s_},
          {"connections", server_ != nullptr ? server_->open_connections() : 0},
          {"engine",
           {{"phase", s.phase},
            {"phase_s", s.phase_s},
            {"running", running},
            {"waiting", s.queued + static_cast<int64_t>(preparing_)},
            {"prefilling", std::max<int64_t>(0, running - s.running)},
            {"paused", s.paused},
            {"max_sequences", s.max_sequences},
            {"context_tokens", s.context_tokens},
            {"memory_bytes", s.memory_bytes},
            {"memory_budget_bytes", s.memory_budget_bytes},
            {"cache_bytes", s.cache_bytes},
            {"cache_budget_bytes", s.cache_budget_bytes},
            {"disk_bytes", s.disk_bytes},
            {"finished", s.finished},
            {"cancelled", s.cancelled},
            {"refused", s.refused},
            {"preemptions", s.preemptions},
            {"prompt_tokens", s.prompt_tokens},
            {"cached_tokens", s.cached_tokens},
            {"prefilled_tokens", prefilled(s)},
            {"output_tokens", s.output_tokens},
            {"drafted_tokens", s.drafted_tokens},
            {"accepted_tokens", s.accepted_tokens},
            {"steps", s.steps},
            {"busy_s", s.busy_s}}},
          {"requests", requests}};
}

}  // namespace nautile::serve
