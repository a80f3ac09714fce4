#include "engine/expand_weight.h"

#include <gtest/gtest.h>

#include <vector>

#include "model/float_formats.h"

namespace baton {
namespace {

constexpr int64_t kRows = 130;  // more than two pieces
constexpr int64_t kColumns = 32;

TensorView View(DType dtype, const std::vector<uint8_t>& bytes) {
  return {
      .dtype = dtype, .shape = {kRows, kColumns}, .data = bytes.data(), .bytes = static_cast<int64_t>(bytes.size())};
}

TEST(ExpandWeightTest, Fp8WithItsScales) {
  std::vector<uint8_t> codes(kRows * kColumns);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 7 % 0x7f);  // no NaN
  std::vector<float> scales(kRows);
  for (int64_t row = 0; row < kRows; ++row) scales[row] = 0.01f * static_cast<float>(row + 1);
  for (const int64_t count : {kRows, int64_t{1}}) {
    const LinearSource source{.weight = View(DType::kF8E4M3, codes),
                              .scale = {.dtype = DType::kF32,
                                        .shape = {count},
                                        .data = reinterpret_cast<const uint8_t*>(scales.data()),
                                        .bytes = count * 4},
                              .input_scale = 3};
    const auto expanded = ExpandToBf16(source);
    ASSERT_TRUE(expanded.ok()) << expanded.status();
    EXPECT_EQ(expanded->source.weight.dtype, DType::kBF16);
    EXPECT_EQ(expanded->source.weight.shape, source.weight.shape);
    EXPECT_EQ(expanded->source.weight.bytes, kRows * kColumns * 2);
    EXPECT_EQ(expanded->source.scale.data, nullptr);
    EXPECT_EQ(expanded->source.input_scale, 0);
    for (size_t i = 0; i < codes.size(); ++i) {
      const float scale = scales[count == 1 ? 0 : i / kColumns];
      ASSERT_EQ(expanded->elements[i], FloatToBfloat16(Fp8E4M3ToFloat(codes[i]) * scale)) << i;
    }
  }
  const LinearSource bad{
      .weight = View(DType::kF8E4M3, codes),
      .scale = {
          .dtype = DType::kF32, .shape = {2}, .data = reinterpret_cast<const uint8_t*>(scales.data()), .bytes = 8}};
  EXPECT_EQ(ExpandToBf16(bad).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ExpandWeightTest, BlocksOfGguf) {
  std::vector<uint8_t> blocks;
  for (int64_t row = 0; row < kRows; ++row) {
    const uint16_t scale = FloatToHalf(0.5f);
    blocks.push_back(static_cast<uint8_t>(scale));
    blocks.push_back(static_cast<uint8_t>(scale >> 8));
    for (int i = 0; i < kColumns; ++i) blocks.push_back(static_cast<uint8_t>(row - i));
  }
  const auto expanded = ExpandToBf16({.weight = View(DType::kQ8_0, blocks)});
  ASSERT_TRUE(expanded.ok()) << expanded.status();
  for (int64_t row = 0; row < kRows; ++row) {
    for (int i = 0; i < kColumns; ++i) {
      EXPECT_EQ(Bfloat16ToFloat(expanded->elements[row * kColumns + i]),
                0.5f * static_cast<float>(static_cast<int8_t>(row - i)));
    }
  }
  blocks.pop_back();
  EXPECT_EQ(ExpandToBf16({.weight = View(DType::kQ8_0, blocks)}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ExpandWeightTest, OnlyWhatTheBackendDoesNotRead) {
  const std::vector<uint8_t> bytes(kRows * 34);
  EXPECT_TRUE(NeedsExpansion(View(DType::kQ8_0, bytes), kCudaWeightTypes));
  EXPECT_FALSE(NeedsExpansion(View(DType::kF8E4M3, bytes), kCudaWeightTypes));
  TensorView recipe = View(DType::kQ8_0, bytes);
  recipe.data = nullptr;
  EXPECT_FALSE(NeedsExpansion(recipe, kCudaWeightTypes));
}

}  // namespace
}  // namespace baton
