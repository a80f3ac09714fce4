#include "frontend/departure_rate.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
const DepartureRate::Clock::time_point kStart = DepartureRate::Clock::time_point() + std::chrono::hours(1);

// Ten seconds in which `per_second` leave each second.
DepartureRate Steady(int per_second) {
  DepartureRate rate;
  for (int i = 0; i < 10 * per_second; ++i) rate.Note(kStart + milliseconds(1000 * i / per_second), 1);
  return rate;
}

TEST(DepartureRateTest, MeasuresWhatLeaves) {
  DepartureRate rate = Steady(20);
  EXPECT_NEAR(rate.PerSecond(kStart + seconds(10)), 20, 2);
  EXPECT_EQ(rate.PerSecond(kStart + seconds(60)), 0);  // long ago
}

TEST(DepartureRateTest, FastServersAskForLittlePatienceAndSlowOnesForMore) {
  const auto now = kStart + seconds(10);
  EXPECT_EQ(Steady(50).SecondsUntil(now, 1), 1);
  DepartureRate slow;
  for (int i = 0; i <= 10; i += 5) slow.Note(kStart + seconds(i), 1);
  EXPECT_NEAR(slow.SecondsUntil(now, 1), 4, 1);         // one in five seconds, less the one just now
  EXPECT_GE(slow.SecondsUntil(now, 4), 10);             // a large one waits longer
  EXPECT_EQ(DepartureRate().SecondsUntil(now, 1), 10);  // nothing is known
}

TEST(DepartureRateTest, TheRefusedAreSpreadOut) {
  DepartureRate rate = Steady(10);
  const auto now = kStart + seconds(10);
  int told = 0, last = 0;
  for (int i = 0; i < 100; ++i) {
    told = rate.SecondsUntil(now, 1);
    EXPECT_GE(told, last);
    last = told;
  }
  EXPECT_NEAR(told, 10, 2);  // the hundredth of ten a second
  for (int i = 0; i < 100000; ++i) told = rate.SecondsUntil(now, 1);
  EXPECT_EQ(told, DepartureRate::kSecondsMax);
  EXPECT_EQ(Steady(10).SecondsUntil(now + seconds(5), 1), 1);
}

TEST(DepartureRateTest, TheLineIsForgottenWhenItHasPassed) {
  DepartureRate rate = Steady(10);
  for (int i = 0; i < 50; ++i) rate.SecondsUntil(kStart + seconds(10), 1);
  for (int i = 0; i < 100; ++i) rate.Note(kStart + seconds(15) + milliseconds(50 * i), 1);
  EXPECT_EQ(rate.SecondsUntil(kStart + seconds(20), 1), 1);
}

}  // namespace
}  // namespace baton
