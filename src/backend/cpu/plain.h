// The kernels in portable C++, collected by PlainKernels().
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>

#include "backend/cpu/kernels.h"

namespace baton::cpu {
namespace plain {

// e^x to about 1e-7, by 2^n × polynomial; exactly 0 below -87.
inline float Exp(float x) {
  if (!(x >= -87.0f)) return std::isnan(x) ? x : 0.0f;
  x = std::min(x, 88.0f);
  // Adding and taking away 1.5 × 2^23 rounds to the nearest integer, ties to even.
  const float n = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

}  // namespace plain

void QuantizeTilePlain(InputKind kind, const float* x, int64_t stride, int width, int64_t k, uint8_t* tile);
inline constexpr int kPlainTileWidth = 4;  // columns of a tile of large groups
template <PackedKind kKind>
void MultiplyPlain(const MultiplyArgs& args);  // defined for every kind
void AttentionPlain(const AttentionArgs& args);
void MergeSectionsPlain(float* partials, int sections, int heads, int dim, float* out);

}  // namespace baton::cpu
