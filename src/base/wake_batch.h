// Wakes other threads once for a whole batch of work, instead of at its first piece: whoever is woken at once runs
// beside the one that still hands out, takes pieces singly, and sleeps and wakes again in between.
//
//   {
//     WakeBatch batch;
//     for (Event& event : events) queue.Push(std::move(event));   // calls WakeBatch::Wake(…), which waits
//   }                                                             // here it happens
//
// Threading: a batch belongs to the thread that made it; others know nothing of it. Ownership: what is to be called is
// held until the batch ends. Errors: none. Limits: batches are meant for microseconds; those within others are part of
// them.
#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace baton {

class WakeBatch {
 public:
  WakeBatch() : outer_(current_) {
    if (outer_ == nullptr) current_ = this;
  }
  ~WakeBatch() {
    if (outer_ != nullptr) return;
    current_ = nullptr;
    for (const std::function<void()>& wake : wakes_) wake();
  }
  WakeBatch(const WakeBatch&) = delete;
  WakeBatch& operator=(const WakeBatch&) = delete;

  static bool active() { return current_ != nullptr; }  // on this thread
  // At the end of this thread's batch, or at once without one.
  static void Wake(std::function<void()> wake) {
    if (current_ == nullptr) return wake();
    current_->wakes_.push_back(std::move(wake));
  }

 private:
  inline static thread_local WakeBatch* current_ = nullptr;
  WakeBatch* const outer_;
  std::vector<std::function<void()>> wakes_;
};

}  // namespace baton
