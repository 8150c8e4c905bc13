// The plan's figures as SVG.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "plan/plan.h"
#include "plan/words.h"

namespace nautile::plan {
namespace {

struct Series {
  std::string name, colour;
  std::vector<std::pair<double, double>> points;
  bool dots = false;
};

struct Mark {
  double x = 0, y = 0;
  std::string text;
};

struct Panel {
  std::string title, x_name, y_name;
  bool log_x = false, log_y = false;
  std::vector<Series> series;
  std::vector<Mark> marks;
  bool legend_right = false;  // where a falling curve leaves room
};

constexpr double kWidth = 560, kHeight = 360, kLeft = 70, kRight = 20, kTop = 40, kBottom = 50;

std::string escape(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

std::string tick_text(double value) {
  const double size = std::fabs(value);
  if (size >= 1e9) return fmt::format("{:g}G", value / 1e9);
  if (size >= 1e6) return fmt::format("{:g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:g}k", value / 1e3);
  return fmt::format("{:g}", value);
}

// Round steps (1, 2, 5 times a power of ten), or the powers of ten (with 2 and 5 on a short log axis).
std::vector<double> ticks(double low, double high, bool log) {
  std::vector<double> found;
  if (log) {
    const bool dense = std::log10(high / low) < 2;
    for (int power = static_cast<int>(std::floor(std::log10(low))); power <= std::ceil(std::log10(high)); ++power) {
      for (double factor : {1.0, 2.0, 5.0}) {
        const double at = factor * std::pow(10, power);
        if ((dense || factor == 1.0) && at >= low * 0.999 && at <= high * 1.001) found.push_back(at);
      }
    }
    return found;
  }
  const double raw = (high - low) / 5, power = std::pow(10, std::floor(std::log10(raw)));
  double step = power;
  for (double factor : {1.0, 2.0, 5.0, 10.0}) {
    if (factor * power >= raw) {
      step = factor * power;
      break;
    }
  }
  for (int i = 0; i * step + low <= high * 1.0001; ++i) found.push_back(low + i * step);
  return found;
}

std::string draw(const Panel& panel, double at_x, double at_y) {
  double x0 = INFINITY, x1 = -INFINITY, y0 = panel.log_y ? INFINITY : 0, y1 = -INFINITY;
  for (const Series& s : panel.series) {
    for (auto [x, y] : s.points) {
      x0 = std::min(x0, x);
      x1 = std::max(x1, x);
      y0 = std::min(y0, y);
      y1 = std::max(y1, y);
    }
  }
  if (!panel.log_x && x0 > 0) x0 = 0;
  if (!(x1 > x0)) {
    x0 = std::isfinite(x0) ? x0 * 0.9 : 0;
    x1 = std::max(x0 + 1, x0 * 1.2);
  }
  if (!(y1 > y0)) y1 = std::max(1.0, y0 * 1.2);
  if (!std::isfinite(y0)) y0 = 0;
  auto scale = [](double v, double low, double high, bool log) {
    return log ? std::log(v / low) / std::log(high / low) : (v - low) / (high - low);
  };
  auto px = [&](double x) { return at_x + kLeft + scale(x, x0, x1, panel.log_x) * (kWidth - kLeft - kRight); };
  auto py = [&](double y) {
    return at_y + kHeight - kBottom - scale(y, y0, y1, panel.log_y) * (kHeight - kTop - kBottom);
  };
  std::string out = fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"15\" font-weight=\"600\">{}</text>\n",
                                at_x + kLeft, at_y + 22, escape(panel.title));
  for (double t : ticks(x0, x1, panel.log_x)) {
    out += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\" stroke=\"#ddd\"/><text x=\"{0:.1f}\" "
        "y=\"{3:.1f}\" text-anchor=\"middle\">{4}</text>\n",
        px(t), at_y + kTop, at_y + kHeight - kBottom, at_y + kHeight - kBottom + 16, tick_text(t));
  }
  for (double t : ticks(y0, y1, panel.log_y)) {
    out += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"#ddd\"/><text x=\"{3:.1f}\" "
        "y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>\n",
        at_x + kLeft, at_x + kWidth - kRight, py(t), at_x + kLeft - 6, py(t) + 4, tick_text(t));
  }
  out += fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"none\" stroke=\"#888\"/>\n",
      at_x + kLeft, at_y + kTop, kWidth - kLeft - kRight, kHeight - kTop - kBottom);
  out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", at_x + (kWidth + kLeft) / 2,
                     at_y + kHeight - 12, escape(panel.x_name));
  out += fmt::format("<text transform=\"translate({:.1f} {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
                     at_x + 14, at_y + kHeight / 2, escape(panel.y_name));
  double legend = at_y + kTop + 16;
  const double legend_x = panel.legend_right ? at_x + kWidth - kRight - 150 : at_x + kLeft + 10;
  for (const Series& s : panel.series) {
    std::string line;
    for (auto [x, y] : s.points) line += fmt::format("{:.1f},{:.1f} ", px(x), py(y));
    out += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n", line, s.colour);
    if (s.dots) {
      for (auto [x, y] : s.points)
        out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"/>\n", px(x), py(y), s.colour);
    }
    if (panel.series.size() > 1) {
      out += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"4\" fill=\"{}\"/><text x=\"{:.1f}\" "
          "y=\"{:.1f}\">{}</text>\n",
          legend_x, legend - 6, s.colour, legend_x + 20, legend, escape(s.name));
      legend += 17;
    }
  }
  for (const Mark& mark : panel.marks) {
    if (mark.x < x0 || mark.x > x1) continue;
    const bool right_half = px(mark.x) > at_x + kWidth / 2;
    out += fmt::format(
        "<circle cx=\"{0:.1f}\" cy=\"{1:.1f}\" r=\"6\" fill=\"none\" stroke=\"#c0392b\" stroke-width=\"2.5\"/><text "
        "x=\"{2:.1f}\" y=\"{3:.1f}\" text-anchor=\"{4}\" fill=\"#c0392b\">{5}</text>\n",
        px(mark.x), py(mark.y), px(mark.x) + (right_half ? -10 : 10), py(mark.y) - 10, right_half ? "end" : "start",
        escape(mark.text));
  }
  return out;
}

