// e^x in one order of operations on every machine, without branches, so that compilers turn loops of it into vectors.
#pragma once

#include <bit>
#include <cstdint>

namespace baton {

// To about 1e-7, by 2^n × polynomial (Cephes); exactly 0 below -87, e^88 above 88; NaN stays NaN.
inline float Exp(float x) {
  const float above = x < -87.0f ? -87.0f : x;
  const float clamped = above > 88.0f ? 88.0f : above;
  const float shifted = clamped * 1.44269504088896341f + 12582912.0f;  // plus 1.5 × 2^23: to the nearest integer
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const uint32_t exponent = std::bit_cast<uint32_t>(shifted) - 0x4b400000u + 127u;  // of a NaN: anything
  const float result = p * std::bit_cast<float>(exponent << 23);
  return x < -87.0f ? 0.0f : result;
}

}  // namespace baton
