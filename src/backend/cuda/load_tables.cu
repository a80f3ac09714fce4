// Brings a step's tables from pinned host memory to where the step's kernels (or its CUDA graph) read them: one kernel
// in place of a copy for each table, each of which would hold up the stream for some microseconds. It also fills in the
// tokens that the step before has sampled.
#include <algorithm>

#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kCtas = 32;

// Host memory is read past all caches: the host has written it since it was read last.
__global__ void __launch_bounds__(kThreads) load_tables_kernel(const LoadTablesArgs args) {
  const int first = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const int stride = static_cast<int>(gridDim.x) * kThreads;
  for (int i = first; i < args.row_count; i += stride) {
    RowInfo row;
    row.token = __ldcv(&args.host_rows[i].token);
    row.position = __ldcv(&args.host_rows[i].position);
    row.block = __ldcv(&args.host_rows[i].block);
    if (row.token < 0) row.token = __ldcv(&args.results[ResultOfToken(row.token)].token);
    args.rows[i] = row;
  }
  for (int table = 0; table < args.table_count; ++table) {
    const TableCopy& copy = args.tables[table];
    for (int i = first; i < copy.pieces; i += stride) copy.to[i] = __ldcv(copy.from + i);
  }
}

}  // namespace

cudaError_t LaunchLoadTables(const LoadTablesArgs& args, cudaStream_t stream) {
  int most = args.row_count;
  for (int table = 0; table < args.table_count; ++table) most = std::max(most, args.tables[table].pieces);
  const int ctas = std::clamp((most + kThreads - 1) / kThreads, 1, kCtas);
  load_tables_kernel<<<ctas, kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace baton::cuda
