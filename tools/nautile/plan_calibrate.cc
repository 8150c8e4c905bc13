// nautile plan calibrate FILE: the performance model's constants fitted to measurements of one machine.
#include <fmt/format.h>

#include "plan.h"
#include "plan/calibrate.h"
#include "sys/file.h"

namespace nautile {
namespace {
constexpr size_t kMaxFile = 16u << 20;
}

Result<plan::Tuning> read_tuning(const std::string& path, plan::Tuning base) {
  NAUTILE_ASSIGN(const std::string text, real_files()->read(path, kMaxFile));
  return plan::parse_tuning(text, path, base);
}

void add_plan_calibrate(CLI::App& plan, Run& run) {
  struct Flags {
    PlanFlags common;
    std::string file, save;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  auto* verb = plan.add_subcommand("calibrate",
                                   "example: nautile plan calibrate measured.json --save mine.json\nFit the model's "
                                   "constants to your own measurements.");
  flags->common.add_data(*verb);
  verb->add_option("file", flags->file, "measurements, schema planner-calibration/1")->required();
  verb->add_option("--save", flags->save, "write the constants here, for nautile plan --calibrate");
  verb->add_flag("--json", flags->json, "print the constants as JSON");
  verb->callback([flags, &run] {
    run = [flags]() -> int {
      const auto data = flags->common.load();
      if (!data.ok()) return fail_plan(data.status());
      const auto files = real_files();
      auto text = files->read(flags->file, kMaxFile);
      if (!text.ok()) return fail_plan(text.status());
      const auto fit = plan::calibrate(data.value(), text.value(), flags->file);
      if (!fit.ok()) return fail_plan(fit.status());
      const Json tuning = plan::tuning_json(fit.value().after, flags->file);
      if (!flags->save.empty()) {
        if (Status written = files->write(flags->save, tuning.dump(1) + "\n"); !written.ok()) return fail_plan(written);
      }
      if (flags->json) {
        print_json(tuning);
      } else {
        fmt::print("{}", plan::calibration_text(fit.value()));
      }
      return kExitDone;
    };
  });
}

}  // namespace nautile
