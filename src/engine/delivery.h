// Delivery: where the engine leaves tokens and the reader takes them. A ring of fixed size, so that a slow reader holds
// its own generation up and nothing else, and a record of how things stand.
//
// Thread-safety: any thread; each call locks for as long as it copies.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "nautile/engine.h"

namespace nautile {

class Delivery {
 public:
  Delivery(size_t capacity, std::function<void(bool ended)> on_event)
      : ring_(std::max<size_t>(capacity, 1)), on_event_(std::move(on_event)) {}

  // --- engine's side
  size_t room() const {
    const std::lock_guard lock(mutex_);
    return ring_.size() - count_;
  }
  void start(const RequestRecord& record) {
    const std::lock_guard lock(mutex_);
    record_ = record;
  }
  // Precondition: tokens.size() <= room(). Takes the events' contents.
  void push(std::span<TokenEvent> tokens, const RequestRecord& record) {
    {
      const std::lock_guard lock(mutex_);
      for (TokenEvent& token : tokens) {
        std::swap(ring_[(first_ + count_) % ring_.size()], token);
        ++count_;
      }
      record_ = record;
    }
    changed_.notify_all();
    if (on_event_) on_event_(false);
  }
  void end(const RequestRecord& record, std::vector<PromptScore> scores) {
    {
      const std::lock_guard lock(mutex_);
      record_ = record;
      scores_ = std::move(scores);
      ended_ = true;
      if (record.end == EndReason::kCancelled) count_ = 0;
    }
    changed_.notify_all();
    if (on_event_) on_event_(true);
  }
  std::atomic<bool> cancelled{false};
  std::atomic<bool> paused{false};  // the engine waits for room

  // --- reader's side
  bool take(std::vector<TokenEvent>& out, bool block) {
    std::unique_lock lock(mutex_);
    if (block) changed_.wait(lock, [&] { return count_ > 0 || ended_; });
    for (; count_ > 0; --count_) {
      out.push_back(std::move(ring_[first_]));
      first_ = (first_ + 1) % ring_.size();
    }
    return !ended_;
  }
  RequestRecord record() const {
    const std::lock_guard lock(mutex_);
    return record_;
  }
  std::vector<PromptScore> scores() const {
    const std::lock_guard lock(mutex_);
    return ended_ ? scores_ : std::vector<PromptScore>();
  }
  bool ended() const {
    const std::lock_guard lock(mutex_);
    return ended_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<TokenEvent> ring_;
  size_t first_ = 0, count_ = 0;
  RequestRecord record_;
  std::vector<PromptScore> scores_;
  bool ended_ = false;
  const std::function<void(bool ended)> on_event_;
};

}  // namespace nautile
