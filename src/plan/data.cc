// Reads and checks the planner's JSON files.
#include "plan/data.h"

#include <fmt/format.h>

#include <algorithm>

#include "plan/words.h"

namespace nautile::plan {

extern const std::string_view kShippedFiles[];

namespace {

// One JSON object being read: fields by name, the first error kept, every error naming file and field.
class Reader {
 public:
  Reader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object_.is_object()) fail("must be an object");
  }
  bool has(const char* key) const { return object_.is_object() && object_.contains(key) && !object_[key].is_null(); }
  std::string text(const char* key) { return take(json_string(object_, key, where_), std::string()); }
  std::string text_or(const char* key, std::string other) { return has(key) ? text(key) : other; }
  int64_t whole(const char* key) {
    const int64_t value = take(json_int(object_, key, where_), int64_t{0});
    if (value < 0) fail(fmt::format("\"{}\" must not be negative, but is {}", key, value));
    return value;
  }
  int small(const char* key) {
    const int64_t value = whole(key);
    if (value > INT32_MAX) fail(fmt::format("\"{}\" is too large: {}", key, value));
    return static_cast<int>(std::min<int64_t>(value, INT32_MAX));
  }
  double number(const char* key) {
    const double value = take(json_number(object_, key, where_), 0.0);
    if (!(value >= 0)) fail(fmt::format("\"{}\" must not be negative, but is {}", key, value));
    return value;
  }
  double positive(const char* key) {
    const double value = number(key);
    if (value == 0) fail(fmt::format("\"{}\" must be above zero", key));
    return value;
  }
  double number_or(const char* key, double other) { return has(key) ? number(key) : other; }
  std::optional<double> maybe(const char* key) { return has(key) ? std::optional(number(key)) : std::nullopt; }
  std::string date(const char* key) {
    const std::string value = text(key);
    if (status_.ok()) keep(parse_date(value, fmt::format("{}.{}", where_, key)).status());
    return value;
  }
  Source source(const char* source_key = "source", const char* date_key = "date", const char* mark_key = "mark") {
    Source found;
    found.text = text(source_key);
    found.date = date(date_key);
    const std::string mark = text(mark_key);
    if (mark == "vendor")
      found.mark = Mark::kVendor;
    else if (mark == "third party")
      found.mark = Mark::kThirdParty;
    else if (mark == "computed")
      found.mark = Mark::kComputed;
    else if (mark == "assumption")
      found.mark = Mark::kAssumption;
    else if (mark == "measured")
      found.mark = Mark::kMeasured;
    else
      fail(fmt::format("\"{}\" must be vendor, third party, computed, assumption or measured, but is \"{}\"", mark_key,
                       mark));
    if (found.text.empty()) fail(fmt::format("\"{}\" is empty", source_key));
    return found;
  }
  Reader child(const char* key) {
    if (has(key) && object_[key].is_object()) return Reader(object_[key], fmt::format("{}.{}", where_, key));
    fail(fmt::format("\"{}\" must be an object", key));
    return Reader(empty(), fmt::format("{}.{}", where_, key));
  }
  const Json& list(const char* key) {
    static const Json kNone = Json::array();
    if (has(key) && object_[key].is_array()) return object_[key];
    fail(fmt::format("\"{}\" must be a list", key));
    return kNone;
  }
  const std::string& where() const { return where_; }
  void fail(std::string what) { keep({Code::kInvalidArgument, std::move(what), where_}); }
  void keep(Status status) {
    if (status_.ok() && !status.ok()) status_ = std::move(status);
  }
  const Status& status() const { return status_; }

 private:
  static const Json& empty() {
    static const Json kEmpty = Json::object();
    return kEmpty;
  }
  template <class T>
  T take(Result<T> result, T other) {
    if (result.ok()) return std::move(result).value();
    keep(result.status());
    return other;
  }
  const Json& object_;
  std::string where_;
  Status status_;
};

Status expect_schema(Reader& file, const std::string& wanted) {
  const std::string schema = file.text("schema");
  NAUTILE_RETURN_IF_ERROR(file.status());
  if (schema == wanted) return {};
  return {Code::kUnsupported, fmt::format("\"schema\" is \"{}\", this program reads \"{}\"", schema, wanted),
          file.where()};
}

