// Reads device memory once, as fast as it goes: bulk copies into a ring of shared memory, nothing else.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

constexpr int kCopy = 16 * 1024;
constexpr int kCopies = 4;  // of a piece
constexpr int kStages = 10;
constexpr int kSharedBytes = kStages * kCopy + 8 * kStages;

__global__ void __launch_bounds__(32, 1) read_memory_kernel(const uint8_t* memory, uint32_t pieces, uint32_t* taken) {
  extern __shared__ __align__(1024) uint8_t shared[];
  if (threadIdx.x != 0) return;
  const uint32_t ring = SharedAddress(shared);
  const uint32_t full = ring + kStages * kCopy;
  for (int i = 0; i < kStages; ++i) BarrierInit(full + 8 * i, 1);
  BarrierInitFence();
  uint32_t issued = 0;
  for (uint32_t piece = atomicAdd(taken, 1u); piece < pieces;) {
    const uint32_t next = atomicAdd(taken, 1u);  // arrives while this piece is asked for
    for (int copy = 0; copy < kCopies; ++copy, ++issued) {
      const uint32_t barrier = full + 8 * (issued % kStages);
      if (issued >= kStages) BarrierWait(barrier, (issued / kStages - 1) & 1);
      BarrierExpect(barrier, kCopy);
      BulkLoad(ring + issued % kStages * kCopy, memory + (int64_t{piece} * kCopies + copy) * kCopy, kCopy, barrier);
    }
    piece = next;
  }
  for (uint32_t waited = issued < kStages ? 0 : issued - kStages; waited < issued; ++waited) {
    BarrierWait(full + 8 * (waited % kStages), waited / kStages & 1);
  }
}

}  // namespace

cudaError_t LaunchReadMemory(const void* memory, int64_t bytes, uint32_t* taken, int32_t multiprocessors,
                             cudaStream_t stream) {
  static const cudaError_t prepared =
      cudaFuncSetAttribute(read_memory_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (prepared != cudaSuccess) return prepared;
  read_memory_kernel<<<multiprocessors, 32, kSharedBytes, stream>>>(
      static_cast<const uint8_t*>(memory), static_cast<uint32_t>(bytes / (kCopy * kCopies)), taken);
  return cudaGetLastError();
}

}  // namespace baton::cuda
