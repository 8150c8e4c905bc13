// Rows as text, CSV and JSON.
#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "bench_rows.h"
#include "sys/clock.h"

namespace nautile {

std::string bench_text(const std::vector<BenchRow>& rows) {
  std::string out =
      fmt::format("{:8} {:>8} {:>5} {:>6} {:>9} {:>20} {:>9} {:>6} {:>12} {:>12} {:>8}\n", "", "depth", "batch", "chunk",
                  "tokens/s", "(slowest - fastest)", "bound", "%", "weights", "of ceiling", "experts");
  for (const BenchRow& r : rows) {
    const bool decode = r.what == "decode";
    out += fmt::format("{:8} {:>8} {:>5} {:>6} {:>9.2f} {:>20} {:>9.2f} {:>5.0f}% {:>12} {:>12} {:>8.1f}\n", r.what,
                       r.depth, r.batch, r.chunk, r.tokens_per_s, fmt::format("({:.2f} - {:.2f})", r.low, r.high),
                       r.bound_tokens_per_s(), r.percent_of_bound,
                       decode ? fmt::format("{:.1f} GB/s", r.weight_gbs()) : fmt::format("{:.3f} TFLOP/s", r.tflops()),
                       decode ? fmt::format("{:.0f}% read", r.percent_of_roof())
                              : fmt::format("{:.0f}% peak", r.percent_of_peak()),
                       r.experts);
  }
  out += "\nms a step by operation\n" + fmt::format("{:8} {:>8} {:>5} {:>6}", "", "depth", "batch", "chunk");
  for (const char* name : kOpNames) out += fmt::format(" {:>11}", name);
  out += "\n";
  for (const BenchRow& r : rows) {
    out += fmt::format("{:8} {:>8} {:>5} {:>6}", r.what, r.depth, r.batch, r.chunk);
    for (const double seconds : r.op_seconds) out += fmt::format(" {:>11.3f}", 1e3 * seconds);
    out += "\n";
  }
  constexpr double kMuch = 1;  // percent
  for (const BenchRow& r : rows) {
    if (r.percent_stolen < kMuch && r.percent_taken < kMuch) continue;
    out += fmt::format("{} depth {} batch {} chunk {}: disturbed: the host of this virtual machine kept {:.1f}% of the processors' "
                       "time, and pages of {:.1f}% of the experts were away (brought back before the clock ran)\n",
                       r.what, r.depth, r.batch, r.chunk, r.percent_stolen, r.percent_taken);
  }
  return out;
}

void LoadReport::progress(const LoadProgress& p) {
  const double now = seconds_now();
  if (parts.empty() || parts.back().what != p.what) parts.push_back({p.what, 0, now, now});
  parts.back().bytes = static_cast<double>(p.done);
  parts.back().end = now;
}

std::string load_text(const LoadReport& load, const std::vector<BenchRow>& rows) {
  std::string out = fmt::format("\nloaded in {:.2f} s", load.seconds);
  double read = 0;
  for (const BenchRow& r : rows) read = std::max(read, r.read_gbs);
  for (const LoadReport::Part& part : load.parts) {
    if (part.seconds() <= 0) continue;
    const double rate = part.bytes / part.seconds() / 1e9;
    out += fmt::format("; {} {:.2f} GB at {:.2f} GB/s", part.what, part.bytes / 1e9, rate);
    if (read > 0) out += fmt::format(" ({:.0f}% of the read rate)", 100 * rate / read);
  }
  out += fmt::format("\nmemory: weights {:.2f} GB ({}); at most {:.2f} GB while loading, {:.2f} anonymous and {:.2f} of files after\n",
                     load.weight_bytes / 1e9, load.mapped ? "mapped from a repacked file" : "in memory of the process",
                     load.peak_bytes / 1e9, load.anonymous_bytes / 1e9, load.file_bytes / 1e9);
  for (const BenchRow& r : rows) {
    out += fmt::format("  {:8} {:>8} {:>5} {:>6}  at most {:.3f} GB: {:.3f} x the weights; {:.1f} MB of it states\n", r.what, r.depth, r.batch,
                       r.chunk, r.peak_bytes / 1e9, r.peak_bytes / load.weight_bytes, r.state_bytes / 1e6);
  }
  return out;
}

std::string bench_csv(const std::vector<BenchRow>& rows) {
  std::string out =
      "what,depth,batch,chunk,threads,tokens_per_s,slowest,fastest,bound_tokens_per_s,weight_gb_per_s,read_gb_per_s,"
      "tflops,peak_tflops,experts";
  for (const char* name : kOpNames) out += fmt::format(",{}_ms", name);
  out += ",percent_of_bound,percent_stolen,percent_taken\n";
  for (const BenchRow& r : rows) {
    out += fmt::format("{},{},{},{},{},{:.4f},{:.4f},{:.4f},{:.4f},{:.3f},{:.3f},{:.4f},{:.4f},{:.2f}", r.what, r.depth,
                       r.batch, r.chunk, r.threads, r.tokens_per_s, r.low, r.high, r.bound_tokens_per_s(),
                       r.weight_gbs(), r.read_gbs, r.tflops(), r.ceilings.float_tflops, r.experts);
    for (const double seconds : r.op_seconds) out += fmt::format(",{:.4f}", 1e3 * seconds);
    out += fmt::format(",{:.1f},{:.1f},{:.1f}\n", r.percent_of_bound, r.percent_stolen, r.percent_taken);
  }
  return out;
}

std::string bench_json(const std::vector<BenchRow>& rows, const std::string& isa, const std::string& numerics, int layers,
                       const Ceilings& ceilings, const LoadReport& load) {
  Json out = {{"cpu", cpu_name()},
              {"isa", isa},
              {"numerics", numerics},
              {"layers", layers},
              {"read_gb_per_s", ceilings.read_gbs},
              {"peak_tflops", ceilings.float_tflops},
              {"peak_int8_tops", ceilings.byte_tops},
              {"load",
               {{"seconds", load.seconds},
                {"mapped", load.mapped},
                {"weight_bytes", load.weight_bytes},
                {"peak_bytes", load.peak_bytes},
                {"anonymous_bytes", load.anonymous_bytes},
                {"file_bytes", load.file_bytes},
                {"parts", Json::array()}}},
              {"rows", Json::array()}};
  for (const NodeRate& node : ceilings.nodes) {
    out["nodes"].push_back({{"node", node.node}, {"read_gb_per_s", node.gbs}});
  }
  for (const LoadReport::Part& part : load.parts) {
    out["load"]["parts"].push_back({{"what", part.what}, {"bytes", part.bytes}, {"seconds", part.seconds()}});
  }
  for (const BenchRow& r : rows) {
    out["threads"] = r.threads;
    Json row = {{"what", r.what},
                {"depth", r.depth},
                {"batch", r.batch},
                {"chunk", r.chunk},
                {"threads", r.threads},
                {"tokens_per_s", r.tokens_per_s},
                {"slowest", r.low},
                {"fastest", r.high},
                {"bound_tokens_per_s", r.bound_tokens_per_s()},
                {"percent_of_bound", r.percent_of_bound},
                {"read_gb_per_s", r.read_gbs},
                {"weight_gb_per_s", r.weight_gbs()},
                {"percent_of_roof", r.percent_of_roof()},
                {"tflops", r.tflops()},
                {"percent_of_peak", r.percent_of_peak()},
                {"experts_a_layer", r.experts},
                {"percent_stolen", r.percent_stolen},
                {"percent_taken", r.percent_taken},
                {"peak_memory_bytes", r.peak_bytes},
                {"state_bytes", r.state_bytes},
                {"bytes", {{"weights", r.cost.weight_bytes()}, {"experts", r.cost.experts.bytes}, {"attention", r.cost.attention.bytes}, {"index", r.cost.index.bytes}}},
                {"operations", {{"weights", r.cost.weight_ops()}, {"experts", r.cost.experts.float_ops + r.cost.experts.byte_ops}, {"attention", r.cost.attention.float_ops}, {"index", r.cost.index.byte_ops}}}};
    for (size_t i = 0; i < kOps; ++i) row["ms_a_step"][kOpNames[i]] = 1e3 * r.op_seconds[i];
    if (r.depth == 0 && r.batch == 1) {  // of prefill: the longest chunk, which was asked for last
      if (r.what == "decode") out["decode_percent_of_roof"] = r.percent_of_roof();
      if (r.what == "prefill") out["prefill_percent_of_peak"] = r.percent_of_peak();
    }
    out["rows"].push_back(row);
  }
  return out.dump(2) + "\n";
}

}  // namespace nautile
