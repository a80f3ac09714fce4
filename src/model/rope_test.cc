#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace baton {
namespace {

TEST(RopeTest, Plain) {
  const std::vector<float> frequencies = RopeInverseFrequencies(8, 10000);
  const float expected[] = {1.0f, 0.1f, 0.01f, 0.001f};
  ASSERT_EQ(frequencies.size(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_FLOAT_EQ(frequencies[i], expected[i]);
}

TEST(RopeTest, Linear) {
  std::vector<float> frequencies = {1.0f, 0.5f};
  ScaleRopeLinear(4, frequencies);
  EXPECT_EQ(frequencies, (std::vector<float>{0.25f, 0.125f}));
}

TEST(RopeTest, Llama3LeavesShortWavesStretchesLongOnesAndBlends) {
  const auto frequency = [](double wavelength) { return static_cast<float>(2 * std::numbers::pi / wavelength); };
  // With 8192 positions, wavelengths below 2048 stay and those above 8192 are stretched by 8.
  std::vector<float> frequencies = {frequency(2000), frequency(9000), frequency(4096)};
  ScaleRopeLlama3({}, frequencies);
  EXPECT_FLOAT_EQ(frequencies[0], frequency(2000));
  EXPECT_FLOAT_EQ(frequencies[1], frequency(9000) / 8);
  // Two turns of the original context: a third of the way from 1 to 4.
  EXPECT_FLOAT_EQ(frequencies[2], frequency(4096) * (1.0f / 3 + 2.0f / 3 / 8));
}

}  // namespace
}  // namespace baton
