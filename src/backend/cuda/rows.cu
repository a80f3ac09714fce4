// Kernels over rows of activations: embedding, norm, SwiGLU, quantization.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/row_math.cuh"

namespace baton::cuda {
namespace {

enum class RowKind { kNorm, kSwiGlu, kQuantize };

struct RowArgs {
  __nv_bfloat16* residual;
  const __nv_bfloat16* input;  // row stride `input_stride`; may be null for kNorm
  int32_t input_stride;
  RowScales scales;
  const float* weight;
  const int32_t* source_rows;
  RowOutput output;
  int32_t width;
  float epsilon;
  bool write_residual;
  float factor = 1.f;  // kQuantize: on the input
};

constexpr int kRowThreads = 256;
constexpr float kLog2e = 1.44269504f;
// Sum of `sum` and maximum of `peak` over the CTA, then over the cluster that shares the row.
__device__ __forceinline__ void ReduceRow(float& sum, float& peak) {
  __shared__ float2 warp_parts[kRowThreads / 32];
  __shared__ float2 cluster_parts[8];
  const int tid = threadIdx.x;
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    sum += __shfl_xor_sync(~0u, sum, offset);
    peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, offset));
  }
  if ((tid & 31) == 0) warp_parts[tid >> 5] = make_float2(sum, peak);
  __syncthreads();
  sum = peak = 0.f;
#pragma unroll
  for (int warp = 0; warp < kRowThreads / 32; ++warp) {
    sum += warp_parts[warp].x;
    peak = fmaxf(peak, warp_parts[warp].y);
  }
  const int ctas = gridDim.x;  // the cluster spans x
  if (ctas == 1) return;
  ClusterWait();  // every CTA of the cluster has started: its shared memory exists
  if (tid < ctas) {
    const uint32_t slot = ClusterAddress(SharedAddress(&cluster_parts[blockIdx.x]), tid);
    asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(slot), "f"(sum), "f"(peak) : "memory");
  }
  ClusterArrive();
  ClusterWait();
  sum = peak = 0.f;
  for (int i = 0; i < ctas; ++i) {
    sum += cluster_parts[i].x;
    peak = fmaxf(peak, cluster_parts[i].y);
  }
}

// The two vectors that an output vector of one row comes from.
template <RowKind kKind>
__device__ __forceinline__ void LoadRow(const RowArgs& args, int source, int k, uint4& first, uint4& second) {
  first = second = make_uint4(0, 0, 0, 0);
  const int64_t row = source;
  if (args.input != nullptr) first = LoadStreaming(args.input + row * args.input_stride + k);
  if (kKind == RowKind::kNorm) second = LoadStreaming(args.residual + row * args.width + k);
  if (kKind == RowKind::kSwiGlu) second = LoadStreaming(args.input + row * args.input_stride + args.width + k);
}

// What a vector of columns multiplies with, whatever the row: constants, which may be loaded before the predecessor
// ends.
template <RowKind kKind>
struct Columns {
  uint4 first, second;    // channel scales of the one or two vectors that it comes from
  float weight[kVector];  // kNorm
};
template <RowKind kKind>
__device__ __forceinline__ Columns<kKind> LoadColumns(const RowArgs& args, int k) {
  Columns<kKind> columns;
  if (kKind != RowKind::kQuantize) columns.first = LoadChannel(args.scales, k);
  if (kKind == RowKind::kSwiGlu) columns.second = LoadChannel(args.scales, args.width + k);
  if (kKind == RowKind::kNorm) LoadFloats(args.weight, k, 1.f, columns.weight);
  return columns;
}

// One vector of one row before normalization and quantization, as BF16: the new residual stream, SwiGLU, or the input.
template <RowKind kKind>
__device__ __forceinline__ void Combine(const RowArgs& args, const uint4& first, const uint4& second,
                                        const Columns<kKind>& columns, int k, float token, uint32_t (&packed)[4]) {
  if (kKind == RowKind::kQuantize) {
    packed[0] = first.x;
    packed[1] = first.y;
    packed[2] = first.z;
    packed[3] = first.w;
    return;
  }
  float x[kVector];
  float y[kVector];
  Unpack(first, x);
  Unpack(second, y);
  if (kKind == RowKind::kNorm) {
    if (args.input != nullptr) ApplyScales(args.scales, columns.first, token, k, x);
#pragma unroll
    for (int j = 0; j < kVector; ++j) x[j] += y[j];
  } else if (args.scales.bias != nullptr) {
    ApplyScales(args.scales, columns.first, token, k, x);
    ApplyScales(args.scales, columns.second, token, args.width + k, y);
#pragma unroll
    for (int j = 0; j < kVector; ++j) x[j] = __fdividef(x[j] * y[j], 1.f + __expf(-x[j]));
  } else {  // this kernel is bound by instructions: the row's factor token² is left to the end
    ApplyChannel(args.scales, columns.first, x);
    ApplyChannel(args.scales, columns.second, y);
    const float exponent = -kLog2e * token;
#pragma unroll
    for (int j = 0; j < kVector; ++j) x[j] = __fdividef(x[j] * y[j], 1.f + Exp2(x[j] * exponent));
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) packed[j] = PackBf16(x[2 * j], x[2 * j + 1]);
}

