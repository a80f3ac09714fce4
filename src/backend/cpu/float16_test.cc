#include "backend/cpu/float16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace baton::cpu {
namespace {

// By the definition of IEEE binary16.
double Exact(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const double fraction = half & 1023;
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}

TEST(Float16, EveryFiniteHalfIsExactAndComesBack) {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    if ((half & 0x7c00) == 0x7c00) continue;
    EXPECT_EQ(HalfToFloat(half), Exact(half)) << bits;
    EXPECT_EQ(FloatToHalf(HalfToFloat(half)), half);
  }
  EXPECT_TRUE(std::isnan(HalfToFloat(0x7e00)));
  EXPECT_EQ(HalfToFloat(0xfc00), -INFINITY);
}

TEST(Float16, RoundsToNearestTiesToEven) {
  for (int bits = 0; bits < 0x7bff; ++bits) {
    const uint16_t low = static_cast<uint16_t>(bits);
    const uint16_t high = static_cast<uint16_t>(bits + 1);
    const float middle = static_cast<float>((Exact(low) + Exact(high)) / 2);
    EXPECT_EQ(FloatToHalf(middle), bits % 2 == 0 ? low : high) << bits;
    EXPECT_EQ(FloatToHalf(std::nextafter(middle, 0.0f)), low) << bits;
    EXPECT_EQ(FloatToHalf(-std::nextafter(middle, 1e9f)), high | 0x8000) << bits;
  }
  EXPECT_EQ(FloatToHalf(65519.0f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(-1e30f), 0xfc00);
  EXPECT_EQ(FloatToHalf(INFINITY), 0x7c00);
  EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(NAN))));
}

TEST(Float16, Bfloat16IsTheUpperHalf) {
  EXPECT_EQ(Bf16ToFloat(0x3f80), 1.0f);
  EXPECT_EQ(Bf16ToFloat(0xc049), -3.140625f);
}

}  // namespace
}  // namespace baton::cpu
