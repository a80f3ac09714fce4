// One row of logits in a cluster of CTAs: what they exchange, sums over the row in the order of ids, and truncation.
// For sampling.cu alone.
#pragma once

#include "backend/cuda/device_math.cuh"

namespace baton::cuda {
namespace {

constexpr int kSlices = 8;  // CTAs of a row
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = 2048;
constexpr int kBinsEach = kBins / kSlices;  // that a CTA adds up
constexpr int kLevels = 3;
constexpr float kFirstRange = 32.f;  // logits below best − 32 share the first level's last bin
constexpr int kTopCapacity = 64;     // candidates of a CTA for top_logprobs: the wanted ones and ties with the last
constexpr float kLog2e = 1.44269504f;
using Sum = unsigned long long;

// Who is kept: tokens whose bins, level by level, come before the chosen ones or are them. Bins grow with the distance
// from the best logit, so that is everybody up to some distance, `limit`.
struct Selector {
  int levels = 0;  // 0: everyone
  float limit = INFINITY;
  float low[kLevels];
  float inverse_width[kLevels];
  int chosen[kLevels];

  __device__ int Bin(int level, float distance) const {
    const float at = (distance - low[level]) * inverse_width[level];
    return at < 0.f ? 0 : at >= kBins ? kBins - 1 : static_cast<int>(at);
  }
  __device__ bool Keeps(float distance) const { return distance <= limit; }
  __device__ bool KeepsByBins(float distance) const {
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

struct Extremes {
  float largest;
  float smallest;
  int id;  // the lowest with the largest
  int finite;
};
// Where a histogram reaches its target; found by one CTA, `bin` -1 in the others.
struct Reached {
  Sum before, inside;
  int bin;
};

union Exchanged {
  Extremes extremes;
  Sum sum;
  double number;
  Reached reached;
  int token;
};

struct Shared {
  uint32_t bins_low[kBins], bins_high[kBins];  // 64-bit sums in halves, see AddToBin
  Sum warp_sums[kWarps];
  double warp_doubles[kWarps];
  Extremes warp_extremes[kWarps];
  Selector top_k, top_p;
  // What the others of the cluster read, and what was read of them; by turns, so that one barrier separates writing and
  // reading.
  Exchanged published[2];
  Exchanged collected[2][kSlices];
  int list_size;
  int list_ids[kTopCapacity];
  float list_values[kTopCapacity];
  int all_ids[kTopCapacity * kSlices];
  float all_values[kTopCapacity * kSlices];
};

// One CTA's part of a row.
struct Slice {
  float* logits;   // [end - begin]
  int begin, end;  // ids
  int rank;
  Shared& shared;
  int turn = 0;

  __device__ int size() const { return end - begin; }
};

__device__ __forceinline__ void ClusterSync() {
  __syncwarp();
  ClusterArrive();
  ClusterWait();
}
// The same object in another CTA's shared memory.
template <typename T>
__device__ __forceinline__ T ReadPeer(const T& mine, int rank) {
  static_assert(sizeof(T) % 4 == 0);
  const uint32_t from = ClusterAddress(SharedAddress(&mine), rank);
  T value;
  uint32_t* words = reinterpret_cast<uint32_t*>(&value);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(T) / 4); ++i) {
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(words[i]) : "r"(from + 4 * i) : "memory");
  }
  return value;
}

// Every CTA's value, combined in the order of ranks by all threads of all CTAs. Thread 0's `mine` counts.
template <typename T, typename Combine>
__device__ __forceinline__ void Exchange(Slice& slice, const T& mine, Combine combine) {
  slice.turn ^= 1;
  T& published = *reinterpret_cast<T*>(&slice.shared.published[slice.turn]);
  if (threadIdx.x == 0) published = mine;
  ClusterSync();
  if (threadIdx.x < kSlices) {
    *reinterpret_cast<T*>(&slice.shared.collected[slice.turn][threadIdx.x]) = ReadPeer(published, threadIdx.x);
  }
  __syncthreads();
  for (int rank = 0; rank < kSlices; ++rank) {
    combine(rank, *reinterpret_cast<const T*>(&slice.shared.collected[slice.turn][rank]));
  }
}

__device__ __forceinline__ void Merge(Extremes& all, const Extremes& other) {
  if (other.largest > all.largest || (other.largest == all.largest && other.id < all.id)) {
    all.largest = other.largest;
    all.id = other.id;
  }
  all.smallest = fminf(all.smallest, other.smallest);
  all.finite &= other.finite;
}

// Everything about a row's logits that one pass gives. -inf counts as finite only when `masked` (a bias may mask).
__device__ Extremes FindExtremes(Slice& slice, bool masked) {
  Extremes mine{-INFINITY, INFINITY, 0x7fffffff, 1};
  for (int i = threadIdx.x; i < slice.size(); i += kThreads) {
    const float x = slice.logits[i];
    if (x > mine.largest) {
      mine.largest = x;
      mine.id = slice.begin + i;
    }
    if (x > -INFINITY) mine.smallest = fminf(mine.smallest, x);
    if (!(fabsf(x) < INFINITY) && !(masked && x == -INFINITY)) mine.finite = 0;
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    Merge(mine, {__shfl_xor_sync(~0u, mine.largest, offset), __shfl_xor_sync(~0u, mine.smallest, offset),
                 __shfl_xor_sync(~0u, mine.id, offset), __shfl_xor_sync(~0u, mine.finite, offset)});
  }
  if ((threadIdx.x & 31) == 0) slice.shared.warp_extremes[threadIdx.x >> 5] = mine;
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp) Merge(mine, slice.shared.warp_extremes[warp]);
  __syncthreads();
  Extremes all{-INFINITY, INFINITY, 0x7fffffff, 1};
  Exchange(slice, mine, [&](int, const Extremes& other) { Merge(all, other); });
  if (all.id == 0x7fffffff) all.id = 0;
  return all;
}

