// Sampling and log-probabilities on the device: the rules of backend/sampler.h without sorting the vocabulary.
//
// Truncation finds a threshold by histograms: 2,048 equal bins of the distance from the best logit, then 2,048 within
// the bin where the wanted count or mass is reached, and once more. Bins only decide who is kept; the draw walks ids in
// order.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"
#include "core/random.h"

namespace baton::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kBins = 2048;
constexpr int kLevels = 3;
constexpr float kFirstRange = 32.f;  // logits below best − 32 share the first level's last bin
constexpr int kTopCapacity = 64;     // candidates for top_logprobs: the wanted ones and ties with the last
constexpr float kLog2e = 1.44269504f;

// Who is kept: tokens whose bins, level by level, come before the chosen ones or are them.
struct Selector {
  int levels = 0;  // 0: everyone
  float low[kLevels];
  float inverse_width[kLevels];
  int chosen[kLevels];

  __device__ int Bin(int level, float distance) const {
    const float at = (distance - low[level]) * inverse_width[level];
    return at < 0.f ? 0 : at >= kBins ? kBins - 1 : static_cast<int>(at);
  }
  __device__ bool Keeps(float distance) const {
    for (int level = 0; level < levels; ++level) {
      const int bin = Bin(level, distance);
      if (bin != chosen[level]) return bin < chosen[level];
    }
    return true;
  }
  __device__ bool InChosenBins(float distance) const {
    for (int level = 0; level < levels; ++level) {
      if (Bin(level, distance) != chosen[level]) return false;
    }
    return true;
  }
};

struct Shared {
  unsigned long long bins[kBins];
  unsigned long long warp_sums[32];
  float warp_values[32];
  int warp_ids[32];
  Selector top_k, top_p;
  unsigned long long before, target;
  int chosen;
  int list_size;
  int list_ids[kTopCapacity];
  float list_values[kTopCapacity];
};

struct Extremes {
  float largest;
  float smallest;
  int id;  // the lowest with the largest
  bool finite;
};

// Everything about a row's logits that one pass gives. -inf counts as finite only when `masked` (a bias may mask).
__device__ Extremes FindExtremes(const float* logits, int vocabulary, bool masked, Shared& shared) {
  const int tid = threadIdx.x;
  float largest = -INFINITY;
  float smallest = INFINITY;
  int id = 0x7fffffff;
  int finite = 1;
#pragma unroll 8
  for (int i = tid; i < vocabulary; i += kThreads) {
    const float x = logits[i];
    if (x > largest) {
      largest = x;
      id = i;
    }
    if (x > -INFINITY) smallest = fminf(smallest, x);
    if (!(fabsf(x) < INFINITY) && !(masked && x == -INFINITY)) finite = 0;
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    const float other = __shfl_xor_sync(~0u, largest, offset);
    const int other_id = __shfl_xor_sync(~0u, id, offset);
    if (other > largest || (other == largest && other_id < id)) {
      largest = other;
      id = other_id;
    }
    smallest = fminf(smallest, __shfl_xor_sync(~0u, smallest, offset));
  }
  __shared__ float lows[32];
  if ((tid & 31) == 0) {
    shared.warp_values[tid >> 5] = largest;
    shared.warp_ids[tid >> 5] = id;
    lows[tid >> 5] = smallest;
  }
  finite = __syncthreads_and(finite);
  for (int warp = 0; warp < 32; ++warp) {
    const float other = shared.warp_values[warp];
    if (other > largest || (other == largest && shared.warp_ids[warp] < id)) {
      largest = other;
      id = shared.warp_ids[warp];
    }
    smallest = fminf(smallest, lows[warp]);
  }
  __syncthreads();
  return {largest, smallest, id == 0x7fffffff ? 0 : id, finite != 0};
}

// Inclusive sum over the CTA's threads in order; `total` for all.
__device__ unsigned long long ScanThreads(unsigned long long value, unsigned long long& total, Shared& shared) {
  const int tid = threadIdx.x;
#pragma unroll
  for (int offset = 1; offset < 32; offset <<= 1) {
    const unsigned long long other = __shfl_up_sync(~0u, value, offset);
    if ((tid & 31) >= offset) value += other;
  }
  if ((tid & 31) == 31) shared.warp_sums[tid >> 5] = value;
  __syncthreads();
  unsigned long long before = 0;
  total = 0;
  for (int warp = 0; warp < 32; ++warp) {
    if (warp == (tid >> 5)) before = total;
    total += shared.warp_sums[warp];
  }
  __syncthreads();
  return before + value;
}

// e^((x − best) / T) as a fixed-point number: 2^36 for the best.
__device__ __forceinline__ unsigned long long FixedWeight(float distance, float inverse_temperature) {
  return __float2ull_rn(Exp2(-distance * inverse_temperature * kLog2e) * 68719476736.f);
}

