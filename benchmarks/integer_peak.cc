// How many 8-bit integer operations all cores together do in a second (a multiplication and an addition are two), from
// registers: the ceiling over every product of quantized weights, and so over prefill.
//   integer_peak [SECONDS]  →  "threads=2 median_gop_s=655.1 best_gop_s=660.2 instructions=vpmaddubsw+vpaddw"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "backend/ceilings.h"

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 1.0;
  const auto threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const baton::MeasuredRate rate = baton::MeasureCpuIntegerRate(threads, seconds);
  std::printf("threads=%d median_gop_s=%.1f best_gop_s=%.1f instructions=%s\n", threads, rate.median / 1e9,
              rate.best / 1e9, baton::CpuIntegerInstructions());
  return 0;
}
