// Rotary embedding of queries and keys, with keys and values appended to the cache.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/row_math.cuh"

namespace baton::cuda {
namespace {

// A thread rotates 8 pairs of one head. Non-interleaved pairs lie in two vectors half a head apart.
// kEarly: constants come in while the predecessor runs, which pays for few rows only.
template <bool kInterleaved, bool kEarly>
__global__ void __launch_bounds__(128, kEarly ? 8 : 9) rope_append_kernel(const RopeAppendArgs args) {
  ReleaseSuccessor();
  const int tid = threadIdx.x;
  const int dim = args.cache.head_dim;
  const int threads_per_head = dim / 16;
  const int head = blockIdx.y * (128 / threads_per_head) + tid / threads_per_head;
  const int kv_heads = args.cache.kv_heads;
  const int all_heads = args.heads + 2 * kv_heads;
  if (head >= all_heads) {
    WaitForPredecessor();
    return;
  }
  const int lane = tid % threads_per_head;
  const int at[2] = {kInterleaved ? lane * 16 : lane * 8, kInterleaved ? lane * 16 + 8 : dim / 2 + lane * 8};
  const int row = blockIdx.x;
  const RowInfo info = args.info[row];
  if (info.position < 0) {
    WaitForPredecessor();
    return;
  }
  __nv_bfloat16* const base = args.qkv + static_cast<int64_t>(row) * all_heads * dim + head * dim;
  const bool is_query = head < args.heads;
  const bool is_value = head >= args.heads + kv_heads;
  uint4 channel[2];
  float4 turns[kVector / 2];  // cosine and sine of two pairs each
  const auto load_constants = [&] {
    const float4* table =
        reinterpret_cast<const float4*>(args.rotary + static_cast<int64_t>(info.position) * (dim / 2) + lane * 8);
#pragma unroll
    for (int v = 0; v < 2; ++v) channel[v] = LoadChannel(args.scales, head * dim + at[v]);
#pragma unroll
    for (int i = 0; i < kVector / 2; ++i) turns[i] = __ldg(table + i);
  };
  if (kEarly) load_constants();
  WaitForPredecessor();
  const uint4 raw[2] = {LoadStreaming(base + at[0]), LoadStreaming(base + at[1])};
  if (!kEarly) load_constants();
  const float token = TokenScale(args.scales, row);
  float x[2][kVector];
#pragma unroll
  for (int v = 0; v < 2; ++v) {
    Unpack(raw[v], x[v]);
    ApplyScales(args.scales, channel[v], token, head * dim + at[v], x[v]);
  }
  if (!is_value) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float cosine = i & 1 ? turns[i / 2].z : turns[i / 2].x;
      const float sine = i & 1 ? turns[i / 2].w : turns[i / 2].y;
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
  const float factor = !args.cache.fp8 ? 1.f : is_value ? args.value_factor : args.key_factor;
  uint8_t* const place = args.cache.base +
                         KvOffset(info.block, kv_head, args.layer, kv_heads, args.cache.layers, row_bytes) +
                         (is_value ? kBlockTokens * row_bytes : 0) + slot * row_bytes;
#pragma unroll
  for (int v = 0; v < 2; ++v) {
    float(&y)[kVector] = x[v];
#pragma unroll
    for (int i = 0; i < kVector; ++i) y[i] *= factor;
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

}  // namespace

cudaError_t LaunchRopeAppend(const RopeAppendArgs& args, cudaStream_t stream) {
  const int heads_per_cta = 128 / (args.cache.head_dim / 16);
  const int all_heads = args.heads + 2 * args.cache.kv_heads;
  const LaunchShape shape{.grid = dim3(args.rows, (all_heads + heads_per_cta - 1) / heads_per_cta), .block = dim3(128)};
  if (args.rows <= 64 || args.invariant) {
    return LaunchDependent(args.interleaved ? rope_append_kernel<true, true> : rope_append_kernel<false, true>, shape,
                           stream, args);
  }
  return LaunchDependent(args.interleaved ? rope_append_kernel<true, false> : rope_append_kernel<false, false>, shape,
                         stream, args);
}

cudaError_t LaunchRotaryTable(float2* table, const float* inverse_frequencies, int32_t positions, int32_t half_dim,
                              cudaStream_t stream) {
  const int64_t n = static_cast<int64_t>(positions) * half_dim;
  rotary_table_kernel<<<static_cast<unsigned>((n + 255) / 256), 256, 0, stream>>>(table, inverse_frequencies, positions,
                                                                                  half_dim);
  return cudaGetLastError();
}

}  // namespace baton::cuda
