// One step of a batch as the tables that the device kernels read. Pure: values in, values out.
//
// Rows are reordered: items of one token first (they go to decode attention), then the others (prefill attention, cut
// into tiles of 128 queries and grouped so that each group's keys fit into the scratch). A deterministic step has jobs
// of the one kernel that serves both instead.
//
// Threading: pure. Errors: none; the engine has checked the batch (engine/check_batch.h).
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/kernels.h"

namespace baton::cuda {

struct StepPlan {
  std::vector<RowInfo> rows;
  int32_t decode_rows = 0;  // the first ones

  // Decode attention, a sequence a decode row.
  std::vector<int32_t> length, table_offset, unit_prefix, block_table;

  // Prefill attention, group after group.
  struct Group {
    int32_t gather_begin = 0, gather_count = 0, query_begin = 0, query_count = 0;
  };
  std::vector<Group> groups;
  std::vector<GatherTile> gather_tiles;
  std::vector<QueryTile> query_tiles;

  // Deterministic attention, the longest first.
  std::vector<AttentionJob> jobs;

  // Sampling: one entry for each item that asks, in the order of items; then prompt log-probabilities.
  std::vector<int32_t> sample_rows;  // rows of the residual stream
  std::vector<SampleRow> samples;    // logits_row counts from 0
  std::vector<LogitChange> changes;
  std::vector<int32_t> scored_rows;
  std::vector<SampleRow> scored;  // logits_row is set by the caller, chunk by chunk
  int32_t first_result = 0;       // of samples and of each chunk of scored

  bool decode_only() const { return decode_rows == static_cast<int32_t>(rows.size()); }
};

struct StepPlanLimits {
  int32_t vocabulary = 0;
  int32_t scratch_tiles = 0;  // at least as many as the longest sequence has blocks
  bool invariant = false;     // jobs instead of decode sequences and query tiles
  int32_t parts = 0;          // sections of decode rows that other jobs may do
  int32_t job_rows = 1;       // MostJobRows
};

// Where results of sampling are, in memory that steps take turns on.
struct ResultPlaces {
  int32_t first = 0;                // of this step
  std::span<const int32_t> before;  // [items of the step before]: each one's sampled token
};

StepPlan BuildStepPlan(const Batch& batch, const StepPlanLimits& limits, std::span<const TokenId> end_tokens,
                       const ResultPlaces& places = {});

// Adds rows of padding until there are `rows` decode rows, each with a sample entry. For decode-only plans.
void PadDecodeRows(int32_t rows, StepPlan& plan);

}  // namespace baton::cuda
