// Which device a worker computes on, and how much of its memory the KV cache may take. The one place that knows whether
// this binary has CUDA kernels.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "app/options.h"
#include "backend/backend.h"
#include "backend/ceilings.h"
#include "base/status.h"
#include "proto/baton.pb.h"
#include "transfer/transport.h"

namespace baton {

struct BackendChoice {
  std::unique_ptr<Backend> backend;
  int64_t kv_bytes = 0;  // by default
};

// Whether a worker with these flags computes on a GPU ("auto": if there is one).
bool UsesGpu(const EngineFlags& flags);

// What that device can do at best.
absl::StatusOr<Ceilings> MeasureCeilings(const EngineFlags& flags);

// `weight_bytes`: what the model's weights will take on the device.
absl::StatusOr<BackendChoice> ChooseBackend(const EngineFlags& flags, int64_t weight_bytes);

// GPUs that workers can be placed on; 0 where they compute on the CPU.
int32_t CountGpus(const EngineFlags& flags);

// How KV blocks get into `memory` and out of it: shared memory for the host's, CUDA IPC for a GPU's. Where a GPU's
// memory cannot be exported the workers of this process keep to themselves, and a warning says so.
std::unique_ptr<Transport> ChooseTransport(const KvMemory& memory, int32_t gpu);

// What NVML says of a GPU now. An error where there is no NVML, or no GPU.
absl::StatusOr<proto::GpuGauges> ReadGpuGauges(int32_t gpu);

// For baton devices: one line for each GPU, or why there is none; then where CUDA's libraries were found or sought.
std::vector<std::string> DescribeGpus();

}  // namespace baton
