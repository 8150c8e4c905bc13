// The bench's figure: a roofline and bars of time by operation, as one SVG.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench_rows.h"

namespace nautile {
namespace {

constexpr double kPanel = 620, kLeft = 80, kTop = 84, kPlot = 400, kBar = 22, kLabel = 150;
constexpr std::array<const char*, kOps> kColours = {"#aab7b8", "#f4d03f", "#2471a3", "#85c1e9", "#76d7c4",
                                                    "#8e44ad", "#c0392b", "#1e8449", "#34495e"};

std::string short_tokens(int64_t n) {
  if (n >= 1000000) return fmt::format("{:.2g}M", static_cast<double>(n) / (1 << 20));
  return n >= 1024 ? fmt::format("{}k", (n + 512) / 1024) : fmt::format("{}", n);
}
std::string name_of(const BenchRow& r) {
  return r.what == "decode" ? fmt::format("decode {} @ {}", r.batch, short_tokens(r.depth))
                            : fmt::format("prefill {} @ {}", r.chunk, short_tokens(r.depth));
}
std::string text(double x, double y, const std::string& words, const char* style = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, style, words);
}

std::string roofline(const std::vector<BenchRow>& rows, const Ceilings& c, double height) {
  // Intensity: operations a byte; performance: GFLOP/s. Both logarithmic.
  const double x0 = 0.5, x1 = 4000, peak = 1e3 * std::max(c.float_tflops, c.byte_tops), y0 = c.read_gbs * x0 / 4, y1 = peak * 2;
  auto px = [&](double x) { return kLeft + std::log(std::clamp(x, x0, x1) / x0) / std::log(x1 / x0) * (kPanel - kLeft - 30); };
  auto py = [&](double y) { return kTop + height - std::log(std::clamp(y, y0, y1) / y0) / std::log(y1 / y0) * height; };
  std::string out = text(kLeft, kTop - 16, "Roofline", "font-size=\"15\" font-weight=\"600\"");
  for (double x = 1; x <= x1; x *= 10) {
    out += fmt::format("<line x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2}\" stroke=\"#eee\"/>\n", px(x), kTop, kTop + height);
    out += text(px(x), kTop + height + 18, fmt::format("{:g}", x), "text-anchor=\"middle\"");
  }
  for (double y = std::pow(10, std::ceil(std::log10(y0))); y <= y1; y *= 10) {
    out += fmt::format("<line x1=\"{1}\" y1=\"{0:.1f}\" x2=\"{2}\" y2=\"{0:.1f}\" stroke=\"#eee\"/>\n", py(y), kLeft, kPanel - 30);
    out += text(kLeft - 8, py(y) + 4, fmt::format("{:g}", y), "text-anchor=\"end\"");
  }
  auto roof = [&](double top, const std::string& words, const char* colour) {
    const double knee = top / c.read_gbs;
    out += fmt::format(
        "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"2\" points=\"{:.1f},{:.1f} {:.1f},{:.1f} {:.1f},{:.1f}\"/>\n",
        colour, px(x0), py(c.read_gbs * x0), px(knee), py(top), px(x1), py(top));
    out += text(px(x1), py(top) - 6, words, "text-anchor=\"end\" fill=\"#555\"");
  };
  roof(1e3 * c.float_tflops, fmt::format("BF16 or float peak {:.2f} TFLOP/s", c.float_tflops), "#222");
  if (c.byte_tops > 1.05 * c.float_tflops) roof(1e3 * c.byte_tops, fmt::format("int8 peak {:.2f} Top/s", c.byte_tops), "#999");
  out += text(px(x0) + 8, py(c.read_gbs * x0) - 14, fmt::format("read {:.0f} GB/s", c.read_gbs), "fill=\"#555\"");
  std::vector<double> decode_labels, prefill_labels;
  for (const BenchRow& r : rows) {
    const double x = px(r.cost.ops() / r.cost.bytes()), y = py(r.cost.ops() / r.step_s() / 1e9);
    const bool decode = r.what == "decode";
    out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.5\" fill=\"{}\" fill-opacity=\"0.8\"/>\n", x, y, decode ? "#2471a3" : "#c0392b");
    // Labels to the right, those of prefill below the roof; they give way downwards.
    const double label_x = decode ? x + 12 : std::max(x + 12, px(450));
    double at = decode ? y + 4 : std::max(y + 4, py(1e3 * c.float_tflops) + 18);
    std::vector<double>& taken = decode ? decode_labels : prefill_labels;
    while (std::any_of(taken.begin(), taken.end(), [&](double used) { return std::fabs(used - at) < 13; })) at += 1;
    taken.push_back(at);
    out += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ccc\"/>\n", x, y, label_x - 2, at - 4);
    out += text(label_x, at, fmt::format("{}: {:.3g} tok/s", name_of(r), r.tokens_per_s), "font-size=\"11\"");
  }
  out += text(kLeft + (kPanel - kLeft) / 2, kTop + height + 38, "operations a byte", "text-anchor=\"middle\"");
  return out + fmt::format("<text transform=\"translate(20 {:.0f}) rotate(-90)\" text-anchor=\"middle\">GFLOP/s</text>\n", kTop + height / 2);
}

std::string bars(const std::vector<BenchRow>& rows) {
  const double left = kPanel + kLabel, width = kPanel - kLabel - 60;
  std::string out = text(left, kTop - 16, "Share of a step by operation; the mark is the bound", "font-size=\"15\" font-weight=\"600\"");
  double y = kTop;
  for (const BenchRow& r : rows) {
    double total = 0, at = left;
    for (const double s : r.op_seconds) total += s;
    out += text(left - 8, y + 15, name_of(r), "text-anchor=\"end\"");
    for (size_t i = 0; i < kOps && total > 0; ++i) {
      const double w = width * r.op_seconds[i] / total;
      out += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{}\" fill=\"{}\"><title>{} {:.3f} ms</title></rect>\n",
                         at, y, w, kBar - 4, kColours[i], kOpNames[i], 1e3 * r.op_seconds[i]);
      at += w;
    }
    const double bound = left + width * std::min(1.0, r.percent_of_bound / 100);
    out += fmt::format("<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\" stroke=\"#000\" stroke-width=\"2\"/>\n", bound, y - 2, y + kBar - 2);
    out += text(left + width + 8, y + 15, fmt::format("{:.0f}%", r.percent_of_bound));
    y += kBar;
  }
  y += 10;
  for (size_t i = 0; i < kOps; ++i) {
    const double x = left + static_cast<double>(i % 3) * 130, row = y + static_cast<double>(i / 3) * 18;
    out += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"12\" height=\"12\" fill=\"{}\"/>\n", x, row, kColours[i]);
    out += text(x + 17, row + 10, kOpNames[i]);
  }
  return out;
}

}  // namespace

std::string bench_svg(const std::vector<BenchRow>& rows, const std::string& title) {
  const double height = std::max(kPlot, static_cast<double>(rows.size()) * kBar + 70);
  Ceilings c;
  for (const BenchRow& r : rows) {
    c.read_gbs = std::max(c.read_gbs, r.read_gbs);
    c.float_tflops = std::max(c.float_tflops, r.ceilings.float_tflops);
    c.byte_tops = std::max(c.byte_tops, r.ceilings.byte_tops);
  }
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "font-family=\"system-ui, sans-serif\" font-size=\"12\">\n<title>{2}</title>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
      2 * kPanel, height + kTop + 60, title);
  out += text(20, 32, title, "font-size=\"18\" font-weight=\"600\"");
  return out + roofline(rows, c, height) + bars(rows) + "</svg>\n";
}

}  // namespace nautile
