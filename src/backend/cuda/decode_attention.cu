// Decode attention over the paged KV cache: one query row a sequence (flash-decoding with an exact split).
//
// Work is a flat axis, [sequence][kv_head][unit]: kPairUnits that stand for what beginning a (sequence, head) costs,
// then its 16-token units. CTA c takes the c-th equal share, whatever sequence and head boundaries it crosses. A
// producer warp streams K and V, 128 tokens a stage, by bulk copies; eight consumer warps take 16 tokens of a stage
// each. Keys are the A operand of m16n8k16, so that the up to eight query heads of a KV head are its n; E4M3 and BF16
// become FP16 in registers; sums are FP32. Parts of a (sequence, head) that several CTAs computed meet in global
// memory, and the last to arrive adds them up in order.
#include "backend/cuda/decode_tiles.cuh"
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

template <bool kFp8, int kDim>
__global__ void __launch_bounds__(kConsumers + 32, 1) decode_attention_kernel(const DecodeAttentionArgs args) {
  using S = Shape<kFp8, kDim>;
  extern __shared__ __align__(1024) uint8_t shared[];
  float* const merge = reinterpret_cast<float*>(shared + kStages * S::kStageBytes);
  const uint32_t ring = SharedAddress(shared);
  const uint32_t full = ring + kStages * S::kStageBytes + kWarps * S::kPart * 4;  // K, V of each stage
  const uint32_t empty = full + 16 * kStages;
  volatile uint32_t* const flag =
      reinterpret_cast<volatile uint32_t*>(shared + kStages * S::kStageBytes + kWarps * S::kPart * 4 + 32 * kStages);
  const int tid = threadIdx.x;
  const int warp = tid >> 5;
  const int lane = tid & 31;
  if (tid == 0) {
    for (int i = 0; i < 2 * kStages; ++i) {
      BarrierInit(full + 8 * i, 1);
      BarrierInit(empty + 8 * i, kWarps * kWarpArrivals);
    }
    BarrierInitFence();
  }
  ReleaseSuccessor();
  __syncthreads();
  const int kv_heads = args.cache.kv_heads;
  const int64_t total = static_cast<int64_t>(args.unit_prefix[args.sequences]) * kv_heads;
  const int shares = static_cast<int>(total < gridDim.x ? total : gridDim.x);
  const int cta = blockIdx.x;
  if (cta >= shares) {
    WaitForPredecessor();
    return;
  }
  const int begin = static_cast<int>(total * cta / shares);
  const int end = static_cast<int>(total * (cta + 1) / shares);
  Cursor at(args, begin);

  if (warp == kWarps) {  // ---- producer
    if (lane != 0) return;
    bool waited = false;
    int stage = 0;
    uint32_t round = 0;
    while (at.x < end) {
      const int inside = at.unit & 7;
      const int n = min(min(8 - inside, at.TokenUnits() - at.unit), end - at.x);
      if (!waited && ((at.unit + n) * kUnit >= args.length[at.sequence] || round > 0)) {
        WaitForPredecessor();  // it writes the newest token
        waited = true;
      }
      const int block = args.block_table[args.table_offset[at.sequence] + (at.unit >> 3)];
      const uint8_t* plane = args.cache.base +
                             KvOffset(block, at.head, args.layer, kv_heads, args.cache.layers, S::kRowBytes) +
                             inside * kUnit * S::kRowBytes;
      const uint32_t bytes = n * kUnit * S::kRowBytes;
#pragma unroll
      for (int v = 0; v < 2; ++v) {
        const uint32_t slot = 16 * stage + 8 * v;
        if (round > 0) BarrierWait(empty + slot, (round - 1) & 1);
        BarrierExpect(full + slot, bytes);
        BulkLoad(ring + stage * S::kStageBytes + v * S::kPlaneBytes, plane + v * S::kPlaneBytes, bytes, full + slot);
      }
      if (++stage == kStages) {
        stage = 0;
        ++round;
      }
      at.Advance(n);
    }
    if (!waited) WaitForPredecessor();
    return;
  }

  // ---- consumers
  WaitForPredecessor();
  const int g = lane >> 2;
  const int c = lane & 3;
  const int group = args.heads / kv_heads;
  int stage = 0;
  int phase = 0;
  while (at.x < end) {
    // One segment: the units of one (sequence, head) that are ours.
    const int sequence = at.sequence;
    const int head = at.head;
    const int units = at.TokenUnits();
    const int pair_begin = at.PairBegin() + kPairUnits;  // of its tokens
    const int segment_end = min(end, pair_begin + units);
    const bool whole = at.unit == 0 && segment_end == pair_begin + units;
    const int length = args.length[sequence];
    uint32_t query[kDim / 16][2];
    LoadQuery<kFp8, kDim>(args.query + static_cast<int64_t>(sequence) * args.query_stride + (head * group + g) * kDim,
                          g < group, c, query);
    float sums[kDim / 16][4];
#pragma unroll
    for (int m = 0; m < kDim / 16; ++m) sums[m][0] = sums[m][1] = sums[m][2] = sums[m][3] = 0.f;
    float max0 = kMinusInfinity;  // of heads 2c and 2c + 1
    float max1 = kMinusInfinity;
    float weight0 = 0.f;
    float weight1 = 0.f;
    while (at.sequence == sequence && at.head == head && at.x < segment_end) {
      const int n = min(8 - (at.unit & 7), segment_end - at.x);  // units in this stage
      const bool active = warp < n;
      const int first = (at.unit + warp) * kUnit;  // position of this warp's first token
      const uint8_t* const keys = shared + stage * S::kStageBytes + warp * kUnit * S::kRowBytes;
      BarrierWait(full + 16 * stage, phase);
      float s[4] = {0.f, 0.f, 0.f, 0.f};
      if (active) KeyProduct<kFp8, kDim>(keys, g, c, query, s);
      WarpArrive(empty + 16 * stage);
      uint32_t b0 = 0;
      uint32_t b1 = 0;
      if (active) {
        if (first + g >= length) s[0] = s[1] = kMinusInfinity;
        if (first + g + 8 >= length) s[2] = s[3] = kMinusInfinity;
        float new0 = fmaxf(max0, fmaxf(s[0], s[2]));
        float new1 = fmaxf(max1, fmaxf(s[1], s[3]));
        if (__any_sync(~0u, new0 > max0 + kLazyRescale || new1 > max1 + kLazyRescale)) {
#pragma unroll
          for (int offset = 4; offset < 32; offset <<= 1) {
            new0 = fmaxf(new0, __shfl_xor_sync(~0u, new0, offset));
            new1 = fmaxf(new1, __shfl_xor_sync(~0u, new1, offset));
          }
          const float factor0 = Exp2(max0 - new0);
          const float factor1 = Exp2(max1 - new1);
          max0 = new0;
          max1 = new1;
          weight0 *= factor0;
          weight1 *= factor1;
#pragma unroll
          for (int m = 0; m < kDim / 16; ++m) {
            sums[m][0] *= factor0;
            sums[m][1] *= factor1;
            sums[m][2] *= factor0;
            sums[m][3] *= factor1;
          }
        }
        const float p0 = Exp2(s[0] - max0);
        const float p1 = Exp2(s[1] - max1);
        const float p2 = Exp2(s[2] - max0);
        const float p3 = Exp2(s[3] - max1);
        weight0 += p0 + p2;
        weight1 += p1 + p3;
        b0 = TransposeMatrix(PackHalf(p0, p1));
        b1 = TransposeMatrix(PackHalf(p2, p3));
      }
      BarrierWait(full + 16 * stage + 8, phase);
      if (active) ValueProduct<kFp8, kDim>(keys + S::kPlaneBytes, g, c, length - first, b0, b1, sums);
      WarpArrive(empty + 16 * stage + 8);
      if (++stage == kStages) {
        stage = 0;
        phase ^= 1;
      }
      at.Advance(n);
    }

    // Merge the warps: each leaves its sums, maxima and weights in shared memory.
#pragma unroll
    for (int offset = 4; offset < 32; offset <<= 1) {
      weight0 += __shfl_xor_sync(~0u, weight0, offset);
      weight1 += __shfl_xor_sync(~0u, weight1, offset);
    }
    float* const mine = merge + warp * S::kPart;
    float* const mine0 = mine + 2 * c * S::kPartRow;
    float* const mine1 = mine0 + S::kPartRow;
    if (g == 0) {
      *reinterpret_cast<float2*>(mine0 + kDim) = make_float2(max0, weight0);
      *reinterpret_cast<float2*>(mine1 + kDim) = make_float2(max1, weight1);
    }
#pragma unroll
    for (int m = 0; m < kDim / 16; ++m) {  // row g: dimension g × kDim / 8 + 2 m; row g + 8: the next
      *reinterpret_cast<float2*>(mine0 + g * (kDim / 8) + 2 * m) = make_float2(sums[m][0], sums[m][2]);
      *reinterpret_cast<float2*>(mine1 + g * (kDim / 8) + 2 * m) = make_float2(sums[m][1], sums[m][3]);
    }
    NamedBarrier<1, kConsumers>();
    constexpr int kEach = kGroup * kDim / kConsumers;  // outputs of a thread: 4 or 2
    const int my_head = tid * kEach / kDim;
    const int my_dim = tid * kEach % kDim;
    float top = kMinusInfinity;
    float weight = 0.f;
    float result[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) result[i] = 0.f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, merge[w * S::kPart + my_head * S::kPartRow + kDim]);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float* part = merge + w * S::kPart + my_head * S::kPartRow;
      const float factor = Exp2(part[kDim] - top);
      weight += part[kDim + 1] * factor;
#pragma unroll
      for (int i = 0; i < kEach; ++i) result[i] += part[my_dim + i] * factor;
    }

    bool final = true;
    if (!whole) {
      const int first_cta = static_cast<int>(((static_cast<int64_t>(pair_begin) + 1) * shares - 1) / total);
      const int last_cta = static_cast<int>(((static_cast<int64_t>(pair_begin) + units) * shares - 1) / total);
      // A CTA has two slots: 0 for the pair in which it starts, 1 for one that begins inside its share.
      auto slot_of = [&](int owner) {
        const bool starts_before = total * owner / shares <= pair_begin;
        return args.partial + (static_cast<int64_t>(owner) * 2 + (starts_before ? 1 : 0)) * S::kPart +
               my_head * S::kPartRow;
      };
      float* const slot = slot_of(cta);
#pragma unroll
      for (int i = 0; i < kEach; i += 2) {
        __stcg(reinterpret_cast<float2*>(slot + my_dim + i), make_float2(result[i], result[i + 1]));
      }
      if (my_dim == 0) __stcg(reinterpret_cast<float2*>(slot + kDim), make_float2(top, weight));
      __threadfence();
      NamedBarrier<1, kConsumers>();
      if (tid == 0) {
        uint32_t* const counter = args.counters + sequence * kv_heads + head;
        const bool last = atomicAdd(counter, 1u) == static_cast<uint32_t>(last_cta - first_cta);
        if (last) *counter = 0;
        *flag = last;
        __threadfence();
      }
      NamedBarrier<1, kConsumers>();
      final = *flag;
      if (final) {
        const int parts = last_cta - first_cta + 1;
        float2* const heads_of_parts = reinterpret_cast<float2*>(merge);
        for (int i = tid; i < parts * kGroup; i += kConsumers) {
          const int owner = first_cta + i / kGroup;
          const bool starts_before = total * owner / shares <= pair_begin;
          heads_of_parts[i] = __ldcg(reinterpret_cast<const float2*>(
              args.partial + (static_cast<int64_t>(owner) * 2 + (starts_before ? 1 : 0)) * S::kPart +
              (i % kGroup) * S::kPartRow + kDim));
        }
        NamedBarrier<1, kConsumers>();
        top = kMinusInfinity;
        weight = 0.f;
        for (int i = 0; i < parts; ++i) top = fmaxf(top, heads_of_parts[i * kGroup + my_head].x);
#pragma unroll
        for (int i = 0; i < kEach; ++i) result[i] = 0.f;
#pragma unroll 4
        for (int i = 0; i < parts; ++i) {
          const float2 part_head = heads_of_parts[i * kGroup + my_head];
          const float factor = Exp2(part_head.x - top);
          const float* part = slot_of(first_cta + i) + my_dim;
          weight += part_head.y * factor;
#pragma unroll
          for (int j = 0; j < kEach; j += 2) {
            const float2 v = __ldcg(reinterpret_cast<const float2*>(part + j));
            result[j] += v.x * factor;
            result[j + 1] += v.y * factor;
          }
        }
      }
    }
    if (final && my_head < group) {
      const float inverse = 1.f / weight;
      __nv_bfloat16* out =
          args.output + static_cast<int64_t>(sequence) * args.heads * kDim + (head * group + my_head) * kDim + my_dim;
#pragma unroll
      for (int i = 0; i < kEach; i += 2) {
        *reinterpret_cast<uint32_t*>(out + i) = PackBf16(result[i] * inverse, result[i + 1] * inverse);
      }
    }
    NamedBarrier<1, kConsumers>();  // the merge area and the flag are free again
  }
}

