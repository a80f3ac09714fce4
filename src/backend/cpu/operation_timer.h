// Adds the time of a scope to its family in a step's profile.
#pragma once

#include <chrono>

#include "core/batch.h"

namespace baton::cpu {

class OperationTimer {
 public:
  OperationTimer(StepProfile& profile, KernelFamily family) : sum_(&profile[static_cast<int>(family)]) {}
  ~OperationTimer() { Stop(); }
  OperationTimer(const OperationTimer&) = delete;
  OperationTimer& operator=(const OperationTimer&) = delete;

  // Now instead of at the scope's end.
  void Stop() {
    if (sum_ == nullptr) return;
    *sum_ += std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin_).count();
    sum_ = nullptr;
  }

 private:
  double* sum_;  // microseconds; null: stopped
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace baton::cpu
