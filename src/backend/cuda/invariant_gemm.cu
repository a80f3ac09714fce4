// Products whose rows do not depend on the batch: output[m][n] = input[m][k] × weight[n][k]ᵀ.
//
// Every output element is one chain of sums from k = 0 on: four tensor-core instructions cover 128 bytes of k, and
// their sum is added to an FP32 register. Nothing is split along k. How many input rows a CTA takes at once (8 to 256)
// changes neither the chain nor its instructions, only their width, so one row gives the same bits among 1 or 4,096
// (tests: invariant_gemm_gpu_test.cc). Weights are the A operand (64 rows an instruction), so that few rows waste
// nothing.
//
// Persistent CTAs; a producer streams tiles of 128 bytes of k through a ring, and asks for the first weights before the
// predecessor has ended.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/tensor_map.cuh"
#include "backend/cuda/wgmma.cuh"

namespace baton::cuda {
namespace {

constexpr int kTileK = 128;  // bytes of k in a stage
constexpr int kRingBytes = 192 * 1024;
constexpr int kMostStages = 16;

template <int kTokens, int kGroups>  // kGroups: warpgroups, each with 64 weight rows
struct Shape {
  static constexpr int kRows = 64 * kGroups;
  static constexpr int kWeightBytes = kRows * kTileK;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kTileK;
  static constexpr int kStages = kRingBytes / kStageBytes < kMostStages ? kRingBytes / kStageBytes : kMostStages;
  static constexpr int kWidth = kTokens < 128 ? kTokens : 128;  // tokens of an instruction
  static constexpr int kBlocks = kTokens / kWidth;
  static constexpr int kSharedBytes = kStages * kStageBytes + 16 * kStages + 1024;
  // A producer warp; where registers are moved to the consumers, a warpgroup.
  static constexpr int kThreads = 128 * kGroups + (kBlocks > 1 ? 128 : 32);
};

struct Product {
  void* output;
  int n, k_bytes, m;
};

// The tiles of one CTA, and the stages of each. All tiles of input rows come before the next weights, so that weights
// are read once.
struct Cursor {
  int tile, tiles, token_tiles, steps;
  int step = 0;
  __device__ Cursor(const Product& product, int rows, int tokens)
      : tile(blockIdx.x),
        token_tiles((product.m + tokens - 1) / tokens),
        steps((product.k_bytes + kTileK - 1) / kTileK) {
    tiles = (product.n + rows - 1) / rows * token_tiles;
  }
  __device__ bool Valid() const { return tile < tiles; }
  __device__ int RowTile() const { return tile / token_tiles; }
  __device__ int TokenTile() const { return tile % token_tiles; }
  __device__ void Advance() {
    if (++step < steps) return;
    step = 0;
    tile += gridDim.x;
  }
};

template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  __device__ void Advance() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

template <bool kFp8, int kCount>
__device__ __forceinline__ void Multiply(float (&d)[kCount], uint64_t a, uint64_t b, int accumulate) {
  if constexpr (kFp8) {
    ProductFp8(d, a, b, accumulate);
  } else {
    ProductBf16(d, a, b, accumulate);
  }
}

// Sums of 64 weight rows × kWidth tokens, from weight row `row` (of this warp) and token `token` on.
template <bool kFp32Output, int kCount>
__device__ __forceinline__ void Store(const Product& product, int row, int token, const float (&sums)[kCount]) {
  const int g = (threadIdx.x & 31) >> 2;
  const int c = threadIdx.x & 3;
  const int64_t n = product.n;
#pragma unroll
  for (int j = 0; j < kCount / 4; ++j) {
    if constexpr (kFp32Output) {
      float* const out = static_cast<float*>(product.output) + row + g;
      const int first = token + 8 * j + 2 * c;
#pragma unroll
      for (int i = 0; i < 4; ++i) {  // i & 1: the token, i >> 1: 8 rows on
        if (first + (i & 1) < product.m && row + 8 * (i >> 1) < n)
          out[(first + (i & 1)) * n + 8 * (i >> 1)] = sums[4 * j + i];
      }
    } else {
      // Rows are outputs here: transposed, a thread has neighbouring outputs of one token.
      const uint32_t low = TransposeMatrix(PackBf16(sums[4 * j], sums[4 * j + 1]));
      const uint32_t high = TransposeMatrix(PackBf16(sums[4 * j + 2], sums[4 * j + 3]));
      const int mine = token + 8 * j + g;
      if (mine >= product.m) continue;
      __nv_bfloat16* const out = static_cast<__nv_bfloat16*>(product.output) + mine * n + row + 2 * c;
      if (row < n) *reinterpret_cast<uint32_t*>(out) = low;
      if (row + 8 < n) *reinterpret_cast<uint32_t*>(out + 8) = high;
    }
  }
}

template <int kTokens, int kGroups>
__device__ __forceinline__ void Produce(const Product& product, const CUtensorMap& weight_map,
                                        const CUtensorMap& input_map, uint32_t ring, uint32_t full, uint32_t empty) {
  using S = Shape<kTokens, kGroups>;
  const auto load_weights = [&](const Cursor& at, int stage) {
    BarrierExpect(full + 8 * stage, S::kStageBytes);
    TensorLoad(ring + stage * S::kStageBytes, weight_map, at.step * kTileK, at.RowTile() * S::kRows, full + 8 * stage);
  };
  const auto load_inputs = [&](const Cursor& at, int stage) {
    TensorLoad(ring + stage * S::kStageBytes + S::kWeightBytes, input_map, at.step * kTileK, at.TokenTile() * kTokens,
               full + 8 * stage);
  };
  Cursor first(product, S::kRows, kTokens);
  for (int stage = 0; stage < S::kStages && first.Valid(); ++stage, first.Advance()) load_weights(first, stage);
  WaitForPredecessor();
  Ring<S::kStages> at;
  bool filled = false;  // the whole ring once
  for (Cursor cursor(product, S::kRows, kTokens); cursor.Valid(); cursor.Advance()) {
    if (filled) {
      BarrierWait(empty + 8 * at.stage, at.phase ^ 1);
      load_weights(cursor, at.stage);
    }
    load_inputs(cursor, at.stage);
    at.Advance();
    filled = filled || at.stage == 0;
  }
}

template <bool kFp8, bool kFp32Output, int kTokens, int kGroups>
__device__ __forceinline__ void Consume(const Product& product, uint32_t ring, uint32_t full, uint32_t empty) {
  using S = Shape<kTokens, kGroups>;
  const int group = threadIdx.x / 128;
  const int warp_row = threadIdx.x / 32 * 16;  // of the tile
  float sums[S::kBlocks][S::kWidth / 2];
  float part[S::kWidth / 2];
  Ring<S::kStages> at;
  Cursor cursor(product, S::kRows, kTokens);
  while (cursor.Valid()) {
    const int row = cursor.RowTile() * S::kRows + warp_row;
    const int token = cursor.TokenTile() * kTokens;
#pragma unroll
    for (int block = 0; block < S::kBlocks; ++block) {
#pragma unroll
      for (int i = 0; i < S::kWidth / 2; ++i) sums[block][i] = 0.f;
    }
    for (int step = 0; step < cursor.steps; ++step, cursor.Advance()) {
      const uint32_t stage = ring + at.stage * S::kStageBytes;
      const uint64_t a = KMajorDescriptor(stage + group * 64 * kTileK);
      BarrierWait(full + 8 * at.stage, at.phase);
#pragma unroll
      for (int block = 0; block < S::kBlocks; ++block) {
        const uint64_t b = KMajorDescriptor(stage + S::kWeightBytes + block * S::kWidth * kTileK);
        PinRegisters(part);
        WarpgroupFence();
#pragma unroll
        for (int k = 0; k < 4; ++k) Multiply<kFp8>(part, a + 2 * k, b + 2 * k, k > 0);
        WarpgroupCommit();
        WarpgroupWait<0>();
        PinRegisters(part);
#pragma unroll
        for (int i = 0; i < S::kWidth / 2; ++i) sums[block][i] = __fadd_rn(sums[block][i], part[i]);
      }
      WarpArrive(empty + 8 * at.stage);
      at.Advance();
    }
#pragma unroll
    for (int block = 0; block < S::kBlocks; ++block) {
      Store<kFp32Output>(product, row, token + block * S::kWidth, sums[block]);
    }
  }
}

template <bool kFp8, bool kFp32Output, int kTokens, int kGroups>
__global__ void __launch_bounds__(Shape<kTokens, kGroups>::kThreads, 1)
    invariant_gemm_kernel(const Product product, const __grid_constant__ CUtensorMap weight_map,
                          const __grid_constant__ CUtensorMap input_map) {
  using S = Shape<kTokens, kGroups>;
  extern __shared__ uint8_t unaligned[];
  const uint32_t ring = (SharedAddress(unaligned) + 1023) & ~1023u;
  const uint32_t full = ring + S::kStages * S::kStageBytes;
  const uint32_t empty = full + 8 * S::kStages;
  constexpr int kConsumers = 128 * kGroups;
  ReleaseSuccessor();
  if (threadIdx.x == kConsumers) {
    for (int i = 0; i < S::kStages; ++i) {
      BarrierInit(full + 8 * i, 1);
      BarrierInit(empty + 8 * i, kConsumers / 32 * kWarpArrivals);
    }
    BarrierInitFence();
  }
  __syncthreads();
  constexpr bool kMoveRegisters = S::kBlocks > 1;
  if (threadIdx.x >= kConsumers) {
    if constexpr (kMoveRegisters) asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == kConsumers) Produce<kTokens, kGroups>(product, weight_map, input_map, ring, full, empty);
  } else {
    if constexpr (kMoveRegisters) asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    WaitForPredecessor();
    Consume<kFp8, kFp32Output, kTokens, kGroups>(product, ring, full, empty);
  }
}

template <bool kFp8, bool kFp32Output, int kTokens, int kGroups>
cudaError_t Launch(const InvariantGemmArgs& args, cudaStream_t stream) {
  using S = Shape<kTokens, kGroups>;
  constexpr auto kKernel = invariant_gemm_kernel<kFp8, kFp32Output, kTokens, kGroups>;
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kSharedBytes);
  if (prepared != cudaSuccess) return prepared;
  const Product product{args.output, args.n, args.k * (kFp8 ? 1 : 2), args.m};
  CUtensorMap weight, input;
  cudaError_t error = MakeTensorMap(args.weight, args.n, product.k_bytes, S::kRows, &weight);
  if (error == cudaSuccess) error = MakeTensorMap(args.input, args.m, product.k_bytes, kTokens, &input);
  if (error != cudaSuccess) return error;
  const int64_t tiles = int64_t{(args.n + S::kRows - 1) / S::kRows} * ((args.m + kTokens - 1) / kTokens);
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(tiles < args.multiprocessors ? tiles : args.multiprocessors)),
      .block = dim3(S::kThreads),
      .shared_bytes = S::kSharedBytes};
  return LaunchDependent(kKernel, shape, stream, product, weight, input);
}

