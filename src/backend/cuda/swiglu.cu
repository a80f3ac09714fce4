// SwiGLU and quantization of many rows, at the speed of memory.
//
// One CTA a multiprocessor takes every gridDim-th row. A row is cut into pieces of 7,168 columns, eight for each of 896
// threads; gate and up of a piece come through a ring of four slots by bulk copies, across the ends of rows, so that
// memory never waits for the reduction over a row. Channel scales are the same for all rows and stay in shared memory.
// 896 threads, because a row of 28,672 columns then leaves 16 registers a thread to keep it in between its two passes:
// half as many threads spill, or do not hide the exponentials.
#include <algorithm>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/row_math.cuh"

namespace baton::cuda {
namespace {

constexpr int kConsumers = 896;
constexpr int kWarps = kConsumers / 32;
constexpr int kPiece = kConsumers * kVector;  // columns
constexpr int kPieceBytes = 2 * kPiece;       // of gate, of up, or of the channel scales of one of them
constexpr int kSlots = 4;
constexpr int kFewestRows = 96;  // below, filling shared memory with channel scales costs more than it gives
constexpr float kLog2e = 1.44269504f;

template <int kPieces>
constexpr int kSharedBytes = (kSlots + kPieces) * 2 * kPieceBytes + 8 * (2 * kSlots + kPieces) + 2 * kWarps * 4;

struct Barriers {
  uint32_t full, empty, scales;  // kSlots, kSlots, kPieces of them
};

template <int kPieces>
__device__ __forceinline__ void Produce(const SwiGluArgs& args, uint32_t ring, uint32_t scales, const Barriers& at) {
  const bool scaled = args.scales.channel != nullptr;
  const auto load_scales = [&](int piece) {
    const uint32_t barrier = at.scales + 8 * piece;
    BarrierExpect(barrier, scaled ? 2 * kPieceBytes : 0);
    if (!scaled) return;
    const __half* const from = args.scales.channel + piece * kPiece;
    BulkLoad(scales + piece * 2 * kPieceBytes, from, kPieceBytes, barrier);
    BulkLoad(scales + piece * 2 * kPieceBytes + kPieceBytes, from + args.width, kPieceBytes, barrier);
  };
  load_scales(0);
  WaitForPredecessor();
  int n = 0;
  for (int row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const __nv_bfloat16* gate = args.gate_up + static_cast<int64_t>(row) * 2 * args.width;
    for (int piece = 0; piece < kPieces; ++piece, ++n, gate += kPiece) {
      const int slot = n % kSlots;
      if (n >= kSlots) BarrierWait(at.empty + 8 * slot, (n / kSlots - 1) & 1);
      BarrierExpect(at.full + 8 * slot, 2 * kPieceBytes);
      BulkLoad(ring + slot * 2 * kPieceBytes, gate, kPieceBytes, at.full + 8 * slot);
      BulkLoad(ring + slot * 2 * kPieceBytes + kPieceBytes, gate + args.width, kPieceBytes, at.full + 8 * slot);
      if (n + 1 < kPieces) load_scales(n + 1);  // beside the first row
    }
  }
}

// Eight columns: silu(gate) × up without the row's factor token², as BF16. `peak`: the largest magnitudes so far, of
// even and odd columns, after rounding, as other kernels take them: a row's result does not depend on how many there
// are.
__device__ __forceinline__ void Combine(const RowScales& scales, const uint4& gate, const uint4& up,
                                        const uint4& gate_channel, const uint4& up_channel, float exponent,
                                        uint32_t (&packed)[4], __nv_bfloat162& peak) {
  float x[kVector];
  float y[kVector];
  Unpack(gate, x);
  Unpack(up, y);
  ApplyChannel(scales, gate_channel, x);
  ApplyChannel(scales, up_channel, y);
#pragma unroll
  for (int j = 0; j < kVector; ++j) x[j] = x[j] * y[j] * Reciprocal(1.f + Exp2(x[j] * exponent));
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    packed[j] = PackBf16(x[2 * j], x[2 * j + 1]);
    peak = __hmax2(peak, __habs2(*reinterpret_cast<const __nv_bfloat162*>(&packed[j])));
  }
}

__device__ __forceinline__ void Store(const SwiGluArgs& args, int64_t at, const uint32_t (&packed)[4], float factor) {
  float x[kVector];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float2 pair = UnpackBf16(packed[j]);
    x[2 * j] = pair.x * factor;
    x[2 * j + 1] = pair.y * factor;
  }
  StoreVector(args.output, at, x);
}

