// nautile plan: flags into a plan::Request, the report, and the sub-verbs.
#include "plan.h"

#include <fmt/format.h>

#include <cctype>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "plan/validate.h"
#include "plan/words.h"
#include "sys/file.h"
#include "verbs.h"

namespace nautile {
namespace {

constexpr size_t kMaxDataFile = 16u << 20;

int64_t system_day() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::hours>(now).count() / 24;
}

// "HIT/MISS/OUTPUT", three numbers.
Result<plan::HostedRate> parse_price(const std::string& text) {
  std::vector<double> values;
  const char* at = text.c_str();
  bool good = true;
  while (good) {
    char* end = nullptr;
    values.push_back(std::strtod(at, &end));
    good = end != at && (*end == 0 || *end == '/') && !std::isspace(static_cast<unsigned char>(*at));
    if (*end == 0) break;
    at = end + 1;
  }
  if (!good || values.size() != 3) {
    return Status(Code::kInvalidArgument, fmt::format("\"{}\" is not three prices", text), "--hosted-price",
                  "write HIT/MISS/OUTPUT in USD per million tokens: 0.02/0.66/1.98");
  }
  return plan::HostedRate{values[0], values[1], values[2]};
}

}  // namespace

Result<plan::PlanData> PlanFlags::load() const {
  std::map<std::string, std::string> replaced;
  if (!data_dir.empty()) {
    const auto files = real_files();
    bool any = false;
    for (const std::string& name : plan::data_file_names()) {
      const std::string path = join_path(data_dir, name);
      if (name == "report.html" || !files->exists(path)) continue;
      NAUTILE_ASSIGN(std::string text, files->read(path, kMaxDataFile));
      replaced.emplace(name, std::move(text));
      any = true;
    }
    if (!any)
      return Status(Code::kInvalidArgument, "the directory holds none of the planner's data files", data_dir,
                    "copy one of the files of data/ there and change it");
  }
  return plan::load_data(replaced);
}

Result<plan::Request> PlanFlags::finish() const {
  plan::Request r = request;
  NAUTILE_ASSIGN(r.context, plan::parse_tokens(context, "--ctx"));
  NAUTILE_ASSIGN(const int64_t input, plan::parse_tokens(this->input, "--in"));
  NAUTILE_ASSIGN(const int64_t output, plan::parse_tokens(this->output, "--out"));
  r.input_tokens = static_cast<double>(input);
  r.visible_tokens = static_cast<double>(output);
  r.today = system_day();
  if (!today.empty()) {
    NAUTILE_ASSIGN(r.today, plan::parse_date(today, "--today"));
  }
  if (!hosted_price.empty()) {
    NAUTILE_ASSIGN(r.hosted_price, parse_price(hosted_price));
  }
  if (!hardware_file.empty()) {
    NAUTILE_ASSIGN(const std::string text, real_files()->read(hardware_file, kMaxDataFile));
    NAUTILE_ASSIGN(r.extra_hardware, plan::load_hardware(text, hardware_file));
  }
  return r;
}

void PlanFlags::add_data(CLI::App& app) {
  app.add_option("--data", data_dir, "directory whose JSON files replace the shipped data, file by file");
}

void PlanFlags::add(CLI::App& app) {
  add_data(app);
  app.add_option("--model", request.model, "v4-pro or v4-flash");
  app.add_option("--hw", request.hardware, "hardware: gb300:4, epyc-9005-1s, or a hybrid rtx-5090:1+epyc-9005-1s:1");
  app.add_option("--hw-file", hardware_file, "JSON file with hardware of your own, in the form of data/gpus.json");
  app.add_option("--memory-gb", request.memory_gb, "memory of each device (of the host for a hybrid), GB of 1e9 bytes");
  app.add_option("--ssd", request.ssd, "stream experts that do not fit from disk: nvme-gen5, nvme-gen4, sata or GB/s");
  app.add_option("--format", request.format, "weights: official, nvfp4, fp8, bf16, q8_0, q4_k_m, mxfp4-q8, iq2");
  app.add_option("--kv", request.kv, "cache: fp8, fp8-fp8idx, bf16, nvfp4");
  app.add_option("--ctx", context, "context in tokens: 32k (k = 1024), 1m, 1000000");
  app.add_option("--in", input, "input tokens of a request");
  app.add_option("--out", output, "visible answer tokens of a request");
  app.add_option("--mode", request.mode, "reasoning mode: non-think, high, max");
  app.add_option("--multiplier", request.multiplier, "output tokens per visible token, instead of the mode's");
  app.add_option("--hit", request.hit, "share of the input found in the prefix cache, 0 to 1");
  app.add_option("--users", request.users, "people or agents using it");
  app.add_option("--requests-per-user", request.requests_per_user_hour, "requests an hour of each user");
  app.add_option("--requests-per-hour", request.requests_per_hour, "requests an hour in all, instead of --users");
  app.add_option("--min-tps", request.min_tps,
                 "tokens per second that each user must get (default 10, about reading speed)");
  app.add_option("--need-tps", request.needed_tps, "tokens per second that a hosted endpoint would have to give");
  app.add_option("--rate", request.rate, "USD per device and hour");
  app.add_option("--hosted", request.hosted, "provider to compare with (nautile plan sources lists them)");
  app.add_option("--hosted-price", hosted_price,
                 "HIT/MISS/OUTPUT in USD per million tokens, instead of a provider's row");
  app.add_option("--tz-mix", request.peak_share,
                 "share of the traffic in the hosted price's peak hours (default: evenly spread)");
  app.add_option("--stack-factor", request.stack_factor,
                 "how much slower than the best known stack: 1 tuned, 2 unknown, 4 stock");
  app.add_option("--interference", request.interference, "share lost when prefill and decode share devices, 0 to 1");
  app.add_option("--route-correlation", request.route_correlation,
                 "0 uniform routing, 1 every token takes the same experts");
  app.add_option("--kwh-price", request.kwh_usd, "USD per kWh");
  app.add_option("--engineers", request.engineers, "engineers who run the machines; below 0.5 adds 8,000 USD a month");
  app.add_option("--peak-to-mean", request.peak_to_mean, "requests of the busiest hour over the mean hour");
  app.add_flag("--licence", request.licence, "add NVIDIA AI Enterprise to every device");
  app.add_flag("--residency", request.residency, "no external API may see the data");
  app.add_flag("--air-gapped", request.air_gapped, "there is no network to a host");
  app.add_flag("--custom-weights", request.custom_weights, "the weights are your own");
  app.add_flag("--scale-to-zero", request.scale_to_zero, "devices are given back when idle");
  app.add_flag("--experimental", request.experimental, "the stack is new on this hardware: one spare node is added");
  app.add_option("--today", today, "the date that prices are judged by, YYYY-MM-DD (default: now)");
}

