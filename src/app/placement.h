// Which workers share a process, and which GPU each process has.
#pragma once

#include <cstdint>
#include <vector>

#include "app/options.h"
#include "supervisor/supervisor.h"

namespace baton {

struct PlacedProcess {
  std::vector<WorkerSpec> workers;
  int32_t gpu = -1;       // -1: the CPU
  int32_t gpu_share = 1;  // processes on that GPU, this one included
};

// Pure. Workers take the GPUs in turn: `wanted`, or else the first of the `visible` ones. In the order of workers.
std::vector<PlacedProcess> PlaceWorkers(const std::vector<WorkerSpec>& workers, const std::vector<int32_t>& wanted,
                                        int32_t visible, ProcessPlacement placement);

}  // namespace baton
