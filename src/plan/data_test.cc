// The shipped data are whole, and broken data name file and field.
#include "plan/data.h"

#include <doctest/doctest.h>

#include "plan/words.h"

using namespace nautile;
using namespace nautile::plan;

namespace {
const PlanData& data() {
  static const PlanData kData = load_data().value();
  return kData;
}
// The shipped file with one change.
Status with(const char* file, const char* from, const char* to) {
  std::string text(shipped_file(file));
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  text.replace(at, std::string(from).size(), to);
  return load_data({{file, text}}).status();
}
}  // namespace

TEST_CASE("every shipped number has a source, a date and a mark") {
  int seen = 0;
  auto check = [&](const Source& source) {
    CHECK_FALSE(source.text.empty());
    CHECK(parse_date(source.date, "date").ok());
    ++seen;
  };
  for (const auto& m : data().models) check(m.source);
  check(data().v32.source);
  for (const auto& h : data().hardware) {
    check(h.source);
    check(h.compute_source);
    for (const auto& r : h.rentals) check(r.source);
    if (h.owned) check(h.owned->source);
    if (h.purchase) check(h.purchase->source);
  }
  for (const auto& s : data().storage) check(s.source);
  for (const auto& p : data().prices) check(p.source);
  for (const auto& r : data().published) check(r.source);
  for (const auto& c : data().constants) check(c.source);
  CHECK(seen > 130);
  CHECK(data().hardware.size() == 19);
  CHECK(data().prices.size() == 18);
  CHECK(data().models.size() == 2);
}

TEST_CASE("the split names in-sample and held-out rows before anything is fitted") {
  int in = 0, out = 0;
  for (const PublishedRow& row : data().published)
    (row.sample == Sample::kIn ? in : out) += row.sample != Sample::kNotComparable;
  CHECK(in == 35);
  CHECK(out == 25);
  for (const PublishedRow& row : data().published) {
    if (row.hardware == "mi355x" || row.stack == "aggregated") CHECK(row.sample == Sample::kHeldOut);
  }
}

TEST_CASE("a broken file is refused with its file and field") {
  Status s = with("gpus.json", "\"memory_gb\": 80", "\"memory_gb\": -80");
  CHECK(s.code() == Code::kInvalidArgument);
  CHECK(s.where() == "gpus.json.gpus[0] (h100-sxm)");
  CHECK(s.what().find("memory_gb") != std::string::npos);
  CHECK(with("gpus.json", "\"memory_gb\": 80", "\"memory_gb\": \"80\"").what().find("must be a number") !=
        std::string::npos);
  CHECK(with("gpus.json", "\"mem_bw_tbs\": 3.35", "\"mem_bw_tbs\": 3350").what().find("looks like GB/s") !=
        std::string::npos);
  CHECK(with("gpus.json", "\"mark\": \"vendor\"", "\"mark\": \"rumour\"").what().find("rumour") != std::string::npos);
  CHECK(with("gpus.json", "\"low\": 1.99", "\"low\": 9.99").what().find("below") != std::string::npos);
  CHECK(with("gpus.json", "planner-gpus/1", "planner-gpus/9").code() == Code::kUnsupported);
  CHECK(with("gpus.json", "{", "[").code() == Code::kCorrupt);
  CHECK(with("prices.json", "2026-04-24", "2026-04-31").what().find("not a date") != std::string::npos);
  CHECK(with("constants.json", "bandwidth_use", "bandwith_use").what().find("bandwidth_use") != std::string::npos);
  CHECK(with("published_throughput.json", "in-sample", "in-sample").ok());
  CHECK(with("published_throughput.json", "\"sample\": \"in-sample\"", "\"sample\": \"maybe\"").what().find("maybe") !=
        std::string::npos);
  CHECK(with("models.json", "\"compress_ratios\": [\n     128", "\"compress_ratios\": [\n     127")
            .what()
            .find("compress_ratios") != std::string::npos);
}

TEST_CASE("names: short forms, starts, and the near ones") {
  CHECK(data().model("v4-pro").value()->id == "deepseek-v4-pro");
  CHECK(data().device("gb300").value()->id == "gb300-nvl72");
  CHECK(data().device("b200").value()->id == "b200-sxm");
  CHECK(data().device("gb30o").status().fix().starts_with("did you mean gb300-nvl4-tray or gb300-nvl72"));
  CHECK(data().device("abacus").status().fix().starts_with("known: h100-sxm, "));  // none is near: all are listed
  CHECK(data().device("mi355").value()->id == "mi355x");
  CHECK(data().device("m1355x").status().fix() == "did you mean mi355x?");
  CHECK(data().device("gb").status().code() == Code::kInvalidArgument);  // several, with different memory
  CHECK(data().model("v4pro").status().fix() == "did you mean v4-pro?");
  CHECK(data().disk("nvme-gen6").status().fix() == "did you mean nvme-gen4 or nvme-gen5?");
}

TEST_CASE("words: counts, dates, sizes") {
  CHECK(parse_tokens("32k", "t").value() == 32768);
  CHECK(parse_tokens("1m", "t").value() == 1048576);
  CHECK(parse_tokens("1000000", "t").value() == 1000000);
  for (const char* bad : {"", "k", "32kb", "-1", "1e6", "3.5k", "99999999999999999999", "9223372036854775807m"}) {
    CHECK_FALSE(parse_tokens(bad, "t").ok());
  }
  CHECK(date_text(parse_date("2026-11-24", "t").value()) == "2026-11-24");
  CHECK(parse_date("1970-01-02", "t").value() == 1);
  CHECK(parse_date("2024-02-29", "t").ok());
  for (const char* bad : {"2026-02-29", "2026-13-01", "26-01-01", "2026/01/01", "2026-1-1", "yesterday", ""})
    CHECK_FALSE(parse_date(bad, "t").ok());
  for (int64_t day : {0, 59, 60, 11016, 20000, 20781}) CHECK(parse_date(date_text(day), "t").value() == day);
  CHECK(both_units(864'704'792'696) == "864.7 GB (805.3 GiB)");
  CHECK(with_commas(-1234567) == "-1,234,567");
  CHECK(with_commas(999) == "999");
}

TEST_CASE("models.json and the engine's published shapes are the same model") {
  for (const char* name : {"v4-pro", "v4-flash"}) {
    const ModelConfig& ours = data().model(name).value()->config;
    const ModelConfig engine = shape_config(name).value();
    CHECK(ours.hidden == engine.hidden);
    CHECK(ours.layers == engine.layers);
    CHECK(ours.heads == engine.heads);
    CHECK(ours.head_dim == engine.head_dim);
    CHECK(ours.rope_dim == engine.rope_dim);
    CHECK(ours.q_lora_rank == engine.q_lora_rank);
    CHECK(ours.o_groups == engine.o_groups);
    CHECK(ours.o_lora_rank == engine.o_lora_rank);
    CHECK(ours.window == engine.window);
    CHECK(ours.compress_ratios == engine.compress_ratios);
    CHECK(ours.index_heads == engine.index_heads);
    CHECK(ours.index_topk == engine.index_topk);
    CHECK(ours.routed_experts == engine.routed_experts);
    CHECK(ours.experts_per_token == engine.experts_per_token);
    CHECK(ours.expert_inter == engine.expert_inter);
    CHECK(ours.hash_layers == engine.hash_layers);
    CHECK(ours.hc_mult == engine.hc_mult);
    CHECK(ours.mtp_layers == engine.mtp_layers);
    CHECK(ours.max_positions == engine.max_positions);
    CHECK(ours.vocab_size == engine.vocab_size);
  }
}
