// A few threads for work that is too long for the network thread: parsing and tokenizing large prompts.
//
// Threading: Run from any thread. Ownership: the destructor finishes what runs and drops what waits.
// Limits: the queue is as long as its callers make it; requests are limited by Admission.
#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace baton {

class WorkerPool {
 public:
  explicit WorkerPool(int threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void Run(std::function<void()> task) BATON_EXCLUDES(mutex_);

 private:
  void Work() BATON_EXCLUDES(mutex_);

  Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> tasks_ BATON_GUARDED_BY(mutex_);
  bool stopping_ BATON_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace baton
