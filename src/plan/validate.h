// Predicted against published: every row of published_throughput.json whose workload is stated, by sample.
//
// Rules, fixed before any constant was touched (docs/design/plan.md):
// - unstated context: 4,096 tokens; unstated devices: the best of 4, 8 and 16 inside one link domain;
// - speculation "mtp": the best of 2 or 3 drafted tokens, "mtpN": N, "eagle": 3, "off": 0, unknown: the best of 0 to 3;
// - a stack with in-sample rows has factor 1, any other the prior `stack_unknown`; it divides the predicted rate;
// - a dollar figure is the cheapest owner's cost over the predicted rate.
// Thread-safety: values and pure functions.
#pragma once

#include <string>
#include <vector>

#include "plan/speed.h"

namespace nautile::plan {

struct ValidatedRow {
  const PublishedRow* row = nullptr;
  double predicted = 0;  // 0: cannot be predicted, see `why`
  double ratio = 0;      // predicted over published, factor applied
  double factor = 1;
  int devices = 0, draft = 0;
  Layout layout = Layout::kTp;
  std::string why;
};

struct ValidationSummary {
  int rows = 0, within_2 = 0;
  double rms_ln = 0, mean_ln = 0;  // of the ratio
};

// A row of this project's own bench against the CPU model, at the read rate measured beside it.
struct ValidatedOwn {
  const OwnRow* row = nullptr;
  double predicted = 0, ratio = 0;
};

struct Validation {
  std::vector<ValidatedRow> rows;
  ValidationSummary in_sample, held_out;
  // The held-out rows again, each stack calibrated on its first row, which is left out of the count.
  ValidationSummary held_out_calibrated;
  int not_predicted = 0;
  std::vector<ValidatedOwn> own;
  ValidationSummary own_in_sample, own_held_out;
  int own_within_quarter = 0;  // held-out rows foretold within 25%
};

Validation validate(const PlanData& data);

// The table, with both summaries.
std::string validation_text(const PlanData& data, const Validation& validation);
Json validation_json(const Validation& validation);

}  // namespace nautile::plan
