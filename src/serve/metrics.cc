// The families of section 15 and their exposition.
#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace nautile::serve {
namespace {

std::string number(double value) {
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  if (value == std::floor(value) && std::abs(value) < 1e15) return fmt::format("{:.0f}", value);
  return fmt::format("{}", value);
}

std::string joined(std::string_view a, std::string_view b) {
  if (a.empty()) return std::string(b);
  return b.empty() ? std::string(a) : fmt::format("{},{}", a, b);
}

const std::vector<double> kFirst = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                    1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const std::vector<double> kToken = {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
const std::vector<double> kWhole = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                    30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const std::vector<double> kHttp = {.001, .005, .01, .05, .1, .5, 1, 5, 10, 60, 300, 1800};
const std::vector<double> kTokens = {1,    2,    5,     10,    20,    50,     100,    200,    500,    1000,
                                     2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000};

}  // namespace

void Histogram::observe(double value, uint64_t times) {
  const size_t at = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[at] += times;
  count_ += times;
  sum_ += value * static_cast<double>(times);
}

void Histogram::write(const std::string& name, const std::string& labels, std::string& out) const {
  uint64_t below = 0;
  for (size_t i = 0; i <= bounds_.size(); ++i) {
    below += counts_[i];
    const std::string bound = i < bounds_.size() ? number(bounds_[i]) : "+Inf";
    out += fmt::format("{}_bucket{{{}}} {}\n", name, joined(labels, label("le", bound)), below);
  }
  out += fmt::format("{}_sum{{{}}} {}\n{}_count{{{}}} {}\n", name, labels, number(sum_), name, labels, count_);
}

std::string label(std::string_view name, std::string_view value) {
  std::string out(name);
  out += "=\"";
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  out += '"';
  return out;
}

void write_single(std::string_view name, const char* type, const char* help, std::string_view labels, double value,
                  std::string& out) {
  out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  out += labels.empty() ? fmt::format("{} {}\n", name, number(value))
                        : fmt::format("{}{{{}}} {}\n", name, labels, number(value));
}

Metrics::Metrics() {
  counter_family("vllm:prompt_tokens_total", "Prompt tokens of finished requests.");
  counter_family("vllm:generation_tokens_total", "Tokens sampled.");
  counter_family("vllm:prompt_tokens_cached_total", "Prompt tokens that were not computed again.");
  counter_family("vllm:prompt_tokens_by_source_total", "Prompt tokens by where their state came from.");
  counter_family("vllm:request_success_total", "Ended requests by reason.");
  histogram_family("vllm:request_prompt_tokens", "Prompt tokens of a request.", kTokens);
  histogram_family("vllm:request_generation_tokens", "Tokens sampled for a request.", kTokens);
  histogram_family("vllm:request_max_num_generation_tokens", "Most tokens sampled for a choice of a request.", kTokens);
  histogram_family("vllm:request_params_n", "Choices asked for.", {1, 2, 5, 10, 20});
  histogram_family("vllm:request_params_max_tokens", "Token limit of a request.", kTokens);
  histogram_family("vllm:request_prefill_kv_computed_tokens", "Prompt tokens computed for a request.", kTokens);
  histogram_family("vllm:time_to_first_token_seconds", "From submission to the first token.", kFirst);
  histogram_family("vllm:inter_token_latency_seconds", "Between two tokens.", kToken);
  histogram_family("vllm:request_time_per_output_token_seconds", "Mean time of a token after the first.", kToken);
  histogram_family("vllm:e2e_request_latency_seconds", "From arrival to the end.", kWhole);
  histogram_family("vllm:request_queue_time_seconds", "Waiting.", kWhole);
  histogram_family("vllm:request_inference_time_seconds", "Prefill and decode.", kWhole);
  histogram_family("vllm:request_prefill_time_seconds", "Prefill.", kWhole);
  histogram_family("vllm:request_decode_time_seconds", "Decode.", kWhole);
  counter_family("nautile_http_requests_total", "Answers by route, method and status.");
  histogram_family("nautile_http_request_duration_seconds", "From the request's head to the last byte.", kHttp);
  counter_family("nautile_requests_rejected_total", "Requests refused before the engine.");
  counter_family("nautile_requests_cancelled_total", "Requests given up.");
  counter_family("nautile_requests_by_mode_total", "Requests by reasoning mode and dialect.");
  counter_family("nautile_reasoning_tokens_total", "Tokens inside the think block.");
  counter_family("nautile_answer_tokens_total", "Tokens outside of it.");
  counter_family("nautile_thinking_budget_hit_total", "Think blocks closed by the budget.");
  counter_family("nautile_unclosed_think_total", "Answers that ended inside the think block.");
  counter_family("nautile_tool_calls_total", "Tool calls made.");
  counter_family("nautile_dsml_repairs_total", "Odd tool markup that was read all the same.");
  histogram_family("nautile_grammar_compile_seconds", "Compiling a constraint.", kHttp);
  counter_family("nautile_grammar_rejects_total", "Constraints that could not be compiled.");
  counter_family("nautile_replay_lookups_total", "Missing reasoning of tool turns, by where it was found.");
  histogram_family("nautile_queue_wait_seconds", "Waiting, by priority class.", kHttp);
  counter_family("nautile_config_reloads_total", "SIGHUP reloads that worked.");
  counter_family("nautile_config_reload_failures_total", "SIGHUP reloads that did not.");
}

void Metrics::counter_family(const char* name, const char* help) {
  families_[name] = {help, false, {}, {}, {}};
}

void Metrics::histogram_family(const char* name, const char* help, std::vector<double> bounds) {
  families_[name] = {help, true, std::move(bounds), {}, {}};
}

void Metrics::count(const std::string& name, const std::string& labels, double by) {
  const auto family = families_.find(name);
  if (family != families_.end()) family->second.values[labels] += by;
}

void Metrics::observe(const std::string& name, double value, const std::string& labels, uint64_t times) {
  const auto family = families_.find(name);
  if (family == families_.end()) return;
  family->second.histograms.try_emplace(labels, family->second.bounds).first->second.observe(value, times);
}

double Metrics::value(const std::string& name, const std::string& labels) const {
  const auto family = families_.find(name);
  if (family == families_.end()) return 0;
  const auto found = family->second.values.find(labels);
  return found == family->second.values.end() ? 0 : found->second;
}

const Histogram* Metrics::histogram(const std::string& name) const {
  const auto family = families_.find(name);
  if (family == families_.end()) return nullptr;
  const auto found = family->second.histograms.find("");
  return found == family->second.histograms.end() ? nullptr : &found->second;
}

void Metrics::write(const std::string& base, std::string& out) const {
  for (const auto& [name, family] : families_) {
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, family.help, name,
                       family.is_histogram ? "histogram" : "counter");
    for (const auto& [labels, value] : family.values) {
      out += fmt::format("{}{{{}}} {}\n", name, joined(base, labels), number(value));
    }
    if (!family.is_histogram && family.values.empty()) out += fmt::format("{}{{{}}} 0\n", name, base);
    for (const auto& [labels, histogram] : family.histograms) histogram.write(name, joined(base, labels), out);
    if (family.is_histogram && family.histograms.empty()) Histogram(family.bounds).write(name, base, out);
  }
}

}  // namespace nautile::serve
