#include "backend/ceilings.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string_view>

#include "backend/cpu/kernels.h"
#include "backend/cpu/peak_rate.h"
#include "backend/cpu/timed_passes.h"

namespace baton {
namespace {

constexpr size_t kBytesForThread = size_t{256} << 20;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr double kRateSeconds = 0.2;
constexpr int kRunsInPass = 50;  // some milliseconds, so that starting together costs nothing

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

MeasuredRate RateOf(double amount, const std::vector<double>& passes) {
  return {.median = amount / passes[passes.size() / 2], .best = amount / passes[0]};
}

MeasuredRate MeasureRate(const cpu::PeakRate& rate, int32_t threads, double seconds) {
  const auto work = [&rate] {
    for (int i = 1; i < kRunsInPass; ++i) rate.run();
    return rate.run();
  };
  const int64_t operations = work() * kRunsInPass;  // of a pass: every run has as many
  return RateOf(static_cast<double>(operations) * threads,
                cpu::TimedPasses(threads, seconds, [&work] { return work; }));
}

enum class Width : uint8_t { kPlain, kAvx2, kAvx512 };
Width WidthHere() {
  const std::string_view best = cpu::KernelsHere().front()->name;
  return best.starts_with("avx512") ? Width::kAvx512 : best == "avx2" ? Width::kAvx2 : Width::kPlain;
}

}  // namespace

MeasuredRate MeasureCpuReadBandwidth(int32_t threads, double seconds) {
  std::atomic<uint64_t> sum = 0;
  const std::vector<double> passes =
      cpu::TimedPasses(threads, seconds, [&sum] { return [&sum, data = Memory()] { sum += Read(data.get()); }; });
  if (sum == 0) return {};  // the sums are used, so the reads happen
  return RateOf(static_cast<double>(threads * kBytesForThread), passes);
}

MeasuredRate MeasureCpuIntegerRate(int32_t threads, double seconds) {
  const Width width = WidthHere();
  return MeasureRate(width == Width::kAvx512 ? cpu::Int8RateAvx512()
                     : width == Width::kAvx2 ? cpu::Int8RateAvx2()
                                             : cpu::Int8RatePlain(),
                     threads, seconds);
}

MeasuredRate MeasureCpuFloatRate(int32_t threads, double seconds) {
  const Width width = WidthHere();
  return MeasureRate(width == Width::kAvx512 ? cpu::FloatRateAvx512()
                     : width == Width::kAvx2 ? cpu::FloatRateAvx2()
                                             : cpu::FloatRatePlain(),
                     threads, seconds);
}

const char* CpuIntegerInstructions() {
  const Width width = WidthHere();
  return width == Width::kAvx512 ? "vpdpbusd" : width == Width::kAvx2 ? "vpmaddubsw+vpaddw" : "scalar";
}

absl::StatusOr<Ceilings> MeasureCpuCeilings(int32_t threads) {
  return Ceilings{.read_bytes_per_second = MeasureCpuReadBandwidth(threads, 1.0).median,
                  .gemm_ops_per_second = MeasureCpuIntegerRate(threads, kRateSeconds).median,
                  .attention_ops_per_second = MeasureCpuFloatRate(threads, kRateSeconds).median};
}

}  // namespace baton
