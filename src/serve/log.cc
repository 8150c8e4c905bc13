// Whole lines, one write each.
#include "serve/log.h"

#include <chrono>
#include <ctime>

#include "serve/sse.h"

namespace nautile::serve {
namespace {

std::string timestamp() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char day[24], text[40];
  std::strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text, sizeof text, "%s.%03dZ", day, static_cast<int>(millis));
  return text;
}

}  // namespace

void RequestLog::request(Json line) {
  if (level_ == Level::kQuiet) return;
  Json stamped = {{"time", timestamp()}};
  stamped.update(line);
  const std::string text = compact(stamped) + "\n";
  const std::lock_guard lock(mutex_);
  std::fwrite(text.data(), 1, text.size(), out_);
  std::fflush(out_);
}

void RequestLog::note(const std::string& text) {
  const std::string line = compact({{"time", timestamp()}, {"note", text}}) + "\n";
  const std::lock_guard lock(mutex_);
  std::fwrite(line.data(), 1, line.size(), out_);
  std::fflush(out_);
}

}  // namespace nautile::serve
