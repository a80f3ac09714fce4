#include "backend/ceilings.h"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "backend/cpu/kernels.h"
#include "backend/cpu/peak_rate.h"

namespace baton {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kBytesForThread = size_t{256} << 20;
constexpr double kRateSeconds = 0.2;

double SecondsSince(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// Eight sums side by side: the loop waits for memory, not for an addition.
uint64_t Read(const std::vector<uint64_t>& data) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= data.size(); i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) sums[lane] += data[i + lane];
  }
  return std::accumulate(sums, sums + 8, uint64_t{0});
}

// Operations a second of all threads together.
double MeasureRate(const cpu::PeakRate& rate, int32_t threads) {
  std::atomic<int64_t> operations = 0;
  const auto work = [&] {
    const auto begin = Clock::now();
    while (SecondsSince(begin) < kRateSeconds) operations += rate.run();
  };
  const auto begin = Clock::now();
  std::vector<std::thread> helpers;
  for (int32_t i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  return static_cast<double>(operations) / SecondsSince(begin);
}

}  // namespace

ReadBandwidth MeasureCpuReadBandwidth(int32_t threads, double seconds) {
  std::vector<double> speeds;  // of each pass of all threads
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> sum = 0;
  const auto started = Clock::now();
  Clock::time_point pass = started;
  bool warm = false;  // the first pass begins when the slowest thread has its memory
  std::barrier together(threads, [&]() noexcept {
    const auto now = Clock::now();
    const double elapsed = std::chrono::duration<double>(now - pass).count();
    if (warm) speeds.push_back(static_cast<double>(threads * kBytesForThread) / elapsed);
    warm = true;
    pass = now;
    stop = speeds.size() >= 3 && std::chrono::duration<double>(now - started).count() >= seconds;
  });
  std::vector<std::thread> readers;
  for (int32_t i = 0; i < threads; ++i) {
    readers.emplace_back([&, i] {
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
  if (sum == 0) return {};  // the sums are used, so the reads happen
  return {.median = speeds[speeds.size() / 2], .best = speeds.back()};
}

absl::StatusOr<Ceilings> MeasureCpuCeilings(int32_t threads) {
  // AVX-512 has no loop of its own here: with it the engine may pass what is given as the ceiling.
  const bool avx2 = cpu::KernelsHere().front() != &cpu::PlainKernels();
  return Ceilings{
      .read_bytes_per_second = MeasureCpuReadBandwidth(threads, 1.0).median,
      .gemm_ops_per_second = MeasureRate(avx2 ? cpu::Int8RateAvx2() : cpu::Int8RatePlain(), threads),
      .attention_ops_per_second = MeasureRate(avx2 ? cpu::FloatRateAvx2() : cpu::FloatRatePlain(), threads)};
}

}  // namespace baton
