// From a question to a Plan.
#include "plan/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "plan/words.h"

namespace nautile::plan {
namespace {

Status bad(const std::string& flag, std::string what, std::string fix = {}) {
  return {Code::kInvalidArgument, std::move(what), flag, std::move(fix)};
}

Status share(const char* flag, double value) {
  if (value >= 0 && value <= 1) return {};
  const std::string fix =
      value > 1 && value <= 100 ? fmt::format("did you mean {:g}?", value / 100) : "give a number from 0 to 1";
  return bad(flag, fmt::format("{:g} is not a share of 1", value), fix);
}

Status positive(const char* flag, double value, bool zero_allowed) {
  if (std::isfinite(value) && (value > 0 || (zero_allowed && value == 0))) return {};
  return bad(flag, fmt::format("{:g} is not {}", value, zero_allowed ? "zero or more" : "above zero"));
}

Status check(const Request& r, const ModelEntry& entry) {
  const int64_t longest = entry.config.max_positions;
  if (r.context < 1 || r.context > longest) {
    return bad("--ctx", fmt::format("{} tokens is outside 1 to {}, the model's longest context", with_commas(r.context),
                                    with_commas(longest)));
  }
  NAUTILE_RETURN_IF_ERROR(positive("--in", r.input_tokens, false));
  NAUTILE_RETURN_IF_ERROR(positive("--out", r.visible_tokens, false));
  if (r.input_tokens > static_cast<double>(longest)) {
    return bad("--in", fmt::format("{} tokens do not go into a context of {}",
                                   with_commas(static_cast<int64_t>(r.input_tokens)), with_commas(longest)));
  }
  NAUTILE_RETURN_IF_ERROR(share("--hit", r.hit));
  NAUTILE_RETURN_IF_ERROR(share("--interference", r.interference));
  NAUTILE_RETURN_IF_ERROR(share("--route-correlation", r.route_correlation));
  if (r.interference > 0.95) return bad("--interference", "leaves nothing of the devices", "give a share below 0.95");
  if (r.peak_share != -1) NAUTILE_RETURN_IF_ERROR(share("--tz-mix", r.peak_share));
  const std::tuple<const char*, double> rest[] = {{"--users", r.users},
                                                  {"--requests-per-user", r.requests_per_user_hour},
                                                  {"--requests-per-hour", r.requests_per_hour},
                                                  {"--min-tps", r.min_tps},
                                                  {"--need-tps", r.needed_tps},
                                                  {"--rate", r.rate},
                                                  {"--kwh-price", r.kwh_usd},
                                                  {"--engineers", r.engineers},
                                                  {"--multiplier", r.multiplier},
                                                  {"--memory-gb", r.memory_gb},
                                                  {"--stack-factor", r.stack_factor}};
  for (const auto& [flag, value] : rest) NAUTILE_RETURN_IF_ERROR(positive(flag, value, true));
  if (r.rate > 1000)
    return bad("--rate", fmt::format("{:g} USD per device and hour looks like a monthly price", r.rate),
               fmt::format("per hour that is {:.2f}", r.rate / 730));
  if (r.memory_gb > 100000) return bad("--memory-gb", fmt::format("{:g} GB looks like megabytes", r.memory_gb));
  if (r.peak_to_mean < 1) return bad("--peak-to-mean", "the peak hour is never below the mean", "give 1 or more");
  if (r.multiplier != 0 && r.multiplier < 1)
    return bad("--multiplier", "a mode writes at least the visible answer", "give 1 or more");
  if (r.stack_factor != 0 && r.stack_factor < 1) return bad("--stack-factor", "1 is the ideal stack", "give 1 or more");
  if (r.hosted_price) {
    for (double value : {r.hosted_price->hit, r.hosted_price->miss, r.hosted_price->output}) {
      NAUTILE_RETURN_IF_ERROR(positive("--hosted-price", value, true));
    }
  }
  return {};
}

Result<std::pair<std::string, int>> id_and_count(const std::string& text) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos) return std::pair(text, 1);
  const std::string number = text.substr(colon + 1);
  int count = 0;
  auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), count);
  if (error != std::errc() || end != number.data() + number.size() || count < 1 || count > 1024) {
    return bad("--hw", fmt::format("\"{}\" is not a number of devices", number), "give 1 to 1024: gb300:4");
  }
  return std::pair(text.substr(0, colon), count);
}