// A row for each cluster of gridDim.x CTAs (mostly one); a thread keeps kPer vectors of it in registers between the two
// passes.
template <RowKind kKind, int kPer>
__global__ void __launch_bounds__(kRowThreads, kPer > 4 ? 2 : 3) row_kernel(const RowArgs args) {
  // With few rows the constants come in while the predecessor runs: they are in no cache, and memory is busy.
  constexpr bool kEarly = kPer <= 2;
  constexpr int kGroup = kPer <= 4 ? kPer : kPer / 7;  // vectors in flight at once
  constexpr bool kExact = kPer > 4;                    // the share is a whole number of vectors for every thread
  const int tid = threadIdx.x;
  const int row = blockIdx.y;
  const int share = args.width / gridDim.x;  // a multiple of kVector
  const int begin = share * blockIdx.x;
  const int end = begin + share;
  if (gridDim.x > 1) ClusterArrive();
  ReleaseSuccessor();
  const int source = args.source_rows != nullptr ? args.source_rows[row] : row;
  Columns<kKind> early[kEarly ? kPer : 1];
  if constexpr (kEarly) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int k = begin + (i * kRowThreads + tid) * kVector;
      if (k >= end) continue;
      early[i] = LoadColumns<kKind>(args, k);
      if (kKind == RowKind::kNorm) PrefetchL2(args.residual + static_cast<int64_t>(source) * args.width + k);
    }
  }
  WaitForPredecessor();

  const float token = TokenScale(args.scales, source);
  uint32_t packed[kPer][4];
  float sum = 0.f;
  float peak = 0.f;
#pragma unroll
  for (int from = 0; from < kPer; from += kGroup) {
    uint4 first[kGroup];
    uint4 second[kGroup];
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const int k = begin + ((from + i) * kRowThreads + tid) * kVector;
      if (kExact || k < end) LoadRow<kKind>(args, source, k, first[i], second[i]);
    }
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const int k = begin + ((from + i) * kRowThreads + tid) * kVector;
      if (!kExact && k >= end) continue;
      uint32_t(&words)[4] = packed[from + i];
      const Columns<kKind> columns = kEarly ? early[kEarly ? from + i : 0] : LoadColumns<kKind>(args, k);
      Combine<kKind>(args, first[i], second[i], columns, k, token, words);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float2 x = UnpackBf16(words[j]);
        if (kKind == RowKind::kNorm) {
          sum += x.x * x.x + x.y * x.y;
          x.x *= columns.weight[2 * j];
          x.y *= columns.weight[2 * j + 1];
        }
        peak = fmaxf(peak, fmaxf(fabsf(x.x), fabsf(x.y)));
      }
      if (kKind == RowKind::kNorm && args.write_residual) {
        *reinterpret_cast<uint4*>(args.residual + static_cast<int64_t>(source) * args.width + k) =
            make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }

  ReduceRow(sum, peak);
  float norm = 1.f;
  if (kKind == RowKind::kNorm) norm = rsqrtf(sum / static_cast<float>(args.width) + args.epsilon);
  if (kKind == RowKind::kSwiGlu && args.scales.bias == nullptr) norm = token * token;
  if (kKind == RowKind::kQuantize) norm = args.factor;
  const float given = args.output.static_scale;
  const float scale = given > 0.f ? given : fmaxf(peak * norm, 1e-10f) * (1.f / 448.f);
  const float factor = args.output.fp8 != nullptr ? norm / scale : norm;
  if (args.output.fp8 != nullptr && tid == 0 && blockIdx.x == 0) args.output.scale[row] = scale;
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    const int k = begin + (i * kRowThreads + tid) * kVector;
    if (!kExact && k >= end) continue;
    float x[kVector];
    float weight[kVector];
    if (kKind == RowKind::kNorm && !kEarly) LoadFloats(args.weight, k, 1.f, weight);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 pair = UnpackBf16(packed[i][j]);
      x[2 * j] = pair.x * factor;
      x[2 * j + 1] = pair.y * factor;
      if (kKind == RowKind::kNorm) {
        x[2 * j] *= kEarly ? early[kEarly ? i : 0].weight[2 * j] : weight[2 * j];
        x[2 * j + 1] *= kEarly ? early[kEarly ? i : 0].weight[2 * j + 1] : weight[2 * j + 1];
      }
    }
    const int64_t at = static_cast<int64_t>(row) * args.width + k;
    if (args.output.fp8 != nullptr) {
      *reinterpret_cast<uint2*>(args.output.fp8 + at) =
          make_uint2(PackFp8(x[0], x[1]) | PackFp8(x[2], x[3]) << 16, PackFp8(x[4], x[5]) | PackFp8(x[6], x[7]) << 16);
    } else {
      *reinterpret_cast<uint4*>(args.output.bf16 + at) =
          make_uint4(PackBf16(x[0], x[1]), PackBf16(x[2], x[3]), PackBf16(x[4], x[5]), PackBf16(x[6], x[7]));
    }
  }
}

