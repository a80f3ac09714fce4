// The jobs of deterministic attention as a CTA takes them, and their queries as operands. For invariant_attention.cu
// alone.
#pragma once

#include "backend/cuda/decode_tiles.cuh"
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

constexpr int kSectionUnits = kSectionTokens / kUnit;

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

// The queries of a job as B operands, in shared memory: [operand][pair of products][lane].
template <bool kFp8, int kDim>
__device__ __forceinline__ void StageQueries(const InvariantAttentionArgs& args, const AttentionJob& job, int head,
                                             uint4* queries) {
  const int group = args.heads / args.cache.kv_heads;
  const int each = kGroup / group;  // queries of an operand
  for (int i = threadIdx.x; i < (job.rows + each - 1) / each * kDim; i += kConsumers) {
    const int lane = i & 31;
    const int pair = i / 32 % (kDim / 32);
    const int query = (lane >> 2) / group;
    const int row = i / kDim * each + query;
    uint4 v = make_uint4(0, 0, 0, 0);
    if (query < each && row < job.rows) {
      const __half* from = args.query + static_cast<int64_t>(job.row + row) * args.query_stride +
                           (head * group + (lane >> 2) % group) * kDim + (lane & 3) * (kDim / 4) + pair * 8;
      v = __ldcg(reinterpret_cast<const uint4*>(from));
    }
    queries[i] = v;
  }
}

}  // namespace
}  // namespace baton::cuda