Result<Hardware> find_device(const PlanData& data, const Request& request, const std::string& id) {
  for (const Hardware& own : request.extra_hardware) {
    if (own.id == id) return own;
  }
  NAUTILE_ASSIGN(const Hardware* found, data.device(id));
  return *found;
}

struct RateFound {
  double usd = 0;
  Source source;
};

// The rate a reader would pay: the newest on-demand listing, else a 3-year rental, else the purchase over three years.
RateFound rate_of(const Hardware& hw) {
  const Rental* best = nullptr;
  for (const Rental& rental : hw.rentals) {
    if (best == nullptr || (best->kind != "on-demand" && rental.kind == "on-demand") ||
        (best->kind == rental.kind && rental.source.date > best->source.date)) {
      best = &rental;
    }
  }
  if (best != nullptr) return {(best->low + best->high) / 2, best->source};
  if (hw.owned) return {hw.owned->rental_3yr, hw.owned->source};
  if (hw.purchase && hw.purchase->unit != "rack of 72") {
    Source source = hw.purchase->source;
    source.text += "; middle price over three years of 8,760 hours";
    return {(hw.purchase->low + hw.purchase->high) / 2 / (3 * 8760), source};
  }
  return {};
}

const char* mode_id(const std::string& mode) {
  if (mode == "non-think" || mode == "none") return "non_think";
  if (mode == "high") return "think_high";
  if (mode == "max") return "think_max";
  return nullptr;
}

void add_changes(Fit& fit, const Load& load, const Machine& machine) {
  auto try_load = [&](WeightFormat format, int64_t context) {
    Load other = load;
    other.format = format;
    other.context = context;
    return residence(other, machine, Layout::kTp).fits || residence(other, machine, Layout::kDep).fits;
  };
  if (try_load(load.format, 4096)) {
    int64_t low = 4096, high = load.context;
    while (high - low > 1024) {
      const int64_t middle = (low + high) / 2;
      (try_load(load.format, middle) ? low : high) = middle;
    }
    fit.changes.push_back(
        fmt::format("context {} instead of {}", with_commas(low / 1024 * 1024), with_commas(load.context)));
  }
  if (load.format == WeightFormat::kOfficial && try_load(WeightFormat::kOfficialNoMtp, load.context)) {
    fit.changes.push_back("drop the MTP block: --format official-no-mtp");
  }
  if (fit.min_devices > 0) {
    const char* unit = machine.placement == Placement::kCpu ? "sockets" : "devices";
    fit.changes.push_back(fit.min_devices == fit.practical_devices
                              ? fmt::format("{} {} of {}", fit.min_devices, unit, machine.device.id)
                              : fmt::format("{} {} of {} ({} in practice)", fit.min_devices, unit, machine.device.id,
                                            fit.practical_devices));
  }
  int64_t best = weight_bytes(*load.model, load.format);
  const WeightFormatName* smaller = nullptr;
  for (const auto& format : weight_formats()) {
    const int64_t bytes = weight_bytes(*load.model, format.format);
    if (bytes >= best || format.format == WeightFormat::kOfficialNoMtp || !try_load(format.format, load.context))
      continue;
    // The largest format that fits changes the model least.
    if (smaller == nullptr || bytes > weight_bytes(*load.model, smaller->format)) smaller = &format;
  }
  if (smaller != nullptr)
    fit.changes.push_back(
        fmt::format("--format {}: {}", smaller->id, both_units(weight_bytes(*load.model, smaller->format))));
  const double least =
      static_cast<double>(weight_bytes(*load.model, load.format) + kv_bytes(*load.model, load.context, load.kv));
  if (machine.placement != Placement::kDevices || machine.device.device_class == DeviceClass::kUnified) {
    const Hardware& home = machine.host ? *machine.host : machine.device;
    const int count = machine.host ? machine.sockets : machine.devices;
    const double gb = std::ceil((least / count + machine.reserve_bytes) / machine.usable_fraction / 1e9);
    fit.changes.push_back(fmt::format("{} with {:.0f} GB of memory each", home.id, gb));
    if (machine.ssd_read_gbs == 0)
      fit.changes.push_back("stream the experts that do not fit from disk: --ssd nvme-gen5 (slow)");
  }
}

