// Attention whose rows do not depend on the batch, for prefill and decode: one kernel, one order of sums.
//
// The tokens that a query sees are cut into sections of 1,024 from position 0 on. Within a section eight warps share
// the tokens by position, 16 at a time, and their sums meet in the order of warps; sections are merged in order. So a
// row's bits depend on its query, its position and the cache, whoever computes its sections and beside whom.
//
// A job is up to four queries of one sequence (a prefill reads each key once for them), or some sections of one query
// (a long decode row is shared out; whoever comes last adds its sections up). Jobs times KV heads are dealt to the
// CTAs. Products are those of decode attention (decode_tiles.cuh): keys and values are the A operand, the up to eight
// query heads of a KV head the columns.
#include "backend/cuda/decode_tiles.cuh"
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/invariant_softmax.cuh"
#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

constexpr int kSectionUnits = kSectionTokens / kUnit;
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
  static constexpr int kQueries = kState + kQueryGroup * (kEach + 2) * kConsumers * 4;
  static constexpr int kBarriers = kQueries + kQueryGroup * (kDim / 16) * 32 * 8;
  static constexpr int kSharedBytes = kBarriers + 32 * kRing + 16;
};

// The jobs of one CTA, one KV head each.
struct Jobs {
  const InvariantAttentionArgs& args;
  int at;
  int count;
  __device__ explicit Jobs(const InvariantAttentionArgs& args)
      : args(args), at(blockIdx.x), count(*args.job_count * args.cache.kv_heads) {}
  __device__ bool Valid() const { return at < count; }
  __device__ void Advance() { at += gridDim.x; }
  __device__ const AttentionJob& Job() const { return args.jobs[at / args.cache.kv_heads]; }
  __device__ int Head() const { return at % args.cache.kv_heads; }
};
// Units of 16 tokens that the job's queries see, and those of its sections.
__device__ __forceinline__ int SeenUnits(const AttentionJob& job) {
  return (job.position + job.rows + kUnit - 1) / kUnit;
}
__device__ __forceinline__ int EndUnit(const AttentionJob& job) {
  return min(SeenUnits(job), (job.first_section + job.sections) * kSectionUnits);
}

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

