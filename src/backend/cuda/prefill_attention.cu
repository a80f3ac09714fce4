// Prefill attention: causal, over FP16 tiles of K and V that LaunchGatherKv copied from the paged cache.
//
// An item is 128 query tokens of one head; a CTA takes one after another. Two warpgroups take 64 rows each, a producer
// streams tiles of 128 keys and values, and runs ahead into the next item, as the copies of its queries do. Within a
// warpgroup the next tile's Q·Kᵀ runs beside this tile's P·V (FlashAttention 3, arXiv 2407.08608), so that the tensor
// cores work while the exponentials are computed.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/wgmma.cuh"

namespace baton::cuda {
namespace {

constexpr int kTile = 128;  // queries, and keys of a stage
constexpr int kStages = 2;
constexpr int kConsumers = 256;
constexpr int kThreads = kConsumers + 128;  // a whole warpgroup for the producer: registers move between warpgroups
constexpr float kMinusInfinity = -1e30f;

template <int kDim>
struct Shape {
  static constexpr int kTileBytes = kTile * kDim * 2;
  static constexpr int kSharedBytes = kTileBytes * (2 + 2 * kStages) + 64 * kStages + 1024;
};

// Offset of 16-byte chunk `chunk` of a row in a tile: halves of 64 columns, rows of 128 bytes, swizzled.
__device__ __forceinline__ uint32_t TileOffset(int row, int chunk) {
  return (chunk >> 3) * (kTile * 128) + row * 128 + (((chunk & 7) ^ (row & 7)) << 4);
}

// Copies one plane (K or V) of one block and head into an FP16 tile.
__global__ void __launch_bounds__(256)
    gather_kv_kernel(const KvCacheView cache, const GatherTile* tiles, int layer, __half* scratch) {
  WaitForPredecessor();
  ReleaseSuccessor();
  const GatherTile tile = tiles[blockIdx.x];
  const int head = blockIdx.y;
  const int plane = blockIdx.z;
  const int row_bytes = cache.fp8 ? cache.head_dim : 2 * cache.head_dim;
  const uint8_t* const from = cache.base + KvOffset(tile.block, head, layer, cache.kv_heads, cache.layers, row_bytes) +
                              plane * kBlockTokens * row_bytes;
  const int64_t tile_bytes = kTile * cache.head_dim * 2;
  uint8_t* const to = reinterpret_cast<uint8_t*>(scratch) +
                      ((static_cast<int64_t>(tile.tile) * cache.kv_heads + head) * 2 + plane) * tile_bytes;
  const int chunks = cache.head_dim / 8;  // of the FP16 row
  for (int i = threadIdx.x; i < kTile * chunks; i += blockDim.x) {
    const int token = i / chunks;
    const int chunk = i % chunks;
    uint4 out = make_uint4(0, 0, 0, 0);
    if (token < tile.tokens) {
      const uint8_t* row = from + token * row_bytes;
      if (cache.fp8) {
        const uint2 in = __ldcg(reinterpret_cast<const uint2*>(
            row + SwizzleChunk(chunk / 2, token, row_bytes / 16) * 16 + (chunk & 1) * 8));
        Fp8ToHalf(in.x, out.x, out.y);
        Fp8ToHalf(in.y, out.z, out.w);
      } else {
        const uint4 in = __ldcg(reinterpret_cast<const uint4*>(row + SwizzleChunk(chunk, token, row_bytes / 16) * 16));
        out = make_uint4(Bf16ToHalf(in.x), Bf16ToHalf(in.y), Bf16ToHalf(in.z), Bf16ToHalf(in.w));
      }
    }
    *reinterpret_cast<uint4*>(to + TileOffset(token, chunk)) = out;
  }
}

// Running softmax of the two rows (r and r + 8) that a thread shares with its quad.
struct Softmax {
  float top[2] = {kMinusInfinity, kMinusInfinity};
  float weight[2] = {0.f, 0.f};  // this thread's columns only, until the end

  // scores → weights; returns the factors for sums so far.
  __device__ __forceinline__ void Update(float (&s)[64], float (&factor)[2]) {
    float high[2] = {top[0], top[1]};
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      high[0] = fmaxf(high[0], fmaxf(s[4 * j], s[4 * j + 1]));
      high[1] = fmaxf(high[1], fmaxf(s[4 * j + 2], s[4 * j + 3]));
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      high[r] = fmaxf(high[r], __shfl_xor_sync(~0u, high[r], 1));
      high[r] = fmaxf(high[r], __shfl_xor_sync(~0u, high[r], 2));
      factor[r] = Exp2(top[r] - high[r]);
      top[r] = high[r];
      weight[r] *= factor[r];
    }
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      s[4 * j] = Exp2(s[4 * j] - top[0]);
      s[4 * j + 1] = Exp2(s[4 * j + 1] - top[0]);
      s[4 * j + 2] = Exp2(s[4 * j + 2] - top[1]);
      s[4 * j + 3] = Exp2(s[4 * j + 3] - top[1]);
      weight[0] += s[4 * j] + s[4 * j + 1];
      weight[1] += s[4 * j + 2] + s[4 * j + 3];
    }
  }
};

