// How fast all cores together read memory that is in no cache: the floor under every decode step.
//   read_bandwidth [SECONDS]  →  "threads=2 median_gb_s=21.3 best_gb_s=22.0"
#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <thread>
#include <vector>

namespace {

constexpr size_t kBytesForThread = size_t{256} << 20;

// Eight sums side by side: the loop waits for memory, not for an addition.
uint64_t Read(const std::vector<uint64_t>& data) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= data.size(); i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) sums[lane] += data[i + lane];
  }
  return std::accumulate(sums, sums + 8, uint64_t{0});
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 1.0;
  const unsigned threads = std::max(1u, std::thread::hardware_concurrency());
  std::vector<double> speeds;  // GB/s of each pass of all threads
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> sum = 0;
  using Clock = std::chrono::steady_clock;
  const auto started = Clock::now();
  Clock::time_point pass = started;
  bool warm = false;  // the first pass begins when the slowest thread has its memory
  std::barrier together(static_cast<std::ptrdiff_t>(threads), [&]() noexcept {
    const auto now = Clock::now();
    const double elapsed = std::chrono::duration<double>(now - pass).count();
    if (warm) speeds.push_back(static_cast<double>(threads * kBytesForThread) / elapsed / 1e9);
    warm = true;
    pass = now;
    stop = speeds.size() >= 3 && std::chrono::duration<double>(now - started).count() >= seconds;
  });
  std::vector<std::thread> readers;
  for (unsigned i = 0; i < threads; ++i) {
    readers.emplace_back([&] {
      const std::vector<uint64_t> data(kBytesForThread / sizeof(uint64_t), i + 1);
      together.arrive_and_wait();
      while (!stop) {
        sum += Read(data);
        together.arrive_and_wait();
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  std::sort(speeds.begin(), speeds.end());
  std::printf("threads=%u median_gb_s=%.2f best_gb_s=%.2f\n", threads, speeds[speeds.size() / 2], speeds.back());
  return sum == 0 ? 1 : 0;  // the sums are used, so the reads happen
}
