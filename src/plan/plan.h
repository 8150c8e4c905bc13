// The whole plan for one question: does it fit, how fast, what does it cost, where to run it. Everything the report,
// the JSON, the plots and the page show is in Plan; nothing is computed while printing.
//
// Thread-safety: values and pure functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plan/economics.h"
#include "plan/speed.h"

namespace nautile::plan {

// The question, as checked numbers and names. Defaults are the report's.
struct Request {
  std::string model = "v4-pro";
  std::string hardware = "gb300-nvl4-tray:4";  // ID[:N], or GPU[:N]+CPU[:SOCKETS] for a hybrid
  std::vector<Hardware> extra_hardware;        // from --hw-file; looked up first
  double memory_gb = 0;                        // of each socket or device, instead of the data's; 0: the data's
  std::string ssd;                             // a storage id or GB/s; empty: none
  std::string format = "official", kv = "fp8";
  int64_t context = 32768;
  double input_tokens = 30000, visible_tokens = 800;
  std::string mode = "high";  // non-think, high, max
  double multiplier = 0;      // instead of the mode's; 0: the mode's
  double hit = 0.85;
  double users = 0, requests_per_user_hour = 4;
  double requests_per_hour = 0;  // instead of users'; both 0: 1,000
  double min_tps = 10;           // about as fast as people read
  double needed_tps = 0;         // what hosted must match (latency_override); 0: none
  double rate = 0;               // USD per device and hour; 0: from the data
  std::string hosted = "deepseek";
  std::optional<HostedRate> hosted_price;
  double peak_share = -1;   // of traffic in the hosted price's peak hours; -1: evenly spread
  double stack_factor = 0;  // 0: 1, with low/mid/high shown
  double interference = 0;
  double route_correlation = 0;
  double kwh_usd = 0;  // 0: from the data
  double engineers = 1;
  double peak_to_mean = 1;
  bool licence = false, residency = false, air_gapped = false, custom_weights = false;
  bool scale_to_zero = false, experimental = false;
  int64_t today = 0;             // days since 1970
  std::optional<Tuning> tuning;  // from plan calibrate or plan probe
};

struct Assumption {
  std::string name, value;
  Source source;
};

struct SequencesAt {
  int64_t context = 0, sequences = 0, kv_bytes = 0;
};

struct Fit {
  int64_t weights_bytes = 0, kv_bytes = 0, state_bytes = 0;
  Layout layout = Layout::kTp;  // the one the numbers are for
  Residence residence;
  double usable = 0;  // bytes of one device
  bool fits = false;
  std::vector<SequencesAt> at;                 // 8K, 128K, 1M
  int min_devices = 0, practical_devices = 0;  // 0: no count up to 1,024 fits
  std::vector<std::string> changes;            // that make it fit, smallest first
};

struct Plan {
  Request request;
  const PlanData* data = nullptr;
  const ModelEntry* entry = nullptr;
  Arithmetic model;
  Machine machine;
  Load load;  // its model pointer is set by load_of()
  Tuning tuning;
  Fit fit;
  double multiplier = 1;
  double prompt_rate = 0;        // of the whole machine, tokens per second
  std::vector<Operating> front;  // Pareto
  std::vector<Operating> rows;   // for the speed table
  std::optional<Operating> chosen;
  double ttft_s = 0, tpot_s = 0;                   // at the chosen point, uncached part of the input, no queue
  double prefill_devices = 0, decode_devices = 0;  // the split if disaggregated, adding to the machine's devices
  double usd_per_device_hour = 0;
  Source rate_source;
  bool rate_given = false;
  double kw_per_device = 0, kwh_usd = 0;
  bool kw_all_in = false;
  std::optional<PriceQuote> price;  // empty: none known, see price_problem
  std::string price_problem;
  std::optional<Decision> decision;  // empty without a price or without a fit at any count
  std::optional<Verdict> verdict;
  std::vector<std::string> warnings;
  std::vector<Assumption> assumptions;

  Load load_of() const {
    Load copy = load;
    copy.model = &model;
    return copy;
  }
};

// kInvalidArgument naming the flag and, for a name, the near ones. A machine that is too small is not an error: see
// Plan::fit.
Result<Plan> make_plan(const PlanData& data, const Request& request);

// "gb300:4" and its like into a machine. Errors as of make_plan().
Result<Machine> parse_machine(const PlanData& data, const Request& request);

// Fit of the request's model on the machine.
Fit fit_of(const Load& load, const Machine& machine);

// The report for a terminal, at most `width` columns of plot.
std::string plan_text(const Plan& plan, bool explain);
// Schema planner/1.
Json plan_json(const Plan& plan);
// Figures as one SVG: Pareto, KV and operations against context, cost against use with the break-even marked.
std::string plan_svg(const Plan& plan);
// One self-contained page with the same figures and sliders. kInternal when the template that is compiled in is broken.
Result<std::string> plan_html(const Plan& plan);
// Where the article's figures hold and where they cannot, with the arithmetic.
std::string explain_text(const PlanData& data);

}  // namespace nautile::plan