template <int kDim>
__device__ __forceinline__ void KeyProduct(uint32_t queries, uint32_t keys, float (&s)[64]) {
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    const uint32_t at = (k / 4) * (kTile * 128) + (k % 4) * 32;
    ProductN128(s, KMajorDescriptor(queries + at), KMajorDescriptor(keys + at), k > 0);
  }
}
template <int kDim>
__device__ __forceinline__ void ValueProduct(const uint32_t (&weights)[8][4], uint32_t values, int accumulate,
                                             float (&sums)[kDim / 2]) {
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    ProductMnMajor(sums, weights[k], MnMajorDescriptor(values + k * 2048, kTile * 128), accumulate || k > 0);
  }
}
__device__ __forceinline__ void PackWeights(const float (&s)[64], uint32_t (&weights)[8][4]) {
#pragma unroll
  for (int k = 0; k < 8; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) weights[k][i] = PackHalf(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
  }
}

// The items of one CTA, longest first: item i is head i % heads of query tile i / heads. Every other round runs
// backwards, so that no CTA gets the longest of each.
struct Items {
  const PrefillAttentionArgs& args;
  int item;
  int round = 0;

  __device__ explicit Items(const PrefillAttentionArgs& args) : args(args), item(blockIdx.x) {}
  __device__ bool Valid() const { return item < args.tile_count * args.heads; }
  __device__ void Advance() {
    ++round;
    item = round * gridDim.x + (round & 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
  }
  __device__ QueryTile Tile() const { return args.tiles[item / args.heads]; }
  __device__ int Head() const { return item % args.heads; }
};
__device__ __forceinline__ int KeyTiles(const QueryTile& tile) {
  return (tile.position + tile.rows + kTile - 1) / kTile;
}

// Shared memory: two query tiles, kStages of keys, kStages of values, then kStages of each barrier.
template <int kDim>
struct Layout {
  using S = Shape<kDim>;
  uint32_t queries, keys, values, key_full, key_empty, value_full, value_empty;
  __device__ explicit Layout(const uint8_t* shared)
      : queries(SharedAddress(shared)),
        keys(queries + 2 * S::kTileBytes),
        values(keys + kStages * S::kTileBytes),
        key_full(values + kStages * S::kTileBytes),
        key_empty(key_full + 8 * kStages),
        value_full(key_empty + 8 * kStages),
        value_empty(value_full + 8 * kStages) {}
};

// Runs ahead of the consumers, also into the next item.
template <int kDim>
__device__ __forceinline__ void Produce(const PrefillAttentionArgs& args, const Layout<kDim>& at) {
  using S = Shape<kDim>;
  const int64_t step = static_cast<int64_t>(args.kv_heads) * 2 * kTile * kDim;
  int n = 0;
  for (Items items(args); items.Valid(); items.Advance()) {
    const QueryTile tile = items.Tile();
    const int kv_head = items.Head() / (args.heads / args.kv_heads);
    const __half* from = args.scratch + tile.first_tile * step + static_cast<int64_t>(kv_head) * 2 * kTile * kDim;
    for (int j = KeyTiles(tile); j > 0; --j, ++n, from += step) {
      const int stage = n % kStages;
      const uint32_t parity = (n / kStages - 1) & 1;
      if (n >= kStages) BarrierWait(at.key_empty + 8 * stage, parity);
      BarrierExpect(at.key_full + 8 * stage, S::kTileBytes);
      BulkLoad(at.keys + stage * S::kTileBytes, from, S::kTileBytes, at.key_full + 8 * stage);
      if (n >= kStages) BarrierWait(at.value_empty + 8 * stage, parity);
      BarrierExpect(at.value_full + 8 * stage, S::kTileBytes);
      BulkLoad(at.values + stage * S::kTileBytes, from + kTile * kDim, S::kTileBytes, at.value_full + 8 * stage);
    }
  }
}

// Begins to copy this warpgroup's 64 rows of a query tile; rows past the end become zeros.
template <int kDim>
__device__ __forceinline__ void CopyQueries(const PrefillAttentionArgs& args, const Items& items, uint32_t buffer,
                                            int group) {
  if (items.Valid()) {
    const QueryTile tile = items.Tile();
    constexpr int kChunks = kDim / 8;
    for (int i = threadIdx.x % 128; i < 64 * kChunks; i += 128) {
      const int row = group * 64 + i / kChunks;
      const int chunk = i % kChunks;
      const bool exists = row < tile.rows;
      const __half* from = args.query + static_cast<int64_t>(tile.row + (exists ? row : 0)) * args.query_stride +
                           items.Head() * kDim + chunk * 8;
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(buffer + TileOffset(row, chunk)), "l"(from),
                   "r"(exists ? 16 : 0)
                   : "memory");
    }
  }
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits for it, and makes it visible to the tensor cores of the whole warpgroup.
__device__ __forceinline__ void FinishQueries(int group) {
  asm volatile("cp.async.wait_group 0;" ::: "memory");
  FenceProxyAsync();
  if (group == 0) {
    NamedBarrier<2, 128>();
  } else {
    NamedBarrier<3, 128>();
  }
}

// Hides keys after each row's position. `first`: position of the warpgroup's first row, `position`: of this thread's.
__device__ __forceinline__ void MaskFuture(int tile, int first, int position, float (&s)[64]) {
  if (tile * kTile + kTile - 1 <= first) return;  // the whole tile lies before every row
  const int column = tile * kTile + 2 * (threadIdx.x & 3);
#pragma unroll
  for (int i = 0; i < 16; ++i) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (column + 8 * i + e > position) s[4 * i + e] = kMinusInfinity;
      if (column + 8 * i + e > position + 8) s[4 * i + 2 + e] = kMinusInfinity;
    }
  }
}