// The queries of a job as B operands, in shared memory: [query][pair of products][lane].
template <bool kFp8, int kDim>
__device__ __forceinline__ void StageQueries(const InvariantAttentionArgs& args, const AttentionJob& job, int head,
                                             uint4* queries) {
  const int group = args.heads / args.cache.kv_heads;
  for (int i = threadIdx.x; i < job.rows * (kDim / 32) * 32; i += kConsumers) {
    const int lane = i & 31;
    const int pair = i / 32 % (kDim / 32);
    const int g = lane >> 2;
    uint4 v = make_uint4(0, 0, 0, 0);
    if (g < group) {
      const __half* from = args.query + static_cast<int64_t>(job.row + i / kDim) * args.query_stride +
                           (head * group + g) * kDim + (lane & 3) * (kDim / 4) + pair * 8;
      v = __ldcg(reinterpret_cast<const uint4*>(from));
    }
    queries[i] = v;
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
        empty_(full_ + 16 * P::kRing) {}

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
#pragma unroll
    for (int q = 0; q < kQueryGroup; ++q) sums_[q].Clear();
    for (; unit < end; unit += kStageUnits) {
      const bool active = unit + warp < end;
      const int first = (unit + warp) * kUnit;  // position of this warp's first token
      const uint8_t* const keys = shared_ + stage_ * S::kStageBytes + warp * kUnit * S::kRowBytes;
      // Queries from `from` on see this unit.
      const int from = max(0, first - job.position);
      float s[kQueryGroup][4];
      uint32_t weights[kQueryGroup][2];
      BarrierWait(full_ + 16 * stage_, phase_);
      if (active) KeyProducts(keys, g, c, lane, from, job.rows, queries, s);
      WarpArrive(empty_ + 16 * stage_);
      if (active) {
#pragma unroll
        for (int q = 0; q < kQueryGroup; ++q) {
          if (q < from || q >= job.rows) continue;
          sums_[q].Weigh(s[q], g, job.position + q + 1 - first, weights[q][0], weights[q][1]);
        }
      }
      BarrierWait(full_ + 16 * stage_ + 8, phase_);
      if (active) {
        ValueProducts(keys + S::kPlaneBytes, g, c, job.position + job.rows - first, from, job.rows, weights);
      }
      WarpArrive(empty_ + 16 * stage_ + 8);
      if (++stage_ == P::kRing) {
        stage_ = 0;
        phase_ ^= 1;
      }
    }
  }

  // Scores of 16 tokens against the heads of each query that sees them.
  __device__ __forceinline__ void KeyProducts(const uint8_t* tile, int g, int c, int lane, int from, int rows,
                                              const uint4* queries, float (&s)[kQueryGroup][4]) {
#pragma unroll
    for (int q = 0; q < kQueryGroup; ++q) s[q][0] = s[q][1] = s[q][2] = s[q][3] = 0.f;
    constexpr int kProducts = kChunkProducts<kFp8>;
#pragma unroll
    for (int h = 0; h < S::kChunks / 4; ++h) {
      uint32_t a[kProducts][4];
      KeyOperands<kFp8, kDim>(tile, g, c, h, a);
#pragma unroll
      for (int q = 0; q < kQueryGroup; ++q) {
        if (q < from || q >= rows) continue;
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
  __device__ __forceinline__ void ValueProducts(const uint8_t* tile, int g, int c, int valid, int from, int rows,
                                                const uint32_t (&weights)[kQueryGroup][2]) {
    ValueTile<kFp8, kDim> values;
    values.Load(tile, g, c, valid);
#pragma unroll
    for (int m = 0; m < kDim / 16; ++m) {
      uint32_t a[4];
      values.Operand(m, a);
#pragma unroll
      for (int q = 0; q < kQueryGroup; ++q) {
        if (q < from || q >= rows) continue;
        Mma(sums_[q].sums[m], a, weights[q][0], weights[q][1]);
      }
    }
  }

  // The section's sums over the warps, of this thread's outputs.
  __device__ __forceinline__ Sums<kEach> MergeWarps() const {
    const float* const mine = merge_ + MyHead() * S::kPartRow;
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
    for (int q = 0; q < kQueryGroup; ++q) {
      const int length = job.position + q + 1;
      if (q >= job.rows || section * kSectionTokens >= length) continue;  // uniform: it sees nothing of this section
      sums_[q].template Publish<S>(merge_ + (threadIdx.x >> 5) * S::kPart, lane >> 2, lane & 3);
      NamedBarrier<1, kConsumers>();
      const Sums<kEach> sums = MergeWarps();
      if (job.part >= 0) {
        StorePart(PartOf(job, head, section), sums);
      } else {
        Sums<kEach> all = LoadState(q);
        MergeSection(sums, section == 0, all);
        if ((section + 1) * kSectionTokens >= length) {
          StoreOutput(job.row + q, head, all);
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
    StoreOutput(job.row, head, all);
  }

  __device__ __forceinline__ float* PartOf(const AttentionJob& job, int head, int section) const {
    return args_.parts + (static_cast<int64_t>(job.part + section) * args_.cache.kv_heads + head) * S::kPart +
           MyHead() * S::kPartRow;
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
    const int group = args_.heads / args_.cache.kv_heads;
    if (MyHead() >= group) return;
    const float inverse = __frcp_rn(sums.weight);
    __nv_bfloat16* out =
        args_.output + static_cast<int64_t>(row) * args_.heads * kDim + (head * group + MyHead()) * kDim + MyDim();
#pragma unroll
    for (int i = 0; i < kEach; i += 2) {
      *reinterpret_cast<uint32_t*>(out + i) =
          PackBf16(__fmul_rn(sums.values[i], inverse), __fmul_rn(sums.values[i + 1], inverse));
    }
  }
  __device__ __forceinline__ int MyHead() const { return threadIdx.x * kEach / kDim; }
  __device__ __forceinline__ int MyDim() const { return threadIdx.x * kEach % kDim; }

  const InvariantAttentionArgs& args_;
  uint8_t* const shared_;
  float* const merge_;
  float* const state_;
  const uint32_t full_, empty_;
  int stage_ = 0;
  uint32_t phase_ = 0;
  WarpSums<kDim> sums_[kQueryGroup];
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
