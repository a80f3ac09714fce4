#include "backend/cpu/thread_pool.h"

#include <gtest/gtest.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <vector>

namespace baton::cpu {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, EveryUnitRunsOnceInEveryJob) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.threads(), GetParam());
  std::vector<std::atomic<int>> runs(200);
  for (int job = 0; job < 2000; ++job) {
    const int units = job % 200;
    pool.ParallelFor(units, [&](int64_t unit, int thread) {
      ASSERT_GE(thread, 0);
      ASSERT_LT(thread, GetParam());
      runs[unit].fetch_add(1);
    });
    for (int unit = 0; unit < 200; ++unit) ASSERT_EQ(runs[unit].exchange(0), unit < units ? 1 : 0) << job;
  }
}

TEST_P(ThreadPoolTest, MoreUnitsThanOneTicketHolds) {
  ThreadPool pool(GetParam());
  std::atomic<int64_t> sum = 0;
  pool.ParallelFor(200'000, [&](int64_t unit, int) { sum.fetch_add(unit); });
  EXPECT_EQ(sum.load(), int64_t{200'000} * 199'999 / 2);
}

TEST_P(ThreadPoolTest, ResultsAreVisibleToTheCaller) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> values(1000);
  for (int job = 1; job < 200; ++job) {
    pool.ParallelFor(1000, [&](int64_t unit, int) { values[unit] += unit * job; });
  }
  for (int64_t unit = 0; unit < 1000; ++unit) EXPECT_EQ(values[unit], unit * 199 * 100);
}

TEST(ThreadPool, OnlyAllowedThreadsTakePart) {
  int allowed = 4;
  ThreadPool pool(4, [&] { return allowed; });
  for (int job = 0; job < 3000; ++job) {
    allowed = job % 6;  // 0 is 1, and 5 is 4
    std::atomic<int64_t> sum = 0;
    pool.ParallelFor(40, [&](int64_t unit, int) { sum.fetch_add(unit); });
    ASSERT_EQ(sum.load(), 780);
  }
  allowed = 1;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // until the others sleep
  std::atomic<bool> other = false;
  for (int job = 0; job < 200; ++job) {
    pool.ParallelFor(40, [&](int64_t, int thread) { other = other || thread != 0; });
  }
  EXPECT_FALSE(other);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 8));

TEST(ThreadPool, UsesNoProcessorAtRest) {
  ThreadPool pool(4);
  pool.ParallelFor(100, [](int64_t, int) {});
  auto cpu_seconds = [] {
    timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
  };
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // until they sleep
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(cpu_seconds() - before, 0.02);
  std::atomic<int> runs = 0;
  pool.ParallelFor(100, [&](int64_t, int) { ++runs; });  // and wake again
  EXPECT_EQ(runs.load(), 100);
}

}  // namespace
}  // namespace baton::cpu
