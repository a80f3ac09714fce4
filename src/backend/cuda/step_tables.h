// A StepPlan's tables on the device, at addresses that stay: a CUDA graph keeps reading the same ones. Steps take turns
// on two slots of host memory, so that one step's tables may be written while the step before waits for its own.
//
// Threading: one thread; Upload may only be called when the step before the previous one has ended. Ownership: holds
// all of its memory. Errors: ResourceExhausted. Limits: a step with more logit changes than ever before moves the
// tables; see `generation`.
#pragma once

#include <cstdint>

#include "backend/cuda/kernels.h"
#include "backend/cuda/step_plan.h"
#include "device/cuda_device.h"

namespace baton::cuda {

class StepTables {
 public:
  struct Sizes {
    int32_t max_batch_tokens = 0;
    int32_t max_sequences = 0;
    int32_t max_blocks = 0;      // of one sequence
    int32_t max_score_rows = 0;  // prompt log-probabilities computed at once
    int32_t max_jobs = 0;        // of deterministic attention
  };
  static absl::StatusOr<StepTables> Create(const Sizes& sizes);

  // `results`: where the step before leaves what it samples; `slot`: 0 or 1.
  absl::Status Upload(const StepPlan& plan, const SampleResult* results, int slot, cudaStream_t stream);
  // Rows and samples of one chunk of prompt log-probabilities; waits for the stream first.
  absl::Status UploadScores(std::span<const int32_t> rows, std::span<const SampleRow> samples, cudaStream_t stream);

  // Grows when addresses changed: graphs made before are void.
  int32_t generation() const { return generation_; }

  const RowInfo* rows() const { return At<RowInfo>(rows_); }
  const int32_t* length() const { return At<int32_t>(length_); }
  const int32_t* table_offset() const { return At<int32_t>(table_offset_); }
  const int32_t* unit_prefix() const { return At<int32_t>(unit_prefix_); }
  const int32_t* block_table() const { return At<int32_t>(block_table_); }
  const int32_t* sample_rows() const { return At<int32_t>(sample_rows_); }
  const SampleRow* samples() const { return At<SampleRow>(samples_); }
  const GatherTile* gather_tiles() const { return At<GatherTile>(gather_tiles_); }
  const QueryTile* query_tiles() const { return At<QueryTile>(query_tiles_); }
  const AttentionJob* jobs() const { return At<AttentionJob>(jobs_); }
  const int32_t* job_count() const { return At<int32_t>(job_count_); }
  const int32_t* score_rows() const { return At<int32_t>(score_rows_); }
  const SampleRow* score_samples() const { return At<SampleRow>(score_samples_); }
  LogitChange* changes() const { return changes_.as<LogitChange>(); }

 private:
  struct Region {
    int64_t offset = 0;
    int64_t bytes = 0;
  };
  template <typename T>
  T* At(const Region& region) const {
    return reinterpret_cast<T*>(device_.data() + region.offset);
  }
  Region Reserve(int64_t bytes);
  absl::Status Stage(const Region& region, const void* data, int64_t bytes, LoadTablesArgs& args);
  absl::Status StageChanges(const StepPlan& plan, LoadTablesArgs& args, cudaStream_t stream);
  absl::Status Copy(const Region& region, const void* data, int64_t bytes, cudaStream_t stream);
  absl::Status ReserveChanges(int64_t count);
  uint8_t* Host(const Region& region) const { return host_.data() + slot_ * used_ + region.offset; }

  int64_t used_ = 0;  // bytes of a slot
  int slot_ = 0;
  int32_t generation_ = 0;
  CudaMemory host_, device_;
  CudaMemory host_changes_, changes_;
  Region length_, table_offset_, unit_prefix_, job_count_, sample_rows_, samples_;
  Region rows_, block_table_, gather_tiles_, query_tiles_, jobs_, score_rows_, score_samples_;
};

}  // namespace baton::cuda
