// Cost, prices and the decision rules.
#include "plan/economics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "plan/words.h"

namespace nautile::plan {
namespace {

constexpr double kHoursPerMonth = 730, kStaleDays = 90;
constexpr double kClearWin = 1.3, kClearLoss = 0.7;

double ratio(double a, double b) {
  return b > 0 ? a / b : std::numeric_limits<double>::infinity();
}

}  // namespace

Cost cost(const Traffic& traffic, const Rates& rates, const Owner& owner, const HostedRate& hosted) {
  Cost c;
  const double slower = owner.stack_factor / (1 - owner.interference);
  c.device_seconds = (traffic.miss_tokens() / rates.prefill + traffic.output_tokens() / rates.decode) * slower;
  c.capacity_per_hour = owner.devices * 3600 / c.device_seconds;
  c.self_hourly = (owner.devices + owner.spare_devices) * (owner.usd_per_device_hour + owner.licence_per_device_hour) +
                  owner.fixed_usd_per_month / kHoursPerMonth;
  c.self_request_full = c.self_hourly / c.capacity_per_hour;
  c.self_request_expected = ratio(c.self_hourly, std::min(traffic.requests_per_hour, c.capacity_per_hour));
  c.hosted_request = (traffic.input_tokens * traffic.hit * hosted.hit + traffic.miss_tokens() * hosted.miss +
                      traffic.output_tokens() * hosted.output) /
                     1e6;
  c.break_even_per_hour = ratio(c.self_hourly, c.hosted_request);
  c.break_even_use = c.break_even_per_hour / c.capacity_per_hour;
  c.expected_use = traffic.requests_per_hour / c.capacity_per_hour;
  const double tokens = traffic.input_tokens + traffic.output_tokens();
  const double hour_of_device = c.self_hourly / owner.devices / 3600 * slower * 1e6;
  c.self_mtok_input = hour_of_device / rates.prefill * (1 - traffic.hit);
  c.self_mtok_output = hour_of_device / rates.decode;
  c.self_mtok_total = c.self_request_full / tokens * 1e6;
  c.hosted_mtok_total = c.hosted_request / tokens * 1e6;
  c.break_even_mtok_per_day = c.break_even_per_hour * tokens * 24 / 1e6;
  return c;
}

ServedCost served_cost(const ServedTokens& served, double usd_per_hour, const HostedRate& hosted) {
  ServedCost sum;
  sum.self_usd = usd_per_hour * served.hours;
  sum.hosted_usd =
      (served.input_hit * hosted.hit + served.input_miss * hosted.miss + served.output * hosted.output) / 1e6;
  const double tokens = served.input_hit + served.input_miss + served.output;
  sum.self_usd_per_mtok = tokens > 0 ? sum.self_usd / tokens * 1e6 : 0;
  return sum;
}

double kwh_per_mtok(double kw_per_device, double tokens_per_second_device) {
  return kw_per_device * 1e6 / (3600 * tokens_per_second_device);
}

Result<PriceQuote> quote(const PlanData& data, const std::string& provider, const std::string& model, int64_t today,
                         double peak_share) {
  std::vector<std::string> providers;
  std::vector<const HostedPrice*> rows, retired;
  for (const HostedPrice& row : data.prices) {
    if (std::find(providers.begin(), providers.end(), row.provider) == providers.end())
      providers.push_back(row.provider);
    if (row.provider != provider) continue;
    NAUTILE_ASSIGN(const int64_t from, parse_date(row.valid_from, "valid_from"));
    int64_t to = std::numeric_limits<int64_t>::max();
    if (!row.valid_to.empty()) {
      NAUTILE_ASSIGN(to, parse_date(row.valid_to, "valid_to"));
    }
    // The model's short name is part of every host's own spelling of it: "deepseek/deepseek-v4-pro-0813".
    if (row.model.find(model) == std::string::npos || today < from) continue;
    (today < to ? rows : retired).push_back(&row);
  }
  if (std::find(providers.begin(), providers.end(), provider) == providers.end()) {
    return unknown_name("hosted provider", provider, providers, "--hosted");
  }
  if (rows.empty()) {
    return Status(Code::kInvalidArgument,
                  fmt::format("{} has no price row for {} on {}", provider, model, date_text(today)), "--hosted",
                  "see nautile plan sources, or give the price with --hosted-price HIT/MISS/OUTPUT");
  }
  const HostedPrice *flat = rows.front(), *peak = nullptr;
  for (const HostedPrice* row : rows) {
    if (row->window == "peak")
      peak = row;
    else if (flat->window == "peak" || row->valid_from > flat->valid_from)
      flat = row;
  }
  PriceQuote found;
  found.provider = provider;
  found.model = flat->model;
  found.checked = flat->checked;
  found.from = flat->valid_from;
  found.source = flat->source;
  if (!flat->miss || !flat->output) {
    return Status(Code::kInvalidArgument,
                  fmt::format("{}'s row for {} lacks the input or output price", provider, flat->model), "--hosted",
                  "name another provider, or give the price with --hosted-price HIT/MISS/OUTPUT");
  }
  const double share = peak != nullptr ? peak_share : 0;
  auto mix = [&](const std::optional<double>& low, const std::optional<double>& high, double otherwise) {
    const double base = low.value_or(otherwise);
    return base * (1 - share) + (peak != nullptr ? high.value_or(base) : base) * share;
  };
  found.rate.miss = mix(flat->miss, peak ? peak->miss : flat->miss, 0);
  found.rate.output = mix(flat->output, peak ? peak->output : flat->output, 0);
  found.rate.hit = mix(flat->hit, peak ? peak->hit : flat->hit, *flat->miss);
  if (!flat->hit) found.warnings.push_back("no cache-hit price is listed: hits are charged as misses");
  NAUTILE_ASSIGN(const int64_t checked, parse_date(flat->checked, "checked"));
  if (today - checked > kStaleDays) {
    found.stale = true;
    found.warnings.push_back(
        fmt::format("price_stale: checked {}, {} days before {}", flat->checked, today - checked, date_text(today)));
  }
  if (!flat->warning.empty()) {
    found.mismatch = true;
    found.warnings.push_back(fmt::format("hosted_model_mismatch: {} is {}", flat->model, flat->warning));
  }
  return found;
}

Verdict decide(const Decision& d) {
  Verdict v;
  Owner owner = d.owner;
  auto fire = [&](const char* rule) { v.rules_fired.emplace_back(rule); };
  if (d.engineers < 0.5) {
    owner.fixed_usd_per_month += d.engineer_usd_per_month;
    fire("no_ops");
    v.warnings.push_back(fmt::format("no_ops: {} USD a month added for people to run the machines",
                                     short_number(d.engineer_usd_per_month)));
  }
  if (d.experimental_stack) {
    owner.spare_devices += d.node_devices;
    fire("experimental_stack");
    v.warnings.push_back(
        fmt::format("experimental_stack: {} spare devices added for availability", short_number(d.node_devices)));
  }
  if (d.price_stale) fire("price_stale");
  if (d.model_mismatch) fire("hosted_model_mismatch");
  v.cost = cost(d.traffic, d.rates, owner, d.hosted);
  auto conclude = [&](const char* rule, const char* choice, double margin, std::string reason) {
    v.rule = rule;
    v.choice = choice;
    v.margin = margin;
    v.reason = std::move(reason);
    fire(rule);
    return v;
  };
  const bool fits = d.owner.devices >= d.devices_needed;
  if (d.residency_required) {
    return conclude("residency_required", "self-host", 1,
                    "no external API may see the data: self-host, or a host inside the region");
  }
  if (d.air_gapped || d.custom_weights) {
    return conclude(d.air_gapped ? "air_gapped" : "custom_weights", "self-host", 1,
                    d.air_gapped ? "there is no way out of the network" : "no host serves these weights");
  }
  if (!fits) {
    return conclude("not_fit", "does-not-fit", d.owner.devices / d.devices_needed,
                    fmt::format("{} devices do not hold the model; {} do", short_number(d.owner.devices),
                                short_number(d.devices_needed)));
  }
  if (d.traffic.mtok_per_day() < d.small_mtok_per_day) {
    return conclude("eval_or_small", "hosted", d.traffic.mtok_per_day() / d.small_mtok_per_day,
                    fmt::format("{} million tokens a day is below {}", short_number(d.traffic.mtok_per_day()),
                                short_number(d.small_mtok_per_day)));
  }
  if (d.peak_to_mean > d.spiky_ratio && !d.scale_to_zero) {
    return conclude(
        "spiky", "hosted", d.peak_to_mean / d.spiky_ratio,
        fmt::format("peak hours are {} times the mean and nothing scales to zero", short_number(d.peak_to_mean)));
  }
  if (d.needed_user_tps > 0 && d.hosted_user_tps > 0 && d.hosted_user_tps < d.needed_user_tps &&
      d.plan_user_tps >= d.needed_user_tps) {
    return conclude(
        "latency_override", "self-host", d.needed_user_tps / d.hosted_user_tps,
        fmt::format("{} tok/s a user is needed; hosted gives {}, the plan {}", short_number(d.needed_user_tps),
                    short_number(d.hosted_user_tps), short_number(d.plan_user_tps)));
  }
  // Above its capacity a machine is joined by more of its kind: each is then fully used, and the break-even use stays.
  const double use = std::min(1.0, v.cost.expected_use);
  const double margin = ratio(use, v.cost.break_even_use);
  std::string why = fmt::format("expected use {:.0f}% against break-even {:.0f}% of capacity",
                                100 * v.cost.expected_use, 100 * v.cost.break_even_use);
  if (v.cost.expected_use > 1) {
    why += fmt::format(" ({} devices carry the load)", short_number(std::ceil(v.cost.expected_use * d.owner.devices)));
  }
  if (v.cost.break_even_use > 1)
    return conclude("u_expected", "hosted", margin, why + ": self-hosting never pays on this hardware at this stack");
  if (margin >= kClearWin) return conclude("u_expected", "self-host", margin, why);
  if (margin >= kClearLoss)
    return conclude("u_expected", "pilot", margin, why + ": too close, pilot it and run plan calibrate");
  return conclude("u_expected", "hosted", margin, why);
}

bool set_input(Decision& d, const std::string& input, double value) {
  if (input == "residency_required")
    d.residency_required = value != 0;
  else if (input == "air_gapped")
    d.air_gapped = value != 0;
  else if (input == "custom_weights")
    d.custom_weights = value != 0;
  else if (input == "scale_to_zero")
    d.scale_to_zero = value != 0;
  else if (input == "devices")
    d.owner.devices = value;
  else if (input == "requests_per_hour")
    d.traffic.requests_per_hour = value;
  else if (input == "multiplier")
    d.traffic.multiplier = value;
  else if (input == "usd_per_device_hour")
    d.owner.usd_per_device_hour = value;
  else if (input == "stack_factor")
    d.owner.stack_factor = value;
  else if (input == "peak_to_mean")
    d.peak_to_mean = value;
  else if (input == "needed_user_tps")
    d.needed_user_tps = value;
  else if (input == "hosted_price_scale") {
    d.hosted.hit *= value;
    d.hosted.miss *= value;
    d.hosted.output *= value;
  } else {
    return false;
  }
  return true;
}

Verdict decide_with_flip(const Decision& decision) {
  Verdict verdict = decide(decision);
  struct Knob {
    const char* input;
    double now;
    double low, high;  // the range that makes sense
    bool is_switch, whole;
  };
  const double inf = std::numeric_limits<double>::infinity();
  const Knob knobs[] = {
      {"residency_required", decision.residency_required ? 1.0 : 0.0, 0, 1, true, false},
      {"air_gapped", decision.air_gapped ? 1.0 : 0.0, 0, 1, true, false},
      {"custom_weights", decision.custom_weights ? 1.0 : 0.0, 0, 1, true, false},
      {"scale_to_zero", decision.scale_to_zero ? 1.0 : 0.0, 0, 1, true, false},
      {"devices", decision.owner.devices, 1, 1e6, false, true},
      {"hosted_price_scale", 1, 0, inf, false, false},
      {"usd_per_device_hour", decision.owner.usd_per_device_hour, 0, inf, false, false},
      {"requests_per_hour", decision.traffic.requests_per_hour, 0, inf, false, false},
      {"multiplier", decision.traffic.multiplier, 1, inf, false, false},
      {"stack_factor", decision.owner.stack_factor, 1, inf, false, false},
      {"peak_to_mean", decision.peak_to_mean, 1, inf, false, false},
      {"needed_user_tps", decision.needed_user_tps, 0, inf, false, false},
  };
  auto flips = [&](const Knob& knob, double value) {
    Decision other = decision;
    set_input(other, knob.input, value);
    return decide(other).choice != verdict.choice;
  };
  double least = inf;
  auto offer = [&](const Knob& knob, double value, double distance) {
    if (distance >= least) return;
    least = distance;
    verdict.flip = {knob.input, knob.now, value, ""};
  };
  for (const Knob& knob : knobs) {
    if (knob.is_switch) {
      // A condition that decided the verdict is the first thing to question; others are not turned on to flip it.
      if (knob.now != 0 && verdict.rule == knob.input && flips(knob, 0)) offer(knob, 0, 0);
      if (std::string_view(knob.input) == "scale_to_zero" && verdict.rule == "spiky" && flips(knob, 1))
        offer(knob, 1, 1e-9);
      continue;
    }
    if (knob.whole) {
      if (verdict.rule == "not_fit" && flips(knob, decision.devices_needed)) offer(knob, decision.devices_needed, 0);
      continue;
    }
    if (knob.now <= 0) continue;
    for (const double direction : {1.0, -1.0}) {
      // Walks out by 3% steps to a factor of 1000, then halves the last step.
      double near = knob.now;
      for (int step = 1; step <= 234; ++step) {
        const double far = std::clamp(knob.now * std::exp(direction * 0.03 * step), knob.low, knob.high);
        if (flips(knob, far)) {
          double in = near, out = far;
          for (int i = 0; i < 60 && std::fabs(out - in) > 1e-9 * std::fabs(out); ++i) {
            const double middle = (in + out) / 2;
            (flips(knob, middle) ? out : in) = middle;
          }
          offer(knob, out, std::fabs(std::log(out / knob.now)));
          break;
        }
        if (far == near) break;
        near = far;
      }
    }
  }
  Flip& flip = verdict.flip;
  if (flip.input.empty()) {
    flip.text = "no single input flips it within a factor of 1000";
    return verdict;
  }
  Decision other = decision;
  set_input(other, flip.input, flip.to);
  const std::string choice = decide(other).choice;
  if (flip.input == "hosted_price_scale") {
    flip.text = fmt::format("hosted prices times {} give \"{}\"", short_number(flip.to), choice);
  } else if (flip.input == verdict.rule || flip.input == "scale_to_zero") {
    flip.text = fmt::format("{} = {} gives \"{}\"", flip.input, flip.to != 0 ? "yes" : "no", choice);
  } else {
    flip.text = fmt::format("{} {} instead of {} gives \"{}\"", flip.input, short_number(flip.to),
                            short_number(flip.from), choice);
  }
  return verdict;
}

}  // namespace nautile::plan
