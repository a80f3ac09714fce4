// SwiGLU and quantization of many rows: as fast as memory gives them.
//
// A CTA takes one row after another, and has the next one on its way into shared memory, by bulk copies. A thread has
// the same columns of each row, so that their channel scales (as many bytes as a row) stay in registers. Results stay
// there too, as BF16, until the row's largest is known.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

constexpr int kStages = 2;
constexpr int kVectors = 14;  // of 8 columns, for each thread
constexpr int kColumns = 8 * kVectors;
constexpr int kMostThreads = 256;
constexpr int kPiece = 16 * 1024;  // bytes of a bulk copy
constexpr float kLog2e = 1.44269504f;

struct Rows {
  const __nv_bfloat16* gate_up;  // [rows][2 × width]
  RowScales scales;
  RowOutput output;
  int rows, width;
};

__device__ __forceinline__ float2 UnpackHalf(uint32_t pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}
__device__ __forceinline__ uint4 LoadShared(uint32_t address) {
  uint4 value;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(address));
  return value;
}

// silu(gate × token) × up, without the factor token² / token that the row's end supplies: two columns as BF16.
__device__ __forceinline__ uint32_t Activate(uint32_t gate, uint32_t up, uint32_t gate_scale, uint32_t up_scale,
                                             float exponent) {
  const float2 g = UnpackBf16(gate);
  const float2 u = UnpackBf16(up);
  const float2 gs = UnpackHalf(gate_scale);
  const float2 us = UnpackHalf(up_scale);
  const float a = g.x * gs.x;
  const float b = g.y * gs.y;
  const float x = __fdividef(a * (u.x * us.x), 1.f + Exp2(a * exponent));
  const float y = __fdividef(b * (u.y * us.y), 1.f + Exp2(b * exponent));
  return PackBf16(x, y);
}

__device__ __forceinline__ uint4 LoadScales(const __half* channel, int column) {
  if (channel != nullptr) return __ldg(reinterpret_cast<const uint4*>(channel + column));
  const uint32_t ones = PackHalf(1.f, 1.f);
  return make_uint4(ones, ones, ones, ones);
}

// Begins to copy a whole row.
__device__ __forceinline__ void CopyRow(const Rows& args, int row, uint32_t to, uint32_t barrier) {
  const int row_bytes = 4 * args.width;
  const uint8_t* from = reinterpret_cast<const uint8_t*>(args.gate_up) + static_cast<int64_t>(row) * row_bytes;
  BarrierExpect(barrier, row_bytes);
  for (int at = 0; at < row_bytes; at += kPiece) BulkLoad(to + at, from + at, min(kPiece, row_bytes - at), barrier);
}

template <bool kFp8>
__device__ __forceinline__ void Store(const RowOutput& output, int64_t at, const uint32_t (&words)[4], float factor) {
  float x[8];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float2 pair = UnpackBf16(words[j]);
    x[2 * j] = pair.x * factor;
    x[2 * j + 1] = pair.y * factor;
  }
  if constexpr (kFp8) {
    *reinterpret_cast<uint2*>(output.fp8 + at) =
        make_uint2(PackFp8(x[0], x[1]) | PackFp8(x[2], x[3]) << 16, PackFp8(x[4], x[5]) | PackFp8(x[6], x[7]) << 16);
  } else {
    *reinterpret_cast<uint4*>(output.bf16 + at) =
        make_uint4(PackBf16(x[0], x[1]), PackBf16(x[2], x[3]), PackBf16(x[4], x[5]), PackBf16(x[6], x[7]));
  }
}