// Visits each entry of a list; the entry's id goes into the place of its errors.
template <class Visit>
Status each(Reader& file, const char* key, const char* id_key, Visit visit, bool may_be_empty = false) {
  const Json& list = file.list(key);
  NAUTILE_RETURN_IF_ERROR(file.status());
  int index = 0;
  for (const Json& item : list) {
    std::string place = fmt::format("{}.{}[{}]", file.where(), key, index++);
    if (item.is_object() && item.contains(id_key) && item[id_key].is_string()) {
      place += fmt::format(" ({})", item[id_key].get_ref<const std::string&>());
    }
    Reader entry(item, place);
    if (entry.status().ok()) visit(entry);
    NAUTILE_RETURN_IF_ERROR(entry.status());
  }
  if (list.empty() && !may_be_empty) return {Code::kInvalidArgument, fmt::format("\"{}\" is empty", key), file.where()};
  return {};
}

Status read_models(const Json& root, const std::string& where, PlanData& data) {
  Reader file(root, where);
  NAUTILE_RETURN_IF_ERROR(expect_schema(file, "planner-models/1"));
  NAUTILE_RETURN_IF_ERROR(each(file, "models", "id", [&](Reader& entry) {
    const std::string id = entry.text("id");
    Source source = entry.source("source", "source_date");
    if (id == "deepseek-v3.2") {
      BaselineV32& v32 = data.v32;
      v32.source = source;
      Reader config = entry.child("config"), totals = entry.child("totals"), kv = entry.child("kv");
      Reader entries = kv.child("entry_bytes"), index = kv.child("index_entry_bytes");
      v32.vocab = config.small("vocab_size");
      v32.layers = config.small("num_hidden_layers");
      v32.dense_layers = config.small("first_k_dense_replace");
      v32.experts = config.small("n_routed_experts");
      v32.heads = config.small("num_attention_heads");
      v32.hidden = config.small("hidden_size");
      v32.index_heads = config.small("index_n_heads");
      v32.index_head_dim = config.small("index_head_dim");
      v32.topk = config.small("index_topk");
      v32.kv_lora = config.small("kv_lora_rank");
      v32.qk_nope = config.small("qk_nope_head_dim");
      v32.rope = config.small("qk_rope_head_dim");
      v32.params = totals.whole("total_main");
      v32.mtp_params = totals.whole("mtp_layer");
      v32.active = totals.whole("active_main_excluding_embedding");
      v32.entry_fp8 = entries.whole("fp8_mixed");
      v32.index_fp8 = index.whole("fp8");
      for (const Reader* part : {&config, &totals, &kv, &entries, &index}) entry.keep(part->status());
      return;
    }
    ModelEntry model;
    model.id = id;
    model.label = entry.text("published_label");
    model.published_bytes = entry.whole("published_index_total_size");
    model.source = source;
    Reader config = entry.child("config");
    ModelConfig& c = model.config;
    c.vocab_size = config.small("vocab_size");
    c.hidden = config.small("hidden_size");
    c.layers = config.small("num_hidden_layers");
    c.heads = config.small("num_attention_heads");
    c.head_dim = config.small("head_dim");
    c.rope_dim = config.small("qk_rope_head_dim");
    c.q_lora_rank = config.small("q_lora_rank");
    c.o_groups = config.small("o_groups");
    c.o_lora_rank = config.small("o_lora_rank");
    c.window = config.small("sliding_window");
    c.index_heads = config.small("index_n_heads");
    c.index_head_dim = config.small("index_head_dim");
    c.index_topk = config.small("index_topk");
    c.routed_experts = config.small("n_routed_experts");
    c.experts_per_token = config.small("num_experts_per_tok");
    c.shared_experts = config.small("n_shared_experts");
    c.expert_inter = config.small("moe_intermediate_size");
    c.hash_layers = config.small("num_hash_layers");
    c.hc_mult = config.small("hc_mult");
    c.mtp_layers = config.small("num_nextn_predict_layers");
    c.max_positions = config.small("max_position_embeddings");
    const Json& ratios = config.list("compress_ratios");
    // The published list carries one entry more, for the MTP block.
    for (size_t i = 0; i < ratios.size() && i < static_cast<size_t>(c.layers); ++i) {
      const bool known = ratios[i].is_number_integer() && (ratios[i] == 0 || ratios[i] == 4 || ratios[i] == 128);
      if (!known) config.fail("\"compress_ratios\" must hold 0, 4 or 128");
      c.compress_ratios.push_back(known ? ratios[i].get<int>() : 0);
    }
    if (config.status().ok() && c.compress_ratios.size() != static_cast<size_t>(c.layers)) {
      config.fail(fmt::format("\"compress_ratios\" has {} entries for {} layers", c.compress_ratios.size(), c.layers));
    }
    if (config.status().ok() && (c.layers == 0 || c.hidden == 0 || c.routed_experts < c.experts_per_token ||
                                 c.experts_per_token == 0 || c.o_groups == 0 || c.heads % c.o_groups != 0)) {
      config.fail("layers, widths, expert counts and output groups contradict each other");
    }
    entry.keep(config.status());
    data.models.push_back(std::move(model));
  }));
  if (data.models.empty() || data.v32.params == 0) {
    return {Code::kInvalidArgument, "\"models\" needs a V4 model and the deepseek-v3.2 baseline", where};
  }
  return {};
}

