// The planner's data: models, hardware, prices, published rates and constants, each with source, date and mark.
// The shipped copies are the JSON files under data/, compiled in; `--data DIR` replaces them file by file.
//
// load_data() checks every field: a missing, mistyped, negative or undated one is kInvalidArgument naming file and field,
// another schema kUnsupported, what is not JSON kCorrupt.
// Thread-safety: a PlanData is a value, read-only after loading.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "model/config.h"

namespace nautile::plan {

// Where a number comes from.
enum class Mark { kVendor, kThirdParty, kComputed, kAssumption, kMeasured };
const char* mark_name(Mark mark);
char mark_letter(Mark mark);  // V T C A M

struct Source {
  Mark mark = Mark::kAssumption;
  std::string text;
  std::string date;  // YYYY, YYYY-MM or YYYY-MM-DD
};

struct ModelEntry {
  std::string id, label;
  ModelConfig config;
  int64_t published_bytes = 0;  // the index's total_size; 0: none published
  Source source;
};

// The V3.2 baseline of the ratios; another architecture, so only these numbers.
struct BaselineV32 {
  int vocab = 0, layers = 0, dense_layers = 0, heads = 0, hidden = 0, experts = 0;
  int index_heads = 0, index_head_dim = 0, topk = 0;
  int kv_lora = 0, qk_nope = 0, rope = 0;
  int64_t params = 0, mtp_params = 0, active = 0;
  int64_t entry_fp8 = 0, index_fp8 = 0;  // bytes a token and layer
  Source source;
};

enum class DeviceClass { kGpu, kCpu, kUnified };

struct Rental {
  double low = 0, high = 0;  // USD a device and hour
  std::string kind;
  Source source;
};

struct Owned {  // USD a device and hour
  double hyperscaler = 0, neocloud = 0, rental_3yr = 0;
  Source source;
};

struct Purchase {
  double low = 0, high = 0;  // USD
  std::string unit;
  Source source;
};

struct Hardware {
  std::string id, note;
  DeviceClass device_class = DeviceClass::kGpu;
  double memory_gb = 0;      // of one device; 1e9 bytes
  double bandwidth_tbs = 0;  // 1e12 bytes a second
  double fp4_tflops = 0, fp8_tflops = 0, bf16_tflops = 0;  // dense; 0: the device has no such unit
  double link_gbs = 0;                                     // one way, inside the domain; 0: none
  int domain = 1;            // devices that the link joins
  double scale_out_gbs = 0;  // between domains
  double sync_us = 6;  // one all-reduce of nothing
  double tdp_w = 0, all_in_kw = 0;
  std::vector<Rental> rentals;
  std::optional<Owned> owned;
  std::optional<Purchase> purchase;
  Source source, compute_source;
};

struct Storage {
  std::string id;
  double read_gbs = 0;
  Source source;
};

struct HostedPrice {
  std::string provider, model, window, warning;
  std::optional<double> hit, miss, output;  // USD per million tokens
  std::string valid_from, valid_to, checked;
  Source source;
};

struct ModeRow {
  std::string id;  // non_think, think_high, think_max
  double multiplier = 1, low = 1, high = 1;
};

enum class Sample { kIn, kHeldOut, kNotComparable };

struct PublishedRow {
  std::string model, hardware, metric, quant, speculation, stack, note;
  double value = 0;
  int devices = 0;           // 0: not stated
  double interactivity = 0;  // tok/s/user; 0: not stated
  int64_t isl = 0, osl = 0;  // 0: not stated
  int streams = 0;
  Sample sample = Sample::kIn;
  Source source;
};

// Layers of a shape, run by this project's own bench on one machine: what the CPU model is checked against.
struct OwnRow {
  bool prefill = false;
  int64_t depth = 0, batch = 1, tokens = 1;                  // tokens of the prompt (prefill)
  double tok_s = 0, slowest = 0, fastest = 0, read_gbs = 0;  // read_gbs: measured beside the row
  Sample sample = Sample::kHeldOut;
};
struct OwnLayers {
  std::string model, split;
  std::vector<int> ratios;
  int vocabulary = 0;
  double bf16_tflops = 0;
  std::vector<OwnRow> rows;
  Source source;
};

struct Constant {
  std::string name, unit;
  double value = 0;
  Source source;
};

struct PlanData {
  std::vector<ModelEntry> models;
  BaselineV32 v32;
  std::vector<Hardware> hardware;
  std::vector<Storage> storage;
  std::vector<HostedPrice> prices;
  std::vector<ModeRow> modes;
  Source modes_source;
  int64_t max_mode_context = 0;  // recommended for Max
  double peak_hours_per_week = 0;
  Source peak_source;
  double licence_usd_per_gpu_year = 0;
  Source licence_source;
  std::vector<PublishedRow> published;
  std::string split_rule, split_date;
  OwnLayers own;
  std::vector<Constant> constants;
  double usable_fraction = 0.9, reserve_gb = 3.5;
  Source usable_source;
  double kwh_usd = 0, pue = 0;
  Source kwh_source, pue_source;

  // kInvalidArgument with near names when there is none.
  Result<const ModelEntry*> model(std::string_view id) const;  // "v4-pro" or "deepseek-v4-pro"
  Result<const Hardware*> device(std::string_view id) const;   // an id, or its start when only one starts so
  Result<const Storage*> disk(std::string_view id) const;
  double constant(std::string_view name) const;  // precondition: load_data() found it
  const Constant& constant_entry(std::string_view name) const;
};

// Text of the shipped file "models.json", "gpus.json", "prices.json", "published_throughput.json", "constants.json".
std::string_view shipped_file(std::string_view name);
const std::vector<std::string>& data_file_names();

// `replaced`: file name -> text, for the files not taken from the shipped ones.
Result<PlanData> load_data(const std::map<std::string, std::string>& replaced = {});

// One device, or a list like gpus.json's "gpus", as a person hands in with --hw-file. Errors as of load_data().
Result<std::vector<Hardware>> load_hardware(std::string_view text, const std::string& where);

}  // namespace nautile::plan
