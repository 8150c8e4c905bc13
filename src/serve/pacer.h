// Pacer: when streams are written. What comes after a pause leaves at once; while tokens come faster than `interval_s`,
// all streams take their turns together, once an interval. A write to a socket and a waking of the io thread cost more
// than the tokens that are in them: at 20,000 tokens/s on two cores they would take a tenth of the engine's time, paced
// they take a fortieth. Every token stays an event of its own.
//
// Thread-safety: the io thread.
#pragma once

#include <memory>
#include <vector>

#include "serve/http.h"

namespace nautile::serve {

class Paced {
 public:
  virtual ~Paced() = default;
  virtual void turn() = 0;
};

class Pacer {
 public:
  Pacer(http::Loop& loop, double interval_s) : loop_(loop), interval_s_(interval_s) {}
  double interval_s() const { return interval_s_; }
  // Its turn comes within an interval, once.
  void add(std::weak_ptr<Paced> paced);

 private:
  void tick();
  http::Loop& loop_;
  const double interval_s_;
  bool armed_ = false;
  std::vector<std::weak_ptr<Paced>> waiting_, due_;
  std::unique_ptr<http::Timer> timer_;
};

}  // namespace nautile::serve
