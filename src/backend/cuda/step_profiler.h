// Measures where a step's time goes, by events between its kernels. The events are nodes of the graph that the step is
// captured into, so that the time the host takes to enqueue does not enter.
//
// Threading: one thread. Ownership: holds its events. Errors: Internal.
// Limits: an event ends the overlap of neighbours (programmatic dependent launch), so families add up to more than the
// step takes without events.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <vector>

#include "base/status.h"
#include "core/batch.h"
#include "device/cuda_device.h"

namespace baton::cuda {

class StepProfiler {
 public:
  // From here on, until Finish, Mark records into the capturing `stream`.
  absl::Status Start(cudaStream_t stream);
  // What is enqueued next belongs to `family`. Does nothing outside of Start and Finish.
  absl::Status Mark(KernelFamily family);
  absl::Status Finish();
  // When the graph has run.
  absl::StatusOr<StepProfile> Collect() const;

 private:
  absl::Status Record();

  cudaStream_t stream_ = nullptr;  // null: not profiling
  std::vector<CudaEvent> events_;
  size_t used_ = 0;
  std::vector<KernelFamily> families_;  // of the interval that each event begins
};

}  // namespace baton::cuda
