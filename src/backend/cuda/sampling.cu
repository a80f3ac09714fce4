// Sampling and log-probabilities on the device: the rules of backend/sampler.h without sorting the vocabulary.
//
// A row belongs to a cluster of eight CTAs. Each holds an eighth of its logits, in the order of ids, in shared memory,
// so that a pass costs little; what they find meets through distributed shared memory, in the order of their ranks.
// Truncation finds a threshold by histograms: 2,048 equal bins of the distance from the best logit, then 2,048 within
// the bin where the wanted count or mass is reached, and once more. Bins only decide who is kept; the draw walks ids in
// order.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/logit_slices.cuh"
#include "core/random.h"

namespace baton::cuda {
namespace {

// log Σ e^logit
__device__ double LogSumExp(Slice& slice, float best) {
  float sum = 0.f;
  for (int i = threadIdx.x; i < slice.size(); i += kThreads) sum += Exp2((slice.logits[i] - best) * kLog2e);
  double value = sum;
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(~0u, value, offset);
  if ((threadIdx.x & 31) == 0) slice.shared.warp_doubles[threadIdx.x >> 5] = value;
  __syncthreads();
  value = 0;
  for (int warp = 0; warp < kWarps; ++warp) value += slice.shared.warp_doubles[warp];
  double all = 0;
  Exchange(slice, value, [&](int, double other) { all += other; });
  return best + log(all);
}

// The best `count` tokens, by the first CTA.
__device__ void WriteTopLogprobs(Slice& slice, const Extremes& raw, int count, double log_sum, int vocabulary,
                                 SampleResult& result) {
  Shared& shared = slice.shared;
  count = min(min(count, kMaxTopLogprobs), vocabulary);
  if (threadIdx.x == 0) {
    if (slice.rank == 0) result.top_count = count;
    shared.list_size = 0;
  }
  if (count == 0) return;
  Select(slice, raw.largest, raw.largest - raw.smallest, count, shared.top_k, [](float) { return Sum{1}; });
  for (int i = threadIdx.x; i < slice.size(); i += kThreads) {
    if (!shared.top_k.Keeps(raw.largest - slice.logits[i])) continue;
    const int at = atomicAdd(&shared.list_size, 1);
    if (at >= kTopCapacity) continue;
    shared.list_ids[at] = slice.begin + i;
    shared.list_values[at] = slice.logits[i];
  }
  ClusterSync();
  if (slice.rank != 0) return;
  int size = 0;
  for (int rank = 0; rank < kSlices; ++rank) {
    const int part = min(ReadPeer(shared.list_size, rank), kTopCapacity);
    if (threadIdx.x < part) {
      shared.all_ids[size + threadIdx.x] = ReadPeer(shared.list_ids[threadIdx.x], rank);
      shared.all_values[size + threadIdx.x] = ReadPeer(shared.list_values[threadIdx.x], rank);
    }
    size += part;
  }
  __syncthreads();
  if (threadIdx.x >= size) return;
  const float mine = shared.all_values[threadIdx.x];
  const int id = shared.all_ids[threadIdx.x];
  int place = 0;  // how many are better
  for (int i = 0; i < size; ++i) {
    place += shared.all_values[i] > mine || (shared.all_values[i] == mine && shared.all_ids[i] < id);
  }
  if (place >= count) return;
  result.top_tokens[place] = id;
  result.top_logprobs[place] = static_cast<float>(mine - log_sum);
}

__device__ void ApplyChanges(Slice& slice, const LogitChange* changes, int count) {
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const LogitChange change = changes[i];
    if (change.token < slice.begin || change.token >= slice.end) continue;
    float x = slice.logits[change.token - slice.begin] + change.bias;
    if (change.repetition != 1.f) x = x > 0.f ? x / change.repetition : x * change.repetition;
    slice.logits[change.token - slice.begin] = x - change.penalty;
  }
  __syncthreads();
}

__device__ int Draw(Slice& slice, const SampleRow& row, const Extremes& extremes, int vocabulary) {
  Shared& shared = slice.shared;
  const float best = extremes.largest;
  const float range = best - extremes.smallest;
  const float inverse_temperature = row.inverse_temperature;
  if (threadIdx.x == 0) shared.top_k.limit = shared.top_p.limit = INFINITY;
  __syncthreads();
  if (row.top_k > 0 && row.top_k < vocabulary) {
    Select(slice, best, range, row.top_k, shared.top_k,
           [](float distance) { return distance < INFINITY ? Sum{1} : Sum{0}; });
  }
  // Each thread walks neighbouring ids; an odd number of them, so that threads read from different banks.
  const int each = (slice.size() + kThreads - 1) / kThreads | 1;
  const int begin = min(static_cast<int>(threadIdx.x) * each, slice.size());
  const int end = min(begin + each, slice.size());
  auto kept_weight = [&](float distance) {
    return shared.top_k.Keeps(distance) ? FixedWeight(distance, inverse_temperature) : Sum{0};
  };
  if (row.top_p < 1.f) {
    Sum sum = 0;
    Sum total;
    for (int i = begin; i < end; ++i) sum += kept_weight(best - slice.logits[i]);
    ScanCluster(slice, sum, total);
    const Sum wanted = static_cast<Sum>(row.top_p * static_cast<double>(total));
    Select(slice, best, range, wanted > 0 ? wanted : 1, shared.top_p, kept_weight);
  }
  const Sum floor = __float2ull_rn(row.min_p * 68719476736.f);
  auto weight_of = [&](int i) {
    const float distance = best - slice.logits[i];
    if (!shared.top_p.Keeps(distance)) return Sum{0};
    const Sum weight = kept_weight(distance);
    return weight >= floor ? weight : Sum{0};
  };
  Sum sum = 0;
  Sum total;
  for (int i = begin; i < end; ++i) sum += weight_of(i);
  const Sum through = ScanCluster(slice, sum, total);
  const Sum draw = static_cast<Sum>(KeyedUniform(row.seed, row.choice, row.position) * static_cast<double>(total));
  __shared__ int chosen;
  if (threadIdx.x == 0) chosen = -1;
  __syncthreads();
  if (through - sum <= draw && through > draw) {
    Sum reached = through - sum;
    for (int i = begin; i < end; ++i) {
      reached += weight_of(i);
      if (reached > draw) {
        chosen = slice.begin + i;
        break;
      }
    }
  }
  __syncthreads();
  int token = 0;
  Exchange(slice, chosen, [&](int, int other) {
    if (other >= 0) token = other;
  });
  return token;
}

// What the row asks for. `raw_logits`: the whole row in global memory, which nobody changes.
__device__ void SampleOne(Slice& slice, const SampleArgs& args, const SampleRow& row, const float* raw_logits,
                          SampleResult& result) {
  const Extremes raw = FindExtremes(slice, false);
  const bool writes = slice.rank == 0 && threadIdx.x == 0;
  if (!raw.finite) {
    if (writes) {
      result.token = 0;
      result.finite = 0;
    }
    return;
  }
  int token = row.target;
  double log_sum = 0;
  if (row.top_logprobs >= 0) {
    log_sum = LogSumExp(slice, raw.largest);
    WriteTopLogprobs(slice, raw, row.top_logprobs, log_sum, args.vocabulary, result);
  }
  if (token < 0) {
    Extremes changed = raw;
    if (row.change_count > 0) {
      ApplyChanges(slice, args.changes + row.change_begin, row.change_count);
      changed = FindExtremes(slice, true);
    }
    const bool greedy = row.inverse_temperature == 0.f || changed.largest == -INFINITY;
    token = greedy ? changed.id : Draw(slice, row, changed, args.vocabulary);
  }
  if (!writes) return;
  result.token = token;
  result.finite = 1;
  result.logprob = row.top_logprobs >= 0 ? static_cast<float>(raw_logits[token] - log_sum) : 0.f;
}

__global__ void __launch_bounds__(kThreads) sample_kernel(const SampleArgs args, int slice_size) {
  extern __shared__ float slice_logits[];
  __shared__ Shared shared;
  ReleaseSuccessor();
  WaitForPredecessor();
  const SampleRow row = args.rows[blockIdx.y];
  const float* const logits = args.logits + static_cast<int64_t>(row.logits_row) * args.vocabulary;
  const int rank = blockIdx.x;
  Slice slice{slice_logits, min(rank * slice_size, args.vocabulary), min((rank + 1) * slice_size, args.vocabulary),
              rank, shared};
#pragma unroll 8
  for (int i = threadIdx.x; i < slice.size(); i += kThreads) slice_logits[i] = __ldcs(logits + slice.begin + i);
  __syncthreads();
  SampleOne(slice, args, row, logits, args.results[row.first_result + blockIdx.y]);
  ClusterSync();  // nobody leaves while another reads its memory
}

}  // namespace

cudaError_t LaunchSample(const SampleArgs& args, cudaStream_t stream) {
  if (args.vocabulary > kMostVocabulary) return cudaErrorInvalidValue;
  static const cudaError_t prepared = cudaFuncSetAttribute(sample_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                           kMostVocabulary / kSlices * static_cast<int>(sizeof(float)));
  if (prepared != cudaSuccess) return prepared;
  const int slice_size = (args.vocabulary + kSlices - 1) / kSlices;
  return LaunchDependent(sample_kernel,
                         {.grid = dim3(kSlices, args.count),
                          .block = dim3(kThreads),
                          .shared_bytes = slice_size * static_cast<int>(sizeof(float)),
                          .cluster = kSlices},
                         stream, args, slice_size);
}

}  // namespace baton::cuda
