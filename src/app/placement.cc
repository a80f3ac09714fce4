#include "app/placement.h"

#include <algorithm>

namespace baton {

std::vector<PlacedProcess> PlaceWorkers(const std::vector<WorkerSpec>& workers, const std::vector<int32_t>& wanted,
                                        int32_t visible, ProcessPlacement placement) {
  const bool share = visible > 0 ? placement != ProcessPlacement::kIsolated : placement == ProcessPlacement::kShared;
  const auto gpu_of = [&](size_t worker) {
    if (visible == 0) return -1;
    return wanted.empty() ? static_cast<int32_t>(worker % static_cast<size_t>(visible))
                          : wanted[worker % wanted.size()];
  };
  std::vector<PlacedProcess> processes;
  for (size_t i = 0; i < workers.size(); ++i) {
    const int32_t gpu = gpu_of(i);
    auto process = share ? std::ranges::find(processes, gpu, &PlacedProcess::gpu) : processes.end();
    if (process == processes.end()) process = processes.insert(process, {.gpu = gpu});
    process->workers.push_back(workers[i]);
  }
  for (PlacedProcess& process : processes) {
    if (process.gpu >= 0) {
      process.gpu_share = static_cast<int32_t>(std::ranges::count(processes, process.gpu, &PlacedProcess::gpu));
    }
  }
  return processes;
}

std::vector<PlacedProcess> PlaceSimulated(const std::vector<WorkerSpec>& workers, ProcessPlacement placement) {
  const bool few = workers.size() <= static_cast<size_t>(kSimulatedProcesses);
  if (few || placement != ProcessPlacement::kAutomatic) return PlaceWorkers(workers, {}, 0, placement);
  std::vector<PlacedProcess> processes;
  for (size_t i = 0; i < workers.size(); ++i) {
    if (i % kSimulatedProcesses == 0) processes.push_back({.own_engines = true});
    processes.back().workers.push_back(workers[i]);
  }
  return processes;
}

}  // namespace baton
