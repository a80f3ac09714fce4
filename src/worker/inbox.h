// Work for the step loop from other threads.
//
// Threading: Post from any thread; Run and Wait from the step loop's. Limits: bounded by what sessions may queue.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace baton {

class Inbox {
 public:
  void Post(std::function<void()> work) BATON_EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      work_.push_back(std::move(work));
    }
    changed_.Signal();
  }

  // Runs what is there, and what that posts, a few times over.
  void Run() BATON_EXCLUDES(mutex_) {
    for (int32_t round = 0; round < kRounds; ++round) {
      std::vector<std::function<void()>> work;
      {
        MutexLock lock(mutex_);
        work.swap(work_);
      }
      if (work.empty()) return;
      for (auto& item : work) item();
    }
  }

  // Until there is work, or the limit has passed.
  void Wait(std::chrono::microseconds limit) BATON_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (work_.empty()) changed_.WaitFor(mutex_, limit);
  }

 private:
  static constexpr int32_t kRounds = 8;  // a question and its answers between workers of one loop

  Mutex mutex_;
  CondVar changed_;
  std::vector<std::function<void()>> work_ BATON_GUARDED_BY(mutex_);
};

}  // namespace baton
