// The verbs of the program: one file each. A verb adds its sub-command and returns its exit code through `Run`.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "base/status.h"

namespace nautile {

enum Exit : int { kExitDone = 0, kExitFailed = 1, kExitBadArguments = 2, kExitDoesNotFit = 3 };

// What the chosen verb will do once the command line is parsed.
using Run = std::function<int()>;

// Prints the error on stderr and returns the exit code that fits it.
int fail(const Status& status);

void add_bench(CLI::App& app, Run& run);
void add_chat(CLI::App& app, Run& run);
void add_run(CLI::App& app, Run& run);
void add_score(CLI::App& app, Run& run);
void add_tokenize(CLI::App& app, Run& run);
void add_inspect(CLI::App& app, Run& run);
void add_plan(CLI::App& app, Run& run);
void add_repack(CLI::App& app, Run& run);
void add_serve(CLI::App& app, Run& run);

}  // namespace nautile
