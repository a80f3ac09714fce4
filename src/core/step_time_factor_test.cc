#include "core/step_time_factor.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

TEST(StepTimeFactorTest, FollowsWhatStepsTake) {
  StepTimeFactor factor;
  EXPECT_EQ(factor.value(), 1);
  for (int i = 0; i < 4000; ++i) factor.Observe(10000, 15000);
  EXPECT_NEAR(factor.value(), 1.5, 0.01);
  for (int i = 0; i < 4000; ++i) factor.Observe(10000, 8000);
  EXPECT_NEAR(factor.value(), 0.8, 0.05);
}

TEST(StepTimeFactorTest, OneSlowStepIsNoNews) {
  StepTimeFactor factor;
  for (int i = 0; i < 1000; ++i) factor.Observe(10000, 10000);
  factor.Observe(10000, 200000);
  EXPECT_LT(factor.value(), 1.05);
}

TEST(StepTimeFactorTest, LongStepsCountMost) {
  StepTimeFactor factor;
  for (int i = 0; i < 500; ++i) {
    factor.Observe(1000, 3000);
    factor.Observe(100000, 100000);
  }
  EXPECT_NEAR(factor.value(), 1.02, 0.01);
}

TEST(StepTimeFactorTest, WhatSaysNothingChangesNothingAndItIsBounded) {
  StepTimeFactor factor;
  factor.Observe(0, 1000);
  factor.Observe(1000, 0);
  EXPECT_EQ(factor.value(), 1);
  for (int i = 0; i < 100; ++i) factor.Observe(1, 1e6);
  EXPECT_EQ(factor.value(), 10);
}

}  // namespace
}  // namespace baton
