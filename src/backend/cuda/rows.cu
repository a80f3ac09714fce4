// Kernels over rows of activations: embedding, norm, SwiGLU, quantization, rotary embedding with KV append.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"

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
};

constexpr int kRowThreads = 256;
constexpr float kLog2e = 1.44269504f;
constexpr int kVector = 8;  // elements that a thread loads at once

__device__ __forceinline__ void Unpack(const uint4& vector, float (&values)[kVector]) {
  const uint32_t words[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = UnpackBf16(words[i]);
    values[2 * i] = pair.x;
    values[2 * i + 1] = pair.y;
  }
}

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

// values ← values × channel[k …]
__device__ __forceinline__ void ApplyChannel(const RowScales& scales, int k, float (&values)[kVector]) {
  if (scales.channel == nullptr) return;
  const uint4 channel = __ldg(reinterpret_cast<const uint4*>(scales.channel + k));
  const uint32_t words[4] = {channel.x, channel.y, channel.z, channel.w};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[j]));
    values[2 * j] *= pair.x;
    values[2 * j + 1] *= pair.y;
  }
}
// values ← values × token × channel[k …] + bias[k …]; `token` includes the unit.
__device__ __forceinline__ void ApplyScales(const RowScales& scales, float token, int k, float (&values)[kVector]) {
  ApplyChannel(scales, k, values);
#pragma unroll
  for (int j = 0; j < kVector; ++j) values[j] *= token;
  if (scales.bias == nullptr) return;
  float bias[kVector];
  LoadFloats(scales.bias, k, 0.f, bias);
#pragma unroll
  for (int j = 0; j < kVector; ++j) values[j] += bias[j];
}
__device__ __forceinline__ float TokenScale(const RowScales& scales, int row) {
  return scales.token != nullptr ? __ldcg(scales.token + row) * scales.unit : scales.unit;
}