template <bool kFp8, int kDim>
cudaError_t Launch(const DecodeAttentionArgs& args, cudaStream_t stream) {
  using S = Shape<kFp8, kDim>;
  static const cudaError_t prepared = cudaFuncSetAttribute(
      decode_attention_kernel<kFp8, kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kSharedBytes);
  if (prepared != cudaSuccess) return prepared;
  const LaunchShape shape{
      .grid = dim3(args.multiprocessors), .block = dim3(kConsumers + 32), .shared_bytes = S::kSharedBytes};
  return LaunchDependent(decode_attention_kernel<kFp8, kDim>, shape, stream, args);
}

}  // namespace

int64_t DecodeAttentionPartialBytes(int32_t multiprocessors) {
  return int64_t{multiprocessors} * 2 * Shape<true, 128>::kPart * sizeof(float);
}

cudaError_t LaunchDecodeAttention(const DecodeAttentionArgs& args, cudaStream_t stream) {
  if (args.heads % args.cache.kv_heads != 0 || args.heads / args.cache.kv_heads > kGroup) return cudaErrorInvalidValue;
  if (args.cache.head_dim == 128) {
    return args.cache.fp8 ? Launch<true, 128>(args, stream) : Launch<false, 128>(args, stream);
  }
  if (args.cache.head_dim == 64) {
    return args.cache.fp8 ? Launch<true, 64>(args, stream) : Launch<false, 64>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace baton::cuda
