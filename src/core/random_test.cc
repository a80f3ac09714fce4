#include "core/random.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

TEST(KeyedRandomTest, IsAFunctionOfItsKeysAndOfEachOfThem) {
  EXPECT_EQ(KeyedBits(1, 2, 3), KeyedBits(1, 2, 3));
  EXPECT_NE(KeyedBits(1, 2, 3), KeyedBits(2, 2, 3));
  EXPECT_NE(KeyedBits(1, 2, 3), KeyedBits(1, 3, 3));
  EXPECT_NE(KeyedBits(1, 2, 3), KeyedBits(1, 2, 4));
}

TEST(KeyedRandomTest, IsUniformOverPositions) {
  constexpr int kDraws = 100000;
  int buckets[10] = {};
  for (int position = 0; position < kDraws; ++position) ++buckets[static_cast<int>(KeyedUniform(42, 0, position) * 10)];
  for (const int count : buckets) EXPECT_NEAR(count, kDraws / 10, 4 * 95);  // four standard deviations
}

}  // namespace
}  // namespace baton
