// Turns the operations of a step into kernels on one stream, over the activations, tables and KV cache that it owns.
//
// Threading: one thread. Ownership: holds everything but weights; the caller keeps the stream, the GEMM engine and the
// step's plan. Errors: Internal for device errors; ResourceExhausted when memory does not suffice at creation.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/activations.h"
#include "backend/cuda/gemm.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/operation.h"
#include "backend/cuda/step_plan.h"
#include "backend/cuda/step_profiler.h"
#include "backend/cuda/step_tables.h"
#include "device/cuda_device.h"

namespace baton::cuda {

class StepExecutor {
 public:
  struct Options {
    ModelShape shape;
    KvLayout kv;
    StepLimits limits;
    bool own_gemm = true;
    bool deterministic = false;
    std::vector<GemmShape> layers;  // the different ones
    CudaDeviceInfo device;
    StepObserver* observer = nullptr;
  };
  static absl::StatusOr<std::unique_ptr<StepExecutor>> Create(Options options, Gemm* gemm, cudaStream_t stream);
  // Before the first step; separate, so that tuning may use the memory first.
  absl::Status AllocateCache(int32_t num_blocks);

  const Activations& activations() const { return activations_; }
  StepPlanLimits plan_limits() const { return plan_limits_; }
  const CudaMemory& pool() const { return pool_; }
  // Grows when addresses changed: graphs captured before are void.
  int32_t generation() const { return tables_.generation(); }
  StepProfiler& profiler() { return profiler_; }

  // Results of steps that take turns on `slot` 0 and 1 begin here.
  int32_t FirstResult(int slot) const { return slot * results_each_; }
  // Uploads the tables of `plan`, which Run refers to until the next Begin. The step before may still run, if it has
  // the other slot.
  absl::Status Begin(StepPlan* plan, int slot);
  // Enqueues an operation; `next` is the one after it, if there is one.
  absl::Status Run(const Operation& operation, const Operation* next);
  // When the step has ended: what its row left as result `i` (see ResultPlaces).
  absl::Status CollectSample(int64_t i, bool wants_logprobs, SampledToken& sampled) const;
  // When the step was enqueued: its prompt log-probabilities in order.
  std::vector<SampledToken> TakeScores() { return std::move(scores_); }

 private:
  StepExecutor(Options options, Gemm* gemm, cudaStream_t stream)
      : options_(std::move(options)), shape_(options_.shape), gemm_(*gemm), stream_(stream) {}
  absl::Status Allocate();
  absl::Status AllocateAttention();
  absl::Status AllocateInvariantAttention();
  absl::Status MakeRotaryTable();

  absl::Status RunEmbed(const Operation& operation);
  absl::Status RunNorm(const Operation& operation, const Operation* next);
  absl::Status RunLinear(const Operation& operation);
  absl::Status RunRotate(const Operation& operation);
  absl::Status RunAttention(const Operation& operation, const Operation* next);
  absl::Status RunDecodeAttention(int32_t layer);
  absl::Status RunPrefillAttention(int32_t layer);
  absl::Status RunInvariantAttention(int32_t layer);
  absl::Status RunInvariantProduct(const GemmShape& shape, const void* weight, const void* input, int32_t rows,
                                   void* output);
  absl::Status RunSwiGlu(const Operation* next);
  absl::Status RunHead(const Operation& operation, const int32_t* source_rows, int32_t rows);
  absl::Status RunLogits(const Operation& operation);
  absl::Status RunScores(const Operation& operation);
  absl::Status ObserveHalfLayer();
  absl::Status ObserveLogits(int32_t rows);
  int32_t rows() const { return static_cast<int32_t>(plan_->rows.size()); }
  int32_t qkv_width() const { return (shape_.num_heads + 2 * shape_.num_kv_heads) * shape_.head_dim; }

  const Options options_;
  const ModelShape& shape_;
  Gemm& gemm_;
  cudaStream_t stream_;
  StepPlanLimits plan_limits_;
  CudaMemory pool_, rotary_, scratch_, attention_workspace_, sample_results_;
  int64_t attention_counters_at_ = 0;
  int32_t results_each_ = 0;  // of a slot
  KvCacheView cache_;
  Activations activations_;
  StepTables tables_;
  StepProfiler profiler_;

  StepPlan* plan_ = nullptr;
  RowScales qkv_scales_, delta_scales_, gate_up_scales_;
  std::vector<SampledToken> scores_;
  int32_t halves_observed_ = 0;
};

}  // namespace baton::cuda
