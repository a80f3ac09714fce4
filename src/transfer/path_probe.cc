#include "transfer/path_probe.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <utility>

#include "base/mutex.h"
#include "base/steady_clock.h"

namespace baton {

namespace {

constexpr int64_t kLatencyBytes = 64;
constexpr int64_t kFirstLookBytes = 16 << 10;
constexpr double kRoundNs = 100e6;  // of a slow path only as much is moved as the first look promises for this time

// Shared with the callback, which may come after we gave up.
struct Round {
  Mutex mutex;
  CondVar changed;
  bool ended BATON_GUARDED_BY(mutex) = false;
  absl::Status status BATON_GUARDED_BY(mutex);
  int64_t end_ns BATON_GUARDED_BY(mutex) = 0;
};

// Nanoseconds from Post to callback.
absl::StatusOr<int64_t> TimeOnePost(RemoteMemory& memory, const std::vector<CopyRange>& ranges, Epoch tag,
                                    int64_t deadline_us) {
  auto round = std::make_shared<Round>();
  const int64_t start_ns = SteadyNanoseconds();
  BATON_RETURN_IF_ERROR(memory.Post(ranges, tag, [round](const TransferResult& result) {
    MutexLock lock(round->mutex);
    round->ended = true;
    round->status = result.status;
    round->end_ns = SteadyNanoseconds();
    round->changed.Signal();
  }));
  MutexLock lock(round->mutex);
  while (!round->ended) {
    const int64_t left_us = deadline_us - SteadyMicroseconds();
    if (left_us <= 0) {
      memory.Cancel(tag, nullptr);
      return DeadlineExceeded("the path to the remote memory did not move a probe in time");
    }
    round->changed.WaitFor(round->mutex, std::chrono::microseconds(left_us));
  }
  BATON_RETURN_IF_ERROR(round->status);
  return round->end_ns - start_ns;
}

absl::StatusOr<int64_t> MedianNanoseconds(RemoteMemory& memory, const std::vector<CopyRange>& ranges, Epoch tag,
                                          const ProbeOptions& options, int64_t deadline_us) {
  std::vector<int64_t> times;
  for (int32_t i = 0; i < options.repeats; ++i) {
    BATON_ASSIGN_OR_RETURN(const int64_t time_ns, TimeOnePost(memory, ranges, tag, deadline_us));
    times.push_back(time_ns);
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return std::max<int64_t>(times[times.size() / 2], 1);
}

// The ranges, cut after `limit` bytes; `bytes`: how many are left.
std::vector<CopyRange> FirstBytes(const std::vector<CopyRange>& ranges, int64_t limit, int64_t& bytes) {
  std::vector<CopyRange> bounded;
  for (CopyRange range : ranges) {
    range.bytes = std::min(range.bytes, limit - bytes);
    if (range.bytes <= 0) continue;
    bytes += range.bytes;
    bounded.push_back(range);
  }
  return bounded;
}

Mutex& ProbeTurn() {
  static Mutex* turn = new Mutex;
  return *turn;
}

}  // namespace

std::string PathReport::Text() const {
  char number[32];
  std::snprintf(number, sizeof(number), gigabytes_per_second < 0.095 ? "%.2g" : "%.1f", gigabytes_per_second);
  return Cat(transport, " ", number, " GB/s");
}

absl::StatusOr<PathReport> ProbePath(const Transport& transport, RemoteMemory& memory,
                                     const std::vector<CopyRange>& ranges, Epoch tag, const ProbeOptions& options) {
  int64_t usable_bytes = 0;
  const std::vector<CopyRange> bounded = FirstBytes(ranges, options.max_bytes, usable_bytes);
  if (usable_bytes == 0 || options.repeats < 1) return InvalidArgument("a probe needs at least one byte and one round");
  std::vector<CopyRange> small = {bounded.front()};
  small[0].bytes = std::min(small[0].bytes, kLatencyBytes);

  MutexLock turn(ProbeTurn());
  const int64_t deadline_us = SteadyMicroseconds() + options.timeout_ms * 1000;
  BATON_ASSIGN_OR_RETURN(const int64_t latency_ns, MedianNanoseconds(memory, small, tag, options, deadline_us));
  int64_t first_look_bytes = 0;
  const std::vector<CopyRange> first_look = FirstBytes(ranges, kFirstLookBytes, first_look_bytes);
  BATON_ASSIGN_OR_RETURN(const int64_t look_ns, TimeOnePost(memory, first_look, tag, deadline_us));
  const auto promised =
      static_cast<int64_t>(static_cast<double>(first_look_bytes) / static_cast<double>(look_ns) * kRoundNs);
  int64_t bytes = 0;
  const std::vector<CopyRange> round =
      FirstBytes(ranges, std::min(options.max_bytes, std::max(promised, first_look_bytes)), bytes);
  int64_t time_ns = look_ns;
  if (bytes > first_look_bytes) {
    BATON_ASSIGN_OR_RETURN(time_ns, MedianNanoseconds(memory, round, tag, options, deadline_us));
  }
  PathReport report = {.transport = transport.name(),
                       .gigabytes_per_second = static_cast<double>(bytes) / static_cast<double>(time_ns),
                       .latency_us = latency_ns / 1000};
  const double floor = transport.capabilities().floor_gigabytes_per_second;
  if (report.gigabytes_per_second < floor) {
    report.below_floor = true;
    report.advice = Cat("the path ", report.Text(), " is below the floor of ", floor, " GB/s for ", report.transport,
                        ": ", transport.capabilities().advice);
  }
  return report;
}

}  // namespace baton