// Inclusive sum over the CTA's threads in order; `total` for all.
__device__ Sum ScanThreads(Sum value, Sum& total, Shared& shared) {
  const int tid = threadIdx.x;
#pragma unroll
  for (int offset = 1; offset < 32; offset <<= 1) {
    const Sum other = __shfl_up_sync(~0u, value, offset);
    if ((tid & 31) >= offset) value += other;
  }
  if ((tid & 31) == 31) shared.warp_sums[tid >> 5] = value;
  __syncthreads();
  Sum before = 0;
  total = 0;
  for (int warp = 0; warp < kWarps; ++warp) {
    if (warp == (tid >> 5)) before = total;
    total += shared.warp_sums[warp];
  }
  __syncthreads();
  return before + value;
}
// The same over the threads of the whole cluster.
__device__ Sum ScanCluster(Slice& slice, Sum value, Sum& total) {
  Sum mine;
  const Sum through = ScanThreads(value, mine, slice.shared);
  Sum before = 0;
  total = 0;
  Exchange(slice, mine, [&](int rank, Sum other) {
    if (rank < slice.rank) before += other;
    total += other;
  });
  return before + through;
}

// e^((x − best) / T) as a fixed-point number: 2^36 for the best.
__device__ __forceinline__ Sum FixedWeight(float distance, float inverse_temperature) {
  return __float2ull_rn(Exp2(-distance * inverse_temperature * kLog2e) * 68719476736.f);
}

// Shared memory adds 32-bit words only; a 64-bit atomicAdd there is a loop of compare-and-swap. Every addition to the
// low half says itself whether it carried, so the sum of both halves is exact in any order.
__device__ __forceinline__ void AddToBin(Shared& shared, int bin, Sum amount) {
  const uint32_t low = static_cast<uint32_t>(amount);
  uint32_t high = static_cast<uint32_t>(amount >> 32);
  if (atomicAdd(&shared.bins_low[bin], low) > ~low) ++high;
  if (high != 0) atomicAdd(&shared.bins_high[bin], high);
}

// Adds up the cluster's histograms and finds the bin where `target` (or all there is, if that is less) is reached.
__device__ Reached FindBin(Slice& slice, Sum& target) {
  Shared& shared = slice.shared;
  ClusterSync();  // all have counted
  Sum amount = 0;
  const int bin = slice.rank * kBinsEach + static_cast<int>(threadIdx.x);
  if (threadIdx.x < kBinsEach) {
    for (int rank = 0; rank < kSlices; ++rank) {
      amount += ReadPeer(shared.bins_low[bin], rank) + (Sum{ReadPeer(shared.bins_high[bin], rank)} << 32);
    }
  }
  Sum total;
  const Sum through = ScanCluster(slice, amount, total);
  if (target > total) target = total;
  __shared__ Reached found;
  if (threadIdx.x == 0) found.bin = -1;
  __syncthreads();
  if (through - amount < target && through >= target) found = {through - amount, amount, bin};
  __syncthreads();
  Reached all{0, 0, 0};
  Exchange(slice, found, [&](int, const Reached& other) {
    if (other.bin >= 0) all = other;
  });
  return all;
}

// Finds the largest distance that the bins keep, by one warp: floats that are not negative order like their bits, and
// each round divides what is left by 32.
__device__ void FindLimit(Selector& selector) {
  if (threadIdx.x < 32) {
    uint32_t kept = 0;  // bits of a distance that is kept: the best logit's always is
    for (int shift = 27; shift >= -3; shift -= 5) {
      const uint32_t step = shift >= 0 ? 1u << shift : 1u;
      const uint32_t candidate = kept + threadIdx.x * step;
      const bool keeps = candidate <= 0x7f800000u && selector.KeepsByBins(__uint_as_float(candidate));
      const uint32_t all = __ballot_sync(~0u, keeps);
      kept += (31 - __clz(all)) * step;
    }
    if (threadIdx.x == 0) selector.limit = __uint_as_float(kept);
  }
  __syncthreads();
}

// Narrows `selector` down to the fewest best tokens whose measure reaches `target` (ties with the last stay). Only
// tokens that `measure` gives more than 0 take part.
template <typename Measure>
__device__ void Select(Slice& slice, float best, float range, Sum target, Selector& selector, Measure measure) {
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
    for (int i = tid; i < kBins; i += kThreads) slice.shared.bins_low[i] = slice.shared.bins_high[i] = 0;
    __syncthreads();
    for (int i = tid; i < slice.size(); i += kThreads) {
      const float distance = best - slice.logits[i];
      if (!selector.InChosenBins(distance)) continue;
      const Sum amount = measure(distance);
      if (amount > 0) AddToBin(slice.shared, selector.Bin(level, distance), amount);
    }
    const Reached reached = FindBin(slice, target);
    target -= reached.before;
    if (tid == 0) {
      selector.chosen[level] = reached.bin;
      selector.levels = level + 1;
    }
    __syncthreads();
    if (reached.inside == target) break;
    // A bin with less than two of its smallest amounts holds one token: there is nothing to narrow down.
    if (level == 0 && reached.bin == kBins - 1) continue;  // but this one has no far edge
    const float far = selector.low[level] + static_cast<float>(reached.bin + 1) / selector.inverse_width[level];
    if (static_cast<double>(reached.inside) < 1.9 * static_cast<double>(measure(far))) break;
  }
  FindLimit(selector);
}

}  // namespace
}  // namespace baton::cuda