// One vector of one row before normalization and quantization, as BF16: the new residual stream, SwiGLU, or the input.
template <RowKind kKind>
__device__ __forceinline__ void Combine(const RowArgs& args, const uint4& first, const uint4& second, int k,
                                        float token, uint32_t (&packed)[4]) {
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
    if (args.input != nullptr) ApplyScales(args.scales, token, k, x);
#pragma unroll
    for (int j = 0; j < kVector; ++j) x[j] += y[j];
  } else if (args.scales.bias != nullptr) {
    ApplyScales(args.scales, token, k, x);
    ApplyScales(args.scales, token, args.width + k, y);
#pragma unroll
    for (int j = 0; j < kVector; ++j) x[j] = __fdividef(x[j] * y[j], 1.f + __expf(-x[j]));
  } else {  // this kernel is bound by instructions: the row's factor token² is left to the end
    ApplyChannel(args.scales, k, x);
    ApplyChannel(args.scales, args.width + k, y);
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
  constexpr int kGroup = kPer <= 4 ? kPer : kPer / 7;  // vectors in flight at once
  constexpr bool kExact = kPer > 4;                    // the share is a whole number of vectors for every thread
  const int tid = threadIdx.x;
  const int row = blockIdx.y;
  const int share = args.width / gridDim.x;  // a multiple of kVector
  const int begin = share * blockIdx.x;
  const int end = begin + share;
  if (gridDim.x > 1) ClusterArrive();
  ReleaseSuccessor();
  WaitForPredecessor();

  const int source = args.source_rows != nullptr ? args.source_rows[row] : row;
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
      Combine<kKind>(args, first[i], second[i], k, token, words);
      float weight[kVector];
      if (kKind == RowKind::kNorm) LoadFloats(args.weight, k, 1.f, weight);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float2 x = UnpackBf16(words[j]);
        if (kKind == RowKind::kNorm) {
          sum += x.x * x.x + x.y * x.y;
          x.x *= weight[2 * j];
          x.y *= weight[2 * j + 1];
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
  const float scale = fmaxf(peak * norm, 1e-10f) * (1.f / 448.f);
  const float factor = args.output.fp8 != nullptr ? norm / scale : norm;
  if (args.output.fp8 != nullptr && tid == 0 && blockIdx.x == 0) args.output.scale[row] = scale;
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    const int k = begin + (i * kRowThreads + tid) * kVector;
    if (!kExact && k >= end) continue;
    float x[kVector];
    float weight[kVector];
    if (kKind == RowKind::kNorm) LoadFloats(args.weight, k, 1.f, weight);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 pair = UnpackBf16(packed[i][j]);
      x[2 * j] = pair.x * factor;
      x[2 * j + 1] = pair.y * factor;
      if (kKind == RowKind::kNorm) {
        x[2 * j] *= weight[2 * j];
        x[2 * j + 1] *= weight[2 * j + 1];
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
// bandwidth.
template <RowKind kKind>
cudaError_t LaunchRows(const RowArgs& args, int rows, cudaStream_t stream) {
  constexpr int kPerCta = kRowThreads * kVector;  // with one vector a thread
  LaunchShape shape{.grid = dim3(1, rows), .block = dim3(kRowThreads)};
  if constexpr (kKind == RowKind::kSwiGlu) {
    if (rows > 64 && args.width == 14 * kPerCta) return LaunchDependent(row_kernel<kKind, 14>, shape, stream, args);
    if (rows > 64 && args.width == 7 * kPerCta) return LaunchDependent(row_kernel<kKind, 7>, shape, stream, args);
  }
  const int target = rows <= 64 ? kPerCta : 4 * kPerCta;
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

// A thread rotates 8 pairs of one head. Non-interleaved pairs lie in two vectors half a head apart.
template <bool kInterleaved>
__global__ void __launch_bounds__(128, 9) rope_append_kernel(const RopeAppendArgs args) {
  ReleaseSuccessor();
  WaitForPredecessor();
  const int tid = threadIdx.x;
  const int dim = args.cache.head_dim;
  const int threads_per_head = dim / 16;
  const int head = blockIdx.y * (128 / threads_per_head) + tid / threads_per_head;
  const int kv_heads = args.cache.kv_heads;
  const int all_heads = args.heads + 2 * kv_heads;
  if (head >= all_heads) return;
  const int lane = tid % threads_per_head;
  const int at[2] = {kInterleaved ? lane * 16 : lane * 8, kInterleaved ? lane * 16 + 8 : dim / 2 + lane * 8};
  const int row = blockIdx.x;
  const RowInfo info = args.info[row];
  if (info.position < 0) return;
  __nv_bfloat16* const base = args.qkv + static_cast<int64_t>(row) * all_heads * dim + head * dim;
  const uint4 raw[2] = {LoadStreaming(base + at[0]), LoadStreaming(base + at[1])};
  const float token = TokenScale(args.scales, row);
  const bool is_query = head < args.heads;
  const bool is_value = head >= args.heads + kv_heads;
  float x[2][kVector];
#pragma unroll
  for (int v = 0; v < 2; ++v) {
    Unpack(raw[v], x[v]);
    ApplyScales(args.scales, token, head * dim + at[v], x[v]);
  }
  if (!is_value) {
    const float4* table =
        reinterpret_cast<const float4*>(args.rotary + static_cast<int64_t>(info.position) * (dim / 2) + lane * 8);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float4 turns = __ldg(table + i / 2);  // cosine and sine of two pairs
      const float cosine = i & 1 ? turns.z : turns.x;
      const float sine = i & 1 ? turns.w : turns.y;
      float& a = kInterleaved ? x[i >> 2][2 * (i & 3)] : x[0][i];
      float& b = kInterleaved ? x[i >> 2][2 * (i & 3) + 1] : x[1][i];
      const float rotated = a * cosine - b * sine;
      b = b * cosine + a * sine;
      a = rotated;
    }
  }
  if (is_query) {
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        words[i] = PackHalf(fminf(fmaxf(x[v][2 * i] * args.query_scale, -65504.f), 65504.f),
                            fminf(fmaxf(x[v][2 * i + 1] * args.query_scale, -65504.f), 65504.f));
      }
      *reinterpret_cast<uint4*>(base + at[v]) = make_uint4(words[0], words[1], words[2], words[3]);
    }
    return;
  }
  const int kv_head = (head - args.heads) % kv_heads;
  const int row_bytes = args.cache.fp8 ? dim : 2 * dim;
  const int slot = info.position & (kBlockTokens - 1);
  uint8_t* const place = args.cache.base +
                         KvOffset(info.block, kv_head, args.layer, kv_heads, args.cache.layers, row_bytes) +
                         (is_value ? kBlockTokens * row_bytes : 0) + slot * row_bytes;
#pragma unroll
  for (int v = 0; v < 2; ++v) {
    const float(&y)[kVector] = x[v];
    if (args.cache.fp8) {
      const int chunk = SwizzleChunk(at[v] / 16, slot, row_bytes / 16);
      *reinterpret_cast<uint2*>(place + chunk * 16 + at[v] % 16) =
          make_uint2(PackFp8(y[0], y[1]) | PackFp8(y[2], y[3]) << 16, PackFp8(y[4], y[5]) | PackFp8(y[6], y[7]) << 16);
    } else {
      const int chunk = SwizzleChunk(at[v] / 8, slot, row_bytes / 16);
      *reinterpret_cast<uint4*>(place + chunk * 16) =
          make_uint4(PackBf16(y[0], y[1]), PackBf16(y[2], y[3]), PackBf16(y[4], y[5]), PackBf16(y[6], y[7]));
    }
  }
}

__global__ void rotary_table_kernel(float2* table, const float* inverse_frequencies, int positions, int half_dim) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<int64_t>(positions) * half_dim) return;
  const double angle = static_cast<double>(i / half_dim) * inverse_frequencies[i % half_dim];
  double sine, cosine;
  sincos(angle, &sine, &cosine);
  table[i] = make_float2(static_cast<float>(cosine), static_cast<float>(sine));
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

