// Rotary embedding of queries and keys, with keys and values appended to the cache.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/row_math.cuh"

namespace baton::cuda {
namespace {

constexpr int kThreads = 128;

// Where a thread works: 8 pairs of a head. Non-interleaved pairs lie in two vectors half a head apart.
struct Place {
  int head;
  int at[2];  // of the two vectors, in the head
};

// The 8 pairs, rotated unless they are values. `turns`: cosine and sine of two pairs each.
template <bool kInterleaved>
__device__ __forceinline__ void Rotate(const float4 (&turns)[kVector / 2], float (&x)[2][kVector]) {
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

__device__ __forceinline__ void StoreQuery(const RopeAppendArgs& args, __nv_bfloat16* base, const Place& place,
                                           const float (&x)[2][kVector]) {
#pragma unroll
  for (int v = 0; v < 2; ++v) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      words[i] = PackHalf(fminf(fmaxf(x[v][2 * i] * args.query_scale, -65504.f), 65504.f),
                          fminf(fmaxf(x[v][2 * i + 1] * args.query_scale, -65504.f), 65504.f));
    }
    *reinterpret_cast<uint4*>(base + place.at[v]) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

__device__ __forceinline__ void Append(const RopeAppendArgs& args, const RowInfo& info, const Place& place,
                                       const float (&x)[2][kVector]) {
  const int dim = args.cache.head_dim;
  const int kv_heads = args.cache.kv_heads;
  const int kv_head = (place.head - args.heads) % kv_heads;
  const bool is_value = place.head >= args.heads + kv_heads;
  const int row_bytes = args.cache.fp8 ? dim : 2 * dim;
  const int slot = info.position & (kBlockTokens - 1);
  const float factor = !args.cache.fp8 ? 1.f : is_value ? args.value_factor : args.key_factor;
  uint8_t* const to = args.cache.base +
                      KvOffset(info.block, kv_head, args.layer, kv_heads, args.cache.layers, row_bytes) +
                      (is_value ? kBlockTokens * row_bytes : 0) + slot * row_bytes;
#pragma unroll
  for (int v = 0; v < 2; ++v) {
    float y[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) y[i] = x[v][i] * factor;
    if (args.cache.fp8) {
      const int chunk = SwizzleChunk(place.at[v] / 16, slot, row_bytes / 16);
      *reinterpret_cast<uint2*>(to + chunk * 16 + place.at[v] % 16) =
          make_uint2(PackFp8(y[0], y[1]) | PackFp8(y[2], y[3]) << 16, PackFp8(y[4], y[5]) | PackFp8(y[6], y[7]) << 16);
    } else {
      const int chunk = SwizzleChunk(place.at[v] / 8, slot, row_bytes / 16);
      *reinterpret_cast<uint4*>(to + chunk * 16) =
          make_uint4(PackBf16(y[0], y[1]), PackBf16(y[2], y[3]), PackBf16(y[4], y[5]), PackBf16(y[6], y[7]));
    }
  }
}

// A CTA has kHeads × (heads that its threads cover at once) heads of one row; a thread keeps its place in the head, so
// that its cosines and sines serve all of them. kEarly, for few rows: constants come in while the predecessor runs.
template <bool kInterleaved, int kHeads, bool kEarly>
__global__ void __launch_bounds__(kThreads, kHeads > 1 ? 4
                                            : kEarly   ? 8
                                                       : 9) rope_append_kernel(const RopeAppendArgs args) {
  ReleaseSuccessor();
  const int tid = threadIdx.x;
  const int dim = args.cache.head_dim;
  const int threads_per_head = dim / 16;
  const int at_once = kThreads / threads_per_head;
  const int first_head = blockIdx.y * kHeads * at_once + tid / threads_per_head;
  const int all_heads = args.heads + 2 * args.cache.kv_heads;
  const int row = blockIdx.x;
  const int lane = tid % threads_per_head;
  Place place{first_head, {kInterleaved ? lane * 16 : lane * 8, kInterleaved ? lane * 16 + 8 : dim / 2 + lane * 8}};
  __nv_bfloat16* const base = args.qkv + static_cast<int64_t>(row) * all_heads * dim;
  RowInfo info{};
  uint4 channel[2];
  float4 turns[kVector / 2];
  const auto load_turns = [&] {
    const int64_t position = max(info.position, 0);
    const float4* table = reinterpret_cast<const float4*>(args.rotary + position * (dim / 2) + lane * 8);
#pragma unroll
    for (int i = 0; i < kVector / 2; ++i) turns[i] = __ldg(table + i);
  };
  const auto load_channel = [&](int head) {
#pragma unroll
    for (int v = 0; v < 2; ++v) channel[v] = LoadChannel(args.scales, head * dim + place.at[v]);
  };
  if (kEarly) {
    info = args.info[row];
    load_turns();
    if (first_head < all_heads) load_channel(first_head);
  }
  WaitForPredecessor();
  uint4 raw[kHeads][2];  // asked for before the position is known, also of padding
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    const int head = first_head + h * at_once;
    if (head >= all_heads) continue;
#pragma unroll
    for (int v = 0; v < 2; ++v) raw[h][v] = LoadStreaming(base + head * dim + place.at[v]);
  }
  if (!kEarly) {
    info = args.info[row];
    load_turns();
  }
  if (info.position < 0) return;
  const float token = TokenScale(args.scales, row);
#pragma unroll
  for (int h = 0; h < kHeads; ++h, place.head += at_once) {
    if (place.head >= all_heads) return;
    if (!kEarly) load_channel(place.head);
    float x[2][kVector];
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      Unpack(raw[h][v], x[v]);
      ApplyScales(args.scales, channel[v], token, place.head * dim + place.at[v], x[v]);
    }
    if (place.head < args.heads + args.cache.kv_heads) Rotate<kInterleaved>(turns, x);
    if (place.head < args.heads) {
      StoreQuery(args, base + place.head * dim, place, x);
    } else {
      Append(args, info, place, x);
    }
  }
}

template <int kHeads, bool kEarly>
cudaError_t Launch(const RopeAppendArgs& args, cudaStream_t stream) {
  const int heads_per_cta = kHeads * kThreads / (args.cache.head_dim / 16);
  const int all_heads = args.heads + 2 * args.cache.kv_heads;
  const LaunchShape shape{.grid = dim3(args.rows, (all_heads + heads_per_cta - 1) / heads_per_cta),
                          .block = dim3(kThreads)};
  return LaunchDependent(
      args.interleaved ? rope_append_kernel<true, kHeads, kEarly> : rope_append_kernel<false, kHeads, kEarly>, shape,
      stream, args);
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
  if (args.rows <= 64 || args.invariant) return Launch<1, true>(args, stream);
  // Five heads a thread: four CTAs a multiprocessor, so not where a second wave would be nearly empty.
  const int wave = 4 * MultiprocessorCount();
  const bool wide = args.heads + 2 * args.cache.kv_heads >= 5 * kThreads / (args.cache.head_dim / 16);
  const bool many = args.rows > 2 * wave || (args.rows > wave / 2 && args.rows <= wave);
  return wide && many ? Launch<5, false>(args, stream) : Launch<1, false>(args, stream);
}

cudaError_t LaunchRotaryTable(float2* table, const float* inverse_frequencies, int32_t positions, int32_t half_dim,
                              cudaStream_t stream) {
  const int64_t n = static_cast<int64_t>(positions) * half_dim;
  rotary_table_kernel<<<static_cast<unsigned>((n + 255) / 256), 256, 0, stream>>>(table, inverse_frequencies, positions,
                                                                                  half_dim);
  return cudaGetLastError();
}

}  // namespace baton::cuda
