#include "model/dequantize.h"

#include <cstring>

#include "model/float_formats.h"

namespace baton {
namespace {

template <typename Number>
Number Load(const uint8_t* data) {
  Number value;
  std::memcpy(&value, data, sizeof(value));
  return value;
}

float LoadHalf(const uint8_t* data) { return HalfToFloat(Load<uint16_t>(data)); }

// Q8_0: scale, 32 signed bytes.
void BlockQ8_0(const uint8_t* block, float* out) {
  const float scale = LoadHalf(block);
  for (int i = 0; i < 32; ++i) out[i] = scale * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

// Q4_0: scale, 16 bytes; low nibbles are elements 0-15, high nibbles 16-31; biased by 8.
void BlockQ4_0(const uint8_t* block, float* out) {
  const float scale = LoadHalf(block);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>((block[2 + i] & 15) - 8);
    out[i + 16] = scale * static_cast<float>((block[2 + i] >> 4) - 8);
  }
}

// Q4_1: scale, minimum, nibbles as above, not biased.
void BlockQ4_1(const uint8_t* block, float* out) {
  const float scale = LoadHalf(block), minimum = LoadHalf(block + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(block[4 + i] & 15) + minimum;
    out[i + 16] = scale * static_cast<float>(block[4 + i] >> 4) + minimum;
  }
}

// The fifth bits of Q5_0 and Q5_1 are one 32-bit word, element i's at bit i.
int FiveBits(uint32_t high, uint8_t nibble, int element) {
  return nibble | static_cast<int>((high >> element & 1) << 4);
}

// Q5_0: scale, fifth bits, nibbles; biased by 16.
void BlockQ5_0(const uint8_t* block, float* out) {
  const float scale = LoadHalf(block);
  const uint32_t high = Load<uint32_t>(block + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(FiveBits(high, block[6 + i] & 15, i) - 16);
    out[i + 16] = scale * static_cast<float>(FiveBits(high, block[6 + i] >> 4, i + 16) - 16);
  }
}

// Q5_1: scale, minimum, fifth bits, nibbles.
void BlockQ5_1(const uint8_t* block, float* out) {
  const float scale = LoadHalf(block), minimum = LoadHalf(block + 2);
  const uint32_t high = Load<uint32_t>(block + 4);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(FiveBits(high, block[8 + i] & 15, i)) + minimum;
    out[i + 16] = scale * static_cast<float>(FiveBits(high, block[8 + i] >> 4, i + 16)) + minimum;
  }
}

struct ScaleAndMinimum {
  float scale, minimum;
};

// Q4_K and Q5_K have 8 groups of 32 with 6-bit scales and minimums in 12 bytes: groups 0-3 in the low six bits of bytes
// 0-3 and 4-7; groups 4-7 have their low four bits in bytes 8-11 and their high two in the top of the others.
ScaleAndMinimum GroupScale(const uint8_t* block, int group) {
  const float scale = LoadHalf(block), minimum = LoadHalf(block + 2);
  const uint8_t* packed = block + 4;
  int s, m;
  if (group < 4) {
    s = packed[group] & 63;
    m = packed[group + 4] & 63;
  } else {
    s = (packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4;
    m = (packed[group + 4] >> 4) | (packed[group] >> 6) << 4;
  }
  return {scale * static_cast<float>(s), minimum * static_cast<float>(m)};
}

// Q4_K: scale, minimum, 12 bytes of group scales, 128 bytes: of each 32, low nibbles are one group, high the next.
void BlockQ4_K(const uint8_t* block, float* out) {
  for (int group = 0; group < 8; ++group) {
    const auto [scale, minimum] = GroupScale(block, group);
    const uint8_t* nibbles = block + 16 + group / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int value = group % 2 == 0 ? nibbles[i] & 15 : nibbles[i] >> 4;
      out[group * 32 + i] = scale * static_cast<float>(value) - minimum;
    }
  }
}

// Q5_K: as Q4_K, with 32 bytes of fifth bits before the nibbles: byte i, bit g is element i of group g.
void BlockQ5_K(const uint8_t* block, float* out) {
  const uint8_t* high = block + 16;
  for (int group = 0; group < 8; ++group) {
    const auto [scale, minimum] = GroupScale(block, group);
    const uint8_t* nibbles = block + 48 + group / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int low = group % 2 == 0 ? nibbles[i] & 15 : nibbles[i] >> 4;
      out[group * 32 + i] = scale * static_cast<float>(low | (high[i] >> group & 1) << 4) - minimum;
    }
  }
}

