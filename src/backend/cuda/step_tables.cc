#include "backend/cuda/step_tables.h"

#include <algorithm>
#include <cstring>

namespace baton::cuda {
namespace {

constexpr int64_t kFirstChanges = 4096;

template <typename T>
int64_t Bytes(const std::vector<T>& values) {
  return static_cast<int64_t>(values.size() * sizeof(T));
}

}  // namespace

StepTables::Region StepTables::Reserve(int64_t bytes) {
  const Region region{used_, bytes};
  used_ = (used_ + bytes + 255) / 256 * 256;
  return region;
}

absl::StatusOr<StepTables> StepTables::Create(const Sizes& sizes) {
  StepTables tables;
  const int64_t sequences = sizes.max_sequences;
  const int64_t tokens = sizes.max_batch_tokens;
  tables.length_ = tables.Reserve(sequences * 4);
  tables.table_offset_ = tables.Reserve(sequences * 4);
  tables.unit_prefix_ = tables.Reserve((sequences + 1) * 4);
  tables.job_count_ = tables.Reserve(4);
  tables.sample_rows_ = tables.Reserve(sequences * 4);
  tables.samples_ = tables.Reserve(sequences * static_cast<int64_t>(sizeof(SampleRow)));
  tables.rows_ = tables.Reserve(tokens * static_cast<int64_t>(sizeof(RowInfo)));
  tables.block_table_ = tables.Reserve(sequences * sizes.max_blocks * 4);
  tables.gather_tiles_ = tables.Reserve(sequences * sizes.max_blocks * static_cast<int64_t>(sizeof(GatherTile)));
  tables.query_tiles_ = tables.Reserve((tokens / kQueryTile + sequences + 1) * static_cast<int64_t>(sizeof(QueryTile)));
  tables.jobs_ = tables.Reserve(sizes.max_jobs * static_cast<int64_t>(sizeof(AttentionJob)));
  tables.score_rows_ = tables.Reserve(sizes.max_score_rows * 4);
  tables.score_samples_ = tables.Reserve(sizes.max_score_rows * static_cast<int64_t>(sizeof(SampleRow)));
  BATON_ASSIGN_OR_RETURN(tables.host_, CudaMemory::Allocate(CudaMemory::Kind::kPinned, tables.used_, "step tables"));
  BATON_ASSIGN_OR_RETURN(tables.device_, CudaMemory::Allocate(CudaMemory::Kind::kDevice, tables.used_, "step tables"));
  BATON_RETURN_IF_ERROR(tables.ReserveChanges(kFirstChanges));
  return tables;
}

absl::Status StepTables::ReserveChanges(int64_t count) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(LogitChange));
  if (changes_.bytes() >= bytes) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(host_changes_, CudaMemory::Allocate(CudaMemory::Kind::kPinned, 2 * bytes, "logit changes"));
  BATON_ASSIGN_OR_RETURN(changes_, CudaMemory::Allocate(CudaMemory::Kind::kDevice, 2 * bytes, "logit changes"));
  ++generation_;
  return absl::OkStatus();
}

absl::Status StepTables::Copy(const Region& region, const void* data, int64_t bytes, cudaStream_t stream) {
  if (bytes == 0) return absl::OkStatus();
  if (bytes > region.bytes) return Internal("a step's table of ", bytes, " bytes does not fit into ", region.bytes);
  std::memcpy(host_.data() + region.offset, data, bytes);
  return CudaStatus(cudaMemcpyAsync(device_.data() + region.offset, host_.data() + region.offset, bytes,
                                    cudaMemcpyHostToDevice, stream),
                    "uploading a step's tables");
}

absl::Status StepTables::Upload(const StepPlan& plan, cudaStream_t stream) {
  const auto job_count = static_cast<int32_t>(plan.jobs.size());
  // The small tables lie side by side: filled one by one, copied together.
  const struct {
    const Region& region;
    const void* data;
    int64_t bytes;
  } small[] = {{length_, plan.length.data(), Bytes(plan.length)},
               {table_offset_, plan.table_offset.data(), Bytes(plan.table_offset)},
               {unit_prefix_, plan.unit_prefix.data(), Bytes(plan.unit_prefix)},
               {job_count_, &job_count, sizeof(job_count)},
               {sample_rows_, plan.sample_rows.data(), Bytes(plan.sample_rows)},
               {samples_, plan.samples.data(), Bytes(plan.samples)}};
  int64_t end = 0;
  for (const auto& table : small) {
    if (table.bytes > table.region.bytes) return Internal("more sequences in a step than the backend was started for");
    if (table.bytes > 0) std::memcpy(host_.data() + table.region.offset, table.data, table.bytes);
    end = table.region.offset + table.bytes;
  }
  BATON_RETURN_IF_CUDA_ERROR(
      cudaMemcpyAsync(device_.data(), host_.data(), static_cast<size_t>(end), cudaMemcpyHostToDevice, stream));
  BATON_RETURN_IF_ERROR(Copy(rows_, plan.rows.data(), Bytes(plan.rows), stream));
  BATON_RETURN_IF_ERROR(Copy(block_table_, plan.block_table.data(), Bytes(plan.block_table), stream));
  BATON_RETURN_IF_ERROR(Copy(gather_tiles_, plan.gather_tiles.data(), Bytes(plan.gather_tiles), stream));
  BATON_RETURN_IF_ERROR(Copy(query_tiles_, plan.query_tiles.data(), Bytes(plan.query_tiles), stream));
  BATON_RETURN_IF_ERROR(Copy(jobs_, plan.jobs.data(), Bytes(plan.jobs), stream));
  if (plan.changes.empty()) return absl::OkStatus();
  BATON_RETURN_IF_ERROR(ReserveChanges(static_cast<int64_t>(plan.changes.size())));
  std::memcpy(host_changes_.data(), plan.changes.data(), Bytes(plan.changes));
  return CudaStatus(
      cudaMemcpyAsync(changes_.data(), host_changes_.data(), Bytes(plan.changes), cudaMemcpyHostToDevice, stream),
      "uploading logit changes");
}

absl::Status StepTables::UploadScores(std::span<const int32_t> rows, std::span<const SampleRow> samples,
                                      cudaStream_t stream) {
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));  // the tables of the chunk before are still read
  BATON_RETURN_IF_ERROR(Copy(score_rows_, rows.data(), static_cast<int64_t>(rows.size_bytes()), stream));
  return Copy(score_samples_, samples.data(), static_cast<int64_t>(samples.size_bytes()), stream);
}

}  // namespace baton::cuda
