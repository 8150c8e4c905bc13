// Pacer: when streams are written. What comes after a pause leaves at once. While tokens keep coming, streams take their turns
// together: every 5 ms, and those that get more than kFrameRate tokens/s once in a frame of a screen. A write to a socket and
// a waking of the io thread cost more than the tokens that are in them, and they take the engine's processor time. Every
// token stays an event of its own.
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
  enum Pace { kSteady, kFrames };
  static constexpr double kFrameRate = 600;                    // tokens/s
  static constexpr double kInterval_s[] = {0.005, 1.0 / 60};  // by pace

  explicit Pacer(http::Loop& loop) : loop_(loop) {}
  // Its turn comes within an interval, once.
  void add(std::weak_ptr<Paced> paced, Pace pace);
  // For a stream that got `tokens` in so many seconds.
  static Pace pace_of(size_t tokens, double seconds) {
    return static_cast<double>(tokens) > kFrameRate * seconds ? kFrames : kSteady;
  }

 private:
  struct Group {
    bool armed = false;
    std::vector<std::weak_ptr<Paced>> waiting, due;
    std::unique_ptr<http::Timer> timer;
  };
  static void tick(Group& group);
  http::Loop& loop_;
  Group groups_[2];
};

}  // namespace nautile::serve