template <int kPieces>
__global__ void __launch_bounds__(kConsumers + 32, 1) swiglu_stream_kernel(const SwiGluArgs args) {
  extern __shared__ __align__(128) uint8_t shared[];
  uint8_t* const scales = shared + kSlots * 2 * kPieceBytes;
  uint8_t* const end = scales + kPieces * 2 * kPieceBytes;
  float* const peaks = reinterpret_cast<float*>(end + 8 * (2 * kSlots + kPieces));  // [2][kWarps], by turns
  const Barriers at{SharedAddress(end), SharedAddress(end) + 8 * kSlots, SharedAddress(end) + 16 * kSlots};
  const int tid = threadIdx.x;
  const int warp = tid >> 5;
  const int lane = tid & 31;
  if (tid == 0) {
    for (int i = 0; i < kSlots; ++i) {
      BarrierInit(at.full + 8 * i, 1);
      BarrierInit(at.empty + 8 * i, kWarps * kWarpArrivals);
    }
    for (int i = 0; i < kPieces; ++i) BarrierInit(at.scales + 8 * i, 1);
    BarrierInitFence();
  }
  ReleaseSuccessor();
  __syncthreads();
  if (warp == kWarps) {
    if (lane == 0) Produce<kPieces>(args, SharedAddress(shared), SharedAddress(scales), at);
    return;
  }
  WaitForPredecessor();
  int n = 0;
  int turn = 0;
  float next_token = TokenScale(args.scales, blockIdx.x);
  for (int row = blockIdx.x; row < args.rows; row += gridDim.x, turn ^= kWarps) {
    const float token = next_token;
    if (row + gridDim.x < args.rows) next_token = TokenScale(args.scales, row + gridDim.x);
    uint32_t packed[kPieces][4];
    __nv_bfloat162 peaks_of_two = __floats2bfloat162_rn(0.f, 0.f);
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece, ++n) {
      const int slot = n % kSlots;
      BarrierWait(at.full + 8 * slot, (n / kSlots) & 1);
      const uint8_t* const from = shared + slot * 2 * kPieceBytes + tid * 16;
      const uint4 gate = *reinterpret_cast<const uint4*>(from);
      const uint4 up = *reinterpret_cast<const uint4*>(from + kPieceBytes);
      WarpArrive(at.empty + 8 * slot);
      if (n < kPieces) BarrierWait(at.scales + 8 * piece, 0);
      const uint8_t* const channel = scales + piece * 2 * kPieceBytes + tid * 16;
      Combine(args.scales, gate, up, *reinterpret_cast<const uint4*>(channel),
              *reinterpret_cast<const uint4*>(channel + kPieceBytes), -kLog2e * token, packed[piece], peaks_of_two);
    }
    float peak = fmaxf(__low2float(peaks_of_two), __high2float(peaks_of_two));
    // Magnitudes order like their bits.
    peak = __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(peak)));
    if (lane == 0) peaks[turn + warp] = peak;
    NamedBarrier<1, kConsumers>();
    peak = __uint_as_float(__reduce_max_sync(~0u, lane < kWarps ? __float_as_uint(peaks[turn + lane]) : 0));
    const float norm = token * token;
    const float scale = OutputScale(args.output, peak * norm);
    if (args.output.fp8 != nullptr && tid == 0) args.output.scale[row] = scale;
    const float factor = args.output.fp8 != nullptr ? norm / scale : norm;
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      Store(args, static_cast<int64_t>(row) * args.width + piece * kPiece + tid * kVector, packed[piece], factor);
    }
  }
}

template <int kPieces>
cudaError_t Launch(const SwiGluArgs& args, cudaStream_t stream) {
  static const cudaError_t prepared = cudaFuncSetAttribute(
      swiglu_stream_kernel<kPieces>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes<kPieces>);
  if (prepared != cudaSuccess) return prepared;
  const LaunchShape shape{.grid = dim3(std::min(args.rows, MultiprocessorCount())),
                          .block = dim3(kConsumers + 32),
                          .shared_bytes = kSharedBytes<kPieces>};
  return LaunchDependent(swiglu_stream_kernel<kPieces>, shape, stream, args);
}

}  // namespace

cudaError_t LaunchSwiGlu(const SwiGluArgs& args, cudaStream_t stream) {
  if (args.rows >= kFewestRows && !args.invariant && args.scales.bias == nullptr) {
    if (args.width == kPiece) return Launch<1>(args, stream);
    if (args.width == 2 * kPiece) return Launch<2>(args, stream);
    if (args.width == 4 * kPiece) return Launch<4>(args, stream);
  }
  return LaunchSwiGluRows(args, stream);
}

}  // namespace baton::cuda
