// Planner: what a DeepSeek-V4 needs on a machine, how fast it will be there, and what that costs.
//
// One question, one answer; needs no weights and no accelerator. Speeds are estimates (docs/planner.md says how far to
// trust them), bytes are exact. GB is 1e9 bytes, Mtok a million tokens, money USD.
//
// Thread-safety: a Planner is read-only once made; share it. Nothing is kept between questions. Lifetime: answers are
// values and outlive the Planner. Nothing throws.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nautile/status.h"

namespace nautile {

namespace plan {
struct PlanData;
}

struct PlanQuestion {
  std::string model = "v4-pro";                // v4-pro or v4-flash
  std::string hardware = "gb300-nvl4-tray:4";  // ID[:N], or GPU[:N]+CPU[:SOCKETS] for experts in host memory
  std::string hardware_json;                   // hardware of one's own (docs/planner.md); looked up first
  std::string ssd;                             // a disk's id or its GB/s: experts that do not fit are read from it
  std::string format = "official";             // weights, as `nautile plan models` lists them
  int64_t context = 32768;                     // 1 to the model's 1,048,576

  double input_tokens = 30000, answer_tokens = 800;  // of one request; the answer without its reasoning
  std::string mode = "high";                         // non-think, high or max: how much reasoning is written first
  double cache_hit = 0.85;                           // share of the input in the prefix cache, 0 to 1
  double requests_per_hour = 1000;
  double min_user_tokens_per_s = 10;  // of one stream
  double usd_per_device_hour = 0;     // 0: from the data
  std::string hosted = "deepseek";    // the price row to compare with
  std::string today;                  // YYYY-MM-DD, for prices; empty: the system's date
};

struct PlanFit {
  bool fits = false;
  int64_t weights_bytes = 0;       // all of them
  int64_t cache_bytes = 0;         // of one sequence of the context, without the next
  int64_t state_bytes = 0;         // the compressors' running state, once a sequence
  int64_t usable_bytes = 0;        // of one device
  int smallest_devices = 0;        // 0: no count up to 1,024 fits
  int practical_devices = 0;       // the same as a power of two
  std::vector<std::string> fixes;  // what would make it fit, smallest first; empty when it fits
};

// The operating point with the highest output a device that gives each stream what was asked for.
struct PlanSpeed {
  std::string layout;  // tp or dep
  int64_t batch = 0;   // streams at once
  int draft = 0;       // tokens drafted a step
  // One stream with the best known software; divide by 2 for an untuned one, by 4 for a poor one.
  double user_tokens_per_s = 0;
  double total_tokens_per_s = 0;  // all streams
  double prefill_tokens_per_s = 0;  // the whole machine
  double ttft_s = 0, tpot_s = 0;    // time to the first token without a queue; time of each after it
  std::string limited_by;  // fixed, memory, compute, communication, storage
};

struct PlanCost {
  double usd_per_request = 0, hosted_usd_per_request = 0;  // at the expected use; infinite without a request
  double usd_per_mtok_output = 0;                          // at full use
  double break_even_requests_per_hour = 0;
  double expected_use = 0;  // of capacity; above 1: the machine is too small for the traffic
  std::string choice;       // self-host, hosted, pilot, does-not-fit
  std::string reason;       // one sentence, with the numbers
  std::string would_flip;   // the input that would change the choice; empty: no single one
};

struct PlanAnswer {
  PlanFit fit;
  std::optional<PlanSpeed> speed;  // empty when it does not fit
  std::optional<PlanCost> cost;    // empty when it does not fit, or no price is known
  std::vector<std::string> warnings;
  std::string report;  // all of it for a terminal
  std::string json;    // all of it, schema planner/1
};

class Planner {
 public:
  // `files`: name -> text of data files that replace the shipped ones ("gpus.json", "prices.json", ...).
  // kInvalidArgument naming file, entry and field; kUnsupported: another schema; kCorrupt: not JSON.
  static Result<Planner> create(const std::map<std::string, std::string>& files = {});

  // kInvalidArgument naming the field and the near names; hardware_json fails as a data file does. A machine that is too
  // small is an answer: PlanFit::fits.
  Result<PlanAnswer> ask(const PlanQuestion& question) const;

 private:
  explicit Planner(std::shared_ptr<const plan::PlanData> data) : data_(std::move(data)) {}
  std::shared_ptr<const plan::PlanData> data_;
};

}  // namespace nautile
