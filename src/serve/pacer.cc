// One timer for all streams.
#include "serve/pacer.h"

namespace nautile::serve {

void Pacer::add(std::weak_ptr<Paced> paced) {
  waiting_.push_back(std::move(paced));
  if (armed_) return;
  armed_ = true;
  timer_ = loop_.timer(interval_s_, [this] { tick(); });
}

void Pacer::tick() {
  armed_ = false;
  due_.swap(waiting_);  // a turn may ask for the next one
  for (const auto& paced : due_) {
    if (const auto held = paced.lock()) held->turn();
  }
  due_.clear();
}

}  // namespace nautile::serve
