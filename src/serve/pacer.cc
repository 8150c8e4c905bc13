// One timer for all streams of a pace.
#include "serve/pacer.h"

namespace nautile::serve {

void Pacer::add(std::weak_ptr<Paced> paced, Pace pace) {
  Group& group = groups_[pace];
  group.waiting.push_back(std::move(paced));
  if (group.armed) return;
  group.armed = true;
  group.timer = loop_.timer(kInterval_s[pace], [&group] { tick(group); });
}

void Pacer::tick(Group& group) {
  group.armed = false;
  group.due.swap(group.waiting);  // a turn may ask for the next one
  for (const auto& paced : group.due) {
    if (const auto held = paced.lock()) held->turn();
  }
  group.due.clear();
}

}  // namespace nautile::serve
