// The plan as one page: report.html with the numbers and the figures put in.
#include <fmt/format.h>

#include "plan/plan.h"

namespace nautile::plan {
namespace {

// JSON inside a script element: "<" is written so that no text in it can end the element.
std::string script_json(const Json& json) {
  std::string out;
  for (char c : json.dump()) {
    if (c == '<')
      out += "\\u003c";
    else
      out += c;
  }
  return out;
}

bool replace(std::string& page, const std::string& mark, const std::string& text) {
  const size_t at = page.find(mark);
  if (at == std::string::npos) return false;
  page.replace(at, mark.size(), text);
  return true;
}

}  // namespace

Result<std::string> plan_html(const Plan& plan) {
  Json numbers = {{"plan", plan_json(plan)}};
  if (plan.decision && plan.fit.fits) {
    // Everything cost() takes, so that the page computes with the same formula.
    const Decision& d = *plan.decision;
    const double per_month = d.owner.fixed_usd_per_month + (d.engineers < 0.5 ? d.engineer_usd_per_month : 0);
    numbers["decision"] = {{"input", d.traffic.input_tokens},
                           {"visible", d.traffic.visible_tokens},
                           {"multiplier", d.traffic.multiplier},
                           {"hit", d.traffic.hit},
                           {"requests_per_hour", d.traffic.requests_per_hour},
                           {"prefill", d.rates.prefill},
                           {"decode", d.rates.decode},
                           {"devices", d.owner.devices},
                           {"spare", d.owner.spare_devices + (d.experimental_stack ? d.node_devices : 0)},
                           {"rate", d.owner.usd_per_device_hour},
                           {"licence", d.owner.licence_per_device_hour},
                           {"fixed_per_month", per_month},
                           {"stack", d.owner.stack_factor},
                           {"interference", d.owner.interference},
                           {"hosted", {{"hit", d.hosted.hit}, {"miss", d.hosted.miss}, {"output", d.hosted.output}}}};
  } else {
    numbers["decision"] = nullptr;
  }
  Json modes = Json::object();
  for (const ModeRow& mode : plan.data->modes) modes[mode.id] = mode.multiplier;
  numbers["modes"] = modes;
  std::string page(shipped_file("report.html"));
  const bool whole =
      replace(page, "/*NUMBERS*/null", script_json(numbers)) && replace(page, "<!--FIGURES-->", plan_svg(plan));
  if (!whole) return Status(Code::kInternal, "the page template lacks a mark", "report.html");
  return page;
}

}  // namespace nautile::plan
