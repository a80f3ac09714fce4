// Linear layers by cuBLASLt: output[m][n] = input[m][k] × weight[n][k]ᵀ, FP8 (unit scales) or BF16 in, BF16 or FP32
// out.
//
// The library's first heuristic is up to 20 % slower than its best, so some (shape, rows) are tuned at the start: all
// heuristics are timed hot, in a graph, over real weights, and the best is pinned. Up to 64 rows, sizes between two
// tuned ones use the larger one's. Above, they take the library's first choice for exactly their rows: another size's
// best costs up to 60 % more just above a boundary of tiles.
//
// Threading: one thread. Ownership: holds its workspace; weights and buffers are the caller's. Errors: Internal.
// Limits: FP8 needs k and n to be multiples of 16; BF16 multiples of 8.
#pragma once

#include <cuda_runtime_api.h>

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/status.h"
#include "device/cuda_device.h"
#include "device/cuda_library.h"

namespace baton::cuda {

struct GemmShape {
  int64_t n = 0;  // outputs
  int64_t k = 0;  // inputs
  bool fp8 = false;
  bool fp32_output = false;
  auto operator<=>(const GemmShape&) const = default;
};

class Gemm {
 public:
  static absl::StatusOr<std::unique_ptr<Gemm>> Create(cudaStream_t stream);
  ~Gemm();

  // Finds the best algorithm for `rows` rows; rotates over `weights` so that none is still in the L2 cache. Overwrites
  // `output`. Returns its time in microseconds, 0 when it was tuned before.
  absl::StatusOr<float> Tune(const GemmShape& shape, int64_t rows, const std::vector<const void*>& weights,
                             const void* input, void* output);
  // Enqueues. What is not tuned takes the library's first heuristic.
  absl::Status Run(const GemmShape& shape, const void* weight, const void* input, int64_t rows, void* output);

 private:
  struct Descriptors {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t weight = nullptr, input = nullptr, output = nullptr;
    std::map<int64_t, cublasLtMatmulAlgo_t> tuned;    // by rows
    std::map<int64_t, cublasLtMatmulAlgo_t> checked;  // by exact rows
  };
  Gemm() = default;
  absl::StatusOr<Descriptors*> DescriptorsFor(const GemmShape& shape);
  absl::Status SetRows(Descriptors& descriptors, int64_t rows);
  absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> Heuristics(Descriptors& descriptors, int most);
  absl::StatusOr<const cublasLtMatmulAlgo_t*> AlgorithmFor(Descriptors& descriptors, int64_t rows);
  absl::Status Enqueue(const Descriptors& descriptors, const cublasLtMatmulAlgo_t& algorithm, const void* weight,
                       const void* input, void* output);
  absl::StatusOr<float> Time(const Descriptors& descriptors, const cublasLtMatmulAlgo_t& algorithm,
                             const std::vector<const void*>& weights, const void* input, void* output, int repeats);

  const CublasLtLibrary* library_ = nullptr;
  cublasLtHandle_t handle_ = nullptr;
  cudaStream_t stream_ = nullptr;
  CudaMemory workspace_;
  CudaEvent begin_, end_;
  std::map<GemmShape, Descriptors> descriptors_;
};

}  // namespace baton::cuda
