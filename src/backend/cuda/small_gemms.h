// The own kernel for products of few rows, with what its launches need beside their operands: which rows each
// multiprocessor takes, by how fast it reads, and the claims of the calls of one step.
//
// Threading: one thread. Ownership: holds its tables. Errors: Internal for device errors; ResourceExhausted.
// Limits: at most as many calls in a step as were reserved.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "backend/cuda/gemm.h"
#include "device/cuda_device.h"

namespace baton::cuda {

class SmallGemms {
 public:
  // `shapes`: of the layers; `calls`: of one step.
  static absl::StatusOr<SmallGemms> Create(const std::vector<GemmShape>& shapes, int64_t calls,
                                           const CudaDeviceInfo& device, cudaStream_t stream);

  // A default-made one has no kernel for anything.
  bool Has(const GemmShape& shape, int64_t rows) const;
  // Before the first call of a step.
  absl::Status BeginStep(cudaStream_t stream);
  absl::Status Run(const GemmShape& shape, const void* weight, const void* input, int64_t rows, void* output,
                   cudaStream_t stream);

 private:
  int32_t multiprocessors_ = 0;
  std::map<std::pair<int64_t, int64_t>, CudaMemory> row_begins_;  // by (n, k)
  CudaMemory claims_;
  int64_t calls_ = 0;
};

// How fast each multiprocessor reads while all of them do, 1 on average.
absl::StatusOr<std::vector<float>> MeasureReadSpeeds(int32_t multiprocessors, cudaStream_t stream);

}  // namespace baton::cuda
