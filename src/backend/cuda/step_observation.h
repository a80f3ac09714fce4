// What a step computed, as floats in host memory: for StepObserver, between kernels of one stream.
//
// Threading: waits for the stream. Ownership: results are the caller's. Errors: Internal for device errors.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cuda/kernels.h"
#include "base/status.h"

namespace baton::cuda {

absl::StatusOr<std::vector<float>> CopyToHost(const float* device, int64_t count, cudaStream_t stream);

// The residual stream with the sums of a linear layer that nobody has added yet.
struct HiddenStates {
  const __nv_bfloat16* residual;  // [rows][width]
  const __nv_bfloat16* delta;     // [rows][width]
  RowScales delta_scales;
  int32_t rows, width;
};
// [rows][width], rounded to BF16 as the next norm rounds it.
absl::StatusOr<std::vector<float>> ReadHiddenStates(const HiddenStates& states, cudaStream_t stream);

}  // namespace baton::cuda
