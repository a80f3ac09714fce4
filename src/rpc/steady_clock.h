// The clock of deadlines and timers.
#pragma once

#include <chrono>
#include <cstdint>

namespace baton {

inline int64_t SteadyMicroseconds() {
  using std::chrono::duration_cast, std::chrono::microseconds, std::chrono::steady_clock;
  return duration_cast<microseconds>(steady_clock::now().time_since_epoch()).count();
}

}  // namespace baton
