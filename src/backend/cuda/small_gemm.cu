// FP8 products for few rows (decode): output[m][n] = input[m][k] × weight[n][k]ᵀ, bound by reading the weights once.
//
// 128 CTAs in clusters of one or two. A cluster owns a group of weight rows, its CTAs share out k, and their partial
// sums meet through distributed shared memory in a fixed order: no partial wave, no fix-up, the same bits every time.
// Weights are the A operand (64 rows an instruction), so that few tokens waste nothing. About 200 KB of tiles are in
// flight on each SM, and the first ones are asked for before the predecessor has ended: weights do not depend on it.
// Each stage's sums are added to FP32 registers, since the tensor core's own FP8 accumulation is short.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/tensor_map.cuh"
#include "backend/cuda/wgmma.cuh"

namespace baton::cuda {
namespace {

constexpr int kCtas = 128;
constexpr int kConsumers = 256;          // two warpgroups
constexpr int kTileK = 128;              // bytes of k in a tile row
constexpr int kWeightRing = 160 * 1024;  // bytes
constexpr int kMostStages = 16;
template <int kTokens>
constexpr int kInputRing = kTokens == 32 ? 40 * 1024 : 20 * 1024;
// The ring's reads go past its end when a row group is no multiple of 128 (see the main loop): into the input ring.
template <int kTokens>
constexpr int kSharedBytes = kWeightRing + kInputRing<kTokens> + 8192 + 32 * kMostStages + 1024;

struct Product {
  __nv_bfloat16* output;
  int n, k, m, group_rows;
};

// A position in a ring of stages.
struct Ring {
  int stages;
  int stage = 0;
  uint32_t phase;
  __device__ void Advance() {
    if (++stage == stages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// kBlocks: 128-row blocks of a row group; kDepth: tiles of k in a stage.
template <int kTokens, int kBlocks, int kDepth, int kCluster>
__global__ void __launch_bounds__(kConsumers + 32, 1)
    small_gemm_kernel(const Product product, const __grid_constant__ CUtensorMap weight_map,
                      const __grid_constant__ CUtensorMap input_map) {
  extern __shared__ uint8_t unaligned[];
  uint8_t* const shared =
      reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(unaligned) + 1023) & ~uintptr_t{1023});
  const uint32_t weights = SharedAddress(shared);
  const uint32_t inputs = weights + kWeightRing;
  const uint32_t weight_full = inputs + kInputRing<kTokens> + 8192;
  const uint32_t weight_empty = weight_full + 8 * kMostStages;
  const uint32_t input_full = weight_empty + 8 * kMostStages;
  const uint32_t input_empty = input_full + 8 * kMostStages;
  const int tid = threadIdx.x;
  const int warp = tid >> 5;
  const int lane = tid & 31;
  const int rows = product.group_rows;
  const int weight_stage = kDepth * rows * kTileK;
  constexpr int kInputStage = kDepth * kTokens * kTileK;
  const int weight_stages = min(kMostStages, kWeightRing / weight_stage);
  constexpr int kInputStages =
      kInputRing<kTokens> / kInputStage < kMostStages ? kInputRing<kTokens> / kInputStage : kMostStages;
  const int rank = kCluster > 1 ? blockIdx.x % kCluster : 0;
  const int cluster = blockIdx.x / kCluster;
  constexpr int kClusters = kCtas / kCluster;
  const int tiles = product.k / kTileK;
  const int first_tile = tiles * rank / kCluster;
  const int steps = (tiles * (rank + 1) / kCluster - first_tile) / kDepth;  // stages of one row group
  const int passes = (product.n / rows - cluster + kClusters - 1) / kClusters;

  // The successor may take its place beside us at once: it waits for our end before it reads anything.
  ReleaseSuccessor();
  if (tid == kConsumers) {
    for (int i = 0; i < kMostStages; ++i) {
      BarrierInit(weight_full + 8 * i, 1);
      BarrierInit(weight_empty + 8 * i, kConsumers / 32 * kWarpArrivals);
      BarrierInit(input_full + 8 * i, 1);
      BarrierInit(input_empty + 8 * i, kConsumers / 32 * kWarpArrivals);
    }
    BarrierInitFence();
  }
  __syncthreads();

  if (warp == kConsumers / 32) {  // ---- producer
    if (lane != 0) return;
    const int total = passes * steps;
    Ring weight_ring{weight_stages, 0, 1};
    int pass = 0;
    int step = 0;
    auto load_weights = [&] {
      const uint32_t full = weight_full + 8 * weight_ring.stage;
      BarrierWait(weight_empty + 8 * weight_ring.stage, weight_ring.phase);
      BarrierExpect(full, weight_stage);
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        TensorLoad(weights + weight_ring.stage * weight_stage + d * rows * kTileK, weight_map,
                   (first_tile + step * kDepth + d) * kTileK, (cluster + pass * kClusters) * rows, full);
      }
      weight_ring.Advance();
      if (++step == steps) {
        step = 0;
        ++pass;
      }
    };
    const int ahead = min(total, weight_stages);
    for (int i = 0; i < ahead; ++i) load_weights();
    WaitForPredecessor();
    Ring input_ring{kInputStages, 0, 1};
    int input_step = 0;
    int loaded = 0;
    auto load_inputs = [&] {
      const uint32_t full = input_full + 8 * input_ring.stage;
      BarrierWait(input_empty + 8 * input_ring.stage, input_ring.phase);
      BarrierExpect(full, kInputStage);
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        TensorLoad(inputs + input_ring.stage * kInputStage + d * kTokens * kTileK, input_map,
                   (first_tile + input_step * kDepth + d) * kTileK, 0, full);
      }
      input_ring.Advance();
      if (++input_step == steps) input_step = 0;
      ++loaded;
    };
    while (loaded < ahead && loaded < kInputStages) load_inputs();
    for (int i = 0; i < total; ++i) {
      if (loaded <= i) load_inputs();
      if (i >= ahead) load_weights();
    }
    return;
  }

