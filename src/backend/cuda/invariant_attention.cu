// Attention whose rows do not depend on the batch, for prefill and decode: one kernel, one order of sums.
//
// The tokens that a query sees are cut into sections of 1,024 from position 0 on. Within a section eight warps share
// the tokens by position, 16 at a time, and their sums meet in the order of warps; sections are merged in order. So a
// row's bits depend on its query, its position and the cache, whoever computes its sections and beside whom.
//
// A job is some queries of one sequence (a prefill reads each key once for them), or some sections of one query (a long
// decode row is shared out; whoever comes last adds its sections up). Jobs times KV heads are dealt to the CTAs.
// Products are those of decode attention (decode_tiles.cuh): keys and values are the A operand; the eight columns of a
// B operand are the query heads of a KV head, for as many queries as fit.
#include "backend/cuda/decode_tiles.cuh"
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/invariant_jobs.cuh"
#include "backend/cuda/invariant_softmax.cuh"
#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

constexpr int kStageUnits = kBlockTokens / kUnit;
constexpr int kCtaThreads = kConsumers + 128;  // a whole warpgroup for the producer: registers move between warpgroups

template <bool kFp8, int kDim>
struct Plan {
  using S = Shape<kFp8, kDim>;
  static constexpr int kRing = S::kStageBytes > 32 * 1024 ? 2 : 3;
  static constexpr int kEach = kGroup * kDim / kConsumers;  // outputs of a thread: 4 or 2
  // The ring; sums of the warps; running sums of each query; queries as operands; barriers; a flag.
  static constexpr int kMerge = kRing * S::kStageBytes;
  static constexpr int kState = kMerge + kWarps * S::kPart * 4;
  static constexpr int kQueries = kState + kJobOperands * (kEach + 2) * kConsumers * 4;
  static constexpr int kBarriers = kQueries + kJobOperands * (kDim / 16) * 32 * 8;
  static constexpr int kSharedBytes = kBarriers + 32 * kRing + 16;
};

template <bool kFp8, int kDim>
__device__ __forceinline__ void Produce(const InvariantAttentionArgs& args, uint32_t ring, uint32_t full,
                                        uint32_t empty) {
  using P = Plan<kFp8, kDim>;
  using S = Shape<kFp8, kDim>;
  int stage = 0;
  uint32_t round = 0;
  for (Jobs jobs(args); jobs.Valid(); jobs.Advance()) {
    const AttentionJob job = jobs.Job();
    const int end = EndUnit(job);
    for (int unit = job.first_section * kSectionUnits; unit < end; unit += kStageUnits) {
      const int block = args.block_table[job.table_offset + unit / kStageUnits];
      const uint8_t* plane = args.cache.base + KvOffset(block, jobs.Head(), args.layer, args.cache.kv_heads,
                                                        args.cache.layers, S::kRowBytes);
      const uint32_t bytes = min(kStageUnits, end - unit) * kUnit * S::kRowBytes;
#pragma unroll
      for (int v = 0; v < 2; ++v) {
        const uint32_t slot = 16 * stage + 8 * v;
        if (round > 0) BarrierWait(empty + slot, (round - 1) & 1);
        BarrierExpect(full + slot, bytes);
        BulkLoad(ring + stage * S::kStageBytes + v * S::kPlaneBytes, plane + v * S::kPlaneBytes, bytes, full + slot);
      }
      if (++stage == P::kRing) {
        stage = 0;
        ++round;
      }
    }
  }
}

template <bool kFp8, int kDim>
class Consumer {
 public:
  using P = Plan<kFp8, kDim>;
  using S = Shape<kFp8, kDim>;
  static constexpr int kEach = P::kEach;

  __device__ Consumer(const InvariantAttentionArgs& args, uint8_t* shared)
      : args_(args),
        shared_(shared),
        merge_(reinterpret_cast<float*>(shared + P::kMerge)),
        state_(reinterpret_cast<float*>(shared + P::kState)),
        full_(SharedAddress(shared) + P::kBarriers),
        empty_(full_ + 16 * P::kRing),
        group_(args.heads / args.cache.kv_heads),
        each_(kGroup / group_),
        query0_(min(2 * (static_cast<int>(threadIdx.x) & 3) / group_, each_ - 1)),
        query1_(min((2 * (static_cast<int>(threadIdx.x) & 3) + 1) / group_, each_ - 1)) {}

