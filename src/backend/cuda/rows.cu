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
  int32_t rows, width;
  float epsilon;
  bool write_residual;
};

constexpr int kRowThreads = 256;
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

// Sums of `sum` and maxima of `peak` over the CTA, then over the cluster that shares the rows.
template <int kRows>
__device__ __forceinline__ void ReduceRows(float (&sum)[kRows], float (&peak)[kRows]) {
  __shared__ float2 warp_parts[kRowThreads / 32][kRows];
  __shared__ float2 cluster_parts[8][kRows];
  const int tid = threadIdx.x;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
      sum[r] += __shfl_xor_sync(~0u, sum[r], offset);
      peak[r] = fmaxf(peak[r], __shfl_xor_sync(~0u, peak[r], offset));
    }
    if ((tid & 31) == 0) warp_parts[tid >> 5][r] = make_float2(sum[r], peak[r]);
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    sum[r] = peak[r] = 0.f;
#pragma unroll
    for (int warp = 0; warp < kRowThreads / 32; ++warp) {
      sum[r] += warp_parts[warp][r].x;
      peak[r] = fmaxf(peak[r], warp_parts[warp][r].y);
    }
  }
  const int ctas = gridDim.x;  // the cluster spans x
  if (ctas == 1) return;
  ClusterWait();  // every CTA of the cluster has started: its shared memory exists
  if (tid < ctas) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const uint32_t slot = ClusterAddress(SharedAddress(&cluster_parts[blockIdx.x][r]), tid);
      asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(slot), "f"(sum[r]), "f"(peak[r]) : "memory");
    }
  }
  ClusterArrive();
  ClusterWait();
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    sum[r] = peak[r] = 0.f;
    for (int i = 0; i < ctas; ++i) {
      sum[r] += cluster_parts[i][r].x;
      peak[r] = fmaxf(peak[r], cluster_parts[i][r].y);
    }
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

// One vector of one row before normalization and quantization, as BF16: the new residual stream, SwiGLU, or the input.
template <RowKind kKind>
__device__ __forceinline__ void Combine(const RowArgs& args, const uint4& first, const uint4& second,
                                        const float (&scale)[2][kVector], const float (&bias)[2][kVector], float token,
                                        uint32_t (&packed)[4]) {
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
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    x[j] = fmaf(x[j], token * scale[0][j], bias[0][j]);
    if (kKind == RowKind::kNorm) {
      x[j] += y[j];
    } else {
      y[j] = fmaf(y[j], token * scale[1][j], bias[1][j]);
      x[j] = __fdividef(x[j], 1.f + __expf(-x[j])) * y[j];
    }
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) packed[j] = PackBf16(x[2 * j], x[2 * j + 1]);
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