// Few rows: spread each over a cluster, for latency. Many rows: one CTA each where it fits, since clusters cost
// bandwidth. `invariant`: all as if there were few.
template <RowKind kKind>
cudaError_t LaunchRows(const RowArgs& args, int rows, bool invariant, cudaStream_t stream) {
  const bool few = rows <= 64 || invariant;
  constexpr int kPerCta = kRowThreads * kVector;  // with one vector a thread
  LaunchShape shape{.grid = dim3(1, rows), .block = dim3(kRowThreads)};
  if constexpr (kKind == RowKind::kSwiGlu) {
    if (!few && args.width == 14 * kPerCta) return LaunchDependent(row_kernel<kKind, 14>, shape, stream, args);
    if (!few && args.width == 7 * kPerCta) return LaunchDependent(row_kernel<kKind, 7>, shape, stream, args);
  }
  const int target = few ? kPerCta : 4 * kPerCta;
  int ctas = 1;
  while (ctas < 8 && args.width > target * ctas && args.width % (2 * ctas * kVector) == 0) ctas *= 2;
  const int share = args.width / ctas;
  shape.grid.x = shape.cluster = ctas;
  if (share <= kPerCta) return LaunchDependent(row_kernel<kKind, 1>, shape, stream, args);
  if (share <= 2 * kPerCta) return LaunchDependent(row_kernel<kKind, 2>, shape, stream, args);
  if (share <= 4 * kPerCta) return LaunchDependent(row_kernel<kKind, 4>, shape, stream, args);
  return cudaErrorInvalidValue;  // wider than 8 CTAs hold
}

__global__ void embed_kernel(const EmbedArgs args) {
  ReleaseSuccessor();
  WaitForPredecessor();
  const int row = blockIdx.x;
  int token = args.info[row].token;
  token = token < 0 || token >= args.vocabulary ? 0 : token;
  const uint4* from = reinterpret_cast<const uint4*>(args.table + static_cast<int64_t>(token) * args.width);
  uint4* to = reinterpret_cast<uint4*>(args.residual + static_cast<int64_t>(row) * args.width);
  for (int i = threadIdx.x; i < args.width / kVector; i += blockDim.x) to[i] = __ldg(from + i);
}

}  // namespace

cudaError_t LaunchEmbed(const EmbedArgs& args, cudaStream_t stream) {
  return LaunchDependent(embed_kernel, {.grid = dim3(args.rows), .block = dim3(256)}, stream, args);
}

cudaError_t LaunchRmsNorm(const RmsNormArgs& args, cudaStream_t stream) {
  return LaunchRows<RowKind::kNorm>(
      RowArgs{args.residual, args.delta, args.width, args.delta_scales, args.weight, args.source_rows, args.output,
              args.width, args.epsilon, args.write_residual},
      args.rows, args.invariant, stream);
}

cudaError_t LaunchSwiGlu(const SwiGluArgs& args, cudaStream_t stream) {
  return LaunchRows<RowKind::kSwiGlu>(RowArgs{nullptr, args.gate_up, 2 * args.width, args.scales, nullptr, nullptr,
                                              args.output, args.width, 0.f, false},
                                      args.rows, args.invariant, stream);
}

cudaError_t LaunchQuantize(const QuantizeArgs& args, cudaStream_t stream) {
  return LaunchRows<RowKind::kQuantize>(
      RowArgs{nullptr, args.input, args.width, {}, nullptr, nullptr, args.output, args.width, 0.f, false, args.factor},
      args.rows, args.invariant, stream);
}

}  // namespace baton::cuda
