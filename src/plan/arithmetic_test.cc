// The exact totals of both published models, against the shipped figures and the published index sizes.
#include "plan/arithmetic.h"

#include <doctest/doctest.h>

#include <map>
#include <string>

using namespace nautile;
using namespace nautile::plan;

namespace {
const PlanData& data() {
  static const PlanData kData = load_data().value();
  return kData;
}
const Arithmetic& model(const char* id) {
  static std::map<std::string, Arithmetic> counted;
  const ModelEntry* entry = data().model(id).value();
  auto known = counted.find(entry->id);
  return known != counted.end() ? known->second : counted.emplace(entry->id, count(entry->config)).first->second;
}
}  // namespace

TEST_CASE("parameters and bytes of V4-Pro and V4-Flash are exact") {
  const Arithmetic pro = model("v4-pro"), flash = model("v4-flash");
  CHECK(pro.params == 1'572'997'201'763);
  CHECK(pro.draft_params == 25'840'145'979);
  CHECK(pro.active == 48'852'402'019);
  CHECK(pro.active_with_embedding() == 49'779'081'059);
  CHECK(pro.hash_entries == 2'327'040);
  CHECK(flash.params == 284'332'240'471);
  CHECK(flash.draft_params == 6'610'048'891);
  CHECK(flash.active == 13'270'101'591);
  CHECK(flash.active_with_embedding() == 13'799'632'471);
  for (const ModelEntry& entry : data().models) {
    CHECK(weight_bytes(count(entry.config), WeightFormat::kOfficial) == entry.published_bytes);
  }
}

TEST_CASE("weight formats, cache and operations reproduce every figure of models.json") {
  const Json root = parse_json(shipped_file("models.json"), "models.json").value();
  int checked = 0;
  for (const Json& entry : root["models"]) {
    const std::string id = entry["id"];
    if (id == "deepseek-v3.2") {
      for (const auto& [tokens, bytes] : entry["kv"]["bytes_per_sequence_fp8"].items()) {
        CHECK(v32_kv_bytes(data().v32, std::stoll(tokens)) == bytes.get<int64_t>());
      }
      for (const auto& [tokens, ops] : entry["flops_per_token_decode"].items()) {
        CHECK(v32_raw_operations(data().v32, std::stoll(tokens)) == ops["raw"].get<int64_t>());
        CHECK(v32_fp8_operations(data().v32, std::stoll(tokens)) == ops["fp8_equivalent"].get<int64_t>());
        checked += 2;
      }
      continue;
    }
    const Arithmetic m = model(id.c_str());
    const Json& bytes = entry["weight_bytes"];
    const std::pair<WeightFormat, const char*> kNames[] = {{WeightFormat::kOfficial, "official_fp4_fp8"},
                                                           {WeightFormat::kNvfp4, "nvfp4_experts"},
                                                           {WeightFormat::kFp8, "fp8_all"},
                                                           {WeightFormat::kBf16, "bf16_all"},
                                                           {WeightFormat::kQ8_0, "gguf_q8_0"},
                                                           {WeightFormat::kQ4, "gguf_q4_k_m_4p85bpw"},
                                                           {WeightFormat::kMxfp4Q8, "gguf_mxfp4_experts_q8_rest"},
                                                           {WeightFormat::kIq2, "gguf_iq2xxs_q2k_experts_q8_rest"}};
    for (const auto& [format, name] : kNames) {
      CAPTURE(name);
      CHECK(weight_bytes(m, format) == bytes[name]["bytes"].get<int64_t>());
      if (bytes[name].contains("bytes_without_mtp")) {
        CHECK(weight_bytes_without_draft(m, format) == bytes[name]["bytes_without_mtp"].get<int64_t>());
      }
      ++checked;
    }
    CHECK(compressor_state_bytes(m) == entry["kv"]["compressor_state_bytes_per_seq"].get<int64_t>());
    const std::pair<KvFormat, const char*> kCaches[] = {{KvFormat::kFp8Fp4, "fp8kv_fp4idx"},
                                                        {KvFormat::kFp8Fp8, "fp8kv_fp8idx"},
                                                        {KvFormat::kBf16, "bf16kv_bf16idx"},
                                                        {KvFormat::kNvfp4, "nvfp4kv_fp4idx"}};
    for (const auto& [format, name] : kCaches) {
      for (const auto& [tokens, value] : entry["kv"]["bytes_per_sequence"][name].items()) {
        CHECK(kv_bytes(m, std::stoll(tokens), format) == value.get<int64_t>());
        ++checked;
      }
    }
    for (const auto& [tokens, ops] : entry["flops_per_token_decode"].items()) {
      const int64_t at = std::stoll(tokens);
      CHECK(raw_operations(m, at).total() == ops["raw"].get<int64_t>());
      CHECK(fp8_operations(m, at).total() == ops["fp8_equivalent"].get<int64_t>());
      const Json& parts = ops["parts_fp8_equivalent"];
      CHECK(fp8_operations(m, at).index == parts["idx"].get<int64_t>());
      CHECK(fp8_operations(m, at).csa == parts["csa"].get<int64_t>());
      CHECK(fp8_operations(m, at).hca == parts["hca"].get<int64_t>());
      checked += 2;
    }
  }
  CHECK(checked == 2 * (8 + 24 + 8) + 8);
}

TEST_CASE("components add up and match the published component table") {
  const Json root = parse_json(shipped_file("models.json"), "models.json").value();
  for (const char* id : {"v4-pro", "v4-flash"}) {
    const Arithmetic m = model(id);
    int64_t params = 0, bytes = 0, active = 0;
    for (const ComponentRow& row : m.components) {
      if (row.draft) continue;
      params += row.params;
      bytes += row.bytes;
      active += row.active;
    }
    CHECK(params == m.params);
    CHECK(bytes == m.bytes);
    CHECK(active == m.active);
    CHECK(m.gemm_expert + m.gemm_fp8 + m.gemm_bf16 + m.elementwise == m.active);
  }
  const Arithmetic pro = model("v4-pro");
  auto row = [&](const char* name) {
    for (const ComponentRow& found : pro.components) {
      if (found.name == name && !found.draft) return found.params;
    }
    return int64_t{-1};
  };
  CHECK(row("attention") == 18'293'456'896);
  CHECK(row("compressor CSA") == 440'540'160);
  CHECK(row("compressor HCA") == 229'588'480);
  CHECK(row("indexer") == 501'384'960);
  CHECK(row("hyper-connections") == 84'069'603);
  CHECK(row("gate") == 167'925'504);
  CHECK(row("routed experts") == 1'547'396'186'112);
  CHECK(row("shared experts") == 4'029'677'568);
  CHECK(row("norms, sinks") == 1'014'400);
  CHECK(row("hash tables") == 0);
}

TEST_CASE("published ratios at a million tokens: 10% and 7% of the cache, 27% and 10% of the operations") {
  const BaselineV32& v32 = data().v32;
  auto cache = [&](const char* id) {
    return static_cast<double>(kv_bytes(model(id), 1'000'000, KvFormat::kFp8Fp4)) /
           static_cast<double>(v32_kv_bytes(v32, 1'000'000));
  };
  auto work = [&](const char* id) {
    return static_cast<double>(fp8_operations(model(id), 1'000'000).total()) /
           static_cast<double>(v32_fp8_operations(v32, 1'000'000));
  };
  CHECK(cache("v4-pro") == doctest::Approx(0.1048).epsilon(0.001));
  CHECK(cache("v4-flash") == doctest::Approx(0.0732).epsilon(0.001));
  CHECK(work("v4-pro") == doctest::Approx(0.271).epsilon(0.002));
  CHECK(work("v4-flash") == doctest::Approx(0.102).epsilon(0.003));
}

TEST_CASE("the cache at odd lengths follows the layers' own rules") {
  const Arithmetic m = model("v4-flash");
  // Against a sum layer by layer, written from the rule.
  for (int64_t tokens : {1, 3, 4, 5, 127, 128, 129, 131, 511, 4097, 99999}) {
    int64_t sum = 0;
    for (int ratio : m.config.compress_ratios) {
      sum += std::min<int64_t>(tokens, 128) * 584;
      if (ratio != 0) sum += tokens / ratio * 584;
      if (ratio == 4) sum += tokens / 4 * 68;
    }
    CHECK(kv_bytes(m, tokens, KvFormat::kFp8Fp4) == sum);
    CHECK(kv_read_bytes(m, tokens, KvFormat::kFp8Fp4) <= sum);
  }
}
