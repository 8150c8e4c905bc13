// The report for a terminal.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "plan/plan.h"
#include "plan/words.h"

namespace nautile::plan {
namespace {

std::string heading(const char* text) {
  return fmt::format("\n{}\n{}\n", text, std::string(std::string_view(text).size(), '-'));
}

std::string line(const std::string& name, const std::string& value) {
  return fmt::format("  {:<30} {}\n", name, value);
}

std::string both(double bytes) {
  return both_units(static_cast<int64_t>(bytes));
}

std::string fit_section(const Plan& plan) {
  const Fit& fit = plan.fit;
  const Machine& machine = plan.machine;
  std::string out = heading("1. Fit");
  out += line("weights", fmt::format("{}, {}", both_units(fit.weights_bytes), weight_format_id(plan.load.format)));
  out += line("cache per sequence", fmt::format("{} at {} tokens, {}", both_units(fit.kv_bytes),
                                                with_commas(plan.load.context), kv_format_name(plan.load.kv).id));
  out += line("compressor state per sequence", both_units(fit.state_bytes));
  const char* unit = machine.placement == Placement::kCpu ? "socket" : "device";
  out += line(fmt::format("usable per {}", unit),
              fmt::format("{} of {:g} GB ({:.0f}% less {:.1f} GB for workspace)", both(fit.usable),
                          machine.device.memory_gb, 100 * machine.usable_fraction, machine.reserve_bytes / 1e9));
  if (machine.placement == Placement::kHybrid) {
    out += line("weights on the GPUs", both(fit.residence.device_weights));
    out += line("routed experts in host memory", both(fit.residence.host_weights));
  } else {
    out += line(fmt::format("weights per {}", unit),
                fmt::format("{} ({})", both(fit.residence.device_weights),
                            machine.placement == Placement::kCpu ? "host memory" : layout_name(fit.layout)));
  }
  if (machine.ssd_read_gbs > 0) {
    out += line("routed experts on disk",
                fmt::format("{}, read at {:g} GB/s", both(fit.residence.storage_weights), machine.ssd_read_gbs));
  }
  out += line("free for caches",
              fit.residence.device_free >= 0
                  ? both(fit.residence.device_free) + (machine.devices > 1 ? fmt::format(" per {}", unit) : "")
                  : "none: short of " + both(-fit.residence.device_free));
  std::string sequences;
  for (const SequencesAt& at : fit.at) {
    sequences +=
        fmt::format("{}{} at {}", sequences.empty() ? "" : ", ", with_commas(at.sequences), with_commas(at.context));
  }
  out += line("sequences at once", sequences);
  out +=
      line("smallest count that fits",
           fit.min_devices == 0 ? "none up to 1,024"
                                : fmt::format("{} of {} ({} in practice, a power of two that divides heads and groups)",
                                              fit.min_devices, machine.device.id, fit.practical_devices));
  if (!fit.fits) {
    out += "\n  DOES NOT FIT. What would make it fit, smallest change first:\n";
    for (const std::string& change : fit.changes) out += "    - " + change + "\n";
    if (fit.changes.empty())
      out += "    - nothing on this hardware: choose larger devices, V4-Flash, or a hosted endpoint\n";
  }
  return out;
}

std::string shares(const Step& step) {
  auto percent = [&](double part) { return std::lround(100 * part / step.total); };
  std::string text = fmt::format("{}/{}/{}/{}", percent(step.fixed + step.draft), percent(step.memory),
                                 percent(step.compute), percent(step.communication));
  if (step.storage > 0) text += fmt::format("/{} disk", percent(step.storage));
  return text;
}

std::string speed_row(const Plan& plan, const Operating& point, const char* mark) {
  const double miss = plan.request.input_tokens * (1 - plan.request.hit);
  const double ttft = miss / plan.prompt_rate + point.step.total;
  return fmt::format("  {:<2}{:>6} {:>6} {:>2} {:>9} {:>10} {:>9} {:>8} {:>8}  {:<14} {}\n", mark,
                     with_commas(point.batch), layout_name(point.layout), point.draft, short_number(point.user_tps),
                     short_number(point.device_tps), fmt::format("{:.2f} s", ttft),
                     fmt::format("{:.1f} ms", 1000 / point.user_tps), fmt::format("{:.1f} ms", 1000 * point.step.total),
                     shares(point.step), point.step.bottleneck());
}

std::string speed_section(const Plan& plan) {
  std::string out = heading("2. Speed");
  if (!plan.chosen) return out + "  nothing to time: the model does not fit\n";
  const char* whose = plan.machine.placement == Placement::kDevices ? "tok/s/dev" : "tok/s/box";
  out += fmt::format("  {:<2}{:>6} {:>6} {:>2} {:>9} {:>10} {:>9} {:>8} {:>8}  {:<14} {}\n", "", "batch", "layout", "n",
                     "tok/s/usr", whose, "TTFT", "TPOT", "step", "fix/mem/cmp/com", "most in");
  for (const Operating& row : plan.rows) out += speed_row(plan, row, "");
  out += speed_row(plan, *plan.chosen, "->");
  out += fmt::format("\n  -> is the point of the highest output per device{}. n: tokens drafted a step.\n",
                     plan.request.min_tps > 0
                         ? fmt::format(" with at least {} tok/s for each user", short_number(plan.request.min_tps))
                         : "");
  const double f = plan.tuning.stack_factor;
  const double all = plan.chosen->device_tps * plan.machine.devices;
  if (f == 1) {
    out +=
        line("tok/s all users, low-mid-high", fmt::format("{} - {} - {} (stack factor 4, 2, 1)", short_number(all / 4),
                                                          short_number(all / 2), short_number(all)));
    out += line("tok/s one user, low-mid-high",
                fmt::format("{} - {} - {}", short_number(plan.chosen->user_tps / 4),
                            short_number(plan.chosen->user_tps / 2), short_number(plan.chosen->user_tps)));
  } else {
    out += line("tok/s all users", fmt::format("{} (stack factor {:g})", short_number(all), f));
  }
  out += line("prefill", fmt::format("{} tok/s on the whole machine at {} tokens", short_number(plan.prompt_rate),
                                     with_commas(static_cast<int64_t>(plan.request.input_tokens))));
  const double cold = plan.request.input_tokens / plan.prompt_rate + plan.chosen->step.total;
  out += line("TTFT without any cache hit", fmt::format("{:.2f} s", cold));
  if (plan.machine.placement == Placement::kDevices && plan.machine.devices > 1) {
    out += line("prefill : decode devices",
                fmt::format("{:.1f} : {:.1f} if disaggregated", plan.prefill_devices, plan.decode_devices));
  }
  return out;
}

std::string pareto_section(const Plan& plan) {
  std::string out = heading("3. Pareto");
  if (plan.front.size() < 2) return out + "  one point only\n";
  constexpr int kWidth = 64, kHeight = 14;
  const double left = std::log(plan.front.front().user_tps), right = std::log(plan.front.back().user_tps);
  double top = 0;
  for (const Operating& point : plan.front) top = std::max(top, point.device_tps);
  std::vector<std::string> rows(kHeight, std::string(kWidth, ' '));
  auto put = [&](const Operating& point, char mark) {
    const double x = right > left ? (std::log(point.user_tps) - left) / (right - left) : 0;
    const int column = std::clamp(static_cast<int>(std::lround(x * (kWidth - 1))), 0, kWidth - 1);
    const int row =
        std::clamp(static_cast<int>(std::lround((1 - point.device_tps / top) * (kHeight - 1))), 0, kHeight - 1);
    rows[static_cast<size_t>(row)][static_cast<size_t>(column)] = mark;
  };
  for (const Operating& point : plan.front) put(point, point.layout == Layout::kTp ? 't' : 'd');
  if (plan.chosen) put(*plan.chosen, '@');
  out += plan.machine.placement == Placement::kDevices ? "  output tok/s per device\n" : "  output tok/s\n";
  for (int row = 0; row < kHeight; ++row) {
    const std::string label =
        row % 4 == 0 || row == kHeight - 1 ? short_number(top * (1 - static_cast<double>(row) / (kHeight - 1))) : "";
    std::string text = rows[static_cast<size_t>(row)];
    text.erase(text.find_last_not_of(' ') + 1);
    out += fmt::format("  {:>8} |{}\n", label, text);
  }
  out += fmt::format("  {:>8} +{}\n", "", std::string(kWidth, '-'));
  std::string axis(kWidth + 8, ' ');
  for (int tick = 0; tick <= 4; ++tick) {
    const std::string label = short_number(std::exp(left + (right - left) * tick / 4));
    const size_t at = static_cast<size_t>(tick * (kWidth - 1) / 4);
    axis.replace(at, std::min(label.size(), axis.size() - at), label);
  }
  axis.erase(axis.find_last_not_of(' ') + 1);
  out += fmt::format("  {:>8}  {}\n  {:>8}  tok/s for one user (log)   d: dep  t: tp  @: the chosen point\n", "", axis,
                     "");
  return out;
}

std::string cost_section(const Plan& plan) {
  std::string out = heading("4. Cost");
  if (plan.usd_per_device_hour > 0) {
    out += line("rate", fmt::format("{:.3f} USD per device and hour, {:.2f} for the machine", plan.usd_per_device_hour,
                                    plan.usd_per_device_hour * plan.machine.devices));
  }
  if (!plan.price) out += line("hosted", plan.price_problem);
  if (plan.price) {
    const HostedRate& rate = plan.price->rate;
    out += line(fmt::format("hosted: {}", plan.price->provider),
                fmt::format("{:.4f} / {:.4f} / {:.4f} USD per Mtok hit/miss/output, from {}", rate.hit, rate.miss,
                            rate.output, plan.price->from));
  }
  if (plan.verdict && plan.fit.fits) {
    const Cost& c = plan.verdict->cost;
    const Traffic& t = plan.decision->traffic;
    out += line("one request",
                fmt::format("{} tokens in ({:.0f}% cached), {} out: {} device-seconds",
                            with_commas(static_cast<int64_t>(t.input_tokens)), 100 * t.hit,
                            with_commas(static_cast<int64_t>(t.output_tokens())), short_number(c.device_seconds)));
    out += line("capacity", fmt::format("{} requests an hour", short_number(c.capacity_per_hour)));
    out += line("expected",
                fmt::format("{} requests an hour, {:.0f}% of capacity, {} Mtok a day",
                            short_number(t.requests_per_hour), 100 * c.expected_use, short_number(t.mtok_per_day())));
    out += fmt::format("\n  {:<30} {:>12} {:>12}\n", "USD", "self", "hosted");
    out += fmt::format("  {:<30} {:>12} {:>12}\n", "per request at full use",
                       fmt::format("{:.5f}", c.self_request_full), fmt::format("{:.5f}", c.hosted_request));
    out += fmt::format("  {:<30} {:>12} {:>12}\n", "per request at expected use",
                       fmt::format("{:.5f}", c.self_request_expected), fmt::format("{:.5f}", c.hosted_request));
    out += fmt::format("  {:<30} {:>12} {:>12}\n", "per Mtok of input, at full use",
                       fmt::format("{:.4f}", c.self_mtok_input),
                       fmt::format("{:.4f}", t.hit * plan.price->rate.hit + (1 - t.hit) * plan.price->rate.miss));
    out += fmt::format("  {:<30} {:>12} {:>12}\n", "per Mtok of output", fmt::format("{:.4f}", c.self_mtok_output),
                       fmt::format("{:.4f}", plan.price->rate.output));
    out += fmt::format("  {:<30} {:>12} {:>12}\n", "per Mtok, input and output",
                       fmt::format("{:.4f}", c.self_mtok_total), fmt::format("{:.4f}", c.hosted_mtok_total));
    out += fmt::format("  {:<30} {:>12} {:>12}\n\n", "per month at expected volume", short_number(c.self_hourly * 730),
                       short_number(c.hosted_request * t.requests_per_hour * 730));
    out += line("break-even", fmt::format("{} requests an hour = {:.0f}% of capacity = {} Mtok a day",
                                          short_number(c.break_even_per_hour), 100 * c.break_even_use,
                                          short_number(c.break_even_mtok_per_day)));
  }
  if (plan.chosen && plan.kw_per_device > 0) {
    const double kwh = kwh_per_mtok(plan.kw_per_device, plan.chosen->device_tps);
    out += line("energy",
                fmt::format("{} kWh = {:.3f} USD per Mtok of output ({:.2f} kW per device{})", short_number(kwh),
                            kwh * plan.kwh_usd, plan.kw_per_device, plan.kw_all_in ? ", all in" : ", TDP times PUE"));
  }
  return out;
}

std::string verdict_section(const Plan& plan) {
  std::string out = heading("5. Verdict");
  if (plan.verdict) {
    const Verdict& v = *plan.verdict;
    out += line("verdict", v.choice);
    out += line("rule", fmt::format("{}: {}", v.rule, v.reason));
    out += line("margin", short_number(v.margin));
    out += line("would flip it", v.flip.text);
  } else {
    out += "  none: " + (plan.price ? std::string("no rate or no fit") : plan.price_problem) + "\n";
  }
  for (const std::string& warning : plan.warnings) out += "  warning: " + warning + "\n";
  return out;
}

std::string assumption_section(const Plan& plan) {
  std::string out = heading("6. Assumptions (V vendor, T third party, C computed, A assumption, M measured)");
  for (const Assumption& a : plan.assumptions) {
    out += fmt::format("  {} {:<22} {}\n      {} ({})\n", mark_letter(a.source.mark), a.name, a.value, a.source.text,
                       a.source.date);
  }
  return out;
}

}  // namespace

std::string plan_text(const Plan& plan, bool explain) {
  const Request& r = plan.request;
  std::string out =
      fmt::format("nautile plan: {} ({}) on {}{}\n", plan.entry->id, plan.entry->label,
                  fmt::format("{} x {}", plan.machine.devices, plan.machine.device.id),
                  plan.machine.host ? fmt::format(" + {} x {}", plan.machine.sockets, plan.machine.host->id) : "");
  out += fmt::format("context {}, input {} at {:.0f}% hit, answer {} x {:g} ({} mode), {}, {}\n",
                     with_commas(r.context), with_commas(static_cast<int64_t>(r.input_tokens)), 100 * r.hit,
                     with_commas(static_cast<int64_t>(r.visible_tokens)), plan.multiplier, r.mode,
                     placement_name(plan.machine.placement), date_text(r.today));
  out += fit_section(plan) + speed_section(plan) + pareto_section(plan) + cost_section(plan) + verdict_section(plan) +
         assumption_section(plan);
  if (explain) out += "\n" + explain_text(*plan.data);
  return out;
}

}  // namespace nautile::plan
