// Times work that several threads do together.
#pragma once

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace baton::cpu {

// Every thread calls `prepare` once, and then what it returned, in passes that begin together, for about `seconds` and
// at least three times. Returns the seconds of each pass, shortest first.
inline std::vector<double> TimedPasses(int32_t threads, double seconds,
                                       const std::function<std::function<void()>()>& prepare) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> passes;
  bool stop = false;  // written while all others wait
  const auto started = Clock::now();
  Clock::time_point pass = started;
  bool warm = false;  // the first pass begins when the slowest thread is prepared
  std::barrier together(threads, [&]() noexcept {
    const auto now = Clock::now();
    if (warm) passes.push_back(std::chrono::duration<double>(now - pass).count());
    warm = true;
    pass = now;
    stop = passes.size() >= 3 && std::chrono::duration<double>(now - started).count() >= seconds;
  });
  std::vector<std::thread> workers;
  for (int32_t i = 0; i < threads; ++i) {
    workers.emplace_back([&] {
      const std::function<void()> work = prepare();
      together.arrive_and_wait();
      while (!stop) {
        work();
        together.arrive_and_wait();
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  std::sort(passes.begin(), passes.end());
  return passes;
}

}  // namespace baton::cpu