// blockDim.x = width / kColumns
template <bool kFp8>
__global__ void __launch_bounds__(kMostThreads, 1) swiglu_rows_kernel(const Rows args) {
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ uint64_t barriers[kStages];
  __shared__ float peaks[2][kMostThreads / 32];  // of each warp, for this row and the next
  const uint32_t ring = SharedAddress(shared);
  const uint32_t full = SharedAddress(barriers);
  const int tid = threadIdx.x;
  const int threads = blockDim.x;
  if (tid == 0) {
    for (int i = 0; i < kStages; ++i) BarrierInit(full + 8 * i, 1);
    BarrierInitFence();
  }
  ReleaseSuccessor();

  uint4 gate_scales[kVectors];
  uint4 up_scales[kVectors];
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int column = (i * threads + tid) * 8;
    gate_scales[i] = LoadScales(args.scales.channel, column);
    up_scales[i] = LoadScales(args.scales.channel == nullptr ? nullptr : args.scales.channel + args.width, column);
  }
  WaitForPredecessor();
  __syncthreads();
  for (int i = 0; tid == 0 && i < kStages; ++i) {
    const int row = blockIdx.x + i * gridDim.x;
    if (row < args.rows) CopyRow(args, row, ring + i * 4 * args.width, full + 8 * i);
  }
  const auto token_of = [&](int row) {
    return args.scales.token != nullptr && row < args.rows ? __ldcg(args.scales.token + row) * args.scales.unit
                                                           : args.scales.unit;
  };
  float next_token = token_of(blockIdx.x);
  int n = 0;
  for (int row = blockIdx.x; row < args.rows; row += gridDim.x, ++n) {
    const float token = next_token;
    next_token = token_of(row + gridDim.x);
    const int stage = n % kStages;
    const uint32_t gates = ring + stage * 4 * args.width + tid * 16;
    const float exponent = -kLog2e * token;
    uint32_t results[kVectors][4];
    __nv_bfloat162 peak = __floats2bfloat162_rn(0.f, 0.f);
    BarrierWait(full + 8 * stage, (n / kStages) & 1);
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const uint4 gate = LoadShared(gates + i * threads * 16);
      const uint4 up = LoadShared(gates + i * threads * 16 + 2 * args.width);
      results[i][0] = Activate(gate.x, up.x, gate_scales[i].x, up_scales[i].x, exponent);
      results[i][1] = Activate(gate.y, up.y, gate_scales[i].y, up_scales[i].y, exponent);
      results[i][2] = Activate(gate.z, up.z, gate_scales[i].z, up_scales[i].z, exponent);
      results[i][3] = Activate(gate.w, up.w, gate_scales[i].w, up_scales[i].w, exponent);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        peak = __hmax2(peak, __habs2(*reinterpret_cast<const __nv_bfloat162*>(&results[i][j])));
      }
    }
    float largest = fmaxf(__low2float(peak), __high2float(peak));
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, offset));
    }
    if ((tid & 31) == 0) peaks[n & 1][tid >> 5] = largest;
    __syncthreads();  // all have read the row: its place is free
    const int after_next = row + kStages * gridDim.x;
    if (tid == 0 && after_next < args.rows) CopyRow(args, after_next, ring + stage * 4 * args.width, full + 8 * stage);
    largest = 0.f;
    for (int warp = 0; warp < threads / 32; ++warp) largest = fmaxf(largest, peaks[n & 1][warp]);
    const float norm = token * token;
    const float scale = fmaxf(largest * norm, 1e-10f) * (1.f / 448.f);
    const float factor = kFp8 ? norm / scale : norm;
    if (kFp8 && tid == 0) args.output.scale[row] = scale;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      Store<kFp8>(args.output, static_cast<int64_t>(row) * args.width + (i * threads + tid) * 8, results[i], factor);
    }
  }
}

template <bool kFp8>
cudaError_t Launch(const Rows& args, int multiprocessors, cudaStream_t stream) {
  constexpr int kMostShared = kStages * 4 * kColumns * kMostThreads;
  static const cudaError_t prepared =
      cudaFuncSetAttribute(swiglu_rows_kernel<kFp8>, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostShared);
  if (prepared != cudaSuccess) return prepared;
  const int threads = args.width / kColumns;
  const int together = kMostThreads / threads;  // CTAs on a multiprocessor
  const int ctas = multiprocessors * together;
  const LaunchShape shape{.grid = dim3(ctas < args.rows ? ctas : args.rows),
                          .block = dim3(threads),
                          .shared_bytes = kStages * 4 * args.width};
  return LaunchDependent(swiglu_rows_kernel<kFp8>, shape, stream, args);
}

}  // namespace

bool HasSwiGluRows(const SwiGluArgs& args) {
  if (args.scales.bias != nullptr || args.width < 32 * kColumns || args.width % (32 * kColumns) != 0) return false;
  const int threads = args.width / kColumns;
  return threads <= kMostThreads && kMostThreads % threads == 0;
}

cudaError_t LaunchSwiGluRows(const SwiGluArgs& args, int32_t multiprocessors, cudaStream_t stream) {
  if (!HasSwiGluRows(args)) return cudaErrorInvalidValue;
  const Rows rows{args.gate_up, args.scales, args.output, args.rows, args.width};
  return args.output.fp8 != nullptr ? Launch<true>(rows, multiprocessors, stream)
                                    : Launch<false>(rows, multiprocessors, stream);
}

}  // namespace baton::cuda
