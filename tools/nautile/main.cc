// nautile VERB: parses the command line and runs one verb.
#include <fmt/format.h>

#include <cstdio>

#include "verbs.h"

namespace nautile {

int fail(const Status& status) {
  fmt::print(stderr, "nautile: {}\n", status.message());
  switch (status.code()) {
    case Code::kInvalidArgument:
      return kExitBadArguments;
    case Code::kResourceExhausted:
      return kExitDoesNotFit;
    default:
      return kExitFailed;
  }
}

}  // namespace nautile

int main(int argc, char** argv) {
  using namespace nautile;
  CLI::App app("Runs DeepSeek-V4 from its official checkpoint.", "nautile");
  app.require_subcommand(1);
  Run run;
  add_bench(app, run);
  add_chat(app, run);
  add_run(app, run);
  add_serve(app, run);
  add_score(app, run);
  add_tokenize(app, run);
  add_inspect(app, run);
  add_plan(app, run);
  add_repack(app, run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitDone : kExitBadArguments;
  }
  return run();
}
