// Vectors of eight elements of a row of activations, and the scales that a linear layer's sums still need.
#pragma once

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"

namespace baton::cuda {

inline constexpr int kVector = 8;  // elements that a thread loads at once

__device__ __forceinline__ void Unpack(const uint4& vector, float (&values)[kVector]) {
  const uint32_t words[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = UnpackBf16(words[i]);
    values[2 * i] = pair.x;
    values[2 * i + 1] = pair.y;
  }
}

__device__ __forceinline__ void LoadFloats(const float* from, int k, float otherwise, float (&values)[kVector]) {
  float4 low = make_float4(otherwise, otherwise, otherwise, otherwise);
  float4 high = low;
  if (from != nullptr) {
    low = __ldg(reinterpret_cast<const float4*>(from + k));
    high = __ldg(reinterpret_cast<const float4*>(from + k) + 1);
  }
  values[0] = low.x;
  values[1] = low.y;
  values[2] = low.z;
  values[3] = low.w;
  values[4] = high.x;
  values[5] = high.y;
  values[6] = high.z;
  values[7] = high.w;
}

__device__ __forceinline__ uint4 LoadChannel(const RowScales& scales, int k) {
  if (scales.channel == nullptr) return make_uint4(0, 0, 0, 0);
  return __ldg(reinterpret_cast<const uint4*>(scales.channel + k));
}
// values ← values × channel
__device__ __forceinline__ void ApplyChannel(const RowScales& scales, const uint4& channel, float (&values)[kVector]) {
  if (scales.channel == nullptr) return;
  const uint32_t words[4] = {channel.x, channel.y, channel.z, channel.w};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[j]));
    values[2 * j] *= pair.x;
    values[2 * j + 1] *= pair.y;
  }
}
// values ← values × token × channel + bias[k …]; `token` includes the unit.
__device__ __forceinline__ void ApplyScales(const RowScales& scales, const uint4& channel, float token, int k,
                                            float (&values)[kVector]) {
  ApplyChannel(scales, channel, values);
#pragma unroll
  for (int j = 0; j < kVector; ++j) values[j] *= token;
  if (scales.bias == nullptr) return;
  float bias[kVector];
  LoadFloats(scales.bias, k, 0.f, bias);
#pragma unroll
  for (int j = 0; j < kVector; ++j) values[j] += bias[j];
}
// What the FP8 numbers of a row are multiples of; `peak`: its largest magnitude.
__device__ __forceinline__ float OutputScale(const RowOutput& output, float peak) {
  return output.static_scale > 0.f ? output.static_scale : fmaxf(peak, 1e-10f) * (1.f / 448.f);
}
// Eight results, from element `at` on.
__device__ __forceinline__ void StoreVector(const RowOutput& output, int64_t at, const float (&x)[kVector]) {
  if (output.fp8 != nullptr) {
    *reinterpret_cast<uint2*>(output.fp8 + at) =
        make_uint2(PackFp8(x[0], x[1]) | PackFp8(x[2], x[3]) << 16, PackFp8(x[4], x[5]) | PackFp8(x[6], x[7]) << 16);
  } else {
    *reinterpret_cast<uint4*>(output.bf16 + at) =
        make_uint4(PackBf16(x[0], x[1]), PackBf16(x[2], x[3]), PackBf16(x[4], x[5]), PackBf16(x[6], x[7]));
  }
}
__device__ __forceinline__ float TokenScale(const RowScales& scales, int row) {
  return scales.token != nullptr ? __ldcg(scales.token + row) * scales.unit : scales.unit;
}

// SwiGLU of any shape (rows.cu); LaunchSwiGlu takes it where its own kernel does not fit.
cudaError_t LaunchSwiGluRows(const SwiGluArgs& args, cudaStream_t stream);

}  // namespace baton::cuda