void add_assumptions(Plan& plan) {
  const PlanData& data = *plan.data;
  auto add = [&](std::string name, std::string value, const Source& source) {
    plan.assumptions.push_back({std::move(name), std::move(value), source});
  };
  auto constant = [&](const char* name) {
    const Constant& entry = data.constant_entry(name);
    add(name, fmt::format("{:g} {}", entry.value, entry.unit), entry.source);
  };
  const Hardware& hw = plan.machine.device;
  add("model config", plan.entry->id, plan.entry->source);
  add("weight and cache bytes",
      fmt::format("{} and {} per sequence", both_units(plan.fit.weights_bytes), both_units(plan.fit.kv_bytes)),
      {Mark::kComputed, "the config, tensor by tensor", plan.entry->source.date});
  add(hw.id,
      fmt::format("{:g} GB, {:g} TB/s, {:g}/{:g}/{:g} TFLOPS FP4/FP8/BF16", hw.memory_gb, hw.bandwidth_tbs,
                  hw.fp4_tflops, hw.fp8_tflops, hw.bf16_tflops),
      hw.source);
  if (hw.compute_source.text != hw.source.text)
    add(hw.id + " peak", fmt::format("{:g} TFLOPS BF16", hw.bf16_tflops), hw.compute_source);
  if (plan.machine.host) {
    const Hardware& host = *plan.machine.host;
    add(host.id,
        fmt::format("{:g} GB, {:g} TB/s, {:g} TFLOPS BF16", host.memory_gb, host.bandwidth_tbs, host.bf16_tflops),
        host.source);
  }
  add("usable memory", fmt::format("{:.0f}% less {:g} GB", 100 * data.usable_fraction, data.reserve_gb),
      data.usable_source);
  if (plan.machine.placement != Placement::kDevices) {
    for (const char* name : {"cpu_bandwidth_use", "cpu_read_share", "cpu_prefill_use", "cpu_fixed_us_per_layer"})
      constant(name);
  }
  if (plan.machine.placement != Placement::kCpu) {
    const bool single = hw.device_class == DeviceClass::kUnified && plan.machine.devices == 1;
    for (const char* name :
         {"bandwidth_use", "prefill_compute_use", "draft_acceptance", "expert_imbalance", "link_use"})
      constant(name);
    constant(single ? "single_device_fixed_us" : "fixed_us_per_layer");
    constant(single ? "single_device_compute_use" : "decode_compute_use");
  }
  add("mode multiplier", fmt::format("{:g}", plan.multiplier),
      plan.request.multiplier > 0 ? Source{Mark::kAssumption, "--multiplier", date_text(plan.request.today)}
                                  : data.modes_source);
  if (plan.usd_per_device_hour > 0)
    add("rate", fmt::format("{:.3f} USD per device and hour", plan.usd_per_device_hour), plan.rate_source);
  if (plan.price)
    add("hosted price",
        fmt::format("{:.4f}/{:.4f}/{:.4f} USD per Mtok hit/miss/output", plan.price->rate.hit, plan.price->rate.miss,
                    plan.price->rate.output),
        plan.price->source);
  add("electricity", fmt::format("{:g} USD/kWh", plan.kwh_usd),
      plan.request.kwh_usd > 0 ? Source{Mark::kAssumption, "--kwh-price", date_text(plan.request.today)}
                               : data.kwh_source);
}

// The operating point is chosen at the ideal stack; the stack factor then divides its rates (its definition).
std::optional<Operating> choose(const Plan& plan, const Machine& machine) {
  Tuning ideal = plan.tuning;
  ideal.stack_factor = 1;
  SearchLimits limits;
  limits.min_user_tps = plan.request.min_tps;
  const Load load = plan.load_of();
  const auto point = best_point(load, machine, ideal, limits);
  if (!point) return point;
  return operating_point(load, machine, point->layout, point->batch, point->draft, plan.tuning);
}