  // ---- consumers
  WaitForPredecessor();
  const int half = warp >> 2;  // which 64 rows of a block
  const int g = lane >> 2;
  const int c = lane & 3;
  float part[kBlocks][kTokens / 2];
  float sums[kBlocks][kTokens / 2];
  Ring weight_ring{weight_stages, 0, 0};
  Ring input_ring{kInputStages, 0, 0};
  for (int pass = 0; pass < passes; ++pass) {
    const int first_row = (cluster + pass * kClusters) * rows;
    for (int step = 0; step < steps; ++step) {
      BarrierWait(input_full + 8 * input_ring.stage, input_ring.phase);
      BarrierWait(weight_full + 8 * weight_ring.stage, weight_ring.phase);
      WarpgroupFence();
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        const uint64_t b = KMajorDescriptor(inputs + input_ring.stage * kInputStage + d * kTokens * kTileK);
#pragma unroll
        for (int block = 0; block < kBlocks; ++block) {
          // Rows past the group multiply stale bytes inside the allocation; they are never stored.
          const uint64_t a = KMajorDescriptor(weights + weight_ring.stage * weight_stage + d * rows * kTileK +
                                              (block * 2 + half) * 64 * kTileK);
#pragma unroll
          for (int k = 0; k < 4; ++k) ProductFp8(part[block], a + 2 * k, b + 2 * k, d > 0 || k > 0);
        }
      }
      WarpgroupCommit();
      WarpgroupWait<0>();
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        PinRegisters(part[block]);
#pragma unroll
        for (int i = 0; i < kTokens / 2; ++i) sums[block][i] = (step > 0 ? sums[block][i] : 0.f) + part[block][i];
      }
      WarpArrive(weight_empty + 8 * weight_ring.stage);
      WarpArrive(input_empty + 8 * input_ring.stage);
      weight_ring.Advance();
      input_ring.Advance();
    }

