// The two metrics pages (spec api.md 15): what was counted, the engine's own figures, the process.
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "plan/economics.h"
#include "serve/service.h"
#include "sys/clock.h"

namespace nautile::serve {
namespace {

int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

int64_t open_descriptors() {
  std::error_code error;
  int64_t count = 0;
  for (auto it = std::filesystem::directory_iterator("/proc/self/fd", error);
       !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    ++count;
  }
  return count;
}

}  // namespace

int64_t in_batch(const EngineStats& stats) {
  const uint64_t ended = stats.finished + stats.cancelled + stats.failed;
  return std::max<int64_t>(0, static_cast<int64_t>(stats.submitted - ended) - stats.queued);
}

std::string Service::metrics_page() const {
  std::string out;
  const std::string model = backend_ ? backend_->model.name : options_.model_shown;
  const std::string base = label("model_name", model) + "," + label("engine", "0");
  metrics_.write(base, out);

  const EngineStats stats = backend_ ? backend_->engine->stats() : EngineStats();
  auto gauge = [&](const char* name, const char* help, double value, const std::string& labels = {}) {
    write_single(name, "gauge", help, labels.empty() ? base : base + "," + labels, value, out);
  };
  auto counter = [&](const char* name, const char* help, double value) {
    write_single(name, "counter", help, base, value, out);
  };
  auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0; };
  gauge("vllm:num_requests_running", "Requests in the batch.", static_cast<double>(in_batch(stats)));
  gauge("vllm:num_requests_waiting", "Requests waiting.",
        static_cast<double>(stats.queued) + static_cast<double>(preparing_));
  gauge("vllm:kv_cache_usage_perc", "Share of the planned state memory in use, 0 to 1.",
        share(static_cast<double>(stats.memory_bytes), static_cast<double>(stats.memory_budget_bytes)));
  counter("vllm:prefix_cache_queries_total", "Prompt tokens looked for in the prefix cache.",
          static_cast<double>(stats.prompt_tokens));
  counter("vllm:prefix_cache_hits_total", "Prompt tokens found there.", static_cast<double>(stats.cached_tokens));
  counter("vllm:num_preemptions_total", "Sequences whose memory was given to another.",
          static_cast<double>(stats.preemptions));
  counter("vllm:spec_decode_num_draft_tokens_total", "Drafted tokens.", static_cast<double>(stats.drafted_tokens));
  counter("vllm:spec_decode_num_accepted_tokens_total", "Accepted drafts.", static_cast<double>(stats.accepted_tokens));
  gauge("vllm:cache_config_info", "The cache's shape.", 1,
        label("block_size", "128") + "," + label("enable_prefix_caching", "True") + "," + label("cache_dtype", "fp8"));

