// LoadBar: how far loading a model has come, on stderr. On a terminal a bar that goes when it is done; elsewhere a line
// every ten seconds and one at the end. Nothing at all for loads that nobody waits for.
//
// Thread-safety: one call at a time, from any thread.
#pragma once

#include "model/repack.h"

namespace nautile {

class LoadBar {
 public:
  explicit LoadBar(bool quiet = false);
  void show(const LoadProgress& progress);
  void notice(const std::string& text);

 private:
  bool quiet_, terminal_, drawn_ = false;
  const char* what_ = nullptr;  // of the part under way
  double began_ = 0, said_ = 0;
};

// "4.2 of 10.8 GB, 1.3 GB/s, 5 s left"; once all is done "10.8 GB in 8.3 s, 1.3 GB/s".
std::string load_rate_text(uint64_t done, uint64_t total, double seconds);

}  // namespace nautile
