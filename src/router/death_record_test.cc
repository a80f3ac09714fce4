#include "router/death_record.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

constexpr WorkerId kFirst{1}, kSecond{2};

TEST(DeathRecordTest, TwoSelfInflictedDeathsAreSuspicious) {
  DeathRecord record;
  record.Expose(kFirst, 1);
  EXPECT_TRUE(record.awaits_cause());
  EXPECT_TRUE(record.OnDeath(kFirst, 1, true, "one died"));
  EXPECT_FALSE(record.awaits_cause());
  EXPECT_FALSE(record.suspicious());
  record.Expose(kSecond, 4);
  EXPECT_TRUE(record.OnDeath(kSecond, 4, true, "two died"));
  EXPECT_TRUE(record.suspicious());
  EXPECT_EQ(record.Text(), "one died; two died");
}

TEST(DeathRecordTest, WhatOthersDidToAWorkerIsNobodysFault) {
  DeathRecord record;
  for (uint64_t incarnation = 1; incarnation < 10; ++incarnation) {
    record.Expose(kFirst, incarnation);
    EXPECT_FALSE(record.OnDeath(kFirst, incarnation, false, "killed"));
  }
  EXPECT_EQ(record.deaths(), 0);
  EXPECT_FALSE(record.awaits_cause());
}

TEST(DeathRecordTest, ADeathCountsOnceAndOnlyForThoseWhoWereThere) {
  DeathRecord record;
  EXPECT_FALSE(record.OnDeath(kFirst, 1, true, "died"));
  record.Expose(kFirst, 2);
  record.Expose(kFirst, 2);
  EXPECT_FALSE(record.OnDeath(kSecond, 2, true, "died"));
  EXPECT_TRUE(record.OnDeath(kFirst, 2, true, "died"));
  EXPECT_FALSE(record.OnDeath(kFirst, 2, true, "died"));
  EXPECT_EQ(record.deaths(), 1);
}

TEST(DeathRecordTest, AnEndThatWasMissedIsNotWaitedFor) {
  DeathRecord record;
  record.Expose(kFirst, 2);
  EXPECT_FALSE(record.OnDeath(kFirst, 3, true, "died"));
  EXPECT_FALSE(record.awaits_cause());
}

}  // namespace
}  // namespace baton
