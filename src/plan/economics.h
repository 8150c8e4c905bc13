// What a request costs here and hosted, where the break-even lies, and the verdict with the input that would flip it.
//
// Formulas: spec planner.md sections 7 and 8. Money in USD. All functions are pure, so that the report's page, the flip
// search and `serve` can share them.
// Thread-safety: values and pure functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plan/data.h"

namespace nautile::plan {

// One kind of request.
struct Traffic {
  double input_tokens = 0;    // a request
  double visible_tokens = 0;  // of the answer
  double multiplier = 1;      // of the reasoning mode: output = visible * multiplier
  double hit = 0;             // share of the input that is in the prefix cache, 0..1
  double requests_per_hour = 0;
  double output_tokens() const { return visible_tokens * multiplier; }
  double miss_tokens() const { return input_tokens * (1 - hit); }
  double mtok_per_day() const { return (input_tokens + output_tokens()) * requests_per_hour * 24 / 1e6; }
};

struct Rates {  // tokens per second of one device, at the ideal stack
  double prefill = 0, decode = 0;
};

struct Owner {
  double devices = 1;
  double usd_per_device_hour = 0;
  double licence_per_device_hour = 0;
  double fixed_usd_per_month = 0;  // people
  double spare_devices = 0;        // held for availability
  double stack_factor = 1;         // divides both rates
  double interference = 0;         // share lost when prefill and decode share devices
};

struct HostedRate {  // USD per million tokens
  double hit = 0, miss = 0, output = 0;
};

struct Cost {
  double device_seconds = 0;         // a request
  double capacity_per_hour = 0;      // requests
  double self_hourly = 0;            // USD an hour, busy or not
  double self_request_full = 0;      // USD a request at full use
  double self_request_expected = 0;  // at the expected requests; infinite without any
  double hosted_request = 0;
  double break_even_per_hour = 0;  // requests an hour
  double break_even_use = 0;       // of capacity; above 1: never pays here
  double expected_use = 0;
  double self_mtok_input = 0, self_mtok_output = 0, self_mtok_total = 0;  // USD per million tokens at full use
  double hosted_mtok_total = 0;
  double break_even_mtok_per_day = 0;
};
Cost cost(const Traffic& traffic, const Rates& rates, const Owner& owner, const HostedRate& hosted);

// Cost of serving so far: an owner's rate per hour against the same tokens at a hosted row. For the engine's status
// page.
struct ServedTokens {
  double input_hit = 0, input_miss = 0, output = 0, hours = 0;
};
struct ServedCost {
  double self_usd = 0, hosted_usd = 0, self_usd_per_mtok = 0;
};
ServedCost served_cost(const ServedTokens& served, double usd_per_hour, const HostedRate& hosted);

// kWh for a million tokens at a rate of tokens per second and device.
double kwh_per_mtok(double kw_per_device, double tokens_per_second_device);

// The price of a provider for a model on a day (days since 1970), averaged over peak hours. `peak_share`: of the traffic
// in peak hours. kInvalidArgument at "--hosted": no such provider, no row for the model on that day, or no price in it.
struct PriceQuote {
  HostedRate rate;
  std::string provider, model, checked, from;
  Source source;
  std::vector<std::string> warnings;  // stale, another model's weights, a price missing
  bool stale = false, mismatch = false;
};
Result<PriceQuote> quote(const PlanData& data, const std::string& provider, const std::string& model, int64_t today,
                         double peak_share);

// Every input of the decision, so that any of them can be flipped.
struct Decision {
  Traffic traffic;
  Rates rates;
  Owner owner;
  HostedRate hosted;
  bool residency_required = false, air_gapped = false, custom_weights = false;
  double devices_needed = 1;  // the smallest count that fits
  double peak_to_mean = 1;    // of hourly traffic
  bool scale_to_zero = false;
  double needed_user_tps = 0;  // 0: none
  double plan_user_tps = 0;    // what the plan gives one user
  double hosted_user_tps = 0;  // the best the hosted row gives; 0: unknown
  double engineers = 1;        // who look after the machines
  double engineer_usd_per_month = 0;
  bool experimental_stack = false;
  double node_devices = 0;                          // the spare added for an experimental stack
  double small_mtok_per_day = 50, spiky_ratio = 4;  // thresholds
  bool price_stale = false, model_mismatch = false;
};

struct Flip {
  std::string input;  // empty: no single input flips the verdict
  double from = 0, to = 0;
  std::string text;  // for a person
};

struct Verdict {
  std::string rule, choice, reason;  // choice: self-host, hosted, pilot, does-not-fit
  double margin = 0;                 // the rule's own ratio, 1 = on the edge
  Flip flip;
  std::vector<std::string> warnings;  // rules 8 to 10 as they fired
  std::vector<std::string> rules_fired;
  Cost cost;
};

// Without the flip search.
Verdict decide(const Decision& decision);
// With it: the input whose smallest relative change gives another choice, and the value just past the edge.
Verdict decide_with_flip(const Decision& decision);

// The decision with the named input set; false when there is no such input.
bool set_input(Decision& decision, const std::string& input, double value);

}  // namespace nautile::plan