Status add_speed(Plan& plan) {
  const Load load = plan.load_of();
  plan.chosen = choose(plan, plan.machine);
  const double rate = prefill_rate(load, plan.machine, static_cast<int64_t>(plan.request.input_tokens), plan.tuning);
  plan.prompt_rate = rate * (plan.machine.placement == Placement::kDevices ? plan.machine.devices : 1);
  if (!plan.chosen) return {};
  SearchLimits all;
  auto points = sweep(load, plan.machine, plan.tuning, all);
  points.push_back(*plan.chosen);
  plan.front = pareto(points);
  // The table: the front at batches of about 1, 8, 64, 512 and the largest.
  for (int64_t batch : {1, 4, 16, 64, 256, 1024, 4096}) {
    const Operating* nearest = nullptr;
    for (const Operating& point : plan.front) {
      if (nearest == nullptr || std::llabs(point.batch - batch) < std::llabs(nearest->batch - batch)) nearest = &point;
    }
    const bool close = nearest != nullptr && nearest->batch >= batch * 2 / 3 && nearest->batch <= batch * 2;
    if (close && (plan.rows.empty() || plan.rows.back().batch != nearest->batch)) plan.rows.push_back(*nearest);
  }
  const double miss = plan.request.input_tokens * (1 - plan.request.hit);
  plan.ttft_s = miss / plan.prompt_rate + plan.chosen->step.total;
  plan.tpot_s = 1 / plan.chosen->user_tps;
  const double prefill = miss / rate, decode = plan.request.visible_tokens * plan.multiplier / plan.chosen->device_tps;
  plan.prefill_devices = plan.machine.devices * prefill / (prefill + decode);
  plan.decode_devices = plan.machine.devices - plan.prefill_devices;
  const double user = plan.chosen->user_tps, wanted = plan.request.min_tps;
  if (user * plan.tuning.stack_factor < wanted) {
    plan.warnings.push_back(fmt::format("no point gives one user {} tok/s; the fastest gives {}", short_number(wanted),
                                        short_number(user)));
  } else if (user < wanted) {
    plan.warnings.push_back(fmt::format("at stack factor {:g} one user gets {} tok/s, below the {} asked for",
                                        plan.tuning.stack_factor, short_number(user), short_number(wanted)));
  }
  return {};
}

Status add_money(Plan& plan) {
  const Request& r = plan.request;
  const PlanData& data = *plan.data;
  const Hardware& hw = plan.machine.device;
  plan.rate_given = r.rate > 0;
  if (plan.rate_given) {
    plan.usd_per_device_hour = r.rate;
    plan.rate_source = {Mark::kAssumption, "--rate", date_text(r.today)};
  } else {
    RateFound found = rate_of(hw);
    if (plan.machine.host) {
      const RateFound host = rate_of(*plan.machine.host);
      found.usd += host.usd * plan.machine.sockets / plan.machine.devices;
      found.source.text += "; host: " + host.source.text;
    }
    plan.usd_per_device_hour = found.usd;
    plan.rate_source = found.source;
  }
  plan.kw_all_in = hw.all_in_kw > 0;
  plan.kw_per_device = plan.kw_all_in ? hw.all_in_kw : hw.tdp_w / 1000 * data.pue;
  if (plan.machine.host)
    plan.kw_per_device += plan.machine.host->tdp_w / 1000 * data.pue * plan.machine.sockets / plan.machine.devices;
  plan.kwh_usd = r.kwh_usd > 0 ? r.kwh_usd : data.kwh_usd;
  if (r.hosted_price) {
    plan.price = PriceQuote{*r.hosted_price,
                            "given",
                            r.model,
                            date_text(r.today),
                            date_text(r.today),
                            {Mark::kAssumption, "--hosted-price", date_text(r.today)},
                            {},
                            false,
                            false};
  } else {
    std::string short_model = plan.entry->id;
    if (short_model.starts_with("deepseek-")) short_model.erase(0, 9);
    const double evenly = data.peak_hours_per_week / 168;
    auto found = quote(data, r.hosted, short_model, r.today, r.peak_share >= 0 ? r.peak_share : evenly);
    if (found.ok()) {
      plan.price = std::move(found).value();
    } else if (found.status().what().starts_with("no hosted provider")) {
      return found.status();
    } else {
      plan.price_problem = found.status().what();
    }
  }
  if (plan.price) {
    for (const std::string& warning : plan.price->warnings) plan.warnings.push_back(warning);
  }
  if (plan.usd_per_device_hour == 0) {
    plan.warnings.push_back(fmt::format("no rate is known for {}: give --rate USD for a cost and a verdict", hw.id));
    return {};
  }
  for (const Rental& rental : hw.rentals) {
    NAUTILE_ASSIGN(const int64_t when, parse_date(rental.source.date, "rental date"));
    if (!plan.rate_given && rental.source.text == plan.rate_source.text && r.today - when > 90) {
      plan.warnings.push_back(fmt::format("price_stale: the rate of {} is {} days old", hw.id, r.today - when));
    }
  }
  return {};
}