Hardware read_device(Reader& entry) {
  Hardware device;
  device.id = entry.text("id");
  device.note = entry.text_or("note", "");
  const std::string kind = entry.text_or("class", "gpu");
  if (kind == "cpu")
    device.device_class = DeviceClass::kCpu;
  else if (kind == "unified")
    device.device_class = DeviceClass::kUnified;
  else if (kind != "gpu")
    entry.fail(fmt::format("\"class\" must be gpu, cpu or unified, but is \"{}\"", kind));
  device.memory_gb = entry.positive("memory_gb");
  device.bandwidth_tbs = entry.positive("mem_bw_tbs");
  if (device.bandwidth_tbs > 100) entry.fail("\"mem_bw_tbs\" is in TB/s; a value above 100 looks like GB/s");
  device.source = entry.source("source", "source_date");
  Reader peak = entry.child("dense_tflops");
  device.fp4_tflops = peak.number_or("fp4", 0);
  device.fp8_tflops = peak.number_or("fp8", 0);
  device.bf16_tflops = peak.positive("bf16");
  entry.keep(peak.status());
  device.compute_source = device.source;
  if (entry.has("dense_tflops_source")) {
    device.compute_source = {Mark::kAssumption, entry.text("dense_tflops_source"), device.source.date};
  }
  device.link_gbs = entry.number_or("link_gbs_unidirectional", 0);
  device.domain = std::max(1, entry.has("scale_up_domain") ? entry.small("scale_up_domain") : 1);
  device.scale_out_gbs = entry.number_or("scale_out_gbs", 0);
  device.sync_us = entry.number_or("sync_us", 6);
  device.tdp_w = entry.number_or("tdp_w", 0);
  device.all_in_kw = entry.number_or("all_in_kw_per_gpu", 0);
  if (entry.has("rental_usd_per_gpu_hr")) {
    entry.keep(each(
        entry, "rental_usd_per_gpu_hr", "kind",
        [&](Reader& row) {
          Rental rental;
          rental.low = row.positive("low");
          rental.high = row.positive("high");
          if (rental.high < rental.low) row.fail("\"high\" is below \"low\"");
          rental.kind = row.text("kind");
          rental.source = row.source();
          device.rentals.push_back(rental);
        },
        true));
  }
  if (entry.has("tco_usd_per_gpu_hr")) {
    Reader row = entry.child("tco_usd_per_gpu_hr");
    device.owned =
        Owned{row.positive("hyperscaler_own"), row.positive("neocloud_own"), row.positive("rental_3yr"), row.source()};
    entry.keep(row.status());
  }
  if (entry.has("purchase_usd")) {
    Reader row = entry.child("purchase_usd");
    device.purchase = Purchase{row.positive("low"), row.positive("high"), row.text("unit"), row.source()};
    entry.keep(row.status());
  }
  return device;
}

