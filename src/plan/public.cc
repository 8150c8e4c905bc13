// The public planner (include/nautile/plan.h): a question into a Request, a Plan into an answer.
#include <chrono>
#include <utility>

#include "nautile/plan.h"
#include "plan/plan.h"
#include "plan/words.h"

namespace nautile {

Result<Planner> Planner::create(const std::map<std::string, std::string>& files) {
  NAUTILE_ASSIGN(plan::PlanData data, plan::load_data(files));
  return Planner(std::make_shared<const plan::PlanData>(std::move(data)));
}

Result<PlanAnswer> Planner::ask(const PlanQuestion& question) const {
  plan::Request request;
  request.model = question.model;
  request.hardware = question.hardware;
  if (!question.hardware_json.empty()) {
    NAUTILE_ASSIGN(request.extra_hardware, plan::load_hardware(question.hardware_json, "hardware_json"));
  }
  request.ssd = question.ssd;
  request.format = question.format;
  request.context = question.context;
  request.input_tokens = question.input_tokens;
  request.visible_tokens = question.answer_tokens;
  request.mode = question.mode;
  request.hit = question.cache_hit;
  request.requests_per_hour = question.requests_per_hour;
  request.min_tps = question.min_user_tokens_per_s;
  request.rate = question.usd_per_device_hour;
  request.hosted = question.hosted;
  if (question.today.empty()) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    request.today = std::chrono::duration_cast<std::chrono::hours>(now).count() / 24;
  } else {
    NAUTILE_ASSIGN(request.today, plan::parse_date(question.today, "today"));
  }
  NAUTILE_ASSIGN(const plan::Plan made, plan::make_plan(*data_, request));

  PlanAnswer answer;
  answer.fit = {made.fit.fits,
                made.fit.weights_bytes,
                made.fit.kv_bytes,
                made.fit.state_bytes,
                static_cast<int64_t>(made.fit.usable),
                made.fit.min_devices,
                made.fit.practical_devices,
                made.fit.changes};
  if (made.fit.fits && made.chosen) {
    const plan::Operating& point = *made.chosen;
    answer.speed = {plan::layout_name(point.layout),
                    point.batch,
                    point.draft,
                    point.user_tps,
                    point.user_tps * static_cast<double>(point.batch),
                    made.prompt_rate,
                    made.ttft_s,
                    made.tpot_s,
                    point.step.bottleneck()};
  }
  if (made.fit.fits && made.verdict) {
    const plan::Verdict& verdict = *made.verdict;
    answer.cost = {verdict.cost.self_request_expected,
                   verdict.cost.hosted_request,
                   verdict.cost.self_mtok_output,
                   verdict.cost.break_even_per_hour,
                   verdict.cost.expected_use,
                   verdict.choice,
                   verdict.reason,
                   verdict.flip.text};
  }
  answer.warnings = made.warnings;
  answer.report = plan::plan_text(made, false);
  answer.json = plan::plan_json(made).dump(1);
  return answer;
}

}  // namespace nautile
