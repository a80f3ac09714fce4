// Which workers share a process, and which GPU each process has.
#pragma once

#include <cstdint>
#include <vector>

#include "app/options.h"
#include "supervisor/supervisor.h"

namespace baton {

struct PlacedProcess {
  std::vector<WorkerSpec> workers;
  int32_t gpu = -1;          // -1: the CPU
  int32_t gpu_share = 1;     // processes on that GPU, this one included
  bool own_engines = false;  // each worker has an engine, a pool and a step loop of its own; else they share them
};

// Pure. Workers take the GPUs in turn: `wanted`, or else the first of the `visible` ones. In the order of workers.
std::vector<PlacedProcess> PlaceWorkers(const std::vector<WorkerSpec>& workers, const std::vector<int32_t>& wanted,
                                        int32_t visible, ProcessPlacement placement);

// Of simulated engines. A process each for so many workers; more are dealt into groups of as many, one process and one
// thread for each worker, so that hundreds start quickly. Sharing on request means one engine, as above.
inline constexpr int32_t kSimulatedProcesses = 16;
std::vector<PlacedProcess> PlaceSimulated(const std::vector<WorkerSpec>& workers, ProcessPlacement placement);

}  // namespace baton
