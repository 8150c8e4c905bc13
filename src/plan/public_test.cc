// The public planner says what the internal one says, and refuses as it does.
#include <doctest/doctest.h>

#include "nautile/plan.h"

using namespace nautile;

TEST_CASE("a question through the public header") {
  const auto planner = Planner::create();
  REQUIRE(planner.ok());
  PlanQuestion question;
  question.today = "2026-11-24";
  question.usd_per_device_hour = 6;
  question.min_user_tokens_per_s = 40;
  question.requests_per_hour = 2000;
  auto answer = planner.value().ask(question);
  REQUIRE_MESSAGE(answer.ok(), answer.status().message());
  CHECK(answer->fit.fits);
  CHECK(answer->fit.weights_bytes == 864'704'792'696);
  CHECK(answer->fit.smallest_devices == 4);
  REQUIRE(answer->speed.has_value());
  CHECK(answer->speed->user_tokens_per_s ==
        doctest::Approx(40).epsilon(0.01));  // the worked example of docs/planner.md
  CHECK(answer->speed->total_tokens_per_s == doctest::Approx(7247).epsilon(0.001));
  REQUIRE(answer->cost.has_value());
  CHECK(answer->cost->choice == "pilot");
  CHECK(answer->cost->usd_per_request == doctest::Approx(0.0120).epsilon(0.001));
  CHECK(answer->report.find("5. Verdict") != std::string::npos);
  CHECK(answer->json.find("planner/1") != std::string::npos);

  question.hardware = "gb300-nvl4-tray:2";  // too small: an answer, not an error
  answer = planner.value().ask(question);
  REQUIRE(answer.ok());
  CHECK_FALSE(answer->fit.fits);
  CHECK_FALSE(answer->speed.has_value());
  CHECK_FALSE(answer->fit.fixes.empty());

  question.hardware = "m1355x:4";
  answer = planner.value().ask(question);
  REQUIRE_FALSE(answer.ok());
  CHECK(answer.status().code() == Code::kInvalidArgument);
  CHECK(answer.status().message().find("mi355x") != std::string::npos);

  question = {};
  question.today = "tomorrow";
  CHECK_FALSE(planner.value().ask(question).ok());
  CHECK_FALSE(Planner::create({{"gpus.json", "{}"}}).ok());
}