cudaError_t LaunchEmbed(const EmbedArgs& args, cudaStream_t stream) {
  return LaunchDependent(embed_kernel, {.grid = dim3(args.rows), .block = dim3(256)}, stream, args);
}

cudaError_t LaunchRmsNorm(const RmsNormArgs& args, cudaStream_t stream) {
  return LaunchRows<RowKind::kNorm>(
      RowArgs{args.residual, args.delta, args.width, args.delta_scales, args.weight, args.source_rows, args.output,
              args.width, args.epsilon, args.write_residual},
      args.rows, stream);
}

cudaError_t LaunchSwiGlu(const SwiGluArgs& args, cudaStream_t stream) {
  return LaunchRows<RowKind::kSwiGlu>(RowArgs{nullptr, args.gate_up, 2 * args.width, args.scales, nullptr, nullptr,
                                              args.output, args.width, 0.f, false},
                                      args.rows, stream);
}

cudaError_t LaunchQuantize(const QuantizeArgs& args, cudaStream_t stream) {
  return LaunchRows<RowKind::kQuantize>(
      RowArgs{nullptr, args.input, args.width, {}, nullptr, nullptr, args.output, args.width, 0.f, false}, args.rows,
      stream);
}

cudaError_t LaunchRopeAppend(const RopeAppendArgs& args, cudaStream_t stream) {
  const int heads_per_cta = 128 / (args.cache.head_dim / 16);
  const int all_heads = args.heads + 2 * args.cache.kv_heads;
  const LaunchShape shape{.grid = dim3(args.rows, (all_heads + heads_per_cta - 1) / heads_per_cta), .block = dim3(128)};
  return LaunchDependent(args.interleaved ? rope_append_kernel<true> : rope_append_kernel<false>, shape, stream, args);
}

cudaError_t LaunchRotaryTable(float2* table, const float* inverse_frequencies, int32_t positions, int32_t half_dim,
                              cudaStream_t stream) {
  const int64_t n = static_cast<int64_t>(positions) * half_dim;
  rotary_table_kernel<<<static_cast<unsigned>((n + 255) / 256), 256, 0, stream>>>(table, inverse_frequencies, positions,
                                                                                  half_dim);
  return cudaGetLastError();
}

cudaError_t LaunchToBf16(const void* input, bool fp32, __nv_bfloat16* output, int64_t n, cudaStream_t stream) {
  to_bf16_kernel<<<1056, 256, 0, stream>>>(input, fp32, output, n);
  return cudaGetLastError();
}
cudaError_t LaunchFillBf16(__nv_bfloat16* output, int64_t n, uint64_t seed, float deviation, cudaStream_t stream) {
  fill_bf16_kernel<<<1056, 256, 0, stream>>>(output, n, seed, deviation);
  return cudaGetLastError();
}
cudaError_t LaunchFillFp8(uint8_t* output, int64_t n, uint64_t seed, float deviation, cudaStream_t stream) {
  fill_fp8_kernel<<<1056, 256, 0, stream>>>(output, n, seed, deviation);
  return cudaGetLastError();
}
cudaError_t LaunchFillFloat(float* output, int64_t n, uint64_t seed, float low, float high, cudaStream_t stream) {
  fill_float_kernel<<<static_cast<unsigned>((n + 255) / 256), 256, 0, stream>>>(output, n, seed, low, high);
  return cudaGetLastError();
}

}  // namespace baton::cuda
