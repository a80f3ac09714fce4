// The clock of deadlines, timers and durations.
#pragma once

#include <chrono>
#include <cstdint>

namespace baton {

inline int64_t SteadyNanoseconds() {
  using std::chrono::duration_cast, std::chrono::nanoseconds, std::chrono::steady_clock;
  return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}
inline int64_t SteadyMicroseconds() { return SteadyNanoseconds() / 1000; }

}  // namespace baton