// A cluster of gridDim.x CTAs takes kRows rows at a time, so that channel scales are read once for all of them; each thread
// keeps kPer vectors of each row in registers between the two passes.
template <RowKind kKind, int kPer, int kRows>
__global__ void __launch_bounds__(kRowThreads) row_kernel(const RowArgs args) {
  const int tid = threadIdx.x;
  const int first_row = blockIdx.y * kRows;
  const int share = args.width / gridDim.x;  // a multiple of kVector
  const int begin = share * blockIdx.x;
  const int end = begin + share;
  if (gridDim.x > 1) ClusterArrive();
  WaitForPredecessor();
  ReleaseSuccessor();

  int source[kRows];
  float token[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = min(first_row + r, args.rows - 1);  // rows past the end repeat the last one
    source[r] = args.source_rows != nullptr ? args.source_rows[row] : row;
    token[r] = args.scales.token != nullptr ? __ldcg(args.scales.token + source[r]) : 1.f;
  }
  uint4 first[kPer][kRows];
  uint4 second[kPer][kRows];
  uint32_t packed[kPer][kRows][4];
  float sum[kRows] = {};
  float peak[kRows] = {};
  if (kRows == 1) {  // few rows: everything in flight at once
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int k = begin + (i * kRowThreads + tid) * kVector;
      if (k < end) LoadRow<kKind>(args, source[0], k, first[i][0], second[i][0]);
    }
  }
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    const int k = begin + (i * kRowThreads + tid) * kVector;
    if (k >= end) continue;
    if (kRows > 1) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) LoadRow<kKind>(args, source[r], k, first[i][r], second[i][r]);
    }
    float scale[2][kVector];
    float bias[2][kVector];
    float weight[kVector];
    if (kKind != RowKind::kQuantize) {
      LoadFloats(args.scales.channel, k, 1.f, scale[0]);
      LoadFloats(args.scales.bias, k, 0.f, bias[0]);
    }
    if (kKind == RowKind::kSwiGlu) {
      LoadFloats(args.scales.channel, args.width + k, 1.f, scale[1]);
      LoadFloats(args.scales.bias, args.width + k, 0.f, bias[1]);
    }
    if (kKind == RowKind::kNorm) LoadFloats(args.weight, k, 1.f, weight);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      uint32_t(&words)[4] = packed[i][r];
      Combine<kKind>(args, first[i][r], second[i][r], scale, bias, token[r], words);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float2 x = UnpackBf16(words[j]);
        if (kKind == RowKind::kNorm) {
          sum[r] += x.x * x.x + x.y * x.y;
          x.x *= weight[2 * j];
          x.y *= weight[2 * j + 1];
        }
        peak[r] = fmaxf(peak[r], fmaxf(fabsf(x.x), fabsf(x.y)));
      }
      if (kKind == RowKind::kNorm && args.write_residual && first_row + r < args.rows) {
        *reinterpret_cast<uint4*>(args.residual + static_cast<int64_t>(source[r]) * args.width + k) =
            make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }

  ReduceRows<kRows>(sum, peak);
  float factor[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float norm = kKind == RowKind::kNorm ? rsqrtf(sum[r] / static_cast<float>(args.width) + args.epsilon) : 1.f;
    const float scale = fmaxf(peak[r] * norm, 1e-10f) * (1.f / 448.f);
    factor[r] = args.output.fp8 != nullptr ? norm / scale : norm;
    if (args.output.fp8 != nullptr && tid == 0 && blockIdx.x == 0 && first_row + r < args.rows) {
      args.output.scale[first_row + r] = scale;
    }
  }
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    const int k = begin + (i * kRowThreads + tid) * kVector;
    if (k >= end) continue;
    float weight[kVector];
    if (kKind == RowKind::kNorm) LoadFloats(args.weight, k, 1.f, weight);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first_row + r >= args.rows) continue;
      float x[kVector];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 pair = UnpackBf16(packed[i][r][j]);
        x[2 * j] = pair.x * factor[r];
        x[2 * j + 1] = pair.y * factor[r];
        if (kKind == RowKind::kNorm) {
          x[2 * j] *= weight[2 * j];
          x[2 * j + 1] *= weight[2 * j + 1];
        }
      }
      const int64_t at = static_cast<int64_t>(first_row + r) * args.width + k;
      if (args.output.fp8 != nullptr) {
        *reinterpret_cast<uint2*>(args.output.fp8 + at) =
            make_uint2(PackFp8(x[0], x[1]) | PackFp8(x[2], x[3]) << 16, PackFp8(x[4], x[5]) | PackFp8(x[6], x[7]) << 16);
      } else {
        *reinterpret_cast<uint4*>(args.output.bf16 + at) =
            make_uint4(PackBf16(x[0], x[1]), PackBf16(x[2], x[3]), PackBf16(x[4], x[5]), PackBf16(x[6], x[7]));
      }
    }
  }
}

template <RowKind kKind, int kPer, int kRows>
cudaError_t LaunchRowsAs(const RowArgs& args, int ctas, cudaStream_t stream) {
  return LaunchDependent(
      row_kernel<kKind, kPer, kRows>,
      {.grid = dim3(ctas, (args.rows + kRows - 1) / kRows), .block = dim3(kRowThreads), .cluster = ctas}, stream, args);
}

// Few rows: spread each over a cluster, for latency. Many rows: several at a time in each cluster.
template <RowKind kKind>
cudaError_t LaunchRows(const RowArgs& args, cudaStream_t stream) {
  constexpr int kPerCta = kRowThreads * kVector;  // with one vector a thread
  const bool few = args.rows <= 64;
  int ctas = 1;
  while (ctas < 8 && args.width > (few ? 1 : 2) * kPerCta * ctas && args.width % (2 * ctas * kVector) == 0) ctas *= 2;
  const int share = args.width / ctas;
  if (share <= kPerCta) {
    return few ? LaunchRowsAs<kKind, 1, 1>(args, ctas, stream) : LaunchRowsAs<kKind, 1, 4>(args, ctas, stream);
  }
  if (share <= 2 * kPerCta) {
    return few ? LaunchRowsAs<kKind, 2, 1>(args, ctas, stream) : LaunchRowsAs<kKind, 2, 4>(args, ctas, stream);
  }
  if (share <= 4 * kPerCta) return LaunchRowsAs<kKind, 4, 1>(args, ctas, stream);
  return cudaErrorInvalidValue;  // wider than 8 × 8192
}

__global__ void embed_kernel(const EmbedArgs args) {
  WaitForPredecessor();
  ReleaseSuccessor();
  const int row = blockIdx.x;
  int token = args.info[row].token;
  token = token < 0 || token >= args.vocabulary ? 0 : token;
  const uint4* from = reinterpret_cast<const uint4*>(args.table + static_cast<int64_t>(token) * args.width);
  uint4* to = reinterpret_cast<uint4*>(args.residual + static_cast<int64_t>(row) * args.width);
  for (int i = threadIdx.x; i < args.width / kVector; i += blockDim.x) to[i] = __ldg(from + i);
}