// Narrows `selector` down to the fewest best tokens whose measure reaches `target` (ties with the last stay). Only
// tokens that `measure` gives more than 0 take part.
template <typename Measure>
__device__ void Select(const float* logits, int vocabulary, float best, float range, unsigned long long target,
                       Selector& selector, Shared& shared, Measure measure) {
  const int tid = threadIdx.x;
  if (tid == 0) selector.levels = 0;
  for (int level = 0; level < kLevels; ++level) {
    if (tid == 0) {
      float low = 0.f;
      float high = kFirstRange;
      if (level > 0) {
        const int chosen = selector.chosen[level - 1];
        const float width = 1.f / selector.inverse_width[level - 1];
        low = selector.low[level - 1] + static_cast<float>(chosen) * width;
        high = level == 1 && chosen == kBins - 1 ? range : low + width;
      }
      selector.low[level] = low;
      selector.inverse_width[level] = static_cast<float>(kBins) / fmaxf(high - low, 1e-30f);
    }
    shared.bins[tid] = shared.bins[tid + kThreads] = 0;
    __syncthreads();
    for (int i = tid; i < vocabulary; i += kThreads) {
      const float distance = best - logits[i];
      const unsigned long long amount = measure(distance);
      if (amount > 0 && selector.InChosenBins(distance)) atomicAdd(&shared.bins[selector.Bin(level, distance)], amount);
    }
    __syncthreads();
    const unsigned long long first = shared.bins[2 * tid];
    const unsigned long long second = shared.bins[2 * tid + 1];
    unsigned long long total;
    const unsigned long long through = ScanThreads(first + second, total, shared);
    const unsigned long long wanted = target < total ? target : total;
    const unsigned long long before = through - first - second;
    if (before < wanted && through >= wanted) {
      const bool in_first = before + first >= wanted;
      shared.chosen = 2 * tid + (in_first ? 0 : 1);
      shared.before = in_first ? before : before + first;
    }
    __syncthreads();
    const unsigned long long rest = wanted - shared.before;
    const bool exact = shared.bins[shared.chosen] == rest;
    if (tid == 0) {
      selector.chosen[level] = shared.chosen;
      selector.levels = level + 1;
    }
    target = rest;
    __syncthreads();
    if (exact) break;
  }
}

__device__ double SumThreads(double value) {
  __shared__ double sums[32];
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(~0u, value, offset);
  if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = value;
  __syncthreads();
  value = 0;
  for (int warp = 0; warp < 32; ++warp) value += sums[warp];
  __syncthreads();
  return value;
}

// log Σ e^logit
__device__ double LogSumExp(const float* logits, int vocabulary, float best) {
  float sum = 0.f;
  for (int i = threadIdx.x; i < vocabulary; i += kThreads) sum += Exp2((logits[i] - best) * kLog2e);
  return best + log(SumThreads(sum));
}

__device__ void WriteTopLogprobs(const float* logits, int vocabulary, const Extremes& raw, int count, double log_sum,
                                 Shared& shared, SampleResult& result) {
  count = min(min(count, kMaxTopLogprobs), vocabulary);
  if (threadIdx.x == 0) {
    result.top_count = count;
    shared.list_size = 0;
  }
  if (count == 0) return;
  Select(logits, vocabulary, raw.largest, raw.largest - raw.smallest, count, shared.top_k, shared,
         [](float) { return 1ull; });
  for (int i = threadIdx.x; i < vocabulary; i += kThreads) {
    if (!shared.top_k.Keeps(raw.largest - logits[i])) continue;
    const int at = atomicAdd(&shared.list_size, 1);
    if (at >= kTopCapacity) continue;
    shared.list_ids[at] = i;
    shared.list_values[at] = logits[i];
  }
  __syncthreads();
  const int size = min(shared.list_size, kTopCapacity);
  if (threadIdx.x < size) {  // its rank: how many are better
    const float mine = shared.list_values[threadIdx.x];
    const int id = shared.list_ids[threadIdx.x];
    int rank = 0;
    for (int i = 0; i < size; ++i) {
      rank += shared.list_values[i] > mine || (shared.list_values[i] == mine && shared.list_ids[i] < id);
    }
    if (rank < count) {
      result.top_tokens[rank] = id;
      result.top_logprobs[rank] = static_cast<float>(mine - log_sum);
    }
  }
  __syncthreads();
}

__device__ void ApplyChanges(float* logits, LogitChange* changes, int count) {
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const LogitChange change = changes[i];
    changes[i].raw = logits[change.token];
    float x = logits[change.token] + change.bias;
    if (change.repetition != 1.f) x = x > 0.f ? x / change.repetition : x * change.repetition;
    logits[change.token] = x - change.penalty;
  }
  __syncthreads();
}