void add_verdict(Plan& plan) {
  const Request& r = plan.request;
  const PlanData& data = *plan.data;
  if (!plan.price || plan.usd_per_device_hour == 0) return;
  Decision d;
  d.traffic = {r.input_tokens, r.visible_tokens, plan.multiplier, r.hit,
               r.requests_per_hour > 0 ? r.requests_per_hour
               : r.users > 0           ? r.users * r.requests_per_user_hour
                                       : 1000};
  // A machine that is too small is priced at the count that holds the model, so that the flip has numbers to stand on.
  Machine machine = plan.machine;
  std::optional<Operating> point = plan.chosen;
  if (!point) {
    if (plan.fit.practical_devices == 0) return;
    machine.devices = plan.fit.practical_devices;
    point = choose(plan, machine);
    if (!point) return;
  }
  Tuning ideal = plan.tuning;
  const double stack = ideal.stack_factor;
  const double whole = machine.placement == Placement::kDevices ? 1 : machine.devices;
  d.rates.prefill =
      prefill_rate(plan.load_of(), machine, static_cast<int64_t>(r.input_tokens), plan.tuning) * stack / whole;
  d.rates.decode = point->device_tps * stack;
  d.owner.devices = plan.machine.devices;
  d.owner.usd_per_device_hour = plan.usd_per_device_hour;
  d.owner.licence_per_device_hour = r.licence ? data.licence_usd_per_gpu_year / 8760 : 0;
  d.owner.stack_factor = stack;
  d.owner.interference = r.interference;
  d.hosted = plan.price->rate;
  d.residency_required = r.residency;
  d.air_gapped = r.air_gapped;
  d.custom_weights = r.custom_weights;
  d.devices_needed = plan.fit.fits ? plan.machine.devices : plan.fit.practical_devices;
  d.peak_to_mean = r.peak_to_mean;
  d.scale_to_zero = r.scale_to_zero;
  d.needed_user_tps = r.needed_tps;
  d.plan_user_tps = plan.front.empty() ? 0 : plan.front.back().user_tps;
  const std::string short_model = plan.entry->id.starts_with("deepseek-") ? plan.entry->id.substr(9) : plan.entry->id;
  for (const PublishedRow& row : data.published) {
    if (row.hardware.starts_with("hosted:") && row.model == short_model)
      d.hosted_user_tps = std::max(d.hosted_user_tps, row.value);
  }
  d.engineers = r.engineers;
  d.engineer_usd_per_month = data.constant("engineer_usd_per_month");
  d.experimental_stack = r.experimental;
  d.node_devices = std::min(plan.machine.devices, plan.machine.device.domain);
  d.price_stale = plan.price->stale;
  d.model_mismatch = plan.price->mismatch;
  plan.verdict = decide_with_flip(d);
  plan.decision = d;
  for (const std::string& warning : plan.verdict->warnings) plan.warnings.push_back(warning);
}

}  // namespace

Result<Machine> parse_machine(const PlanData& data, const Request& request) {
  Machine machine;
  machine.usable_fraction = data.usable_fraction;
  machine.reserve_bytes = data.reserve_gb * 1e9;
  const size_t plus = request.hardware.find('+');
  NAUTILE_ASSIGN(const auto first, id_and_count(request.hardware.substr(0, plus)));
  NAUTILE_ASSIGN(machine.device, find_device(data, request, first.first));
  machine.devices = first.second;
  Hardware* memory_of = &machine.device;
  if (plus != std::string::npos) {
    NAUTILE_ASSIGN(const auto second, id_and_count(request.hardware.substr(plus + 1)));
    NAUTILE_ASSIGN(machine.host, find_device(data, request, second.first));
    machine.sockets = second.second;
    if (machine.device.device_class == DeviceClass::kCpu || machine.host->device_class != DeviceClass::kCpu) {
      return bad("--hw", "a hybrid is a GPU and a CPU, in that order", "write rtx-5090:1+epyc-9005-1s:1");
    }
    machine.placement = Placement::kHybrid;
    memory_of = &*machine.host;
  } else if (machine.device.device_class == DeviceClass::kCpu) {
    machine.placement = Placement::kCpu;
  }
  if (request.memory_gb > 0) memory_of->memory_gb = request.memory_gb;
  if (!request.ssd.empty()) {
    double gbs = 0;
    auto [end, error] = std::from_chars(request.ssd.data(), request.ssd.data() + request.ssd.size(), gbs);
    if (error == std::errc() && end == request.ssd.data() + request.ssd.size()) {
      if (gbs <= 0) return bad("--ssd", fmt::format("{:g} GB/s is not above zero", gbs));
      if (gbs > 200)
        return bad("--ssd", fmt::format("{:g} GB/s looks like MB/s", gbs),
                   fmt::format("did you mean {:g}?", gbs / 1000));
      machine.ssd_read_gbs = gbs;
    } else {
      NAUTILE_ASSIGN(const Storage* disk, data.disk(request.ssd));
      machine.ssd_read_gbs = disk->read_gbs;
    }
  }
  return machine;
}