Status read_hardware(const Json& root, const std::string& where, PlanData& data) {
  Reader file(root, where);
  NAUTILE_RETURN_IF_ERROR(expect_schema(file, "planner-gpus/1"));
  NAUTILE_RETURN_IF_ERROR(
      each(file, "gpus", "id", [&](Reader& entry) { data.hardware.push_back(read_device(entry)); }));
  NAUTILE_RETURN_IF_ERROR(each(file, "storage", "id", [&](Reader& entry) {
    data.storage.push_back({entry.text("id"), entry.positive("read_gbs"), entry.source()});
  }));
  Reader derating = file.child("derating");
  data.usable_fraction = derating.positive("usable_memory_fraction");
  data.reserve_gb = derating.number("runtime_reserve_gb");
  data.usable_source = derating.source();
  if (data.usable_fraction > 1) derating.fail("\"usable_memory_fraction\" is a share of 1");
  Reader power = file.child("electricity_usd_per_kwh_default"), pue = file.child("pue_default");
  data.kwh_usd = power.number("value");
  data.kwh_source = power.source();
  data.pue = pue.positive("value");
  data.pue_source = pue.source();
  for (const Reader* part : {&derating, &power, &pue}) file.keep(part->status());
  return file.status();
}

Status read_prices(const Json& root, const std::string& where, PlanData& data) {
  Reader file(root, where);
  NAUTILE_RETURN_IF_ERROR(expect_schema(file, "planner-prices/1"));
  Reader fx = file.child("cny_per_usd");
  const double cny = fx.positive("value");
  fx.source();
  NAUTILE_RETURN_IF_ERROR(fx.status());
  NAUTILE_RETURN_IF_ERROR(each(file, "prices", "provider", [&](Reader& entry) {
    HostedPrice price;
    price.provider = entry.text("provider");
    price.model = entry.text("model");
    price.window = entry.text_or("window", "");
    price.warning = entry.text_or("warning", "");
    price.valid_from = entry.date("valid_from");
    if (entry.has("valid_to")) price.valid_to = entry.date("valid_to");
    price.checked = entry.date("checked");
    price.source = entry.source("source", "valid_from");
    const bool in_cny = entry.has("cny_per_mtok");
    Reader row = entry.child(in_cny ? "cny_per_mtok" : "usd_per_mtok");
    price.hit = row.maybe("input_cache_hit");
    price.miss = row.maybe("input_cache_miss");
    price.output = row.maybe("output");
    if (in_cny) {
      for (auto* value : {&price.hit, &price.miss, &price.output}) {
        if (*value) **value /= cny;
      }
    }
    entry.keep(row.status());
    data.prices.push_back(std::move(price));
  }));
  Reader peak = file.child("peak_windows_utc");
  data.peak_hours_per_week = peak.number("hours_per_week");
  data.peak_source = peak.source();
  if (data.peak_hours_per_week > 168) peak.fail("\"hours_per_week\" is above 168");
  Reader modes = file.child("reasoning_modes");
  data.modes_source = modes.source();
  data.max_mode_context = modes.whole("think_max_context_recommendation");
  for (const char* id : {"non_think", "think_high", "think_max"}) {
    Reader row = modes.child(id);
    data.modes.push_back({id, row.positive("default"), row.positive("low"), row.positive("high")});
    modes.keep(row.status());
  }
  Reader nvidia = file.child("nvidia");
  for (const Json& item : nvidia.list("ai_enterprise")) {
    Reader row(item, nvidia.where() + ".ai_enterprise");
    if (row.has("usd_per_gpu_year") && row.text("kind") == "subscription") {
      data.licence_usd_per_gpu_year = row.positive("usd_per_gpu_year");
    }
    data.licence_source = row.source();
    nvidia.keep(row.status());
  }
  for (const Reader* part : {&peak, &modes, &nvidia}) file.keep(part->status());
  return file.status();
}

