// How fast all cores together read memory that is in no cache: the floor under every decode step.
//   read_bandwidth [SECONDS]  →  "threads=2 median_gb_s=21.3 best_gb_s=22.0"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "backend/ceilings.h"

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 1.0;
  const auto threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const baton::MeasuredRate rate = baton::MeasureCpuReadBandwidth(threads, seconds);
  std::printf("threads=%d median_gb_s=%.2f best_gb_s=%.2f\n", threads, rate.median / 1e9, rate.best / 1e9);
  return 0;
}
