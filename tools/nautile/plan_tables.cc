// The sub-verbs of plan that print one table: fit, compare, sweep, models, sources, validate, explain.
#include <fmt/format.h>

#include <cmath>

#include "plan.h"
#include "plan/validate.h"
#include "plan/words.h"

namespace nautile {
namespace {

using plan::both_units;
using plan::short_number;
using plan::with_commas;

struct Table {
  PlanFlags common;
  bool json = false;
  std::vector<std::string> names;
  std::string vary = "util";
  int points = 10;
};

int fit_table(const Table& flags, const plan::PlanData& data, const plan::Request& request) {
  const auto entry = data.model(request.model);
  if (!entry.ok()) return fail_plan(entry.status());
  const auto made = plan::make_plan(data, request);  // checks every flag
  if (!made.ok()) return fail_plan(made.status());
  const plan::Load load = made.value().load_of();
  Json rows = Json::array();
  std::string text =
      fmt::format("{}, {}, {} per sequence at {} tokens ({})\n\n  {:<24} {:>8} {:>9} {:>9} {:>11} {:>11} {:>9}\n",
                  entry.value()->id, both_units(made.value().fit.weights_bytes), both_units(made.value().fit.kv_bytes),
                  with_commas(request.context), plan::kv_format_name(load.kv).id, "hardware", "GB", "smallest",
                  "practical", "at 8K", "at 128K", "at 1M");
  for (const plan::Hardware& hw : data.hardware) {
    plan::Request one = request;
    one.hardware = hw.id;
    const auto machine = plan::parse_machine(data, one);
    if (!machine.ok()) return fail_plan(machine.status());
    plan::Machine practical = machine.value();
    plan::Fit fit = plan::fit_of(load, practical);
    if (fit.practical_devices > 0) {
      practical.devices = fit.practical_devices;
      const plan::Fit at = plan::fit_of(load, practical);
      fit.at = at.at;
    }
    text += fmt::format("  {:<24} {:>8g} {:>9} {:>9} {:>11} {:>11} {:>9}\n", hw.id, hw.memory_gb,
                        fit.min_devices ? std::to_string(fit.min_devices) : "-",
                        fit.practical_devices ? std::to_string(fit.practical_devices) : "-",
                        with_commas(fit.at[0].sequences), with_commas(fit.at[1].sequences),
                        with_commas(fit.at[2].sequences));
    rows.push_back(
        {{"hardware", hw.id},
         {"min_devices", fit.min_devices},
         {"practical_devices", fit.practical_devices},
         {"max_seqs",
          {{"8192", fit.at[0].sequences}, {"131072", fit.at[1].sequences}, {"1048576", fit.at[2].sequences}}}});
  }
  if (flags.json) {
    print_json({{"schema", "planner/1"},
                {"model", entry.value()->id},
                {"weights_bytes", made.value().fit.weights_bytes},
                {"kv_bytes_per_seq", made.value().fit.kv_bytes},
                {"fit", rows}});
  } else {
    fmt::print("{}  sequences at once are for the practical count, the better of tp and dep\n", text);
  }
  return kExitDone;
}

int compare_table(const Table& flags, const plan::PlanData& data, const plan::Request& request) {
  Json rows = Json::array();
  std::string text =
      fmt::format("  {:<32} {:>5} {:>9} {:>9} {:>10} {:>9} {:>10} {:>10} {:>8}  {}\n", "hardware", "fits", "tok/s/usr",
                  "tok/s/dev", "prefill", "USD/h", "USD/req", "hosted", "u*", "verdict");
  bool any_fits = false;
  for (const std::string& name : flags.names) {
    plan::Request one = request;
    one.hardware = name;
    const auto made = plan::make_plan(data, one);
    if (!made.ok()) return fail_plan(made.status());
    const plan::Plan& p = made.value();
    any_fits = any_fits || p.fit.fits;
    const bool money = p.verdict && p.fit.fits;
    text += fmt::format(
        "  {:<32} {:>5} {:>9} {:>9} {:>10} {:>9} {:>10} {:>10} {:>8}  {}\n", name, p.fit.fits ? "yes" : "no",
        p.chosen ? short_number(p.chosen->user_tps) : "-", p.chosen ? short_number(p.chosen->device_tps) : "-",
        p.chosen ? short_number(p.prompt_rate) : "-", money ? short_number(p.verdict->cost.self_hourly) : "-",
        money ? fmt::format("{:.5f}", p.verdict->cost.self_request_full) : "-",
        p.verdict ? fmt::format("{:.5f}", p.verdict->cost.hosted_request) : "-",
        money ? fmt::format("{:.0f}%", 100 * p.verdict->cost.break_even_use) : "-",
        p.verdict               ? p.verdict->choice
        : p.fit.fits            ? "no price"
        : p.fit.changes.empty() ? "no fit"
                                : p.fit.changes.front());
    rows.push_back(plan::plan_json(p));
  }
  if (flags.json) {
    print_json({{"schema", "planner/1"}, {"compare", rows}});
  } else {
    fmt::print("{}", text);
  }
  return any_fits ? kExitDone : kExitDoesNotFit;
}

int sweep_table(const Table& flags, const plan::PlanData& data, const plan::Request& request) {
  const std::vector<std::string> known = {"util", "rate", "hit", "multiplier", "stack-factor", "ctx", "batch", "price"};
  if (std::find(known.begin(), known.end(), flags.vary) == known.end())
    return fail_plan(plan::unknown_name("sweep", flags.vary, known, "--vary"));
  const auto made = plan::make_plan(data, request);
  if (!made.ok()) return fail_plan(made.status());
  const plan::Plan& base = made.value();
  if (!base.fit.fits) {
    fmt::print(stderr, "nautile: does not fit: {}\n",
               base.fit.changes.empty() ? "nothing on this hardware would" : base.fit.changes.front());
    return kExitDoesNotFit;
  }
  Json rows = Json::array();
  std::string text;
  if (flags.vary == "batch") {
    text = fmt::format("  {:>8} {:>6} {:>2} {:>10} {:>10}  {}\n", "batch", "layout", "n", "tok/s/usr", "tok/s/dev",
                       "bottleneck");
    for (const plan::Operating& point : base.front) {
      text += fmt::format("  {:>8} {:>6} {:>2} {:>10} {:>10}  {}\n", with_commas(point.batch),
                          plan::layout_name(point.layout), point.draft, short_number(point.user_tps),
                          short_number(point.device_tps), point.step.bottleneck());
      rows.push_back({{"batch", point.batch},
                      {"layout", plan::layout_name(point.layout)},
                      {"draft", point.draft},
                      {"tok_s_user", point.user_tps},
                      {"tok_s_device", point.device_tps}});
    }
  } else {
    text = fmt::format("  {:>12} {:>10} {:>10} {:>12} {:>12} {:>8} {:>8}  {}\n", flags.vary, "tok/s/usr", "tok/s/dev",
                       "self/req", "hosted/req", "u", "u*", "verdict");
    for (int i = 0; i < flags.points; ++i) {
      const double x = flags.points > 1 ? static_cast<double>(i) / (flags.points - 1) : 0;
      plan::Request one = request;
      double value = 0;
      if (flags.vary == "util") {
        value = 0.1 + 0.9 * x;
        one.requests_per_hour = value * (base.verdict ? base.verdict->cost.capacity_per_hour : 1000);
      } else if (flags.vary == "rate") {
        value = one.rate = (base.usd_per_device_hour > 0 ? base.usd_per_device_hour : 5) * std::pow(4, 2 * x - 1);
      } else if (flags.vary == "hit") {
        value = one.hit = 0.98 * x;
      } else if (flags.vary == "multiplier") {
        value = one.multiplier = std::pow(30, x);
      } else if (flags.vary == "stack-factor") {
        value = one.stack_factor = std::pow(4, x);
      } else if (flags.vary == "price") {
        if (!base.price) return fail_plan({Code::kInvalidArgument, base.price_problem, "--vary price"});
        value = std::pow(4, 2 * x - 1);
        one.hosted_price = plan::HostedRate{base.price->rate.hit * value, base.price->rate.miss * value,
                                            base.price->rate.output * value};
      } else {
        one.context = static_cast<int64_t>(8192 * std::pow(128, x) + 0.5);
        value = static_cast<double>(one.context);
      }
      const auto point = plan::make_plan(data, one);
      if (!point.ok()) return fail_plan(point.status());
      const plan::Plan& p = point.value();
      if (!p.chosen || !p.verdict) {
        text += fmt::format("  {:>12} {}\n", short_number(value), p.chosen ? "no price" : "does not fit");
        rows.push_back({{"value", value}, {"fits", p.fit.fits}});
        continue;
      }
      const plan::Cost& c = p.verdict->cost;
      text += fmt::format("  {:>12} {:>10} {:>10} {:>12.5f} {:>12.5f} {:>7.0f}% {:>7.0f}%  {}\n", short_number(value),
                          short_number(p.chosen->user_tps), short_number(p.chosen->device_tps), c.self_request_expected,
                          c.hosted_request, 100 * c.expected_use, 100 * c.break_even_use, p.verdict->choice);
      rows.push_back({{"value", value},
                      {"fits", true},
                      {"tok_s_user", p.chosen->user_tps},
                      {"tok_s_device", p.chosen->device_tps},
                      {"self_usd_per_request", c.self_request_expected},
                      {"hosted_usd_per_request", c.hosted_request},
                      {"expected_use", c.expected_use},
                      {"break_even_use", c.break_even_use},
                      {"choice", p.verdict->choice}});
    }
  }
  if (flags.json) {
    print_json({{"schema", "planner/1"}, {"vary", flags.vary}, {"sweep", rows}});
  } else {
    fmt::print("{}", text);
  }
  return kExitDone;
}

int models_table(const Table& flags, const plan::PlanData& data, const plan::Request& request) {
  Json rows = Json::array();
  std::string text;
  for (const plan::ModelEntry& entry : data.models) {
    const plan::Arithmetic m = plan::count(entry.config);
    text +=
        fmt::format("{} ({})\n  parameters {} + {} MTP = {}, active {} ({} with embedding)\n", entry.id, entry.label,
                    with_commas(m.params), with_commas(m.draft_params), with_commas(m.params_with_draft()),
                    with_commas(m.active), with_commas(m.active_with_embedding()));
    Json components = Json::array(), formats = Json::array(), caches = Json::array(), work = Json::array();
    text += fmt::format("\n  {:<22} {:>22} {:>20} {:>20}\n", "component", "parameters", "active", "bytes as released");
    for (const plan::ComponentRow& row : m.components) {
      const std::string name = row.draft ? "mtp " + row.name : row.name;
      text += fmt::format("  {:<22} {:>22} {:>20} {:>20}\n", name, with_commas(row.params), with_commas(row.active),
                          with_commas(row.bytes));
      components.push_back({{"name", name}, {"params", row.params}, {"active", row.active}, {"bytes", row.bytes}});
    }
    text += fmt::format("\n  {:<16} {:>20}  {:<26} {}\n", "format", "bytes", "", "");
    for (const auto& format : plan::weight_formats()) {
      const int64_t bytes = plan::weight_bytes(m, format.format);
      text +=
          fmt::format("  {:<16} {:>20}  {:<26} {}\n", format.id, with_commas(bytes), both_units(bytes), format.text);
      formats.push_back({{"format", format.id}, {"bytes", bytes}});
    }
    std::vector<int64_t> contexts = {8192, 131072, 1000000, 1048576};
    if (request.context != 32768) contexts.push_back(request.context);
    text += fmt::format("\n  {:>10}", "context");
    for (const auto& kv : plan::kv_formats()) text += fmt::format(" {:>26}", kv.id);
    text += fmt::format(" {:>9}\n", "of V3.2");
    for (int64_t context : contexts) {
      text += fmt::format("  {:>10}", with_commas(context));
      Json cache = {{"context", context}};
      for (const auto& kv : plan::kv_formats()) {
        const int64_t bytes = plan::kv_bytes(m, context, kv.format);
        text += fmt::format(" {:>26}", both_units(bytes));
        cache[kv.id] = bytes;
      }
      const double part = static_cast<double>(plan::kv_bytes(m, context, plan::KvFormat::kFp8Fp4)) /
                          static_cast<double>(plan::v32_kv_bytes(data.v32, context));
      text += fmt::format(" {:>9.4f}\n", part);
      cache["share_of_v32"] = part;
      caches.push_back(cache);
    }
    text += fmt::format("\n  {:>10} {:>16} {:>9} {:>22} {:>9}\n", "context", "FLOPs raw", "of V3.2",
                        "FP8-equivalent FLOPs", "of V3.2");
    for (int64_t context : contexts) {
      const int64_t raw = plan::raw_operations(m, context).total(), eq = plan::fp8_operations(m, context).total();
      const double raw_part =
          static_cast<double>(raw) / static_cast<double>(plan::v32_raw_operations(data.v32, context));
      const double eq_part = static_cast<double>(eq) / static_cast<double>(plan::v32_fp8_operations(data.v32, context));
      text += fmt::format("  {:>10} {:>13.1f} GF {:>9.4f} {:>19.1f} GF {:>9.4f}\n", with_commas(context),
                          static_cast<double>(raw) / 1e9, raw_part, static_cast<double>(eq) / 1e9, eq_part);
      work.push_back({{"context", context},
                      {"raw", raw},
                      {"fp8_equivalent", eq},
                      {"raw_share_of_v32", raw_part},
                      {"fp8_share_of_v32", eq_part}});
    }
    text += fmt::format("\n  compressor state {} per sequence; source: {} ({})\n\n",
                        both_units(plan::compressor_state_bytes(m)), entry.source.text, entry.source.date);
    rows.push_back({{"model", entry.id},
                    {"params", m.params},
                    {"params_with_mtp", m.params_with_draft()},
                    {"active", m.active},
                    {"components", components},
                    {"weights", formats},
                    {"kv", caches},
                    {"flops", work},
                    {"state_bytes", plan::compressor_state_bytes(m)}});
  }
  if (flags.json) {
    print_json({{"schema", "planner/1"}, {"models", rows}});
  } else {
    fmt::print("{}", text);
  }
  return kExitDone;
}

int sources_table(const Table& flags, const plan::PlanData& data, const plan::Request& request) {
  Json rows = Json::array();
  std::string text;
  auto add = [&](const std::string& what, const std::string& value, const plan::Source& source) {
    text += fmt::format("{} {:<52} {:<44} {} ({})\n", plan::mark_letter(source.mark), what, value, source.text,
                        source.date);
    rows.push_back({{"what", what},
                    {"value", value},
                    {"mark", plan::mark_name(source.mark)},
                    {"source", source.text},
                    {"date", source.date}});
  };
  for (const auto& m : data.models) add("model " + m.id, m.label, m.source);
  for (const auto& h : data.hardware) {
    add("hardware " + h.id,
        fmt::format("{:g} GB, {:g} TB/s, {:g}/{:g}/{:g} TFLOPS", h.memory_gb, h.bandwidth_tbs, h.fp4_tflops,
                    h.fp8_tflops, h.bf16_tflops),
        h.source);
    for (const auto& r : h.rentals)
      add(fmt::format("  {} {}", h.id, r.kind), fmt::format("{:g} to {:g} USD/h", r.low, r.high), r.source);
    if (h.owned)
      add(fmt::format("  {} owned", h.id),
          fmt::format("{:g} hyperscaler, {:g} neocloud, {:g} 3-year rental USD/h", h.owned->hyperscaler,
                      h.owned->neocloud, h.owned->rental_3yr),
          h.owned->source);
    if (h.purchase)
      add(fmt::format("  {} bought", h.id),
          fmt::format("{:g} to {:g} USD per {}", h.purchase->low, h.purchase->high, h.purchase->unit),
          h.purchase->source);
  }
  for (const auto& s : data.storage) add("storage " + s.id, fmt::format("{:g} GB/s", s.read_gbs), s.source);
  auto number = [](const std::optional<double>& value) {
    return value ? fmt::format("{:.4g}", *value) : std::string("-");
  };
  for (const auto& p : data.prices) {
    const bool over = !p.valid_to.empty();
    const auto checked = plan::parse_date(p.checked, "checked");
    const bool stale = !over && checked.ok() && request.today - checked.value() > 90;
    add(fmt::format("price {} {} {}{}", p.provider, p.model, p.window,
                    stale  ? " (stale)"
                    : over ? " (over)"
                           : ""),
        fmt::format("{} / {} / {} USD per Mtok, from {}", number(p.hit), number(p.miss), number(p.output),
                    p.valid_from),
        p.source);
  }
  for (const auto& c : data.constants) add("constant " + c.name, fmt::format("{:g} {}", c.value, c.unit), c.source);
  add("peak hours", fmt::format("{:g} of 168 a week", data.peak_hours_per_week), data.peak_source);
  add("reasoning modes",
      fmt::format("{:g} / {:g} / {:g}", data.modes[0].multiplier, data.modes[1].multiplier, data.modes[2].multiplier),
      data.modes_source);
  add("AI Enterprise", fmt::format("{:g} USD per GPU and year", data.licence_usd_per_gpu_year), data.licence_source);
  add("usable memory", fmt::format("{:g} less {:g} GB", data.usable_fraction, data.reserve_gb), data.usable_source);
  add("electricity", fmt::format("{:g} USD/kWh, PUE {:g}", data.kwh_usd, data.pue), data.kwh_source);
  add("V3.2 baseline", fmt::format("{} parameters", with_commas(data.v32.params)), data.v32.source);
  for (const auto& r : data.published)
    add(fmt::format("published {} {} {}", r.model, r.hardware, r.metric), fmt::format("{:g} ({})", r.value, r.stack),
        r.source);
  if (flags.json) {
    print_json({{"schema", "planner/1"}, {"sources", rows}});
  } else {
    fmt::print("{}", text);
  }
  return kExitDone;
}

int validate_table(const Table& flags, const plan::PlanData& data, const plan::Request&) {
  const plan::Validation result = plan::validate(data);
  if (flags.json) {
    print_json(plan::validation_json(result));
  } else {
    fmt::print("{}", plan::validation_text(data, result));
  }
  return kExitDone;
}

}  // namespace

void add_plan_tables(CLI::App& plan_verb, Run& run) {
  using Body = int (*)(const Table&, const plan::PlanData&, const plan::Request&);
  struct Verb {
    const char *name, *help;
    Body body;
    bool question;  // takes the flags of a question
  };
  const Verb verbs[] = {
      {"fit", "example: nautile plan fit --model v4-flash --ctx 1m\nHow many of each hardware hold the model.",
       fit_table, true},
      {"compare", "example: nautile plan compare gb300:4 b200:8 --rate 6\nSeveral machines side by side.",
       compare_table, true},
      {"sweep", "example: nautile plan sweep --hw gb300:4 --vary util\nOne input varied, the rest held.", sweep_table,
       true},
      {"models", "example: nautile plan models\nExact parameters, bytes, cache and operations.", models_table, true},
      {"sources", "example: nautile plan sources\nEvery number with its mark, source and date.", sources_table, true},
      {"validate", "example: nautile plan validate\nPredicted against published, in-sample and held-out apart.",
       validate_table, false},
  };
  for (const Verb& verb : verbs) {
    auto* sub = plan_verb.add_subcommand(verb.name, verb.help);
    auto flags = std::make_shared<Table>();
    if (verb.question)
      flags->common.add(*sub);
    else
      flags->common.add_data(*sub);
    sub->add_flag("--json", flags->json, "print JSON, schema planner/1");
    if (verb.body == compare_table)
      sub->add_option("hardware", flags->names, "two or more machines: gb300:4 b200:8")->required()->expected(1, 32);
    if (verb.body == sweep_table) {
      sub->add_option("--vary", flags->vary, "util, rate, hit, multiplier, stack-factor, ctx, batch or price");
      sub->add_option("--points", flags->points, "rows, 2 to 1000")->check(CLI::Range(2, 1000));
    }
    sub->callback([flags, body = verb.body, &run] {
      run = [flags, body] {
        return flags->common.run(
            [&](const plan::PlanData& data, const plan::Request& request) { return body(*flags, data, request); });
      };
    });
  }
}

}  // namespace nautile
