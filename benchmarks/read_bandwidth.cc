// How fast all cores together read memory that is in no cache: the floor under every decode step.
//   read_bandwidth [SECONDS]  →  "threads=2 median_gb_s=21.3 best_gb_s=22.0"
#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>

#include "timed_passes.h"

namespace {

constexpr size_t kBytesForThread = size_t{256} << 20;
constexpr size_t kHugePage = size_t{2} << 20;

// Eight sums side by side: the loop waits for memory, not for an addition.
uint64_t Read(const uint64_t* data) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i < kBytesForThread / sizeof(uint64_t); i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) sums[lane] += data[i + lane];
  }
  return std::accumulate(sums, sums + 8, uint64_t{0});
}

// Huge pages where the kernel gives them: with small ones the loop also waits for page tables, which is no floor.
std::shared_ptr<uint64_t> Memory() {
  std::shared_ptr<uint64_t> data(static_cast<uint64_t*>(std::aligned_alloc(kHugePage, kBytesForThread)), std::free);
  madvise(data.get(), kBytesForThread, MADV_HUGEPAGE);
  std::fill_n(data.get(), kBytesForThread / sizeof(uint64_t), uint64_t{1});
  return data;
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 1.0;
  const unsigned threads = std::max(1u, std::thread::hardware_concurrency());
  std::atomic<uint64_t> sum = 0;
  const std::vector<double> passes =
      TimedPasses(seconds, [&sum] { return [&sum, data = Memory()] { sum += Read(data.get()); }; });
  const double gigabytes = static_cast<double>(threads * kBytesForThread) / 1e9;
  std::printf("threads=%u median_gb_s=%.2f best_gb_s=%.2f\n", threads, gigabytes / passes[passes.size() / 2],
              gigabytes / passes[0]);
  return sum == 0 ? 1 : 0;  // the sums are used, so the reads happen
}
