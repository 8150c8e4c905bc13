// A list in order of use, and a table into it.
#include "serve/replay.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"

namespace nautile::serve {
namespace {

// As JSON: the order of an object's members does not count.
bool same_value(const std::string& a, const std::string& b) {
  if (a == b) return true;
  const auto left = nlohmann::json::parse(a, nullptr, false), right = nlohmann::json::parse(b, nullptr, false);
  return !left.is_discarded() && left == right;
}

bool same_arguments(const std::vector<Argument>& a, const std::vector<Argument>& b) {
  if (a.size() != b.size()) return false;
  return std::all_of(a.begin(), a.end(), [&](const Argument& one) {
    const auto other = std::find_if(b.begin(), b.end(), [&](const Argument& x) { return x.name == one.name; });
    if (other == b.end() || other->is_string != one.is_string) return false;
    return one.is_string ? other->value == one.value : same_value(other->value, one.value);
  });
}

}  // namespace

bool Replay::is(const Message& message) const {
  return message.content == content && message.reasoning_content == reasoning &&
         std::equal(calls.begin(), calls.end(), message.tool_calls.begin(), message.tool_calls.end(),
                    [](const HistoryCall& a, const HistoryCall& b) {
                      return a.id == b.id && a.name == b.name && same_arguments(a.arguments, b.arguments);
                    });
}

size_t Replay::bytes() const {
  size_t size = sizeof(Replay) + reasoning.size() + content.size();
  for (const HistoryCall& call : calls) {
    size += sizeof(HistoryCall) + call.id.size() + call.name.size();
    for (const Argument& argument : call.arguments)
      size += sizeof(Argument) + argument.name.size() + argument.value.size();
  }
  if (generated) size += sizeof(GeneratedTurn) + generated->tokens.size() * sizeof(TokenId);
  return size;
}

void ReplayStore::remove(Place place) {
  bytes_ -= place->bytes;
  places_.erase(place->key);
  entries_.erase(place);
}

void ReplayStore::keep(const std::string& owner, const std::string& id, Replay replay) {
  std::string key = key_of(owner, id);
  const size_t size = 2 * key.size() + replay.bytes() + 128;
  const std::lock_guard lock(mutex_);
  if (const auto old = places_.find(key); old != places_.end()) remove(old->second);
  if (size > max_bytes_ / 4) return;
  entries_.push_front({key, std::make_shared<const Replay>(std::move(replay)), size});
  places_[std::move(key)] = entries_.begin();
  bytes_ += size;
  while (bytes_ > max_bytes_) remove(std::prev(entries_.end()));
}

std::shared_ptr<const Replay> ReplayStore::find(const std::string& owner, const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found = places_.find(key_of(owner, id));
  if (found == places_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->replay;
}

size_t ReplayStore::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

std::string answer_id(std::span<const Message> messages, const std::string& content) {
  for (size_t i = messages.size(); i-- > 0;) {
    if (messages[i].tool_calls.empty()) continue;
    return fmt::format("{} +{} {:x}", messages[i].tool_calls.front().id, messages.size() - i,
                       std::hash<std::string>{}(content));
  }
  return {};
}

}  // namespace nautile::serve
