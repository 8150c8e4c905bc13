// A bar, drawn again at most ten times a second.
#include "load_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "sys/clock.h"

namespace nautile {
namespace {

constexpr double kPatience_s = 0.5, kRedraw_s = 0.1, kLine_s = 10;

}  // namespace

std::string load_rate_text(uint64_t done, uint64_t total, double seconds) {
  const double gb = static_cast<double>(done) / 1e9, all = static_cast<double>(total) / 1e9;
  const double rate = seconds > 0 ? gb / seconds : 0;
  if (done >= total) return fmt::format("{:.2f} GB in {:.1f} s, {:.2f} GB/s", all, seconds, rate);
  return fmt::format("{:.1f} of {:.1f} GB, {:.2f} GB/s, {:.0f} s left", gb, all, rate,
                     rate > 0 ? (all - gb) / rate : 0);
}

LoadBar::LoadBar(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) != 0) {}

void LoadBar::show(const LoadProgress& p) {
  if (quiet_) return;
  const double now = seconds_now();
  if (what_ == nullptr || std::strcmp(what_, p.what) != 0) {
    what_ = p.what;
    began_ = said_ = now;
  }
  const bool last = p.done >= p.total;
  if (now - began_ < kPatience_s || (!last && now - said_ < (terminal_ ? kRedraw_s : kLine_s))) {
    if (last && drawn_) fmt::print(stderr, "\r\033[K");
    return;
  }
  said_ = now;
  const std::string text = load_rate_text(p.done, p.total, now - began_);
  if (terminal_ && !last) {
    constexpr uint64_t kWidth = 30;
    std::string bar;
    for (uint64_t i = 0; i < kWidth; ++i) bar += i < kWidth * p.done / p.total ? "█" : "░";
    fmt::print(stderr, "\r\033[K\033[2m{} {} {}\033[0m", p.what, bar, text);
  } else {
    fmt::print(stderr, "{}{}: {}\n", drawn_ ? "\r\033[K" : "", p.what, text);
  }
  std::fflush(stderr);
  drawn_ = terminal_ && !last;
}

void LoadBar::notice(const std::string& text) {
  fmt::print(stderr, "{}nautile: {}\n", drawn_ ? "\r\033[K" : "", text);
  drawn_ = false;
}

}  // namespace nautile