  gauge("nautile_http_inflight", "Requests being answered.", static_cast<double>(jobs_.size() + preparing_));
  gauge("nautile_open_connections", "Open connections.",
        server_ != nullptr ? static_cast<double>(server_->open_connections()) : 0);
  double streams = 0;
  for (const auto& job : jobs_) streams += job->ask().stream ? 1 : 0;
  gauge("nautile_sse_streams", "Streams being sent.", streams);
  gauge("nautile_ready", "1 when requests are admitted.", state_ == State::kReady ? 1 : 0);
  gauge("nautile_draining", "1 while shutting down.", state_ == State::kDraining ? 1 : 0);
  gauge("nautile_model_load_seconds", "Time to load the model.", backend_ ? backend_->load_s : 0);
  gauge("nautile_prefill_tokens_per_second", "Moving average.", stats.prefill_rate);
  gauge("nautile_decode_tokens_per_second", "Moving average.", stats.decode_rate);
  gauge("nautile_kv_bytes", "Bytes of state and cache in memory.", static_cast<double>(stats.memory_bytes),
        label("tier", "host"));
  gauge("nautile_kv_cache_bytes", "Bytes of cached prefixes.", static_cast<double>(stats.cache_bytes));
  gauge("nautile_kv_disk_bytes", "Bytes of cached prefixes on disk.", static_cast<double>(stats.disk_bytes));
  counter("nautile_kv_evictions_total", "Cached blocks given up.", static_cast<double>(stats.cache_evictions));
  counter("nautile_steps_total", "Forward passes.", static_cast<double>(stats.steps));
  counter("nautile_batch_tokens_total", "Tokens in forward passes.", static_cast<double>(stats.batch_tokens));
  counter("nautile_busy_seconds_total", "Time in forward passes.", stats.busy_s);
  gauge("nautile_engine_phase_seconds", "Time in the engine's present phase.", stats.phase_s,
        label("phase", stats.phase));
  gauge("nautile_responses_bytes", "Bytes of stored responses.", static_cast<double>(responses_.bytes()));
  gauge("nautile_replay_bytes", "Bytes of turns kept for replay.", static_cast<double>(replay_.bytes()));
  gauge("nautile_build_info", "What is running.", 1,
        label("version", options_.version) + "," +
            label("effort_profile", backend_ ? name_of(backend_->model.profile) : "") + "," +
            label("quantization", backend_ ? backend_->model.quantization : ""));
  if (options_.usd_per_hour > 0) {
    const double prompt = metrics_.value("vllm:prompt_tokens_total"),
                 cached = metrics_.value("vllm:prompt_tokens_cached_total");
    const plan::ServedTokens served{cached, prompt - cached, metrics_.value("vllm:generation_tokens_total"),
                                    (seconds_now() - started_s_) / 3600};
    const plan::ServedCost cost = plan::served_cost(
        served, options_.usd_per_hour, {options_.hosted_hit, options_.hosted_miss, options_.hosted_output});
    counter("nautile_cost_usd_total", "What this machine has cost since the start.", cost.self_usd);
    counter("nautile_hosted_cost_usd_total", "What the same tokens would have cost at the hosted price.",
            cost.hosted_usd);
    gauge("nautile_cost_usd_per_million_tokens", "So far, on this machine.", cost.self_usd_per_mtok);
  }

  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double cpu = static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                     1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  write_single("process_cpu_seconds_total", "counter", "CPU time.", "", cpu, out);
  write_single("process_resident_memory_bytes", "gauge", "Resident memory.", "", static_cast<double>(resident_bytes()),
               out);
  write_single("process_open_fds", "gauge", "Open descriptors.", "", static_cast<double>(open_descriptors()), out);
  write_single("process_max_fds", "gauge", "Most descriptors.", "", static_cast<double>(limit.rlim_cur), out);
  write_single("process_start_time_seconds", "gauge", "Start, Unix time.", "", static_cast<double>(started_unix_), out);
  return out;
}

std::string Service::nim_metrics_page() const {
  std::string out;
  const EngineStats stats = backend_ ? backend_->engine->stats() : EngineStats();
  const std::string base = label("model_name", backend_ ? backend_->model.name : options_.model_shown);
  auto single = [&](const char* name, const char* type, double value) {
    write_single(name, type, "As in NIM.", base, value, out);
  };
  single("num_requests_running", "gauge", static_cast<double>(in_batch(stats)));
  single("num_requests_waiting", "gauge", static_cast<double>(stats.queued));
  single("num_request_max", "gauge", static_cast<double>(stats.max_sequences));
  single("gpu_cache_usage_perc", "gauge",
         stats.memory_budget_bytes > 0
             ? static_cast<double>(stats.memory_bytes) / static_cast<double>(stats.memory_budget_bytes)
             : 0);
  single("prompt_tokens_total", "counter", metrics_.value("vllm:prompt_tokens_total"));
  single("generation_tokens_total", "counter", metrics_.value("vllm:generation_tokens_total"));
  const double stop = metrics_.value("vllm:request_success_total", label("finished_reason", "stop"));
  const double length = metrics_.value("vllm:request_success_total", label("finished_reason", "length"));
  const double failed = metrics_.value("vllm:request_success_total", label("finished_reason", "error"));
  single("request_success_total", "counter", stop + length);
  single("request_failure_total", "counter", failed);
  out += "# HELP request_finish_total As in NIM.\n# TYPE request_finish_total counter\n";
  out += fmt::format("request_finish_total{{{},finished_reason=\"stop\"}} {}\n", base, stop);
  out += fmt::format("request_finish_total{{{},finished_reason=\"length\"}} {}\n", base, length);
  const std::pair<const char*, const char*> histograms[] = {
      {"time_to_first_token_seconds", "vllm:time_to_first_token_seconds"},
      {"time_per_output_token_seconds", "vllm:request_time_per_output_token_seconds"},
      {"e2e_request_latency_seconds", "vllm:e2e_request_latency_seconds"},
      {"request_prompt_tokens", "vllm:request_prompt_tokens"},
      {"request_generation_tokens", "vllm:request_generation_tokens"}};
  for (const auto& [name, ours] : histograms) {
    out += fmt::format("# HELP {} As in NIM.\n# TYPE {} histogram\n", name, name);
    if (const Histogram* histogram = metrics_.histogram(ours)) histogram->write(name, base, out);
  }
  return out;
}

}  // namespace nautile::serve
