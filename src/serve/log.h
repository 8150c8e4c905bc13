// One JSON line for each request, on stderr or wherever the owner points it. Client text is escaped; prompts and
// answers are never in it.
//
// Thread-safety: locks itself. Source: spec api.md 14.5.
#pragma once

#include <cstdio>
#include <mutex>
#include <string>

#include "base/json.h"

namespace nautile::serve {

class RequestLog {
 public:
  enum class Level { kQuiet, kRequests };
  RequestLog(std::FILE* out, Level level) : out_(out), level_(level) {}
  void request(Json line);
  // For a person: loading, draining, reloads.
  void note(const std::string& text);

 private:
  std::mutex mutex_;
  std::FILE* out_;
  Level level_;
};

}  // namespace nautile::serve
