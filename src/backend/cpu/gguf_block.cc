#include "backend/cpu/gguf_block.h"

#include <cstring>

namespace baton::cpu {
namespace {

constexpr int kWeights = 32;
constexpr int kSuperBlock = 8;  // of 32 weights

uint16_t LoadHalf(const uint8_t* data) {
  uint16_t bits;
  std::memcpy(&bits, data, 2);
  return bits;
}

// Weight i lies in the low nibble of byte i, and weight i + 16 in the high one; fifth bits follow that order.
void DecodeNibbles(const uint8_t* nibbles, QuantBlock& block) {
  for (int i = 0; i < kWeights / 2; ++i) {
    block.q[i] = nibbles[i] & 15;
    block.q[i + 16] = nibbles[i] >> 4;
  }
}
void AddFifthBits(const uint8_t* bits, QuantBlock& block) {
  uint32_t word;
  std::memcpy(&word, bits, 4);
  for (int i = 0; i < kWeights; ++i) block.q[i] = static_cast<uint8_t>(block.q[i] | ((word >> i) & 1u) << 4);
}

// Eight 6-bit scales, then eight 6-bit minima, in 12 bytes: groups 0-3 have theirs in the low six bits of bytes 0-3 and
// 4-7; groups 4-7 have their low four bits in bytes 8-11 and their high two in the top of the others.
void DecodeGroupScale(const uint8_t* packed, int group, QuantBlock& block) {
  if (group < 4) {
    block.part_scale[0] = packed[group] & 63;
    block.part_minimum = packed[group + 4] & 63;
  } else {
    block.part_scale[0] = static_cast<uint8_t>((packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4);
    block.part_minimum = static_cast<uint8_t>((packed[group + 4] >> 4) | (packed[group] >> 6) << 4);
  }
}

// Of each 32 bytes of nibbles, the low ones are one group and the high ones the next.
void DecodeGroupNibbles(const uint8_t* nibbles, int group, QuantBlock& block) {
  nibbles += group / 2 * 32;
  for (int i = 0; i < kWeights; ++i) block.q[i] = group % 2 == 0 ? nibbles[i] & 15 : nibbles[i] >> 4;
}

void DecodeQ4_K(const uint8_t* data, int group, QuantBlock& block) {
  block.scale = LoadHalf(data);
  block.minimum = LoadHalf(data + 2) ^ 0x8000;  // GGUF subtracts it
  DecodeGroupScale(data + 4, group, block);
  DecodeGroupNibbles(data + 16, group, block);
}

void DecodeQ5_K(const uint8_t* data, int group, QuantBlock& block) {
  block.scale = LoadHalf(data);
  block.minimum = LoadHalf(data + 2) ^ 0x8000;
  DecodeGroupScale(data + 4, group, block);
  DecodeGroupNibbles(data + 48, group, block);
  const uint8_t* fifth = data + 16;  // byte i, bit g: weight i of group g
  for (int i = 0; i < kWeights; ++i) block.q[i] = static_cast<uint8_t>(block.q[i] | (fifth[i] >> group & 1) << 4);
}

// Each 128 weights are four runs of 32: nibble bytes 0-31 low, 32-63 low, 0-31 high, 32-63 high; the high bits are
// pairs in 32 bytes, shifted by 2 more for each run.
void DecodeQ6_K(const uint8_t* data, int group, QuantBlock& block) {
  const int half = group / 4;
  const int run = group % 4;
  const uint8_t* nibbles = data + half * 64 + run % 2 * 32;
  const uint8_t* pairs = data + 128 + half * 32;
  for (int i = 0; i < kWeights; ++i) {
    const int low = run < 2 ? nibbles[i] & 15 : nibbles[i] >> 4;
    block.q[i] = static_cast<uint8_t>(low | (pairs[i] >> (2 * run) & 3) << 4);
  }
  std::memcpy(block.part_scale, data + 192 + group * 2, 2);
  block.scale = LoadHalf(data + 208);
}

}  // namespace

QuantBlock DecodeQuantBlock(DType dtype, const uint8_t* row, int64_t index) {
  const DTypeTraits traits = TraitsOf(dtype);
  const bool super = traits.block_elements > kWeights;
  const uint8_t* data = row + (super ? index / kSuperBlock : index) * traits.block_bytes;
  const int group = static_cast<int>(index % kSuperBlock);
  QuantBlock block;
  if (!super) block.scale = LoadHalf(data);
  switch (dtype) {
    case DType::kQ4_0:
      DecodeNibbles(data + 2, block);
      break;
    case DType::kQ4_1:
      block.minimum = LoadHalf(data + 2);
      DecodeNibbles(data + 4, block);
      break;
    case DType::kQ5_0:
      DecodeNibbles(data + 6, block);
      AddFifthBits(data + 2, block);
      break;
    case DType::kQ5_1:
      block.minimum = LoadHalf(data + 2);
      DecodeNibbles(data + 8, block);
      AddFifthBits(data + 4, block);
      break;
    case DType::kQ4_K:
      DecodeQ4_K(data, group, block);
      break;
    case DType::kQ5_K:
      DecodeQ5_K(data, group, block);
      break;
    case DType::kQ6_K:
      DecodeQ6_K(data, group, block);
      break;
    default:  // kQ8_0
      std::memcpy(block.q, data + 2, kWeights);
  }
  return block;
}

}  // namespace baton::cpu
