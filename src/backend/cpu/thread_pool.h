// Threads that compute one step's operations together with the caller.
//
// Work is handed out unit by unit, so a thread that the kernel has put aside delays nobody: the others take its share.
// Between operations threads spin for some microseconds, then sleep: no CPU is used at rest. Before each operation the
// pool asks how many threads may take part, so that workers of one machine can share its cores (device/core_share.h).
//
// Threading: ParallelFor from one thread only. Units must not depend on one another. Limits: at most 64 threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace baton::cpu {

class ThreadPool {
 public:
  // `threads`: the caller included. `allowed`: how many of them may take part in the next operation; empty: all.
  explicit ThreadPool(int threads, std::function<int()> allowed = nullptr);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls function(unit, thread) for each unit in [0, units), thread in [0, threads()); returns when all have ended.
  template <typename Function>
  void ParallelFor(int64_t units, Function&& function) {
    if (units <= 1 || ThreadsNow() <= 1) {
      for (int64_t unit = 0; unit < units; ++unit) function(unit, 0);
      return;
    }
    for (int64_t first = 0; first < units; first += kMaxUnits) {
      auto shifted = [&](int unit, int thread) { function(first + unit, thread); };
      RunUnits(
          static_cast<int>(units - first < kMaxUnits ? units - first : kMaxUnits),
          [](void* context, int unit, int thread) { (*static_cast<decltype(shifted)*>(context))(unit, thread); },
          &shifted);
    }
  }

 private:
  using UnitFunction = void (*)(void* context, int unit, int thread);
  static constexpr int64_t kMaxUnits = 65535;

  void RunUnits(int units, UnitFunction function, void* context);
  int ThreadsNow();
  void WorkerLoop(int thread);
  // Takes and runs units of the current job until there are none.
  void TakeUnits(int thread);
  bool HasUnits(int thread) const;  // for this one; or that it should end
  bool AnyoneSleeps(int threads) const;
  void SleepUntilWork(int thread);

  const std::function<int()> allowed_;
  std::vector<std::thread> workers_;
  // generation (32 bits) | units (16) | next unit (16): one compare-and-swap takes a unit of exactly this job.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int32_t> done_{0};  // units of the current job that have ended
  alignas(64) UnitFunction function_ = nullptr;
  void* context_ = nullptr;
  int32_t units_ = 0;
  std::atomic<int32_t> threads_now_{1};    // that may take units: the first ones
  std::vector<std::atomic<bool>> asleep_;  // [threads]
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> stop_{false};
  Mutex mutex_;  // guards no data: makes sleeping and waking atomic
  CondVar work_;
  CondVar finished_;
};

}  // namespace baton::cpu