int PlanFlags::run(const std::function<int(const plan::PlanData&, const plan::Request&)>& body) const {
  const auto data = load();
  if (!data.ok()) return fail_plan(data.status());
  const auto finished = finish();
  if (!finished.ok()) return fail_plan(finished.status());
  return body(data.value(), finished.value());
}

// A broken data file is a bad argument here: the person named it.
int fail_plan(const Status& status) {
  fmt::print(stderr, "nautile: {}{}{}\n", status.what(), status.where().empty() ? "" : " (" + status.where() + ")",
             status.fix().empty() ? "" : "; " + status.fix());
  return status.code() == Code::kInternal || status.code() == Code::kIo ? kExitFailed : kExitBadArguments;
}

void print_json(const Json& json) {
  fmt::print("{}\n", json.dump(1));
}

namespace {

struct ReportFlags {
  PlanFlags common;
  bool json = false, explain = false;
  std::string svg, html, calibration;
};

int report(const ReportFlags& flags, const plan::PlanData& data, plan::Request request) {
  if (!flags.calibration.empty()) {
    const auto machine = plan::parse_machine(data, request);
    if (!machine.ok()) return fail_plan(machine.status());
    const auto tuning = read_tuning(flags.calibration, plan::default_tuning(data, machine.value()));
    if (!tuning.ok()) return fail_plan(tuning.status());
    request.tuning = tuning.value();
  }
  const auto made = plan::make_plan(data, request);
  if (!made.ok()) return fail_plan(made.status());
  const plan::Plan& plan = made.value();
  const auto files = real_files();
  if (!flags.svg.empty()) {
    if (Status written = files->write(flags.svg, plan::plan_svg(plan)); !written.ok()) return fail_plan(written);
  }
  if (!flags.html.empty()) {
    const auto page = plan::plan_html(plan);
    if (!page.ok()) return fail_plan(page.status());
    if (Status written = files->write(flags.html, page.value()); !written.ok()) return fail_plan(written);
  }
  if (flags.json) {
    print_json(plan::plan_json(plan));
  } else {
    fmt::print("{}", plan::plan_text(plan, flags.explain));
  }
  if (plan.fit.fits) return kExitDone;
  fmt::print(stderr, "nautile: does not fit: {}\n",
             plan.fit.changes.empty()
                 ? "nothing on this hardware would; choose larger devices, v4-flash, or a hosted endpoint"
                 : "smallest change that fits: " + plan.fit.changes.front());
  return kExitDoesNotFit;
}

}  // namespace

void add_plan(CLI::App& app, Run& run) {
  auto* verb = app.add_subcommand(
      "plan",
      "example: nautile plan --model v4-pro --hw gb300:4 --ctx 32k --in 30000 --out 800 --hit 0.85 --rate 6\n"
      "What it needs, how fast it will be, what it costs, and where to run it.");
  auto flags = std::make_shared<ReportFlags>();
  flags->common.add(*verb);
  verb->add_flag("--json", flags->json, "print the plan as JSON, schema planner/1");
  verb->add_flag("--explain", flags->explain, "add where the article's figures hold and where they cannot");
  verb->add_option("--plot", flags->svg, "write the figures to this SVG file");
  verb->add_option("--html", flags->html, "write a self-contained page with sliders to this file");
  verb->add_option("--calibrate", flags->calibration, "use the constants that plan calibrate --save wrote");
  verb->require_subcommand(0, 1);
  add_plan_tables(*verb, run);
  add_plan_calibrate(*verb, run);
  add_plan_probe(*verb, run);
  verb->callback([flags, verb, &run] {
    if (!verb->get_subcommands().empty()) return;
    run = [flags] {
      return flags->common.run(
          [&](const plan::PlanData& data, const plan::Request& request) { return report(*flags, data, request); });
    };
  });
}

}  // namespace nautile