__device__ int Draw(const float* logits, int vocabulary, const SampleRow& row, const Extremes& extremes,
                    Shared& shared) {
  const float best = extremes.largest;
  const float range = best - extremes.smallest;
  const float inverse_temperature = row.inverse_temperature;
  if (threadIdx.x == 0) shared.top_k.levels = shared.top_p.levels = 0;
  __syncthreads();
  if (row.top_k > 0 && row.top_k < vocabulary) {
    Select(logits, vocabulary, best, range, row.top_k, shared.top_k, shared,
           [](float distance) { return distance < INFINITY ? 1ull : 0ull; });
  }
  const int each = (vocabulary + kThreads - 1) / kThreads;
  const int begin = min(static_cast<int>(threadIdx.x) * each, vocabulary);
  const int end = min(begin + each, vocabulary);
  auto kept_weight = [&](float distance) {
    return shared.top_k.Keeps(distance) ? FixedWeight(distance, inverse_temperature) : 0ull;
  };
  if (row.top_p < 1.f) {
    unsigned long long sum = 0;
    unsigned long long total;
    for (int i = begin; i < end; ++i) sum += kept_weight(best - logits[i]);
    ScanThreads(sum, total, shared);
    const unsigned long long wanted = static_cast<unsigned long long>(row.top_p * static_cast<double>(total));
    Select(logits, vocabulary, best, range, wanted > 0 ? wanted : 1, shared.top_p, shared, kept_weight);
  }
  const unsigned long long floor = __float2ull_rn(row.min_p * 68719476736.f);
  auto weight_of = [&](int id) {
    const float distance = best - logits[id];
    if (!shared.top_p.Keeps(distance)) return 0ull;
    const unsigned long long weight = kept_weight(distance);
    return weight >= floor ? weight : 0ull;
  };
  unsigned long long sum = 0;
  unsigned long long total;
  for (int i = begin; i < end; ++i) sum += weight_of(i);
  const unsigned long long through = ScanThreads(sum, total, shared);
  const unsigned long long before = through - sum;
  const unsigned long long draw =
      static_cast<unsigned long long>(KeyedUniform(row.seed, row.choice, row.position) * static_cast<double>(total));
  if (before <= draw && through > draw) {
    unsigned long long reached = before;
    for (int i = begin; i < end; ++i) {
      reached += weight_of(i);
      if (reached > draw) {
        shared.chosen = i;
        break;
      }
    }
  }
  __syncthreads();
  return shared.chosen;
}

__global__ void __launch_bounds__(kThreads) sample_kernel(const SampleArgs args) {
  __shared__ Shared shared;
  WaitForPredecessor();
  ReleaseSuccessor();
  const SampleRow row = args.rows[blockIdx.x];
  SampleResult& result = args.results[blockIdx.x];
  float* const logits = args.logits + static_cast<int64_t>(row.logits_row) * args.vocabulary;
  const Extremes raw = FindExtremes(logits, args.vocabulary, false, shared);
  int token = row.target;
  double log_sum = 0;
  float chosen_raw = 0.f;
  if (!raw.finite) {
    if (threadIdx.x == 0) {
      result.token = 0;
      result.finite = 0;
    }
    return;
  }
  if (row.top_logprobs >= 0) {
    log_sum = LogSumExp(logits, args.vocabulary, raw.largest);
    WriteTopLogprobs(logits, args.vocabulary, raw, row.top_logprobs, log_sum, shared, result);
    if (token >= 0) chosen_raw = logits[token];
  }
  if (token < 0) {
    Extremes changed = raw;
    if (row.change_count > 0) {
      ApplyChanges(logits, args.changes + row.change_begin, row.change_count);
      changed = FindExtremes(logits, args.vocabulary, true, shared);
    }
    const bool greedy = row.inverse_temperature == 0.f || changed.largest == -INFINITY;
    token = greedy ? changed.id : Draw(logits, args.vocabulary, row, changed, shared);
  }
  if (threadIdx.x != 0) return;
  if (row.top_logprobs >= 0 && row.target < 0) {
    chosen_raw = logits[token];
    for (int i = row.change_begin; i < row.change_begin + row.change_count; ++i) {
      if (args.changes[i].token == token) chosen_raw = args.changes[i].raw;
    }
  }
  result.token = token;
  result.finite = 1;
  result.logprob = static_cast<float>(chosen_raw - log_sum);
}

}  // namespace

cudaError_t LaunchSample(const SampleArgs& args, cudaStream_t stream) {
  return LaunchDependent(sample_kernel, {.grid = dim3(args.count), .block = dim3(kThreads)}, stream, args);
}

}  // namespace baton::cuda
