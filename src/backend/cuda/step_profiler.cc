#include "backend/cuda/step_profiler.h"

#include <algorithm>
#include <utility>

namespace baton::cuda {
namespace {

constexpr size_t kCalibration = 9;  // events in a row at the beginning: what an interval costs by itself

}  // namespace

absl::Status StepProfiler::Start(cudaStream_t stream) {
  stream_ = stream;
  used_ = 0;
  families_.clear();
  for (size_t i = 0; i < kCalibration; ++i) BATON_RETURN_IF_ERROR(Record());
  return absl::OkStatus();
}

absl::Status StepProfiler::Record() {
  if (used_ == events_.size()) {
    BATON_ASSIGN_OR_RETURN(CudaEvent event, CudaEvent::Create(true));
    events_.push_back(std::move(event));
  }
  return CudaStatus(cudaEventRecordWithFlags(events_[used_++].get(), stream_, cudaEventRecordExternal),
                    "profiling a step");
}

absl::Status StepProfiler::Mark(KernelFamily family) {
  if (stream_ == nullptr || (!families_.empty() && families_.back() == family)) return absl::OkStatus();
  families_.push_back(family);
  return Record();
}

absl::Status StepProfiler::Finish() {
  BATON_RETURN_IF_ERROR(Record());
  stream_ = nullptr;
  return absl::OkStatus();
}

absl::StatusOr<StepProfile> StepProfiler::Collect() const {
  std::vector<float> intervals;  // microseconds from each event to the next
  for (size_t i = 0; i + 1 < used_; ++i) {
    float milliseconds = 0;
    BATON_RETURN_IF_CUDA_ERROR(cudaEventElapsedTime(&milliseconds, events_[i].get(), events_[i + 1].get()));
    intervals.push_back(1000 * milliseconds);
  }
  std::vector<float> empty(intervals.begin(), intervals.begin() + kCalibration - 1);
  std::sort(empty.begin(), empty.end());
  StepProfile profile{};
  for (size_t i = 0; i < families_.size(); ++i) {
    profile[static_cast<size_t>(families_[i])] += std::max(intervals[kCalibration + i] - empty[empty.size() / 2], 0.0f);
  }
  return profile;
}

}  // namespace baton::cuda
