// FP8 products for few rows (decode): output[m][n] = input[m][k] × weight[n][k]ᵀ, bound by reading the weights once.
//
// A CTA on each multiprocessor, alone or in clusters of two. A cluster owns a range of weight rows, its CTAs share out
// k, and their partial sums meet through distributed shared memory in a fixed order: no fix-up, the same bits every
// time. Multiprocessors do not read equally fast: six behind one port get less each than four. So ranges are as long as
// their multiprocessors are fast (SmallGemmRows), and a cluster claims the range that was made for where it runs.
// Weights are the A operand (64 rows an instruction), so that few tokens waste nothing. About 150 KB of tiles are in
// flight on each SM, and the first ones are asked for before the predecessor has ended: weights do not depend on it.
// Each stage's sums are added to FP32 registers, since the tensor core's own FP8 accumulation is short.
#include <cuda.h>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/wgmma.cuh"

namespace baton::cuda {
namespace {

constexpr int kConsumers = 256;  // two warpgroups
constexpr int kTileK = 128;      // bytes of k in a tile row
constexpr int kBlocks = 2;       // 128-row blocks of a pass
constexpr int kPassRows = 128 * kBlocks;
constexpr int kRowStep = 8;              // ranges are multiples of it
constexpr int kBoxes = 5;                // weight rows come in boxes of 8, 16, 32, 64 and 128
constexpr int kWeightRing = 166 * 1024;  // bytes
constexpr int kMostStages = 16;
template <int kTokens>
constexpr int kInputRing = kTokens == 32 ? 40 * 1024 : 20 * 1024;
// The ring's reads go up to a pass past its end when a pass is not full (see the main loop): into the input ring.
constexpr int kOverrun = 12 * 1024;
template <int kTokens>
constexpr int kSharedBytes = kWeightRing + kInputRing<kTokens> + kOverrun + 32 * kMostStages + 1024;
static_assert(kInputRing<8> + kOverrun >= (kPassRows - kRowStep) * kTileK);

__device__ __forceinline__ void TensorLoad(uint32_t shared, const CUtensorMap& map, int k, int row, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          shared),
      "l"(&map), "r"(k), "r"(row), "r"(barrier)
      : "memory");
}
struct Product {
  __nv_bfloat16* output;
  const int32_t* row_begin;  // [ranges + 1]
  uint32_t* claims;          // a bit for each range
  int ranges, n, k, m;
};
struct WeightMaps {
  CUtensorMap of_box[kBoxes];  // boxes of 8 << i rows
};

// The range of rows made for multiprocessor `place` (or for its pair), or any other that nobody has taken.
__device__ __forceinline__ int ClaimRange(const Product& product, int place) {
  int range = place < product.ranges ? place : 0;
  while (true) {
    const uint32_t bit = 1u << (range & 31);
    if (!(atomicOr(product.claims + (range >> 5), bit) & bit)) return range;
    if (++range == product.ranges) range = 0;
  }
}

// A range is worked on in passes of up to kPassRows rows.
struct Passes {
  int first_row, units;  // of kRowStep rows
  int count;

