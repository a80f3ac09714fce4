// A row of a KV cache of KvType::kI8: int8 elements, then four bytes.
//
//   V    float scale; element i means scale × q[i]
//   K    the upper half of a float scale (BF16, rounded up), a byte `index`, an int8 `high`; element i means
//        scale × q[i], and scale × (q[i] + 128 × high) where i is `index`
//
// A few dimensions of K are far larger than the others in most models. One of them as part of the row would cost the
// others most of their bits, so the largest has 16 bits of its own.
#pragma once

#include <bit>
#include <cstdint>

namespace baton::cpu {

inline constexpr int kInt8RowTail = 4;       // bytes
inline constexpr int kMaxInt8HeadDim = 256;  // what `index` can say
inline constexpr float kInt8Range = 127.0f;
inline constexpr float kInt8HighRange = 128.0f;  // of the largest element, in ranges of the others

// The scale of a K row as the upper bits of a float, from the largest magnitude and the largest of the others. Infinity
// and NaN survive.
static inline __attribute__((always_inline)) uint32_t KeyScaleBits(float largest, float others) {
  const float spread = largest / kInt8HighRange;
  const float range = (spread <= others ? others : spread) / kInt8Range;
  const uint32_t bits = std::bit_cast<uint32_t>(range);
  if (bits >= 0x7f800000u) return bits > 0x7f800000u ? 0x7fc00000u : bits;
  return (bits + 0xffffu) & 0xffff0000u;
}

// What follows the elements of a K row.
static inline __attribute__((always_inline)) uint32_t KeyTail(uint32_t scale_bits, int index, int high) {
  return scale_bits >> 16 | static_cast<uint32_t>(index) << 16 | static_cast<uint32_t>(high & 255) << 24;
}

}  // namespace baton::cpu
