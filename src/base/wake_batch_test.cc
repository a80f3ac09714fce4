#include "base/wake_batch.h"

#include <gtest/gtest.h>

#include <thread>

namespace baton {
namespace {

TEST(WakeBatchTest, WithoutABatchAtOnce) {
  int woken = 0;
  WakeBatch::Wake([&] { ++woken; });
  EXPECT_EQ(woken, 1);
}

TEST(WakeBatchTest, AtTheEndOfTheOutermostBatch) {
  int woken = 0;
  {
    WakeBatch batch;
    WakeBatch::Wake([&] { ++woken; });
    {
      WakeBatch inner;
      WakeBatch::Wake([&] { ++woken; });
    }
    EXPECT_EQ(woken, 0);
  }
  EXPECT_EQ(woken, 2);
  WakeBatch::Wake([&] { ++woken; });
  EXPECT_EQ(woken, 3);
}

TEST(WakeBatchTest, OtherThreadsDoNotWait) {
  WakeBatch batch;
  bool woken = false;
  std::thread([&] { WakeBatch::Wake([&] { woken = true; }); }).join();
  EXPECT_TRUE(woken);
}

}  // namespace
}  // namespace baton