  __device__ __forceinline__ void Run() {
    uint4* const queries = reinterpret_cast<uint4*>(shared_ + P::kQueries);
    for (Jobs jobs(args_); jobs.Valid(); jobs.Advance()) {
      const AttentionJob job = jobs.Job();
      StageQueries<kFp8, kDim>(args_, job, jobs.Head(), queries);
      NamedBarrier<1, kConsumers>();
      const int end = EndUnit(job);
      for (int section = job.first_section; section < job.first_section + job.sections; ++section) {
        const int first = section * kSectionUnits;
        AddSection(job, first, min(end, first + kSectionUnits), queries);
        CloseSection(job, jobs.Head(), section);
      }
      if (job.part >= 0) {
        AddUpParts(job, jobs.Head());
      }
      NamedBarrier<1, kConsumers>();  // queries and flag are free again
    }
  }

 private:
  // This warp's units of [unit, end).
  __device__ __forceinline__ void AddSection(const AttentionJob& job, int unit, int end, const uint4* queries) {
    const int warp = threadIdx.x >> 5;
    const int lane = threadIdx.x & 31;
    const int g = lane >> 2;
    const int c = lane & 3;
    const int operands = (job.rows + each_ - 1) / each_;
#pragma unroll
    for (int q = 0; q < kJobOperands; ++q) sums_[q].Clear();
    for (; unit < end; unit += kStageUnits) {
      const bool active = unit + warp < end;
      const int first = (unit + warp) * kUnit;  // position of this warp's first token
      const uint8_t* const keys = shared_ + stage_ * S::kStageBytes + warp * kUnit * S::kRowBytes;
      const int from = max(0, first - job.position) / each_;  // operands before it see nothing of this unit
      float s[kJobOperands][4];
      uint32_t weights[kJobOperands][2];
      BarrierWait(full_ + 16 * stage_, phase_);
      if (active) KeyProducts(keys, g, c, lane, from, operands, queries, s);
      WarpArrive(empty_ + 16 * stage_);
      if (active) {
#pragma unroll
        for (int q = 0; q < kJobOperands; ++q) {
          if (q < from || q >= operands) continue;
          const int seen = job.position + q * each_ + 1 - first;
          const int most = job.position + job.rows - first;  // columns of padding must not see more
          sums_[q].Weigh(s[q], g, c, min(seen + query0_, most), min(seen + query1_, most), weights[q][0],
                         weights[q][1]);
        }
      }
      BarrierWait(full_ + 16 * stage_ + 8, phase_);
      if (active) {
        ValueProducts(keys + S::kPlaneBytes, g, c, job.position + job.rows - first, from, operands, weights);
      }
      WarpArrive(empty_ + 16 * stage_ + 8);
      if (++stage_ == P::kRing) {
        stage_ = 0;
        phase_ ^= 1;
      }
    }
  }

  // Scores of 16 tokens against the columns of operands [from, end).
  __device__ __forceinline__ void KeyProducts(const uint8_t* tile, int g, int c, int lane, int from, int end,
                                              const uint4* queries, float (&s)[kJobOperands][4]) {
#pragma unroll
    for (int q = 0; q < kJobOperands; ++q) s[q][0] = s[q][1] = s[q][2] = s[q][3] = 0.f;
    constexpr int kProducts = kChunkProducts<kFp8>;
#pragma unroll
    for (int h = 0; h < S::kChunks / 4; ++h) {
      uint32_t a[kProducts][4];
      KeyOperands<kFp8, kDim>(tile, g, c, h, a);
#pragma unroll
      for (int q = 0; q < kJobOperands; ++q) {
        if (q < from || q >= end) continue;
#pragma unroll
        for (int i = 0; i < kProducts; i += 2) {
          const uint4 query = queries[(q * (kDim / 32) + (h * kProducts + i) / 2) * 32 + lane];
          Mma(s[q], a[i], query.x, query.y);
          Mma(s[q], a[i + 1], query.z, query.w);
        }
      }
    }
  }
  // Adds their values, weighted; tokens from `valid` on are nobody's, and could be anything.
  __device__ __forceinline__ void ValueProducts(const uint8_t* tile, int g, int c, int valid, int from, int end,
                                                const uint32_t (&weights)[kJobOperands][2]) {
    ValueTile<kFp8, kDim> values;
    values.Load(tile, g, c, valid);
#pragma unroll
    for (int m = 0; m < kDim / 16; ++m) {
      uint32_t a[4];
      values.Operand(m, a);
#pragma unroll
      for (int q = 0; q < kJobOperands; ++q) {
        if (q < from || q >= end) continue;
        Mma(sums_[q].sums[m], a, weights[q][0], weights[q][1]);
      }
    }
  }

