// Asks the planner for one model on a few machines and prints a line for each.
//
// usage: example_plan [MODEL [HARDWARE...]]      example_plan v4-flash h200:2 epyc-9005-1s
#include "nautile/plan.h"

#include <cstdio>
#include <string>
#include <vector>

int main(int count, char** words) {
  nautile::PlanQuestion question;
  question.model = count > 1 ? words[1] : "v4-flash";
  std::vector<std::string> machines(words + (count > 2 ? 2 : count), words + count);
  if (machines.empty()) machines = {"h200-sxm:2", "b300-sxm:1", "rtx-5090:1+epyc-9005-1s:1", "epyc-9005-1s:1"};

  const auto planner = nautile::Planner::create();
  if (!planner.ok()) {
    std::fprintf(stderr, "%s\n", planner.status().message().c_str());
    return 1;
  }
  for (const std::string& machine : machines) {
    question.hardware = machine;
    const auto answer = planner.value().ask(question);
    if (!answer.ok()) {
      std::fprintf(stderr, "%s\n", answer.status().message().c_str());
      return 2;
    }
    const nautile::PlanFit& fit = answer.value().fit;
    if (!fit.fits) {
      std::printf("%-28s does not fit (%.1f GB of weights); smallest count %d\n", machine.c_str(),
                  static_cast<double>(fit.weights_bytes) / 1e9, fit.smallest_devices);
      continue;
    }
    const nautile::PlanSpeed& speed = *answer.value().speed;
    std::printf("%-28s fits, %lld streams at %.1f tokens/s each, first token after %.2f s, limited by %s",
                machine.c_str(), static_cast<long long>(speed.batch), speed.user_tokens_per_s, speed.ttft_s,
                speed.limited_by.c_str());
    if (answer.value().cost) std::printf(", %s", answer.value().cost->choice.c_str());
    std::printf("\n");
  }
  return 0;
}
