// The plan as JSON, schema planner/1: bytes are integers, money is USD with the date of its rate.
#include "plan/plan.h"
#include "plan/words.h"

namespace nautile::plan {
namespace {

Json point_json(const Operating& point) {
  const Step& s = point.step;
  return {{"batch", point.batch},
          {"layout", layout_name(point.layout)},
          {"draft", point.draft},
          {"tok_s_user", point.user_tps},
          {"tok_s_device", point.device_tps},
          {"tpot_ms", 1000 / point.user_tps},
          {"step_ms", 1000 * s.total},
          {"bottleneck", s.bottleneck()},
          {"shares",
           {{"fixed", (s.fixed + s.draft) / s.total},
            {"memory", s.memory / s.total},
            {"compute", s.compute / s.total},
            {"communication", s.communication / s.total},
            {"storage", s.storage / s.total}}}};
}

Json source_json(const Source& source) {
  return {{"mark", mark_name(source.mark)}, {"source", source.text}, {"date", source.date}};
}

}  // namespace

Json plan_json(const Plan& plan) {
  const Request& r = plan.request;
  Json out = {{"schema", "planner/1"}};
  out["inputs"] = {{"model", plan.entry->id},
                   {"hardware", plan.machine.device.id},
                   {"devices", plan.machine.devices},
                   {"host", plan.machine.host ? Json(plan.machine.host->id) : Json()},
                   {"placement", placement_name(plan.machine.placement)},
                   {"format", weight_format_id(plan.load.format)},
                   {"kv", kv_format_name(plan.load.kv).id},
                   {"context", r.context},
                   {"input_tokens", r.input_tokens},
                   {"visible_tokens", r.visible_tokens},
                   {"mode", r.mode},
                   {"multiplier", plan.multiplier},
                   {"hit", r.hit},
                   {"min_tok_s_user", r.min_tps},
                   {"stack_factor", plan.tuning.stack_factor},
                   {"usd_per_device_hour", plan.usd_per_device_hour},
                   {"date", date_text(r.today)}};
  Json sequences = Json::array();
  for (const SequencesAt& at : plan.fit.at) {
    sequences.push_back({{"context", at.context}, {"sequences", at.sequences}, {"kv_bytes", at.kv_bytes}});
  }
  out["fit"] = {{"fits", plan.fit.fits},
                {"weights_bytes", plan.fit.weights_bytes},
                {"kv_bytes_per_seq", plan.fit.kv_bytes},
                {"state_bytes_per_seq", plan.fit.state_bytes},
                {"usable_bytes_per_device", static_cast<int64_t>(plan.fit.usable)},
                {"weights_bytes_per_device", static_cast<int64_t>(plan.fit.residence.device_weights)},
                {"weights_bytes_host", static_cast<int64_t>(plan.fit.residence.host_weights)},
                {"weights_bytes_disk", static_cast<int64_t>(plan.fit.residence.storage_weights)},
                {"free_bytes", static_cast<int64_t>(plan.fit.residence.device_free)},
                {"max_seqs", sequences},
                {"min_gpus", plan.fit.min_devices},
                {"practical_gpus", plan.fit.practical_devices},
                {"changes_that_fit", plan.fit.changes}};
  Json rows = Json::array(), front = Json::array();
  for (const Operating& point : plan.rows) rows.push_back(point_json(point));
  for (const Operating& point : plan.front) front.push_back(point_json(point));
  out["speed"] = rows;
  out["pareto"] = front;
  out["chosen"] = plan.chosen ? point_json(*plan.chosen) : Json();
  out["prefill_tok_s"] = plan.prompt_rate;
  out["ttft_s"] = plan.ttft_s;
  out["prefill_devices"] = plan.prefill_devices;
  out["decode_devices"] = plan.decode_devices;
  if (plan.verdict) {
    const Cost& c = plan.verdict->cost;
    out["cost"] = {{"device_seconds", c.device_seconds},
                   {"capacity_per_hour", c.capacity_per_hour},
                   {"self_usd_per_hour", c.self_hourly},
                   {"self_usd_per_request_full", c.self_request_full},
                   {"self_usd_per_request_expected", c.self_request_expected},
                   {"hosted_usd_per_request", c.hosted_request},
                   {"break_even_per_hour", c.break_even_per_hour},
                   {"break_even_use", c.break_even_use},
                   {"expected_use", c.expected_use},
                   {"break_even_mtok_per_day", c.break_even_mtok_per_day},
                   {"usd_per_mtok",
                    {{"self_input", c.self_mtok_input},
                     {"self_output", c.self_mtok_output},
                     {"self_total", c.self_mtok_total},
                     {"hosted_total", c.hosted_mtok_total}}},
                   {"hosted_rate",
                    {{"hit", plan.price->rate.hit},
                     {"miss", plan.price->rate.miss},
                     {"output", plan.price->rate.output},
                     {"from", plan.price->from},
                     {"checked", plan.price->checked}}},
                   {"rate_source", source_json(plan.rate_source)}};
    const Verdict& v = *plan.verdict;
    out["verdict"] = {
        {"rule", v.rule},
        {"choice", v.choice},
        {"reason", v.reason},
        {"margin", v.margin},
        {"rules_fired", v.rules_fired},
        {"flip", v.flip.input.empty()
                     ? Json()
                     : Json{{"input", v.flip.input}, {"from", v.flip.from}, {"to", v.flip.to}, {"text", v.flip.text}}}};
  } else {
    out["cost"] = nullptr;
    out["verdict"] = nullptr;
  }
  out["warnings"] = plan.warnings;
  Json assumptions = Json::array();
  for (const Assumption& a : plan.assumptions) {
    assumptions.push_back({{"name", a.name},
                           {"value", a.value},
                           {"mark", mark_name(a.source.mark)},
                           {"source", a.source.text},
                           {"date", a.source.date}});
  }
  out["assumptions"] = assumptions;
  return out;
}

}  // namespace nautile::plan
