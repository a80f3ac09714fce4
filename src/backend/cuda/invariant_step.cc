// What StepExecutor does otherwise under --deterministic: products and attention.
#include <algorithm>

#include "backend/cuda/step_executor.h"
#include "backend/cuda/tuning.h"

namespace baton::cuda {

absl::Status StepExecutor::AllocateInvariantAttention() {
  const int32_t kv_heads = options_.kv.num_kv_heads;
  attention_counters_at_ = plan_limits_.parts * InvariantAttentionPartBytes(kv_heads);
  const int64_t counters = int64_t{std::max(options_.limits.max_sequences, kGraphRows.back())} * kv_heads * 4;
  BATON_ASSIGN_OR_RETURN(
      attention_workspace_,
      CudaMemory::Allocate(CudaMemory::Kind::kDevice, attention_counters_at_ + counters, "deterministic attention"));
  return CudaStatus(cudaMemset(attention_workspace_.data(), 0, attention_workspace_.bytes()), "attention's counters");
}

absl::Status StepExecutor::RunInvariantProduct(const GemmShape& shape, const void* weight, const void* input,
                                               int32_t rows, void* output) {
  return CudaStatus(LaunchInvariantGemm({.weight = weight,
                                         .input = input,
                                         .output = output,
                                         .n = static_cast<int32_t>(shape.n),
                                         .k = static_cast<int32_t>(shape.k),
                                         .m = rows,
                                         .fp8 = shape.fp8,
                                         .fp32_output = shape.fp32_output,
                                         .multiprocessors = options_.device.multiprocessors},
                                        stream_),
                    "linear layer");
}

absl::Status StepExecutor::RunInvariantAttention(int32_t layer) {
  return CudaStatus(LaunchInvariantAttention(
                        {.query = reinterpret_cast<const __half*>(activations_.qkv),
                         .cache = cache_,
                         .block_table = tables_.block_table(),
                         .jobs = tables_.jobs(),
                         .job_count = tables_.job_count(),
                         .output = activations_.attention,
                         .parts = attention_workspace_.as<float>(),
                         .counters = reinterpret_cast<uint32_t*>(attention_workspace_.data() + attention_counters_at_),
                         .heads = shape_.num_heads,
                         .layer = layer,
                         .query_stride = qkv_width(),
                         .multiprocessors = options_.device.multiprocessors},
                        stream_),
                    "attention");
}

}  // namespace baton::cuda
