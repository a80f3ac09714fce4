// A step as a CUDA graph, whose first node is an event: where the device begins.
//
// Threading: one thread. Ownership: holds the graph and its executable form; launches that still run when it goes, go
// on to their end. Errors: Internal.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

#include "base/status.h"
#include "device/cuda_device.h"

namespace baton::cuda {

class CapturedStep {
 public:
  CapturedStep() = default;
  CapturedStep(CapturedStep&& other) noexcept { *this = std::move(other); }
  CapturedStep& operator=(CapturedStep&& other) noexcept {
    std::swap(graph_, other.graph_);
    std::swap(executable_, other.executable_);
    std::swap(begin_, other.begin_);
    return *this;
  }
  ~CapturedStep() {  // what still runs goes on to its end
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
  }
  // Takes the graph.
  static absl::StatusOr<CapturedStep> Make(cudaGraph_t graph) {
    CapturedStep step;
    step.graph_ = graph;
    BATON_RETURN_IF_CUDA_ERROR(cudaGraphInstantiate(&step.executable_, graph, 0));
    size_t count = 1;
    BATON_RETURN_IF_CUDA_ERROR(cudaGraphGetRootNodes(graph, &step.begin_, &count));
    if (count != 1) return Internal("a step's graph begins with ", count, " nodes, expected one event");
    return step;
  }
  // Marks its beginning by `begin`: launches that have not run yet keep theirs.
  absl::Status Launch(cudaEvent_t begin, cudaStream_t stream) const {
    BATON_RETURN_IF_CUDA_ERROR(cudaGraphExecEventRecordNodeSetEvent(executable_, begin_, begin));
    return CudaStatus(cudaGraphLaunch(executable_, stream), "launching a graph of a step");
  }

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
  cudaGraphNode_t begin_ = nullptr;
};

}  // namespace baton::cuda