  // The section's sums over the warps, of this thread's outputs.
  __device__ __forceinline__ Sums<kEach> MergeWarps() const {
    const float* const mine = merge_ + MyColumn() * S::kPartRow;
    Sums<kEach> sums{kMinusInfinity, 0.f, {}};
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sums.top = fmaxf(sums.top, mine[w * S::kPart + kDim]);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float* part = mine + w * S::kPart;
      const float factor = Exp2(__fsub_rn(part[kDim], sums.top));
      sums.weight = __fmaf_rn(part[kDim + 1], factor, sums.weight);
#pragma unroll
      for (int i = 0; i < kEach; ++i) sums.values[i] = __fmaf_rn(part[MyDim() + i], factor, sums.values[i]);
    }
    return sums;
  }

  __device__ __forceinline__ void CloseSection(const AttentionJob& job, int head, int section) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int q = 0; q < kJobOperands; ++q) {
      const int last = min((q + 1) * each_, job.rows) - 1;
      if (q * each_ > last || section * kSectionTokens > job.position + last) continue;  // uniform: sees nothing of it
      const int row = q * each_ + MyColumn() / group_;                                   // of this thread's outputs
      const bool exists = row <= last && section * kSectionTokens <= job.position + row;
      sums_[q].template Publish<S>(merge_ + (threadIdx.x >> 5) * S::kPart, lane >> 2, lane & 3);
      NamedBarrier<1, kConsumers>();
      const Sums<kEach> sums = MergeWarps();
      if (job.part >= 0) {
        StorePart(PartOf(job, head, section), sums);
      } else if (exists) {
        Sums<kEach> all = LoadState(q);
        MergeSection(sums, section == 0, all);
        if ((section + 1) * kSectionTokens > job.position + row) {
          StoreOutput(job.row + row, head, all);
        } else {
          StoreState(q, all);
        }
      }
      NamedBarrier<1, kConsumers>();  // the merge area is free again
    }
  }

  // The last job of a row merges its sections.
  __device__ __forceinline__ void AddUpParts(const AttentionJob& job, int head) {
    volatile uint32_t* const flag = reinterpret_cast<volatile uint32_t*>(shared_ + P::kBarriers + 32 * P::kRing);
    const int sections = job.position / kSectionTokens + 1;
    __threadfence();
    NamedBarrier<1, kConsumers>();
    if (threadIdx.x == 0) {
      uint32_t* const counter = args_.counters + job.row * args_.cache.kv_heads + head;
      const uint32_t before = atomicAdd(counter, static_cast<uint32_t>(job.sections));
      const bool last = before + job.sections == static_cast<uint32_t>(sections);
      if (last) *counter = 0;
      *flag = last;
      __threadfence();
    }
    NamedBarrier<1, kConsumers>();
    if (*flag == 0) return;
    Sums<kEach> all;
    for (int section = 0; section < sections; ++section) {
      MergeSection(LoadPart(PartOf(job, head, section)), section == 0, all);
    }
    if (MyColumn() < group_) StoreOutput(job.row, head, all);
  }

  __device__ __forceinline__ float* PartOf(const AttentionJob& job, int head, int section) const {
    return args_.parts + (static_cast<int64_t>(job.part + section) * args_.cache.kv_heads + head) * S::kPart +
           MyColumn() * S::kPartRow;
  }
  __device__ __forceinline__ void StorePart(float* part, const Sums<kEach>& sums) const {
#pragma unroll
    for (int i = 0; i < kEach; i += 2) {
      __stcg(reinterpret_cast<float2*>(part + MyDim() + i), make_float2(sums.values[i], sums.values[i + 1]));
    }
    if (MyDim() == 0) __stcg(reinterpret_cast<float2*>(part + kDim), make_float2(sums.top, sums.weight));
  }
  __device__ __forceinline__ Sums<kEach> LoadPart(const float* part) const {
    Sums<kEach> sums;
    const float2 head = __ldcg(reinterpret_cast<const float2*>(part + kDim));
    sums.top = head.x;
    sums.weight = head.y;
#pragma unroll
    for (int i = 0; i < kEach; i += 2) {
      const float2 v = __ldcg(reinterpret_cast<const float2*>(part + MyDim() + i));
      sums.values[i] = v.x;
      sums.values[i + 1] = v.y;
    }
    return sums;
  }
  // A thread's running sums between sections: nobody else's.
  __device__ __forceinline__ Sums<kEach> LoadState(int q) const {
    const float* at = state_ + q * (kEach + 2) * kConsumers + threadIdx.x;
    Sums<kEach> sums;
    sums.top = at[0];
    sums.weight = at[kConsumers];
#pragma unroll
    for (int i = 0; i < kEach; ++i) sums.values[i] = at[(2 + i) * kConsumers];
    return sums;
  }
  __device__ __forceinline__ void StoreState(int q, const Sums<kEach>& sums) const {
    float* at = state_ + q * (kEach + 2) * kConsumers + threadIdx.x;
    at[0] = sums.top;
    at[kConsumers] = sums.weight;
#pragma unroll
    for (int i = 0; i < kEach; ++i) at[(2 + i) * kConsumers] = sums.values[i];
  }
  __device__ __forceinline__ void StoreOutput(int row, int head, const Sums<kEach>& sums) const {
    const float inverse = __frcp_rn(sums.weight);
    __nv_bfloat16* out = args_.output + static_cast<int64_t>(row) * args_.heads * kDim +
                         (head * group_ + MyColumn() % group_) * kDim + MyDim();
#pragma unroll
    for (int i = 0; i < kEach; i += 2) {
      *reinterpret_cast<uint32_t*>(out + i) =
          PackBf16(__fmul_rn(sums.values[i], inverse), __fmul_rn(sums.values[i + 1], inverse));
    }
  }
  __device__ __forceinline__ int MyColumn() const { return threadIdx.x * kEach / kDim; }
  __device__ __forceinline__ int MyDim() const { return threadIdx.x * kEach % kDim; }

  const InvariantAttentionArgs& args_;
  uint8_t* const shared_;
  float* const merge_;
  float* const state_;
  const uint32_t full_, empty_;
  const int group_, each_;     // heads of a KV head; queries of an operand
  const int query0_, query1_;  // those of columns 2c and 2c + 1, in their operand
  int stage_ = 0;
  uint32_t phase_ = 0;
  WarpSums<kDim> sums_[kJobOperands];
};