    // Quads of sums go to the CTA that stores them, through slots in its (now free) ring.
    constexpr int kQuads = kBlocks * kTokens / 8;
    constexpr int kSlots = (kQuads + kCluster - 1) / kCluster;
    if constexpr (kCluster > 1) {
      static_assert(kCluster * kSlots * 4096 <= kWeightRing);
      ClusterArrive();
      ClusterWait();  // every CTA of the cluster is done with its ring
#pragma unroll
      for (int q = 0; q < kQuads; ++q) {
        const int block = q / (kTokens / 8);
        const int j = q % (kTokens / 8);
        if (q % kCluster == rank || block * 128 + half * 64 >= rows) continue;
        const uint32_t slot = ClusterAddress(weights + ((rank * kSlots + q / kCluster) * 256 + tid) * 16, q % kCluster);
        asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(slot), "f"(sums[block][4 * j]),
                     "f"(sums[block][4 * j + 1]), "f"(sums[block][4 * j + 2]), "f"(sums[block][4 * j + 3])
                     : "memory");
      }
      ClusterArrive();
      ClusterWait();
    }
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const int block = q / (kTokens / 8);
      const int j = q % (kTokens / 8);
      const int row = block * 128 + half * 64 + (warp & 3) * 16;  // of the group, and + 8
      if (q % kCluster != rank || row >= rows) continue;
      float4 total = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
      for (int source = 0; source < kCluster; ++source) {  // in order, whoever adds
        float4 v =
            make_float4(sums[block][4 * j], sums[block][4 * j + 1], sums[block][4 * j + 2], sums[block][4 * j + 3]);
        if (source != rank) {
          v = *reinterpret_cast<const float4*>(shared + ((source * kSlots + q / kCluster) * 256 + tid) * 16);
        }
        total.x += v.x;
        total.y += v.y;
        total.z += v.z;
        total.w += v.w;
      }
      // Rows are outputs here: transposed, a thread has neighbouring outputs of one token.
      const uint32_t low = TransposeMatrix(PackBf16(total.x, total.y));
      const uint32_t high = TransposeMatrix(PackBf16(total.z, total.w));
      const int token = 8 * j + g;
      if (token >= product.m) continue;
      __nv_bfloat16* out = product.output + static_cast<int64_t>(token) * product.n + first_row + row + 2 * c;
      *reinterpret_cast<uint32_t*>(out) = low;
      if (row + 8 < rows) *reinterpret_cast<uint32_t*>(out + 8) = high;
    }
  }
}

// How a weight is shared out; group_rows 0: not at all.
struct Split {
  int group_rows = 0;
  int blocks = 0, depth = 0, cluster = 0;
};
Split PlanSplit(int n, int k) {
  if (k % (2 * 2 * kTileK) != 0) return {};
  const int half = n / 64;  // of 128 CTAs, for two share out k
  if (n % 64 == 0 && half <= 160 && (half % 16 == 0 || (half % 8 == 0 && half >= 40))) {
    return {half, half > 128 ? 2 : 1, 2, 2};
  }
  for (const int passes : {1, 2}) {  // wide layers: a CTA has its rows to itself
    const int rows = n / (kCtas * passes);
    if (n % (kCtas * passes) != 0 || rows % 16 != 0 || rows > 224) continue;
    if (rows > 128) return {rows, 2, 1, 1};
    if (rows > 80) return {rows, 1, 2, 1};
  }
  return {};
}

template <int kTokens, int kBlocks, int kDepth, int kCluster>
cudaError_t Launch(const Product& product, const CUtensorMap& weight, const CUtensorMap& input, cudaStream_t stream) {
  constexpr auto kKernel = small_gemm_kernel<kTokens, kBlocks, kDepth, kCluster>;
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes<kTokens>);
  if (prepared != cudaSuccess) return prepared;
  return LaunchDependent(
      kKernel,
      {.grid = dim3(kCtas), .block = dim3(kConsumers + 32), .shared_bytes = kSharedBytes<kTokens>, .cluster = kCluster},
      stream, product, weight, input);
}

template <int kTokens>
cudaError_t LaunchSplit(const Split& split, const Product& product, const CUtensorMap& weight, const CUtensorMap& input,
                        cudaStream_t stream) {
  if (split.cluster == 1 && split.blocks == 1) return Launch<kTokens, 1, 2, 1>(product, weight, input, stream);
  if (split.cluster == 1) return Launch<kTokens, 2, 1, 1>(product, weight, input, stream);
  if (split.blocks == 2) return Launch<kTokens, 2, 2, 2>(product, weight, input, stream);
  return Launch<kTokens, 1, 2, 2>(product, weight, input, stream);
}

}  // namespace

bool HasSmallGemm(int64_t n, int64_t k, int64_t m) {
  return m <= kSmallGemmRows && PlanSplit(static_cast<int>(n), static_cast<int>(k)).group_rows > 0;
}

cudaError_t LaunchSmallGemm(const SmallGemmArgs& args, cudaStream_t stream) {
  const Split split = PlanSplit(args.n, args.k);
  if (split.group_rows == 0 || args.m > kSmallGemmRows) return cudaErrorInvalidValue;
  const int tokens = args.m <= 8 ? 8 : 32;
  CUtensorMap weight, input;
  cudaError_t error = MakeTensorMap(args.weight, args.n, args.k, split.group_rows, &weight);
  if (error == cudaSuccess) error = MakeTensorMap(args.input, tokens, args.k, tokens, &input);
  if (error != cudaSuccess) return error;
  const Product product{args.output, args.n, args.k, args.m, split.group_rows};
  return tokens == 8 ? LaunchSplit<8>(split, product, weight, input, stream)
                     : LaunchSplit<32>(split, product, weight, input, stream);
}

}  // namespace baton::cuda
