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
  BATON_ASSIGN_OR_RETURN(tables.host_,
                         CudaMemory::Allocate(CudaMemory::Kind::kPinned, 2 * tables.used_, "step tables"));
  BATON_ASSIGN_OR_RETURN(tables.device_, CudaMemory::Allocate(CudaMemory::Kind::kDevice, tables.used_, "step tables"));
  BATON_RETURN_IF_ERROR(tables.ReserveChanges(kFirstChanges));
  return tables;
}

absl::Status StepTables::ReserveChanges(int64_t count) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(LogitChange));
  if (changes_.bytes() >= bytes) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(host_changes_, CudaMemory::Allocate(CudaMemory::Kind::kPinned, 4 * bytes, "logit changes"));
  BATON_ASSIGN_OR_RETURN(changes_, CudaMemory::Allocate(CudaMemory::Kind::kDevice, 2 * bytes, "logit changes"));
  ++generation_;
  return absl::OkStatus();
}

absl::Status StepTables::Copy(const Region& region, const void* data, int64_t bytes, cudaStream_t stream) {
  if (bytes == 0) return absl::OkStatus();
  if (bytes > region.bytes) return Internal("a step's table of ", bytes, " bytes does not fit into ", region.bytes);
  std::memcpy(Host(region), data, bytes);
  return CudaStatus(
      cudaMemcpyAsync(device_.data() + region.offset, Host(region), bytes, cudaMemcpyHostToDevice, stream),
      "uploading a step's tables");
}

// Regions are padded to whole pieces.
absl::Status StepTables::Stage(const Region& region, const void* data, int64_t bytes, LoadTablesArgs& args) {
  if (bytes == 0) return absl::OkStatus();
  if (bytes > region.bytes) return Internal("a step's table of ", bytes, " bytes does not fit into ", region.bytes);
  std::memcpy(Host(region), data, bytes);
  args.tables[args.table_count++] = {.from = reinterpret_cast<const uint4*>(Host(region)),
                                     .to = At<uint4>(region),
                                     .pieces = static_cast<int32_t>((bytes + 15) / 16)};
  return absl::OkStatus();
}

absl::Status StepTables::StageChanges(const StepPlan& plan, LoadTablesArgs& args, cudaStream_t stream) {
  if (plan.changes.empty()) return absl::OkStatus();
  if (static_cast<int64_t>(plan.changes.size() * sizeof(LogitChange)) > changes_.bytes()) {
    BATON_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));  // the step before may read the ones that go
    BATON_RETURN_IF_ERROR(ReserveChanges(static_cast<int64_t>(plan.changes.size())));
  }
  static_assert(sizeof(LogitChange) == 16);
  uint8_t* const host = host_changes_.data() + slot_ * changes_.bytes();
  std::memcpy(host, plan.changes.data(), Bytes(plan.changes));
  args.tables[args.table_count++] = {.from = reinterpret_cast<const uint4*>(host),
                                     .to = changes_.as<uint4>(),
                                     .pieces = static_cast<int32_t>(plan.changes.size())};
  return absl::OkStatus();
}

absl::Status StepTables::Upload(const StepPlan& plan, const SampleResult* results, int slot, cudaStream_t stream) {
  slot_ = slot;
  const auto job_count = static_cast<int32_t>(plan.jobs.size());
  LoadTablesArgs args{};
  BATON_RETURN_IF_ERROR(Stage(length_, plan.length.data(), Bytes(plan.length), args));
  BATON_RETURN_IF_ERROR(Stage(table_offset_, plan.table_offset.data(), Bytes(plan.table_offset), args));
  BATON_RETURN_IF_ERROR(Stage(unit_prefix_, plan.unit_prefix.data(), Bytes(plan.unit_prefix), args));
  BATON_RETURN_IF_ERROR(Stage(sample_rows_, plan.sample_rows.data(), Bytes(plan.sample_rows), args));
  BATON_RETURN_IF_ERROR(Stage(samples_, plan.samples.data(), Bytes(plan.samples), args));
  BATON_RETURN_IF_ERROR(Stage(block_table_, plan.block_table.data(), Bytes(plan.block_table), args));
  BATON_RETURN_IF_ERROR(Stage(gather_tiles_, plan.gather_tiles.data(), Bytes(plan.gather_tiles), args));
  BATON_RETURN_IF_ERROR(Stage(query_tiles_, plan.query_tiles.data(), Bytes(plan.query_tiles), args));
  BATON_RETURN_IF_ERROR(Stage(job_count_, &job_count, sizeof(job_count), args));
  BATON_RETURN_IF_ERROR(Stage(jobs_, plan.jobs.data(), Bytes(plan.jobs), args));
  BATON_RETURN_IF_ERROR(StageChanges(plan, args, stream));
  if (Bytes(plan.rows) > rows_.bytes) {
    return Internal("a step of ", plan.rows.size(), " rows: the backend was started for fewer");
  }
  std::memcpy(Host(rows_), plan.rows.data(), Bytes(plan.rows));
  args.host_rows = reinterpret_cast<const RowInfo*>(Host(rows_));
  args.rows = At<RowInfo>(rows_);
  args.row_count = static_cast<int32_t>(plan.rows.size());
  args.results = results;
  return CudaStatus(LaunchLoadTables(args, stream), "loading a step's tables");
}

absl::Status StepTables::UploadScores(std::span<const int32_t> rows, std::span<const SampleRow> samples,
                                      cudaStream_t stream) {
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));  // the tables of the chunk before are still read
  BATON_RETURN_IF_ERROR(Copy(score_rows_, rows.data(), static_cast<int64_t>(rows.size_bytes()), stream));
  return Copy(score_samples_, samples.data(), static_cast<int64_t>(samples.size_bytes()), stream);
}

}  // namespace baton::cuda