template <bool kFp8, int kDim>
__global__ void __launch_bounds__(kCtaThreads, 1) invariant_attention_kernel(const InvariantAttentionArgs args) {
  using P = Plan<kFp8, kDim>;
  extern __shared__ __align__(1024) uint8_t shared[];
  const uint32_t full = SharedAddress(shared) + P::kBarriers;  // K, V of each stage
  const uint32_t empty = full + 16 * P::kRing;
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2 * P::kRing; ++i) {
      BarrierInit(full + 8 * i, 1);
      BarrierInit(empty + 8 * i, kWarps * kWarpArrivals);
    }
    BarrierInitFence();
  }
  ReleaseSuccessor();
  __syncthreads();
  WaitForPredecessor();
  if (threadIdx.x < kConsumers) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    Consumer<kFp8, kDim>(args, shared).Run();
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == kConsumers) Produce<kFp8, kDim>(args, SharedAddress(shared), full, empty);
  }
}

template <bool kFp8, int kDim>
cudaError_t Launch(const InvariantAttentionArgs& args, cudaStream_t stream) {
  constexpr int kSharedBytes = Plan<kFp8, kDim>::kSharedBytes;
  static const cudaError_t prepared = cudaFuncSetAttribute(invariant_attention_kernel<kFp8, kDim>,
                                                           cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (prepared != cudaSuccess) return prepared;
  const LaunchShape shape{.grid = dim3(args.multiprocessors), .block = dim3(kCtaThreads), .shared_bytes = kSharedBytes};
  return LaunchDependent(invariant_attention_kernel<kFp8, kDim>, shape, stream, args);
}

}  // namespace

int64_t InvariantAttentionPartBytes(int32_t kv_heads) {
  return int64_t{kv_heads} * Shape<true, 128>::kPart * static_cast<int64_t>(sizeof(float));
}

cudaError_t LaunchInvariantAttention(const InvariantAttentionArgs& args, cudaStream_t stream) {
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