// Each warp turns its 16 rows around in its part of the (now free) query tile, for 16-byte stores.
template <int kDim>
__device__ __forceinline__ void StoreRows(const PrefillAttentionArgs& args, const QueryTile& tile, int head,
                                          uint8_t* staging, const Softmax& softmax, const float (&sums)[kDim / 2]) {
  constexpr int kChunks = kDim / 8;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x & 31;
  float inverse[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float weight = softmax.weight[r];
    weight += __shfl_xor_sync(~0u, weight, 1);
    weight += __shfl_xor_sync(~0u, weight, 2);
    inverse[r] = 1.f / weight;
  }
  const int row = warp * 16 + (lane >> 2);
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      *reinterpret_cast<uint32_t*>(staging + TileOffset(row + 8 * r, i) + 4 * (lane & 3)) =
          PackBf16(sums[4 * i + 2 * r] * inverse[r], sums[4 * i + 2 * r + 1] * inverse[r]);
    }
  }
  __syncwarp();
  for (int i = lane; i < 16 * kChunks; i += 32) {
    const int out = warp * 16 + i / kChunks;
    if (out >= tile.rows) continue;
    *reinterpret_cast<uint4*>(args.output + (static_cast<int64_t>(tile.row + out) * args.heads + head) * kDim +
                              i % kChunks * 8) =
        *reinterpret_cast<const uint4*>(staging + TileOffset(out, i % kChunks));
  }
}