// Large tiles need less bandwidth of the L2 cache; they are for where they keep most multiprocessors busy.
bool TakesLargeTiles(const InvariantGemmArgs& args) {
  const int64_t tiles = int64_t{(args.n + 127) / 128} * ((args.m + 255) / 256);
  return args.m > 128 && tiles * 4 >= args.multiprocessors * 3;
}

template <bool kFp32Output>
cudaError_t LaunchBf16(const InvariantGemmArgs& args, cudaStream_t stream) {
  if (args.m <= 32) return Launch<false, kFp32Output, 32, 1>(args, stream);
  if (TakesLargeTiles(args)) return Launch<false, kFp32Output, 256, 2>(args, stream);
  return Launch<false, kFp32Output, 128, 1>(args, stream);
}

cudaError_t LaunchFp8(const InvariantGemmArgs& args, cudaStream_t stream) {
  if (args.m <= 8) return Launch<true, false, 8, 1>(args, stream);
  if (args.m <= 32) return Launch<true, false, 32, 1>(args, stream);
  if (args.m <= 64) return Launch<true, false, 64, 1>(args, stream);
  if (TakesLargeTiles(args)) return Launch<true, false, 256, 2>(args, stream);
  return Launch<true, false, 128, 1>(args, stream);
}

}  // namespace

cudaError_t LaunchInvariantGemm(const InvariantGemmArgs& args, cudaStream_t stream) {
  if (args.n % 8 != 0 || args.k * (args.fp8 ? 1 : 2) % 16 != 0 || args.m < 1) return cudaErrorInvalidValue;
  if (!args.fp8) return args.fp32_output ? LaunchBf16<true>(args, stream) : LaunchBf16<false>(args, stream);
  return args.fp32_output ? cudaErrorInvalidValue : LaunchFp8(args, stream);
}

}  // namespace baton::cuda