Status read_published(const Json& root, const std::string& where, PlanData& data) {
  Reader file(root, where);
  NAUTILE_RETURN_IF_ERROR(expect_schema(file, "planner-throughput/1"));
  Reader split = file.child("split");
  data.split_rule = split.text("rule");
  data.split_date = split.date("written");
  NAUTILE_RETURN_IF_ERROR(split.status());
  // A file of a person's own need not have measured anything.
  if (file.has("own_layers")) {
    Reader own = file.child("own_layers");
    data.own = {};
    data.own.model = own.text("model");
    data.own.split = own.text("split");
    data.own.vocabulary = own.small("vocabulary");
    data.own.bf16_tflops = own.positive("bf16_tflops");
    data.own.source = own.source();
    for (const Json& ratio : own.list("ratios")) {
      if (ratio == 0 || ratio == 4 || ratio == 128)
        data.own.ratios.push_back(ratio.get<int>());
      else
        own.fail("\"ratios\" are 0, 4 and 128");
    }
    NAUTILE_RETURN_IF_ERROR(own.status());
    NAUTILE_RETURN_IF_ERROR(each(own, "rows", "kind", [&](Reader& entry) {
      OwnRow row;
      const std::string kind = entry.text("kind"), sample = entry.text("sample");
      if (kind != "decode" && kind != "prefill") entry.fail("\"kind\" must be decode or prefill");
      if (sample != "in-sample" && sample != "held-out")
        entry.fail(fmt::format("\"sample\" must be in-sample or held-out, but is \"{}\"", sample));
      row.prefill = kind == "prefill";
      row.sample = sample == "in-sample" ? Sample::kIn : Sample::kHeldOut;
      row.depth = entry.whole("depth");
      row.batch = entry.whole("batch");
      row.tokens = entry.whole("tokens");
      row.tok_s = entry.positive("tok_s");
      row.slowest = entry.positive("slowest");
      row.fastest = entry.positive("fastest");
      row.read_gbs = entry.positive("read_gbs");
      data.own.rows.push_back(row);
    }));
  }
  return each(file, "points", "hardware", [&](Reader& entry) {
    PublishedRow row;
    row.model = entry.text("model");
    row.hardware = entry.text("hardware");
    row.metric = entry.text("metric");
    row.quant = entry.text("quant");
    row.speculation = entry.text("speculation");
    row.stack = entry.text("stack");
    row.note = entry.text_or("note", "");
    row.value = entry.positive("value");
    row.devices = entry.has("devices") ? entry.small("devices") : 0;
    row.interactivity = entry.number_or("interactivity_tok_s_user", 0);
    row.isl = entry.has("isl") ? entry.whole("isl") : 0;
    row.osl = entry.has("osl") ? entry.whole("osl") : 0;
    row.streams = entry.has("streams") ? entry.small("streams") : 0;
    row.source = entry.source();
    const std::string sample = entry.text("sample");
    if (sample == "in-sample")
      row.sample = Sample::kIn;
    else if (sample == "held-out")
      row.sample = Sample::kHeldOut;
    else if (sample == "not-comparable")
      row.sample = Sample::kNotComparable;
    else
      entry.fail(fmt::format("\"sample\" must be in-sample, held-out or not-comparable, but is \"{}\"", sample));
    data.published.push_back(std::move(row));
  });
}

constexpr const char* kConstantNames[] = {"bandwidth_use",
                                          "decode_compute_use",
                                          "prefill_compute_use",
                                          "fixed_us_per_layer",
                                          "draft_acceptance",
                                          "expert_imbalance",
                                          "link_use",
                                          "route_correlation",
                                          "single_device_fixed_us",
                                          "single_device_compute_use",
                                          "cpu_bandwidth_use",
                                          "cpu_read_share",
                                          "cpu_prefill_use",
                                          "cpu_fixed_us_per_layer",
                                          "aggregated_interference",
                                          "stack_tuned",
                                          "stack_stock",
                                          "stack_rocm",
                                          "stack_unknown",
                                          "engineer_usd_per_month",
                                          "host_link_gbs"};

Status read_constants(const Json& root, const std::string& where, PlanData& data) {
  Reader file(root, where);
  NAUTILE_RETURN_IF_ERROR(expect_schema(file, "planner-constants/1"));
  NAUTILE_RETURN_IF_ERROR(each(file, "constants", "name", [&](Reader& entry) {
    data.constants.push_back({entry.text("name"), entry.text("unit"), entry.number("value"), entry.source()});
  }));
  for (const char* name : kConstantNames) {
    const bool there =
        std::any_of(data.constants.begin(), data.constants.end(), [&](const Constant& c) { return c.name == name; });
    if (!there) return {Code::kInvalidArgument, fmt::format("the constant \"{}\" is missing", name), where};
  }
  return {};
}

template <class T, class Key>
Status no_twins(const std::vector<T>& list, Key key, const std::string& where) {
  for (size_t i = 0; i < list.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (key(list[i]) == key(list[j])) {
        return {Code::kInvalidArgument, fmt::format("\"{}\" appears twice", key(list[i])), where};
      }
    }
  }
  return {};
}

}  // namespace

const char* mark_name(Mark mark) {
  switch (mark) {
    case Mark::kVendor:
      return "vendor";
    case Mark::kThirdParty:
      return "third party";
    case Mark::kComputed:
      return "computed";
    case Mark::kAssumption:
      return "assumption";
    case Mark::kMeasured:
      return "measured";
  }
  return "unknown";
}

