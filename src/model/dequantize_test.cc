// Block types against ggml's Python reference: tests/model_test.py. Here, what each field of a block does.
#include "model/dequantize.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "model/float_formats.h"

namespace baton {
namespace {

std::vector<float> Decode(DType dtype, const std::vector<uint8_t>& block) {
  const DTypeTraits traits = TraitsOf(dtype);
  EXPECT_EQ(static_cast<int32_t>(block.size()), traits.block_bytes);
  std::vector<float> out(traits.block_elements);
  Dequantize(dtype, block.data(), traits.block_elements, out.data());
  return out;
}

// A block of zero bytes with halves at the given places.
std::vector<uint8_t> Block(DType dtype, std::initializer_list<std::pair<size_t, float>> halves) {
  std::vector<uint8_t> block(TraitsOf(dtype).block_bytes);
  for (const auto& [offset, value] : halves) {
    const uint16_t bits = FloatToHalf(value);
    std::memcpy(block.data() + offset, &bits, sizeof(bits));
  }
  return block;
}

TEST(DequantizeTest, SimpleBlocks) {
  std::vector<uint8_t> q8 = Block(DType::kQ8_0, {{0, 0.5f}});
  q8[2 + 31] = 0xfe;
  EXPECT_EQ(Decode(DType::kQ8_0, q8)[31], -1.0f);

  std::vector<uint8_t> q4 = Block(DType::kQ4_0, {{0, 2.0f}});
  q4[2 + 3] = 0xf1;
  EXPECT_EQ(Decode(DType::kQ4_0, q4)[3], -14.0f);
  EXPECT_EQ(Decode(DType::kQ4_0, q4)[19], 14.0f);

  std::vector<uint8_t> q4_1 = Block(DType::kQ4_1, {{0, 2.0f}, {2, -1.0f}});
  q4_1[4 + 15] = 0x23;
  EXPECT_EQ(Decode(DType::kQ4_1, q4_1)[15], 5.0f);
  EXPECT_EQ(Decode(DType::kQ4_1, q4_1)[31], 3.0f);

  std::vector<uint8_t> q5 = Block(DType::kQ5_0, {{0, 1.0f}});
  q5[2] = 0x01;  // the fifth bit of element 0
  q5[5] = 0x80;  // and of element 31
  q5[6] = 0x07;
  EXPECT_EQ(Decode(DType::kQ5_0, q5)[0], 7.0f);
  EXPECT_EQ(Decode(DType::kQ5_0, q5)[31], 0.0f);
  EXPECT_EQ(Decode(DType::kQ5_0, q5)[1], -16.0f);

  std::vector<uint8_t> q5_1 = Block(DType::kQ5_1, {{0, 1.0f}, {2, 0.5f}});
  q5_1[4] = 0x02;
  EXPECT_EQ(Decode(DType::kQ5_1, q5_1)[1], 16.5f);
  EXPECT_EQ(Decode(DType::kQ5_1, q5_1)[2], 0.5f);
}

TEST(DequantizeTest, SuperBlocks) {
  std::vector<uint8_t> q4 = Block(DType::kQ4_K, {{0, 1.0f}, {2, 0.5f}});
  q4[4 + 1] = 3;            // scale of group 1
  q4[4 + 5] = 2;            // its minimum
  q4[4 + 11] = 0x21;        // low bits of group 7: scale 1, minimum 2
  q4[4 + 3] = 0x40;         // high bits of group 7's scale: 16
  q4[16 + 0] = 0x50;        // group 1, element 0
  q4[16 + 96 + 31] = 0x30;  // group 7, element 31
  const std::vector<float> values = Decode(DType::kQ4_K, q4);
  EXPECT_EQ(values[32], 3.0f * 5 - 1.0f);
  EXPECT_EQ(values[255], 17.0f * 3 - 1.0f);

  std::vector<uint8_t> q5 = Block(DType::kQ5_K, {{0, 1.0f}});
  q5[4 + 2] = 1;
  q5[16 + 4] = 1 << 2;     // fifth bit of group 2, element 4
  q5[48 + 32 + 4] = 0x03;  // low bits
  EXPECT_EQ(Decode(DType::kQ5_K, q5)[64 + 4], 19.0f);

  std::vector<uint8_t> q6 = Block(DType::kQ6_K, {{208, 0.5f}});
  q6[192 + 15] = 0xfe;       // scale of elements 240-255: -2
  q6[64 + 32 + 31] = 0x90;   // low bits of element 255
  q6[128 + 32 + 31] = 0xc0;  // high bits: 3
  EXPECT_EQ(Decode(DType::kQ6_K, q6)[255], -1.0f * (9 + 48 - 32));
}

TEST(DequantizeTest, PlainTypes) {
  const uint8_t brain[] = {0x80, 0x3f, 0x00, 0xc0};
  float out[2];
  Dequantize(DType::kBF16, brain, 2, out);
  EXPECT_EQ(out[0], 1.0f);
  EXPECT_EQ(out[1], -2.0f);
  const uint8_t fp8[] = {0x38, 0xfe};
  Dequantize(DType::kF8E4M3, fp8, 2, out);
  EXPECT_EQ(out[0], 1.0f);
  EXPECT_EQ(out[1], -448.0f);
}

}  // namespace
}  // namespace baton
