// Kernels that make weights: conversion to BF16, dummy weights by recipe, random contents for tests and tuning.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"
#include "core/tensor_recipe.h"

namespace baton::cuda {
namespace {

constexpr int kFillCtas = 1056;  // eight on each of 132 multiprocessors
constexpr int kFillThreads = 256;

// A thread makes the elements that share a random word, eight bytes of them (sixteen of 4-byte elements).
template <typename Element>
__global__ void __launch_bounds__(kFillThreads)
    make_elements_kernel(Element* output, int64_t n, uint64_t key, const Element* table) {
  constexpr int kBits = sizeof(Element) == 1 ? 8 : 16;
  constexpr int kPerWord = 64 / kBits;
  __shared__ uint8_t small_table[256];
  if constexpr (sizeof(Element) == 1) {
    small_table[threadIdx.x] = table[threadIdx.x];
    __syncthreads();
    table = small_table;
  }
  struct alignas(8) Elements {
    Element values[kPerWord];
  };
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t place = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; place * kPerWord < n;
       place += step) {
    const uint64_t word = RecipeWord(key, static_cast<uint64_t>(place));
    Elements made;
#pragma unroll
    for (int i = 0; i < kPerWord; ++i) made.values[i] = table[(word >> (i * kBits)) & ((1 << kBits) - 1)];
    if ((place + 1) * kPerWord <= n) {
      *reinterpret_cast<Elements*>(output + place * kPerWord) = made;
    } else {
#pragma unroll
      for (int i = 0; i < kPerWord; ++i) {
        if (place * kPerWord + i < n) output[place * kPerWord + i] = made.values[i];
      }
    }
  }
}

__global__ void to_bf16_kernel(const void* input, bool fp32, __nv_bfloat16* output, int64_t n) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    const float value = fp32 ? static_cast<const float*>(input)[i] : __half2float(static_cast<const __half*>(input)[i]);
    output[i] = __float2bfloat16(value);
  }
}

__device__ __forceinline__ uint32_t HashIndex(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return static_cast<uint32_t>(x ^ (x >> 33));
}
// The sum of four uniform bytes, scaled to deviation 1.
__device__ __forceinline__ float AboutNormal(uint64_t seed, int64_t i) {
  const uint32_t bits = HashIndex(seed * 0x9e3779b97f4a7c15ull + static_cast<uint64_t>(i));
  const uint32_t sum = (bits & 255) + ((bits >> 8) & 255) + ((bits >> 16) & 255) + (bits >> 24);
  return (static_cast<float>(sum) - 510.f) * (1.f / 147.8f);
}
__global__ void fill_bf16_kernel(__nv_bfloat16* output, int64_t n, uint64_t seed, float deviation) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    output[i] = __float2bfloat16(deviation * AboutNormal(seed, i));
  }
}
__global__ void fill_fp8_kernel(uint8_t* output, int64_t n, uint64_t seed, float deviation) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n / 4; i += step) {
    const uint32_t low = PackFp8(deviation * AboutNormal(seed, 4 * i), deviation * AboutNormal(seed, 4 * i + 1));
    const uint32_t high = PackFp8(deviation * AboutNormal(seed, 4 * i + 2), deviation * AboutNormal(seed, 4 * i + 3));
    reinterpret_cast<uint32_t*>(output)[i] = low | high << 16;
  }
}
__global__ void fill_float_kernel(float* output, int64_t n, uint64_t seed, float low, float high) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) output[i] = low + (high - low) * (HashIndex(seed * 0x9e3779b97f4a7c15ull + i) * (1.f / 4294967296.f));
}

}  // namespace

cudaError_t LaunchMakeElements(const TensorRecipe& recipe, const void* table, void* output, int64_t n,
                               cudaStream_t stream) {
  const auto launch = [&]<typename Element>(Element* out) {
    make_elements_kernel<<<kFillCtas, kFillThreads, 0, stream>>>(out, n, recipe.key,
                                                                 static_cast<const Element*>(table));
    return cudaGetLastError();
  };
  if (recipe.element_bytes == 1) return launch(static_cast<uint8_t*>(output));
  if (recipe.element_bytes == 2) return launch(static_cast<uint16_t*>(output));
  return launch(static_cast<uint32_t*>(output));
}

cudaError_t LaunchToBf16(const void* input, bool fp32, __nv_bfloat16* output, int64_t n, cudaStream_t stream) {
  to_bf16_kernel<<<kFillCtas, kFillThreads, 0, stream>>>(input, fp32, output, n);
  return cudaGetLastError();
}
cudaError_t LaunchFillBf16(__nv_bfloat16* output, int64_t n, uint64_t seed, float deviation, cudaStream_t stream) {
  fill_bf16_kernel<<<kFillCtas, kFillThreads, 0, stream>>>(output, n, seed, deviation);
  return cudaGetLastError();
}
cudaError_t LaunchFillFp8(uint8_t* output, int64_t n, uint64_t seed, float deviation, cudaStream_t stream) {
  fill_fp8_kernel<<<kFillCtas, kFillThreads, 0, stream>>>(output, n, seed, deviation);
  return cudaGetLastError();
}
cudaError_t LaunchFillFloat(float* output, int64_t n, uint64_t seed, float low, float high, cudaStream_t stream) {
  fill_float_kernel<<<static_cast<unsigned>((n + 255) / 256), 256, 0, stream>>>(output, n, seed, low, high);
  return cudaGetLastError();
}

}  // namespace baton::cuda