// A thread rotates 8 pairs of one head, of kRows rows. Non-interleaved pairs lie in two vectors half a head apart.
template <bool kInterleaved, int kRows>
__global__ void __launch_bounds__(128) rope_append_kernel(const RopeAppendArgs args) {
  WaitForPredecessor();
  ReleaseSuccessor();
  const int tid = threadIdx.x;
  const int dim = args.cache.head_dim;
  const int threads_per_head = dim / 16;
  const int head = blockIdx.y * (128 / threads_per_head) + tid / threads_per_head;
  const int kv_heads = args.cache.kv_heads;
  const int all_heads = args.heads + 2 * kv_heads;
  if (head >= all_heads) return;
  const int lane = tid % threads_per_head;
  const int at[2] = {kInterleaved ? lane * 16 : lane * 8, kInterleaved ? lane * 16 + 8 : dim / 2 + lane * 8};
  const int first_row = blockIdx.x * kRows;
  __nv_bfloat16* const base = args.qkv + static_cast<int64_t>(first_row) * all_heads * dim + head * dim;
  RowInfo info[kRows];
  uint4 raw[kRows][2];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    info[r].position = -1;
    if (first_row + r >= args.rows) continue;
    info[r] = args.info[first_row + r];
#pragma unroll
    for (int v = 0; v < 2; ++v) raw[r][v] = LoadStreaming(base + static_cast<int64_t>(r) * all_heads * dim + at[v]);
  }
  float scale[2][kVector];
  float bias[2][kVector];
#pragma unroll
  for (int v = 0; v < 2; ++v) {
    LoadFloats(args.scales.channel, head * dim + at[v], 1.f, scale[v]);
    LoadFloats(args.scales.bias, head * dim + at[v], 0.f, bias[v]);
  }
  const bool is_query = head < args.heads;
  const bool is_value = head >= args.heads + kv_heads;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (info[r].position < 0) continue;
    const float token = args.scales.token != nullptr ? __ldcg(args.scales.token + first_row + r) : 1.f;
    float x[2][kVector];
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      Unpack(raw[r][v], x[v]);
#pragma unroll
      for (int i = 0; i < kVector; ++i) x[v][i] = fmaf(x[v][i], token * scale[v][i], bias[v][i]);
    }
    if (!is_value) {
      const float4* table =
          reinterpret_cast<const float4*>(args.rotary + static_cast<int64_t>(info[r].position) * (dim / 2) + lane * 8);
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
        *reinterpret_cast<uint4*>(base + static_cast<int64_t>(r) * all_heads * dim + at[v]) =
            make_uint4(words[0], words[1], words[2], words[3]);
      }
      continue;
    }
    const int kv_head = (head - args.heads) % kv_heads;
    const int row_bytes = args.cache.fp8 ? dim : 2 * dim;
    const int slot = info[r].position & (kBlockTokens - 1);
    uint8_t* const place =
        args.cache.base + KvOffset(info[r].block, kv_head, args.layer, kv_heads, args.cache.layers, row_bytes) +
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
              args.rows, args.width, args.epsilon, args.write_residual},
      stream);
}

cudaError_t LaunchSwiGlu(const SwiGluArgs& args, cudaStream_t stream) {
  return LaunchRows<RowKind::kSwiGlu>(RowArgs{nullptr, args.gate_up, 2 * args.width, args.scales, nullptr, nullptr,
                                              args.output, args.rows, args.width, 0.f, false},
                                      stream);
}

cudaError_t LaunchQuantize(const QuantizeArgs& args, cudaStream_t stream) {
  return LaunchRows<RowKind::kQuantize>(RowArgs{nullptr, args.input, args.width, {}, nullptr, nullptr, args.output,
                                                args.rows, args.width, 0.f, false},
                                        stream);
}

cudaError_t LaunchRopeAppend(const RopeAppendArgs& args, cudaStream_t stream) {
  const int heads_per_cta = 128 / (args.cache.head_dim / 16);
  const int all_heads = args.heads + 2 * args.cache.kv_heads;
  const int rows_per_cta = args.rows <= 64 ? 1 : 4;
  const LaunchShape shape{.grid = dim3((args.rows + rows_per_cta - 1) / rows_per_cta,
                                       (all_heads + heads_per_cta - 1) / heads_per_cta),
                          .block = dim3(128)};
  if (rows_per_cta == 1) {
    return LaunchDependent(args.interleaved ? rope_append_kernel<true, 1> : rope_append_kernel<false, 1>, shape, stream, args);
  }
  return LaunchDependent(args.interleaved ? rope_append_kernel<true, 4> : rope_append_kernel<false, 4>, shape, stream, args);
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
