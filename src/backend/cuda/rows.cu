// Kernels over rows of activations: embedding, norm, SwiGLU, quantization.
#include <algorithm>

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
  int32_t rows;
  float factor = 1.f;  // kQuantize: on the input
};

constexpr int kRowThreads = 256;
constexpr float kLog2e = 1.44269504f;
// Sum of `sum` and maximum of `peak` over the CTA, then over the cluster that shares the row.
// `turn` alternates from row to row, so that a warp may leave its part of the next row while others read this one's.
__device__ __forceinline__ void ReduceRow(int turn, float& sum, float& peak) {
  __shared__ float2 all_parts[2][kRowThreads / 32];
  __shared__ float2 cluster_parts[8];
  const int tid = threadIdx.x;
  float2* const warp_parts = all_parts[turn];
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
    for (int j = 0; j < kVector; ++j) x[j] = x[j] * y[j] * Reciprocal(1.f + __expf(-x[j]));
  } else {  // this kernel is bound by instructions: the row's factor token² is left to the end
    ApplyChannel(args.scales, columns.first, x);
    ApplyChannel(args.scales, columns.second, y);
    const float exponent = -kLog2e * token;
#pragma unroll
    for (int j = 0; j < kVector; ++j) x[j] = x[j] * y[j] * Reciprocal(1.f + Exp2(x[j] * exponent));
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) packed[j] = PackBf16(x[2 * j], x[2 * j + 1]);
}

// Quantization of many rows goes on from row to row in this many CTAs a multiprocessor. The norm and SwiGLU get slower
// by it: they compute more, and need the warps of more rows beside each other.
template <int kPer>
constexpr int kLoopingCtas = kPer > 2 ? 4 : 6;

// A row for each cluster of gridDim.x CTAs; a thread keeps kPer vectors of it in registers between the two passes.
// kMany: a CTA has whole rows, every gridDim.y-th one, and asks for the next before it reduces this one.
template <RowKind kKind, int kPer, bool kMany>
__global__ void __launch_bounds__(kRowThreads, kMany ? kLoopingCtas<kPer> : 3) row_kernel(const RowArgs args) {
  // With few rows the constants come in while the predecessor runs: they are in no cache, and memory is busy.
  constexpr bool kEarly = !kMany && kPer <= 2;
  const int tid = threadIdx.x;
  const int share = kMany ? args.width : args.width / gridDim.x;  // a multiple of kVector
  const int begin = kMany ? 0 : share * blockIdx.x;
  const int end = begin + share;
  const auto source_of = [&](int row) { return args.source_rows != nullptr ? args.source_rows[row] : row; };
  if (!kMany && gridDim.x > 1) ClusterArrive();
  ReleaseSuccessor();
  int row = blockIdx.y;
  int source = source_of(row);
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

  uint4 first[kPer];
  uint4 second[kPer];
  float token;
  const auto load = [&] {
    token = TokenScale(args.scales, source);
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int k = begin + (i * kRowThreads + tid) * kVector;
      if (k < end) LoadRow<kKind>(args, source, k, first[i], second[i]);
    }
  };
  load();
  for (int turn = 0;; turn ^= 1) {
    uint32_t packed[kPer][4];
    float sum = 0.f;
    float peak = 0.f;
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int k = begin + (i * kRowThreads + tid) * kVector;
      if (k >= end) continue;
      uint32_t(&words)[4] = packed[i];
      const Columns<kKind> columns = kEarly ? early[kEarly ? i : 0] : LoadColumns<kKind>(args, k);
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
    const int64_t out = static_cast<int64_t>(row) * args.width;
    const int this_row = row;
    const float this_token = token;
    row += gridDim.y;
    const bool more = kMany && row < args.rows;
    if (more) {
      source = source_of(row);
      load();
    }

    ReduceRow(turn, sum, peak);
    float norm = 1.f;
    if (kKind == RowKind::kNorm) norm = rsqrtf(sum / static_cast<float>(args.width) + args.epsilon);
    if (kKind == RowKind::kSwiGlu && args.scales.bias == nullptr) norm = this_token * this_token;
    if (kKind == RowKind::kQuantize) norm = args.factor;
    const float scale = OutputScale(args.output, peak * norm);
    const float factor = args.output.fp8 != nullptr ? norm / scale : norm;
    if (args.output.fp8 != nullptr && tid == 0 && blockIdx.x == 0) args.output.scale[this_row] = scale;
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int k = begin + (i * kRowThreads + tid) * kVector;
      if (k >= end) continue;
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
      StoreVector(args.output, out + k, x);
    }
    if (!more) return;
  }
}

template <RowKind kKind, int kPer>
cudaError_t LaunchMany(const RowArgs& args, cudaStream_t stream) {
  const int ctas = std::min(args.rows, MultiprocessorCount() * kLoopingCtas<kPer>);
  return LaunchDependent(row_kernel<kKind, kPer, true>, {.grid = dim3(1, ctas), .block = dim3(kRowThreads)}, stream,
                         args);
}

// Few rows: spread each over a cluster, for latency. Many rows: one CTA each where it fits, since clusters cost
// bandwidth. `invariant`: all as if there were few.
template <RowKind kKind>
cudaError_t LaunchRows(const RowArgs& args, bool invariant, cudaStream_t stream) {
  const bool few = args.rows <= 64 || invariant;
  constexpr int kPerCta = kRowThreads * kVector;  // with one vector a thread
  if constexpr (kKind == RowKind::kQuantize) {
    if (!few && args.width <= kPerCta) return LaunchMany<kKind, 1>(args, stream);
    if (!few && args.width <= 2 * kPerCta) return LaunchMany<kKind, 2>(args, stream);
    if (!few && args.width <= 4 * kPerCta) return LaunchMany<kKind, 4>(args, stream);
  }
  LaunchShape shape{.grid = dim3(1, args.rows), .block = dim3(kRowThreads)};
  const int target = few ? kPerCta : 4 * kPerCta;
  int ctas = 1;
  while (ctas < 8 && args.width > target * ctas && args.width % (2 * ctas * kVector) == 0) ctas *= 2;
  const int share = args.width / ctas;
  shape.grid.x = shape.cluster = ctas;
  if (share <= kPerCta) return LaunchDependent(row_kernel<kKind, 1, false>, shape, stream, args);
  if (share <= 2 * kPerCta) return LaunchDependent(row_kernel<kKind, 2, false>, shape, stream, args);
  if (share <= 4 * kPerCta) return LaunchDependent(row_kernel<kKind, 4, false>, shape, stream, args);
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
              args.width, args.epsilon, args.write_residual, args.rows},
      args.invariant, stream);
}

cudaError_t LaunchSwiGluRows(const SwiGluArgs& args, cudaStream_t stream) {
  return LaunchRows<RowKind::kSwiGlu>(RowArgs{nullptr, args.gate_up, 2 * args.width, args.scales, nullptr, nullptr,
                                              args.output, args.width, 0.f, false, args.rows},
                                      args.invariant, stream);
}

cudaError_t LaunchQuantize(const QuantizeArgs& args, cudaStream_t stream) {
  return LaunchRows<RowKind::kQuantize>(RowArgs{nullptr,
                                                args.input,
                                                args.width,
                                                {},
                                                nullptr,
                                                nullptr,
                                                args.output,
                                                args.width,
                                                0.f,
                                                false,
                                                args.rows,
                                                args.factor},
                                        args.invariant, stream);
}

}  // namespace baton::cuda
