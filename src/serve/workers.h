// A few threads for what takes longer than the io thread may be away: parsing, rendering, tokenising, compiling.
//
// Thread-safety: run() from any thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace nautile::serve {

class Workers {
 public:
  explicit Workers(int threads);
  ~Workers();  // finishes what has begun, drops the rest
  void run(std::function<void()> work);
  size_t waiting() const;

 private:
  void loop();
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace nautile::serve