// Q6_K: 128 bytes of low nibbles, 64 of high pairs, 16 signed scales (one for each 16 elements), scale. Each half of
// 128 elements is four runs of 32: nibble bytes 0-31 low, 32-63 low, 0-31 high, 32-63 high; pair bytes 0-31, shifted by
// 2 more for each run. Biased by 32.
void BlockQ6_K(const uint8_t* block, float* out) {
  const uint8_t* scales = block + 192;
  const float scale = LoadHalf(block + 208);
  for (int half = 0; half < 2; ++half) {
    for (int run = 0; run < 4; ++run) {
      for (int i = 0; i < 32; ++i) {
        const uint8_t byte = block[half * 64 + run % 2 * 32 + i];
        const int low = run < 2 ? byte & 15 : byte >> 4;
        const int high = block[128 + half * 32 + i] >> (2 * run) & 3;
        const int element = half * 128 + run * 32 + i;
        const float group_scale = scale * static_cast<float>(static_cast<int8_t>(scales[element / 16]));
        out[element] = group_scale * static_cast<float>((low | high << 4) - 32);
      }
    }
  }
}

template <int kElements, int kBytes, typename Block>
void EachBlock(const uint8_t* data, int64_t elements, float* out, Block block) {
  for (int64_t i = 0; i < elements / kElements; ++i) block(data + i * kBytes, out + i * kElements);
}

}  // namespace

void Dequantize(DType dtype, const uint8_t* data, int64_t elements, float* out) {
  switch (dtype) {
    case DType::kF32:
      if (elements > 0) std::memcpy(out, data, elements * sizeof(float));
      return;
    case DType::kF16:
      return EachBlock<1, 2>(data, elements, out, [](const uint8_t* from, float* to) { *to = LoadHalf(from); });
    case DType::kBF16:
      return EachBlock<1, 2>(data, elements, out,
                             [](const uint8_t* from, float* to) { *to = Bfloat16ToFloat(Load<uint16_t>(from)); });
    case DType::kF8E4M3:
      return EachBlock<1, 1>(data, elements, out, [](const uint8_t* from, float* to) { *to = Fp8E4M3ToFloat(*from); });
    case DType::kQ8_0:
      return EachBlock<32, 34>(data, elements, out, BlockQ8_0);
    case DType::kQ4_0:
      return EachBlock<32, 18>(data, elements, out, BlockQ4_0);
    case DType::kQ4_1:
      return EachBlock<32, 20>(data, elements, out, BlockQ4_1);
    case DType::kQ5_0:
      return EachBlock<32, 22>(data, elements, out, BlockQ5_0);
    case DType::kQ5_1:
      return EachBlock<32, 24>(data, elements, out, BlockQ5_1);
    case DType::kQ4_K:
      return EachBlock<256, 144>(data, elements, out, BlockQ4_K);
    case DType::kQ5_K:
      return EachBlock<256, 176>(data, elements, out, BlockQ5_K);
    case DType::kQ6_K:
      return EachBlock<256, 210>(data, elements, out, BlockQ6_K);
    case DType::kI8:
      return EachBlock<1, 1>(data, elements, out,
                             [](const uint8_t* from, float* to) { *to = static_cast<int8_t>(*from); });
  }
}

}  // namespace baton
