#include "worker/rates.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

TEST(StepRatesTest, TheShortestOfTheLastDecodeSteps) {
  StepRates rates(0);
  for (int i = 0; i < 7; ++i) rates.Add(0, 4, 2000 + i);
  EXPECT_EQ(rates.fewest_decode_step_us(), 0) << "too few to tell";
  rates.Add(64, 4, 10);  // with prompt tokens: says nothing about decode steps
  EXPECT_EQ(rates.fewest_decode_step_us(), 0);
  rates.Add(0, 1, 2500);
  EXPECT_EQ(rates.fewest_decode_step_us(), 2000);
  for (int i = 0; i < 7; ++i) rates.Add(0, 4, 3000);
  EXPECT_EQ(rates.fewest_decode_step_us(), 2500) << "older ones count no more";
}

}  // namespace
}  // namespace baton