template <int kDim>
__device__ __forceinline__ void Consume(const PrefillAttentionArgs& args, const Layout<kDim>& at, uint8_t* shared) {
  using S = Shape<kDim>;
  const int lane = threadIdx.x & 31;
  const int group = threadIdx.x / 128;                     // warpgroup
  const int my_row = threadIdx.x / 32 * 16 + (lane >> 2);  // and + 8
  float s[64];
  float sums[kDim / 2];
  uint32_t weights[8][4];
  float factor[2];
  int n = 0;  // key tiles so far, over all items
  Items items(args);
  CopyQueries<kDim>(args, items, at.queries, group);
  FinishQueries(group);
  while (items.Valid()) {
    const QueryTile tile = items.Tile();
    const int head = items.Head();
    const int buffer = items.round & 1;
    const uint32_t my_queries = at.queries + buffer * S::kTileBytes + group * 64 * 128;
    items.Advance();
    CopyQueries<kDim>(args, items, at.queries + (buffer ^ 1) * S::kTileBytes, group);
    const int first = tile.position + group * 64;
    const int position = tile.position + my_row;
    const int key_tiles = KeyTiles(tile);
    Softmax softmax;

    BarrierWait(at.key_full + 8 * (n % kStages), (n / kStages) & 1);
    WarpgroupFence();
    KeyProduct<kDim>(my_queries, at.keys + n % kStages * S::kTileBytes, s);
    WarpgroupCommit();
    WarpgroupWait<0>();
    PinRegisters(s);
    WarpArrive(at.key_empty + 8 * (n % kStages));
    MaskFuture(0, first, position, s);
    softmax.Update(s, factor);
    PackWeights(s, weights);
    for (int j = 1; j < key_tiles; ++j) {
      const int before = n % kStages;
      const uint32_t value_parity = (n / kStages) & 1;
      ++n;
      const int stage = n % kStages;
      BarrierWait(at.key_full + 8 * stage, (n / kStages) & 1);
      BarrierWait(at.value_full + 8 * before, value_parity);
      PinRegisters(sums);
      WarpgroupFence();
      KeyProduct<kDim>(my_queries, at.keys + stage * S::kTileBytes, s);
      WarpgroupCommit();
      ValueProduct<kDim>(weights, at.values + before * S::kTileBytes, j > 1, sums);
      WarpgroupCommit();
      WarpgroupWait<1>();
      PinRegisters(s);
      WarpArrive(at.key_empty + 8 * stage);
      MaskFuture(j, first, position, s);
      softmax.Update(s, factor);
      WarpgroupWait<0>();
      PinRegisters(sums);
      WarpArrive(at.value_empty + 8 * before);
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i) {
        sums[4 * i] *= factor[0];
        sums[4 * i + 1] *= factor[0];
        sums[4 * i + 2] *= factor[1];
        sums[4 * i + 3] *= factor[1];
      }
      PackWeights(s, weights);
    }
    const int last = n % kStages;
    BarrierWait(at.value_full + 8 * last, (n / kStages) & 1);
    PinRegisters(sums);
    WarpgroupFence();
    ValueProduct<kDim>(weights, at.values + last * S::kTileBytes, key_tiles > 1, sums);
    WarpgroupCommit();
    WarpgroupWait<0>();
    PinRegisters(sums);
    WarpArrive(at.value_empty + 8 * last);
    ++n;
    // Every warp of the group has read its queries; the next ones may have arrived meanwhile.
    FinishQueries(group);
    StoreRows<kDim>(args, tile, head, shared + buffer * S::kTileBytes, softmax, sums);
    if (group == 0) {  // the staging memory is free for the queries after the next
      NamedBarrier<2, 128>();
    } else {
      NamedBarrier<3, 128>();
    }
  }
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 1) prefill_attention_kernel(const PrefillAttentionArgs args) {
  extern __shared__ uint8_t unaligned[];
  uint8_t* const shared =
      reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(unaligned) + 1023) & ~uintptr_t{1023});
  const Layout<kDim> at(shared);
  const int tid = threadIdx.x;
  if (tid == 0) {
    for (int i = 0; i < 4 * kStages; ++i)
      BarrierInit(at.key_full + 8 * i, (i / kStages) % 2 == 0 ? 1 : kConsumers / 32 * kWarpArrivals);
    BarrierInitFence();
  }
  __syncthreads();
  WaitForPredecessor();
  ReleaseSuccessor();
  if (tid >= kConsumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (tid == kConsumers) Produce<kDim>(args, at);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    Consume<kDim>(args, at, shared);
  }
}

template <int kDim>
cudaError_t Launch(const PrefillAttentionArgs& args, cudaStream_t stream) {
  static const cudaError_t prepared = cudaFuncSetAttribute(
      prefill_attention_kernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape<kDim>::kSharedBytes);
  if (prepared != cudaSuccess) return prepared;
  const int items = args.heads * args.tile_count;
  const LaunchShape shape{.grid = dim3(items < args.multiprocessors ? items : args.multiprocessors),
                          .block = dim3(kThreads),
                          .shared_bytes = Shape<kDim>::kSharedBytes};
  return LaunchDependent(prefill_attention_kernel<kDim>, shape, stream, args);
}

}  // namespace

cudaError_t LaunchGatherKv(const KvCacheView& cache, const GatherTile* tiles, int32_t count, int32_t layer,
                           __half* scratch, cudaStream_t stream) {
  const LaunchShape shape{.grid = dim3(count, cache.kv_heads, 2), .block = dim3(256)};
  return LaunchDependent(gather_kv_kernel, shape, stream, cache, tiles, layer, scratch);
}

cudaError_t LaunchPrefillAttention(const PrefillAttentionArgs& args, cudaStream_t stream) {
  if (args.head_dim == 128) return Launch<128>(args, stream);
  if (args.head_dim == 64) return Launch<64>(args, stream);
  return cudaErrorInvalidValue;
}

}  // namespace baton::cuda