  __device__ Passes(int begin, int end)
      : first_row(begin), units((end - begin) / kRowStep), count((end - begin + kPassRows - 1) / kPassRows) {}
  __device__ int Begin(int pass) const { return first_row + units * pass / count * kRowStep; }
  __device__ int Rows(int pass) const { return Begin(pass + 1) - Begin(pass); }
  __device__ int MostRows() const { return (units + count - 1) / count * kRowStep; }
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

// kDepth: tiles of k in a stage.
template <int kTokens, int kDepth, int kCluster>
__global__ void __launch_bounds__(kConsumers + 32, 1)
    small_gemm_kernel(const Product product, const __grid_constant__ WeightMaps weight_maps,
                      const __grid_constant__ CUtensorMap input_map) {
  __shared__ int claimed;
  extern __shared__ uint8_t unaligned[];
  uint8_t* const shared =
      reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(unaligned) + 1023) & ~uintptr_t{1023});
  const uint32_t weights = SharedAddress(shared);
  const uint32_t inputs = weights + kWeightRing;
  const uint32_t weight_full = inputs + kInputRing<kTokens> + kOverrun;
  const uint32_t weight_empty = weight_full + 8 * kMostStages;
  const uint32_t input_full = weight_empty + 8 * kMostStages;
  const uint32_t input_empty = input_full + 8 * kMostStages;
  const int tid = threadIdx.x;
  const int warp = tid >> 5;
  const int lane = tid & 31;
  constexpr int kInputStage = kDepth * kTokens * kTileK;
  constexpr int kInputStages =
      kInputRing<kTokens> / kInputStage < kMostStages ? kInputRing<kTokens> / kInputStage : kMostStages;
  const int rank = kCluster > 1 ? blockIdx.x % kCluster : 0;

  // The successor may take its place beside us at once: it waits for our end before it reads anything.
  ReleaseSuccessor();
  if (tid == kConsumers) {
    if (rank == 0) {
      uint32_t multiprocessor;
      asm volatile("mov.u32 %0, %smid;" : "=r"(multiprocessor));
      claimed = ClaimRange(product, static_cast<int>(multiprocessor) / kCluster);
    }
    for (int i = 0; i < kMostStages; ++i) {
      BarrierInit(weight_full + 8 * i, 1);
      BarrierInit(weight_empty + 8 * i, kConsumers / 32 * kWarpArrivals);
      BarrierInit(input_full + 8 * i, 1);
      BarrierInit(input_empty + 8 * i, kConsumers / 32 * kWarpArrivals);
    }
    BarrierInitFence();
  }
  __syncwarp();
  if constexpr (kCluster > 1) {
    ClusterArrive();
    ClusterWait();
  } else {
    __syncthreads();
  }
  int range = claimed;
  if (kCluster > 1 && rank != 0) {
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(range) : "r"(ClusterAddress(SharedAddress(&claimed), 0)));
  }
  const Passes passes(product.row_begin[range], product.row_begin[range + 1]);
  const int weight_stage = kDepth * passes.MostRows() * kTileK;
  const int weight_stages = min(kMostStages, kWeightRing / weight_stage);
  const int tiles = product.k / kTileK;
  const int first_tile = tiles * rank / kCluster;
  const int steps = (tiles * (rank + 1) / kCluster - first_tile) / kDepth;  // stages of a pass

  if (warp == kConsumers / 32) {  // ---- producer
    if (lane != 0) return;
    const int total = passes.count * steps;
    Ring weight_ring{weight_stages, 0, 1};
    int pass = 0;
    int step = 0;
    auto load_weights = [&] {
      const uint32_t full = weight_full + 8 * weight_ring.stage;
      const int begin = passes.Begin(pass);
      const int rows = passes.Rows(pass);
      BarrierWait(weight_empty + 8 * weight_ring.stage, weight_ring.phase);
      BarrierExpect(full, kDepth * rows * kTileK);
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        int at = 0;
#pragma unroll
        for (int box = kBoxes - 1; box >= 0; --box) {
          for (const int box_rows = kRowStep << box; at + box_rows <= rows; at += box_rows) {
            TensorLoad(weights + weight_ring.stage * weight_stage + (d * rows + at) * kTileK, weight_maps.of_box[box],
                       (first_tile + step * kDepth + d) * kTileK, begin + at, full);
          }
        }
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
  for (int pass = 0; pass < passes.count; ++pass) {
    const int first_row = passes.Begin(pass);
    const int rows = passes.Rows(pass);
    for (int step = 0; step < steps; ++step) {
      BarrierWait(input_full + 8 * input_ring.stage, input_ring.phase);
      BarrierWait(weight_full + 8 * weight_ring.stage, weight_ring.phase);
      WarpgroupFence();
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        const uint64_t b = KMajorDescriptor(inputs + input_ring.stage * kInputStage + d * kTokens * kTileK);
#pragma unroll
        for (int block = 0; block < kBlocks; ++block) {
          // Rows past the pass multiply stale bytes inside the allocation; they are never stored.
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
      const int row = block * 128 + half * 64 + (warp & 3) * 16;  // of the pass, and + 8
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

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

Encode FindEncode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result) !=
      cudaSuccess) {
    return nullptr;
  }
  return reinterpret_cast<Encode>(function);
}

// Bytes [rows][k] in boxes of box_rows × 128, swizzled.
cudaError_t MakeMap(const void* data, int64_t rows, int64_t k, int box_rows, CUtensorMap* map) {
  static const Encode encode = FindEncode();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint64_t extents[2] = {static_cast<cuuint64_t>(k), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(k)};
  const cuuint32_t box[2] = {kTileK, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result = encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, const_cast<void*>(data), extents, strides, box,
                                 steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

// CTAs that share a range: two where ranges would be short. 0: there is no kernel for this shape.
int ClusterOf(int64_t n, int64_t k, int multiprocessors) {
  if (n % kRowStep != 0 || n / kRowStep < multiprocessors) return 0;
  const int64_t pair_rows = n / (multiprocessors / 2);
  if (k % (2 * 2 * kTileK) == 0 && pair_rows <= 176) return 2;  // one pass also for a faster pair
  return k % kTileK == 0 && n / multiprocessors > 64 ? 1 : 0;
}

template <int kTokens, int kDepth, int kCluster>
cudaError_t Launch(const Product& product, const WeightMaps& weight, const CUtensorMap& input, cudaStream_t stream) {
  constexpr auto kKernel = small_gemm_kernel<kTokens, kDepth, kCluster>;
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes<kTokens>);
  if (prepared != cudaSuccess) return prepared;
  return LaunchDependent(kKernel,
                         {.grid = dim3(product.ranges * kCluster),
                          .block = dim3(kConsumers + 32),
                          .shared_bytes = kSharedBytes<kTokens>,
                          .cluster = kCluster},
                         stream, product, weight, input);
}

}  // namespace

bool HasSmallGemm(int64_t n, int64_t k, int64_t m, int32_t multiprocessors) {
  return m <= kSmallGemmRows && ClusterOf(n, k, multiprocessors) > 0;
}

std::vector<int32_t> SmallGemmRows(int64_t n, int64_t k, std::span<const float> speeds) {
  const int cluster = ClusterOf(n, k, static_cast<int>(speeds.size()));
  std::vector<double> reached = {0};  // the sum of speeds up to each range's end
  for (size_t i = 0; cluster > 0 && i + cluster <= speeds.size(); i += cluster) {
    double speed = 0;
    for (int j = 0; j < cluster; ++j) speed += speeds[i + j];
    reached.push_back(reached.back() + speed);
  }
  std::vector<int32_t> begins;
  for (const double sum : reached) {
    begins.push_back(static_cast<int32_t>(static_cast<double>(n / kRowStep) * sum / reached.back() + 0.5) * kRowStep);
  }
  return begins;
}

cudaError_t LaunchSmallGemm(const SmallGemmArgs& args, cudaStream_t stream) {
  const int cluster = ClusterOf(args.n, args.k, args.multiprocessors);
  if (cluster == 0 || args.m > kSmallGemmRows) return cudaErrorInvalidValue;
  const int tokens = args.m <= 8 ? 8 : 32;
  WeightMaps weight;
  CUtensorMap input;
  cudaError_t error = MakeMap(args.input, tokens, args.k, tokens, &input);
  for (int box = 0; box < kBoxes && error == cudaSuccess; ++box) {
    error = MakeMap(args.weight, args.n, args.k, kRowStep << box, &weight.of_box[box]);
  }
  if (error != cudaSuccess) return error;
  const Product product{args.output, args.row_begin, args.claims, args.multiprocessors / cluster,
                        args.n,      args.k,         args.m};
  if (cluster == 1) {
    return tokens == 8 ? Launch<8, 1, 1>(product, weight, input, stream)
                       : Launch<32, 1, 1>(product, weight, input, stream);
  }
  return tokens == 8 ? Launch<8, 2, 2>(product, weight, input, stream)
                     : Launch<32, 2, 2>(product, weight, input, stream);
}

}  // namespace baton::cuda