char mark_letter(Mark mark) {
  return "VTCAM"[static_cast<int>(mark)];
}

const std::vector<std::string>& data_file_names() {
  static const std::vector<std::string> kNames = {
      "models.json", "gpus.json", "prices.json", "published_throughput.json", "constants.json", "report.html"};
  return kNames;
}

std::string_view shipped_file(std::string_view name) {
  const auto& names = data_file_names();
  const auto found = std::find(names.begin(), names.end(), name);
  return found == names.end() ? std::string_view() : kShippedFiles[found - names.begin()];
}

Result<PlanData> load_data(const std::map<std::string, std::string>& replaced) {
  using Read = Status (*)(const Json&, const std::string&, PlanData&);
  constexpr std::pair<const char*, Read> kFiles[] = {{"models.json", read_models},
                                                     {"gpus.json", read_hardware},
                                                     {"prices.json", read_prices},
                                                     {"published_throughput.json", read_published},
                                                     {"constants.json", read_constants}};
  PlanData data;
  for (const auto& [name, read] : kFiles) {
    const auto other = replaced.find(name);
    const std::string_view text = other == replaced.end() ? shipped_file(name) : std::string_view(other->second);
    NAUTILE_ASSIGN(const Json root, parse_json(text, name));
    NAUTILE_RETURN_IF_ERROR(read(root, name, data));
  }
  NAUTILE_RETURN_IF_ERROR(no_twins(
      data.hardware, [](const Hardware& h) { return h.id; }, "gpus.json"));
  NAUTILE_RETURN_IF_ERROR(no_twins(
      data.models, [](const ModelEntry& m) { return m.id; }, "models.json"));
  NAUTILE_RETURN_IF_ERROR(no_twins(
      data.constants, [](const Constant& c) { return c.name; }, "constants.json"));
  return data;
}

Result<std::vector<Hardware>> load_hardware(std::string_view text, const std::string& where) {
  NAUTILE_ASSIGN(const Json root, parse_json(text, where));
  std::vector<Hardware> devices;
  if (root.is_object() && root.contains("gpus")) {
    Reader file(root, where);
    NAUTILE_RETURN_IF_ERROR(each(file, "gpus", "id", [&](Reader& entry) { devices.push_back(read_device(entry)); }));
  } else {
    Reader entry(root, where);
    if (entry.status().ok()) devices.push_back(read_device(entry));
    NAUTILE_RETURN_IF_ERROR(entry.status());
  }
  return devices;
}

Result<const ModelEntry*> PlanData::model(std::string_view id) const {
  std::vector<std::string> names;
  for (const ModelEntry& entry : models) {
    std::string_view shorter = entry.id;
    if (shorter.starts_with("deepseek-")) shorter.remove_prefix(9);
    if (id == entry.id || id == shorter) return &entry;
    names.emplace_back(shorter);
  }
  return unknown_name("model", id, names, "--model");
}

Result<const Hardware*> PlanData::device(std::string_view id) const {
  std::vector<std::string> names;
  const Hardware* starts = nullptr;
  bool several = false;
  for (const Hardware& entry : hardware) {
    if (id == entry.id) return &entry;
    if (!id.empty() && entry.id.starts_with(id)) {
      // "gb300" means the rack, whose trays share its figures.
      several = several || (starts != nullptr && starts->memory_gb != entry.memory_gb);
      if (starts == nullptr) starts = &entry;
    }
    names.push_back(entry.id);
  }
  if (starts != nullptr && !several) return starts;
  return unknown_name("hardware", id, names, "--hw");
}

Result<const Storage*> PlanData::disk(std::string_view id) const {
  std::vector<std::string> names;
  for (const Storage& entry : storage) {
    if (id == entry.id) return &entry;
    names.push_back(entry.id);
  }
  return unknown_name("storage", id, names, "--ssd");
}

const Constant& PlanData::constant_entry(std::string_view name) const {
  for (const Constant& entry : constants) {
    if (entry.name == name) return entry;
  }
  std::abort();  // load_data() has checked that every name the code uses is there
}

double PlanData::constant(std::string_view name) const {
  return constant_entry(name).value;
}

}  // namespace nautile::plan