Fit fit_of(const Load& load, const Machine& machine) {
  Fit fit;
  fit.weights_bytes = weight_bytes(*load.model, load.format);
  fit.kv_bytes = kv_bytes(*load.model, load.context, load.kv);
  fit.state_bytes = compressor_state_bytes(*load.model);
  fit.usable = usable_bytes(machine, machine.device);
  const bool tp = max_sequences(load, machine, Layout::kTp) >= max_sequences(load, machine, Layout::kDep);
  fit.layout = tp || machine.placement != Placement::kDevices ? Layout::kTp : Layout::kDep;
  fit.residence = residence(load, machine, fit.layout);
  fit.fits = fit.residence.fits;
  for (int64_t context : {int64_t{8192}, int64_t{131072}, int64_t{1048576}}) {
    Load at = load;
    at.context = std::min<int64_t>(context, load.model->config.max_positions);
    fit.at.push_back({at.context,
                      std::max(max_sequences(at, machine, Layout::kTp), max_sequences(at, machine, Layout::kDep)),
                      kv_bytes(*load.model, at.context, load.kv)});
  }
  Machine counted = machine;
  counted.ssd_read_gbs = 0;
  for (int g = 1; g <= 1024 && fit.min_devices == 0; ++g) {
    counted.devices = g;
    if (residence(load, counted, Layout::kTp).fits) fit.min_devices = g;
  }
  for (int g = 1; g <= 1024 && fit.min_devices > 0 && fit.practical_devices == 0; g *= 2) {
    if (g >= fit.min_devices) fit.practical_devices = g;
  }
  if (!fit.fits) add_changes(fit, load, machine);
  return fit;
}

Result<Plan> make_plan(const PlanData& data, const Request& request) {
  Plan plan;
  plan.request = request;
  plan.data = &data;
  NAUTILE_ASSIGN(plan.entry, data.model(request.model));
  NAUTILE_RETURN_IF_ERROR(check(request, *plan.entry));
  NAUTILE_ASSIGN(plan.machine, parse_machine(data, request));
  NAUTILE_ASSIGN(plan.load.format, weight_format(request.format));
  NAUTILE_ASSIGN(plan.load.kv, kv_format(request.kv));
  plan.load.context = request.context;
  const char* mode = mode_id(request.mode);
  if (mode == nullptr) return unknown_name("mode", request.mode, {"non-think", "high", "max"}, "--mode");
  for (const ModeRow& row : data.modes) {
    if (row.id == mode) plan.multiplier = request.multiplier > 0 ? request.multiplier : row.multiplier;
  }
  plan.model = count(plan.entry->config);
  plan.tuning = request.tuning ? *request.tuning : default_tuning(data, plan.machine);
  plan.tuning.route_correlation = request.route_correlation;
  if (request.stack_factor > 0) plan.tuning.stack_factor = request.stack_factor;
  const double needed = request.input_tokens + request.visible_tokens * plan.multiplier;
  if (needed > static_cast<double>(request.context)) {
    plan.warnings.push_back(
        fmt::format("input and answer take {} tokens, more than the context of {}: speed is for the context",
                    with_commas(static_cast<int64_t>(needed)), with_commas(request.context)));
  }
  if (request.mode == "max" && request.context < data.max_mode_context) {
    plan.warnings.push_back(
        fmt::format("Max mode is recommended with a context of {} or more", with_commas(data.max_mode_context)));
  }
  plan.fit = fit_of(plan.load_of(), plan.machine);
  if (!plan.fit.fits) {
    // A smaller model is the last change to offer.
    for (const ModelEntry& other : data.models) {
      if (&other == plan.entry) continue;
      const Arithmetic model = count(other.config);
      Load load = plan.load_of();
      load.model = &model;
      const bool fits = weight_bytes(model, load.format) < plan.fit.weights_bytes && fit_of(load, plan.machine).fits;
      if (fits)
        plan.fit.changes.push_back(
            fmt::format("--model {}: {}", other.id, both_units(weight_bytes(model, load.format))));
    }
  }
  NAUTILE_RETURN_IF_ERROR(add_speed(plan));
  NAUTILE_RETURN_IF_ERROR(add_money(plan));
  add_verdict(plan);
  add_assumptions(plan);
  return plan;
}

}  // namespace nautile::plan
