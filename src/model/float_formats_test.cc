#include "model/float_formats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace baton {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(FloatFormatsTest, KnownValues) {
  EXPECT_EQ(HalfToFloat(0x3c00), 1.0f);
  EXPECT_EQ(HalfToFloat(0xc000), -2.0f);
  EXPECT_EQ(HalfToFloat(0x7bff), 65504.0f);
  EXPECT_EQ(HalfToFloat(0x0001), 0x1.0p-24f);
  EXPECT_EQ(HalfToFloat(0xfc00), -kInfinity);
  EXPECT_TRUE(std::isnan(HalfToFloat(0x7e00)));
  EXPECT_EQ(Bfloat16ToFloat(0x3f80), 1.0f);
  EXPECT_EQ(Fp8E4M3ToFloat(0x38), 1.0f);
  EXPECT_EQ(Fp8E4M3ToFloat(0x7e), 448.0f);
  EXPECT_EQ(Fp8E4M3ToFloat(0x81), -0x1.0p-9f);
  EXPECT_TRUE(std::isnan(Fp8E4M3ToFloat(0xff)));
}

TEST(FloatFormatsTest, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float half = HalfToFloat(static_cast<uint16_t>(bits)), brain = Bfloat16ToFloat(static_cast<uint16_t>(bits));
    if (!std::isnan(half)) {
      ASSERT_EQ(FloatToHalf(half), bits);
    }
    if (!std::isnan(brain)) {
      ASSERT_EQ(FloatToBfloat16(brain), bits);
    }
  }
  for (uint32_t bits = 0; bits < 0x100; ++bits) {
    const float value = Fp8E4M3ToFloat(static_cast<uint8_t>(bits));
    if (!std::isnan(value)) {
      EXPECT_EQ(FloatToFp8E4M3(value), bits);
    }
  }
}

// The middle between neighbours goes to the even one, a little more or less to the nearer.
TEST(FloatFormatsTest, RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7e; ++bits) {
    const float low = Fp8E4M3ToFloat(static_cast<uint8_t>(bits)), high = Fp8E4M3ToFloat(static_cast<uint8_t>(bits + 1));
    const float middle = (low + high) / 2;
    EXPECT_EQ(FloatToFp8E4M3(middle), bits + bits % 2);
    EXPECT_EQ(FloatToFp8E4M3(std::nextafter(middle, 0.0f)), bits);
    EXPECT_EQ(FloatToFp8E4M3(-std::nextafter(middle, 1e9f)), 0x80 | (bits + 1));
  }
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = HalfToFloat(static_cast<uint16_t>(bits)), high = HalfToFloat(static_cast<uint16_t>(bits + 1));
    const float middle = (low + high) / 2;
    ASSERT_EQ(FloatToHalf(middle), bits + bits % 2);
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 0.0f)), bits);
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 1e9f)), bits + 1);
  }
  EXPECT_EQ(FloatToBfloat16(1.00390625f), 0x3f80);  // 1 + 2^-8, the middle
  EXPECT_EQ(FloatToBfloat16(1.01171875f), 0x3f82);  // 1 + 3 × 2^-8
  EXPECT_EQ(FloatToBfloat16(1.00390637f), 0x3f81);
}

TEST(FloatFormatsTest, BeyondTheRange) {
  EXPECT_EQ(FloatToHalf(65519.0f), 0x7bff);
  EXPECT_EQ(FloatToHalf(-65520.0f), 0xfc00);
  EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(std::nanf("")))));
  EXPECT_EQ(FloatToFp8E4M3(1e9f), 0x7e);
  EXPECT_EQ(FloatToFp8E4M3(-kInfinity), 0xfe);
  EXPECT_TRUE(std::isnan(Fp8E4M3ToFloat(FloatToFp8E4M3(std::nanf("")))));
  EXPECT_TRUE(std::isnan(Bfloat16ToFloat(FloatToBfloat16(std::nanf("")))));
}

}  // namespace
}  // namespace baton
