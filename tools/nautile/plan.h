// What the plan verb's files share: the flags, and how they end.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "plan/plan.h"
#include "verbs.h"

namespace nautile {

struct PlanFlags {
  plan::Request request;
  std::string context = "32k", input = "30000", output = "800", today, hosted_price, hardware_file, data_dir;

  void add(CLI::App& app);       // every flag of a question
  void add_data(CLI::App& app);  // --data alone
  Result<plan::PlanData> load() const;
  Result<plan::Request> finish() const;
  // Loads, parses and calls the body; errors end with their exit code.
  int run(const std::function<int(const plan::PlanData&, const plan::Request&)>& body) const;
};

// One line on stderr; exit code 2, or 1 when the system refused.
int fail_plan(const Status& status);
void print_json(const Json& json);

// Constants that plan calibrate wrote, over `base`.
Result<plan::Tuning> read_tuning(const std::string& path, plan::Tuning base);

void add_plan_tables(CLI::App& plan, Run& run);
void add_plan_calibrate(CLI::App& plan, Run& run);
void add_plan_probe(CLI::App& plan, Run& run);

}  // namespace nautile