Panel pareto_panel(const Plan& plan) {
  Panel panel{"Output for everybody against speed for one user",
              "tok/s for one user (log)",
              "output tok/s per device",
              true,
              false,
              {},
              {},
              true};
  Series dep{"dep", "#2471a3", {}, true}, tp{"tp", "#1e8449", {}, true};
  for (const Operating& point : plan.front)
    (point.layout == Layout::kTp ? tp : dep).points.emplace_back(point.user_tps, point.device_tps);
  for (Series& s : {std::ref(dep), std::ref(tp)}) {
    if (!s.points.empty()) panel.series.push_back(s);
  }
  if (plan.chosen) {
    panel.marks.push_back(
        {plan.chosen->user_tps, plan.chosen->device_tps,
         fmt::format("batch {}, {} tok/s/user", plan.chosen->batch, short_number(plan.chosen->user_tps))});
  }
  return panel;
}

void context_panels(const Plan& plan, Panel& cache, Panel& work) {
  cache = {"KV cache of one sequence", "context, tokens (log)", "GB (log)", true, true, {}, {}, false};
  work = {"FP8-equivalent operations to decode one token",
          "context, tokens (log)",
          "GFLOP (log)",
          true,
          true,
          {},
          {},
          false};
  const char* colours[] = {"#2471a3", "#1e8449", "#8e44ad", "#b7950b"};
  auto add = [&](const std::string& name, const std::string& colour, auto bytes, auto operations) {
    Series kv{name, colour, {}, false}, ops{name, colour, {}, false};
    for (int64_t tokens = 1024; tokens <= 1048576; tokens *= 2) {
      kv.points.emplace_back(tokens, static_cast<double>(bytes(tokens)) / 1e9);
      ops.points.emplace_back(tokens, static_cast<double>(operations(tokens)) / 1e9);
    }
    cache.series.push_back(kv);
    work.series.push_back(ops);
  };
  const BaselineV32& v32 = plan.data->v32;
  add(
      "V3.2", "#c0392b", [&](int64_t t) { return v32_kv_bytes(v32, t); },
      [&](int64_t t) { return v32_fp8_operations(v32, t); });
  size_t i = 0;
  for (const ModelEntry& entry : plan.data->models) {
    const Arithmetic m = count(entry.config);
    add(
        entry.id, colours[i++ % 4], [&](int64_t t) { return kv_bytes(m, t, plan.load.kv); },
        [&](int64_t t) { return fp8_operations(m, t).total(); });
  }
}

Panel cost_panel(const Plan& plan) {
  Panel panel{
      "Cost of a request against use", "use of capacity, %", "USD per request (log)", false, true, {}, {}, true};
  if (!plan.verdict || !plan.fit.fits) return panel;
  const Cost& c = plan.verdict->cost;
  Series self{"self-hosted", "#2471a3", {}, false}, hosted{"hosted", "#c0392b", {}, false};
  for (int use = 2; use <= 100; ++use) {
    self.points.emplace_back(use, c.self_request_full * 100 / use);
    hosted.points.emplace_back(use, c.hosted_request);
  }
  panel.series = {self, hosted};
  panel.marks.push_back(
      {100 * c.break_even_use, c.hosted_request, fmt::format("break-even {:.0f}%", 100 * c.break_even_use)});
  return panel;
}

}  // namespace

std::string plan_svg(const Plan& plan) {
  Panel cache, work;
  context_panels(plan, cache, work);
  std::vector<Panel> panels;
  if (plan.front.size() > 1) panels.push_back(pareto_panel(plan));
  if (plan.verdict && plan.fit.fits) panels.push_back(cost_panel(plan));
  panels.push_back(cache);
  panels.push_back(work);
  const size_t rows = (panels.size() + 1) / 2;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "font-family=\"system-ui, sans-serif\" font-size=\"12\">\n"
      "<title>{2}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"20\" y=\"30\" "
      "font-size=\"18\" font-weight=\"600\">{2}</text>\n",
      2 * kWidth, static_cast<double>(rows) * kHeight + 50,
      escape(fmt::format("{} on {} x {}, context {}, {}", plan.entry->id, plan.machine.devices, plan.machine.device.id,
                         with_commas(plan.load.context), date_text(plan.request.today))));
  for (size_t i = 0; i < panels.size(); ++i) {
    out += draw(panels[i], static_cast<double>(i % 2) * kWidth, 50 + static_cast<double>(i / 2) * kHeight);
  }
  return out + "</svg>\n";
}

}  // namespace nautile::plan
