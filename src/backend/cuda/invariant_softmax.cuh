// Sums of attention whose order does not depend on the batch: a warp's running softmax over its share of a section, and
// the merge of sections. Roundings are written out, so that every copy that the compiler makes rounds alike. For
// invariant_attention.cu alone.
#pragma once

#include "backend/cuda/decode_tiles.cuh"
#include "backend/cuda/device_math.cuh"

namespace baton::cuda {
namespace {

// What a thread has of one query: the largest score, the sum of weights, weighted sums of values.
template <int kEach>
struct Sums {
  float top, weight, values[kEach];
};
// Adds a section.
template <int kEach>
__device__ __forceinline__ void MergeSection(const Sums<kEach>& section, bool first, Sums<kEach>& all) {
  if (first) {
    all = section;
    return;
  }
  const float top = fmaxf(all.top, section.top);
  const float before = Exp2(__fsub_rn(all.top, top));
  const float added = Exp2(__fsub_rn(section.top, top));
  all.top = top;
  all.weight = __fmaf_rn(section.weight, added, __fmul_rn(all.weight, before));
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    all.values[i] = __fmaf_rn(section.values[i], added, __fmul_rn(all.values[i], before));
  }
}

// One warp's share of a section for the eight columns of an operand: running softmax over its 16-token units.
template <int kDim>
struct WarpSums {
  float max0, max1;  // of columns 2c and 2c + 1
  float weight0, weight1;
  float sums[kDim / 16][4];

  __device__ __forceinline__ void Clear() {
    max0 = max1 = kMinusInfinity;
    weight0 = weight1 = 0.f;
#pragma unroll
    for (int m = 0; m < kDim / 16; ++m) sums[m][0] = sums[m][1] = sums[m][2] = sums[m][3] = 0.f;
  }
  // Scores of 16 tokens to weights as an operand. Of column 2c the first `valid0` tokens count, of 2c + 1 `valid1`;
  // there may be none. Nothing that happens to a column depends on another one.
  __device__ __forceinline__ void Weigh(float (&s)[4], int g, int c, int valid0, int valid1, uint32_t& b0,
                                        uint32_t& b1) {
    if (g >= valid0) s[0] = kMinusInfinity;
    if (g >= valid1) s[1] = kMinusInfinity;
    if (g + 8 >= valid0) s[2] = kMinusInfinity;
    if (g + 8 >= valid1) s[3] = kMinusInfinity;
    float new0 = fmaxf(max0, fmaxf(s[0], s[2]));
    float new1 = fmaxf(max1, fmaxf(s[1], s[3]));
    const unsigned grown0 = __ballot_sync(~0u, new0 > max0 + kLazyRescale);
    const unsigned grown1 = __ballot_sync(~0u, new1 > max1 + kLazyRescale);
    if (grown0 | grown1) {
#pragma unroll
      for (int offset = 4; offset < 32; offset <<= 1) {
        new0 = fmaxf(new0, __shfl_xor_sync(~0u, new0, offset));
        new1 = fmaxf(new1, __shfl_xor_sync(~0u, new1, offset));
      }
      const unsigned column = 0x11111111u << c;  // its lanes
      if (!(grown0 & column)) new0 = max0;
      if (!(grown1 & column)) new1 = max1;
      const float factor0 = Exp2(__fsub_rn(max0, new0));
      const float factor1 = Exp2(__fsub_rn(max1, new1));
      max0 = new0;
      max1 = new1;
      weight0 = __fmul_rn(weight0, factor0);
      weight1 = __fmul_rn(weight1, factor1);
#pragma unroll
      for (int m = 0; m < kDim / 16; ++m) {
        sums[m][0] = __fmul_rn(sums[m][0], factor0);
        sums[m][1] = __fmul_rn(sums[m][1], factor1);
        sums[m][2] = __fmul_rn(sums[m][2], factor0);
        sums[m][3] = __fmul_rn(sums[m][3], factor1);
      }
    }
    const float p0 = valid0 > 0 ? Exp2(__fsub_rn(s[0], max0)) : 0.f;
    const float p1 = valid1 > 0 ? Exp2(__fsub_rn(s[1], max1)) : 0.f;
    const float p2 = valid0 > 0 ? Exp2(__fsub_rn(s[2], max0)) : 0.f;
    const float p3 = valid1 > 0 ? Exp2(__fsub_rn(s[3], max1)) : 0.f;
    weight0 = __fadd_rn(weight0, __fadd_rn(p0, p2));
    weight1 = __fadd_rn(weight1, __fadd_rn(p1, p3));
    b0 = TransposeMatrix(PackHalf(p0, p1));
    b1 = TransposeMatrix(PackHalf(p2, p3));
  }
  // Leaves what the warp has where MergeWarps finds it.
  template <typename S>
  __device__ __forceinline__ void Publish(float* mine, int g, int c) {
#pragma unroll
    for (int offset = 4; offset < 32; offset <<= 1) {
      weight0 = __fadd_rn(weight0, __shfl_xor_sync(~0u, weight0, offset));
      weight1 = __fadd_rn(weight1, __shfl_xor_sync(~0u, weight1, offset));
    }
    float* const mine0 = mine + 2 * c * S::kPartRow;
    float* const mine1 = mine0 + S::kPartRow;
    if (g == 0) {
      *reinterpret_cast<float2*>(mine0 + kDim) = make_float2(max0, weight0);
      *reinterpret_cast<float2*>(mine1 + kDim) = make_float2(max1, weight1);
    }
#pragma unroll
    for (int m = 0; m < kDim / 16; ++m) {  // row g: dimension g × kDim / 8 + 2 m; row g + 8: the next
      *reinterpret_cast<float2*>(mine0 + g * (kDim / 8) + 2 * m) = make_float2(sums[m][0], sums[m][2]);
      *reinterpret_cast<float2*>(mine1 + g * (kDim / 8) + 2 * m) = make_float2(sums[m][1], sums[m][3]);
    }
  }
};

}  // namespace
}  // namespace baton::cuda
