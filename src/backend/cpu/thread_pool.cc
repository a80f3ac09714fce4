#include "backend/cpu/thread_pool.h"

#include <sched.h>

#include <algorithm>

namespace baton::cpu {
namespace {

constexpr int kSpins = 1500;  // about 30 µs
constexpr int kYields = 8;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Waits for a condition without sleeping; false when it has not come true.
template <typename Condition>
bool SpinUntil(Condition condition) {
  for (int i = 0; i < kSpins; ++i) {
    if (condition()) return true;
    Pause();
  }
  for (int i = 0; i < kYields; ++i) {
    if (condition()) return true;
    sched_yield();
  }
  return condition();
}

constexpr uint64_t NextUnit(uint64_t ticket) { return ticket & 0xffff; }
constexpr uint64_t Units(uint64_t ticket) { return (ticket >> 16) & 0xffff; }

}  // namespace

ThreadPool::ThreadPool(int threads, std::function<int()> allowed) : allowed_(std::move(allowed)), asleep_(threads) {
  workers_.reserve(threads - 1);
  for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { WorkerLoop(thread); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  {
    MutexLock lock(mutex_);
    work_.SignalAll();
  }
  for (std::thread& worker : workers_) worker.join();
}

int ThreadPool::ThreadsNow() {
  const int now = allowed_ ? std::clamp(allowed_(), 1, threads()) : threads();
  threads_now_.store(now, std::memory_order_relaxed);  // published by the next ticket
  return now;
}

bool ThreadPool::AnyoneSleeps(int threads) const {
  for (int thread = 1; thread < threads; ++thread) {
    if (asleep_[thread].load(std::memory_order_seq_cst)) return true;
  }
  return false;
}

void ThreadPool::RunUnits(int units, UnitFunction function, void* context) {
  function_ = function;
  context_ = context;
  units_ = units;
  done_.store(0, std::memory_order_relaxed);
  const uint64_t generation = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  ticket_.store(generation << 32 | static_cast<uint64_t>(units) << 16, std::memory_order_seq_cst);
  if (AnyoneSleeps(threads_now_.load(std::memory_order_relaxed))) {
    MutexLock lock(mutex_);
    work_.SignalAll();
  }
  TakeUnits(0);
  auto all_done = [&] { return done_.load(std::memory_order_seq_cst) == units; };
  if (SpinUntil(all_done)) return;
  MutexLock lock(mutex_);
  caller_sleeps_.store(true, std::memory_order_seq_cst);
  while (!all_done()) finished_.Wait(mutex_);
  caller_sleeps_.store(false, std::memory_order_relaxed);
}

void ThreadPool::TakeUnits(int thread) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (NextUnit(ticket) < Units(ticket)) {
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
      continue;
    }
    // The job cannot end before this unit does, so its fields stand still.
    const int32_t units = units_;
    function_(context_, static_cast<int>(NextUnit(ticket)), thread);
    if (done_.fetch_add(1, std::memory_order_seq_cst) + 1 == units && caller_sleeps_.load(std::memory_order_seq_cst)) {
      MutexLock lock(mutex_);
      finished_.Signal();
    }
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

bool ThreadPool::HasUnits(int thread) const {
  const uint64_t ticket = ticket_.load(std::memory_order_seq_cst);
  const bool allowed = thread < threads_now_.load(std::memory_order_relaxed);
  return (allowed && NextUnit(ticket) < Units(ticket)) || stop_.load(std::memory_order_relaxed);
}

void ThreadPool::SleepUntilWork(int thread) {
  MutexLock lock(mutex_);
  asleep_[thread].store(true, std::memory_order_seq_cst);
  while (!HasUnits(thread)) work_.Wait(mutex_);
  asleep_[thread].store(false, std::memory_order_relaxed);
}

void ThreadPool::WorkerLoop(int thread) {
  while (!stop_.load(std::memory_order_relaxed)) {
    if (!SpinUntil([this, thread] { return HasUnits(thread); })) SleepUntilWork(thread);
    TakeUnits(thread);
  }
}

}  // namespace baton::cpu
