#include "backend/cuda/step_executor.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "backend/cuda/step_observation.h"
#include "backend/cuda/tuning.h"

namespace baton::cuda {
namespace {

using Kind = CudaMemory::Kind;
constexpr float kLog2e = 1.44269504f;
constexpr int32_t kMostParts = 2048;  // of deterministic attention: 64 rows of 32 thousand tokens

// Where the input of the layer that comes next goes, as it reads it.
RowOutput OutputFor(const Operation* next, const Activations::Input& input) {
  if (next == nullptr || next->linear == nullptr) return input.Output(false);
  return input.Output(next->linear->shape.fp8, next->linear->input_scale);
}

// Of a layer, where the model says it; else 1.
float ScaleOf(const std::vector<float>& scales, int32_t layer) { return scales.empty() ? 1.0f : scales[layer]; }

}  // namespace

absl::StatusOr<std::unique_ptr<StepExecutor>> StepExecutor::Create(Options options, Gemm* gemm, cudaStream_t stream) {
  std::unique_ptr<StepExecutor> executor(new StepExecutor(std::move(options), gemm, stream));
  BATON_RETURN_IF_ERROR(executor->Allocate());
  BATON_RETURN_IF_ERROR(executor->MakeRotaryTable());
  return executor;
}

absl::Status StepExecutor::Allocate() {
  const KvLayout& kv = options_.kv;
  const StepLimits& limits = options_.limits;
  const int32_t sequences = std::max(limits.max_sequences, kGraphRows.back());
  const int32_t max_blocks = kv.BlocksFor(shape_.max_position);
  const bool bf16_layers = std::ranges::any_of(
      options_.layers, [&](const GemmShape& layer) { return !layer.fp8 && layer.n != shape_.vocabulary; });
  BATON_ASSIGN_OR_RETURN(activations_, Activations::Create(shape_, limits, bf16_layers));
  plan_limits_.vocabulary = shape_.vocabulary;
  plan_limits_.invariant = options_.deterministic;
  plan_limits_.job_rows = MostJobRows(shape_.num_heads / shape_.num_kv_heads);
  plan_limits_.parts = std::min(kMostParts, sequences * (shape_.max_position / kSectionTokens + 1));
  const int32_t jobs = limits.max_batch_tokens / plan_limits_.job_rows + sequences + plan_limits_.parts + 1;
  BATON_ASSIGN_OR_RETURN(tables_,
                         StepTables::Create({.max_batch_tokens = std::max(limits.max_batch_tokens, kGraphRows.back()),
                                             .max_sequences = sequences,
                                             .max_blocks = max_blocks,
                                             .max_score_rows = activations_.logit_rows,
                                             .max_jobs = options_.deterministic ? jobs : 0}));
  BATON_RETURN_IF_ERROR(options_.deterministic ? AllocateInvariantAttention() : AllocateAttention());
  results_each_ = std::max(activations_.logit_rows, kGraphRows.back());
  const int64_t results = 2 * results_each_ * int64_t{sizeof(SampleResult)};
  BATON_ASSIGN_OR_RETURN(sample_results_, CudaMemory::Allocate(Kind::kPinned, results, "sampled tokens"));
  return absl::OkStatus();
}

absl::Status StepExecutor::AllocateAttention() {
  const KvLayout& kv = options_.kv;
  const StepLimits& limits = options_.limits;
  // Room for the longest sequence and for a full step of short ones.
  plan_limits_.scratch_tiles = std::max(kv.BlocksFor(shape_.max_position),
                                        kv.BlocksFor(limits.max_batch_tokens) + std::min(limits.max_sequences, 64));
  const int64_t tile_bytes = int64_t{kv.num_kv_heads} * 2 * kBlockTokens * kv.head_dim * 2;
  BATON_ASSIGN_OR_RETURN(
      scratch_, CudaMemory::Allocate(Kind::kDevice, plan_limits_.scratch_tiles * tile_bytes, "prefill attention"));
  attention_counters_at_ = DecodeAttentionPartialBytes(options_.device.multiprocessors);
  const int64_t counters = int64_t{std::max(limits.max_sequences, kGraphRows.back())} * kv.num_kv_heads * 4;
  BATON_ASSIGN_OR_RETURN(attention_workspace_,
                         CudaMemory::Allocate(Kind::kDevice, attention_counters_at_ + counters, "decode attention"));
  return CudaStatus(cudaMemset(attention_workspace_.data(), 0, attention_workspace_.bytes()), "decode attention");
}

absl::Status StepExecutor::AllocateCache(int32_t num_blocks) {
  const KvLayout& kv = options_.kv;
  BATON_ASSIGN_OR_RETURN(pool_, CudaMemory::Allocate(Kind::kDevice, num_blocks * kv.block_bytes(), "the KV cache"));
  BATON_RETURN_IF_CUDA_ERROR(cudaMemset(pool_.data(), 0, static_cast<size_t>(pool_.bytes())));
  cache_ = {.base = pool_.data(),
            .kv_heads = kv.num_kv_heads,
            .layers = kv.num_layers,
            .head_dim = kv.head_dim,
            .fp8 = kv.dtype == DType::kF8E4M3};
  return CudaStatus(cudaDeviceSynchronize(), "clearing the KV cache");
}

absl::Status StepExecutor::MakeRotaryTable() {
  const int64_t half = shape_.head_dim / 2;
  if (static_cast<int64_t>(shape_.rope_inverse_frequencies.size()) != half) {
    return InvalidArgument("expected ", half, " rotary frequencies, found ", shape_.rope_inverse_frequencies.size());
  }
  BATON_ASSIGN_OR_RETURN(CudaMemory frequencies, CudaMemory::Allocate(Kind::kDevice, half * 4, "rotary frequencies"));
  BATON_ASSIGN_OR_RETURN(rotary_, CudaMemory::Allocate(Kind::kDevice, shape_.max_position * half * 8, "rotary table"));
  BATON_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(frequencies.data(), shape_.rope_inverse_frequencies.data(), half * 4,
                                             cudaMemcpyHostToDevice, stream_));
  BATON_RETURN_IF_CUDA_ERROR(LaunchRotaryTable(rotary_.as<float2>(), frequencies.as<float>(), shape_.max_position,
                                               static_cast<int32_t>(half), stream_));
  return CudaStatus(cudaStreamSynchronize(stream_), "making the rotary table");
}

// ---- one step ----

absl::Status StepExecutor::Begin(StepPlan* plan, int slot) {
  plan_ = plan;
  scores_.clear();
  delta_scales_ = {};
  halves_observed_ = 0;
  return tables_.Upload(*plan_, sample_results_.as<SampleResult>(), slot, stream_);
}

absl::Status StepExecutor::Run(const Operation& operation, const Operation* next) {
  switch (operation.type) {
    case Operation::Type::kEmbed:
      return RunEmbed(operation);
    case Operation::Type::kNorm:
      return RunNorm(operation, next);
    case Operation::Type::kLinear:
      BATON_RETURN_IF_ERROR(RunLinear(operation));
      return operation.output == Slot::kDelta ? ObserveHalfLayer() : absl::OkStatus();
    case Operation::Type::kRotate:
      return RunRotate(operation);
    case Operation::Type::kAttention:
      return RunAttention(operation, next);
    case Operation::Type::kSwiGlu:
      return RunSwiGlu(next);
    case Operation::Type::kLogits:
      return RunLogits(operation);
  }
  return Internal("unknown operation");
}

absl::Status StepExecutor::RunEmbed(const Operation& operation) {
  BATON_RETURN_IF_ERROR(profiler_.Mark(KernelFamily::kElementwise));
  return CudaStatus(LaunchEmbed({.table = operation.linear->data.as<__nv_bfloat16>(),
                                 .info = tables_.rows(),
                                 .residual = activations_.residual,
                                 .rows = rows(),
                                 .width = shape_.hidden_size,
                                 .vocabulary = shape_.vocabulary},
                                stream_),
                    "embedding");
}

absl::Status StepExecutor::RunNorm(const Operation& operation, const Operation* next) {
  BATON_RETURN_IF_ERROR(profiler_.Mark(KernelFamily::kElementwise));
  const RmsNormArgs args{.residual = activations_.residual,
                         .delta = operation.add_delta ? activations_.delta : nullptr,
                         .delta_scales = delta_scales_,
                         .weight = operation.vector->data.as<float>(),
                         .source_rows = nullptr,
                         .output = OutputFor(next, activations_.normed),
                         .rows = rows(),
                         .width = shape_.hidden_size,
                         .epsilon = shape_.rms_norm_epsilon,
                         .write_residual = operation.add_delta,
                         .invariant = options_.deterministic};
  return CudaStatus(LaunchRmsNorm(args, stream_), "norm");
}

absl::Status StepExecutor::RunLinear(const Operation& operation) {
  BATON_RETURN_IF_ERROR(profiler_.Mark(KernelFamily::kGemm));
  const CudaLinear& linear = *operation.linear;
  const Activations::Input* input = nullptr;
  if (operation.input == Slot::kNormed) input = &activations_.normed;
  if (operation.input == Slot::kAttention) input = &activations_.attended;
  if (operation.input == Slot::kActivated) input = &activations_.activated;
  if (input == nullptr) return Internal("no linear layer reads this slot");
  const RowScales scales = linear.Scales(input->scale);
  __nv_bfloat16* output = nullptr;
  if (operation.output == Slot::kQkv) {
    output = activations_.qkv;
    qkv_scales_ = scales;
  } else if (operation.output == Slot::kDelta) {
    output = activations_.delta;
    delta_scales_ = scales;
  } else if (operation.output == Slot::kGateUp) {
    output = activations_.gate_up;
    gate_up_scales_ = scales;
  } else {
    return Internal("no linear layer writes this slot");
  }
  if (options_.deterministic) return RunInvariantProduct(linear.shape, linear.data.data(), input->data, rows(), output);
  const int64_t product_rows = std::max(int64_t{rows()}, kFewestProductRows);
  if (options_.own_gemm && linear.shape.fp8 && HasSmallGemm(linear.shape.n, linear.shape.k, product_rows)) {
    return CudaStatus(LaunchSmallGemm({.weight = linear.data.data(),
                                       .input = input->data,
                                       .output = output,
                                       .n = static_cast<int32_t>(linear.shape.n),
                                       .k = static_cast<int32_t>(linear.shape.k),
                                       .m = rows()},
                                      stream_),
                      "linear layer");
  }
  return gemm_.Run(linear.shape, linear.data.data(), input->data, product_rows, output);
}

// Scores are sums over K: its scale goes into the query. Outputs are sums over V: its scale goes to RunAttention's end.
absl::Status StepExecutor::RunRotate(const Operation& operation) {
  BATON_RETURN_IF_ERROR(profiler_.Mark(KernelFamily::kElementwise));
  const float k_scale = cache_.fp8 ? ScaleOf(shape_.k_scales, operation.layer) : 1.0f;
  const float v_scale = cache_.fp8 ? ScaleOf(shape_.v_scales, operation.layer) : 1.0f;
  return CudaStatus(LaunchRopeAppend({.qkv = activations_.qkv,
                                      .scales = qkv_scales_,
                                      .rotary = rotary_.as<float2>(),
                                      .info = tables_.rows(),
                                      .cache = cache_,
                                      .rows = rows(),
                                      .heads = shape_.num_heads,
                                      .layer = operation.layer,
                                      .query_scale = kLog2e / std::sqrt(static_cast<float>(shape_.head_dim)) * k_scale,
                                      .interleaved = shape_.rope_interleaved,
                                      .invariant = options_.deterministic,
                                      .key_factor = 1.0f / k_scale,
                                      .value_factor = 1.0f / v_scale},
                                     stream_),
                    "rotary embedding");
}

absl::Status StepExecutor::RunPrefillAttention(int32_t layer) {
  for (const StepPlan::Group& group : plan_->groups) {
    BATON_RETURN_IF_CUDA_ERROR(LaunchGatherKv(cache_, tables_.gather_tiles() + group.gather_begin, group.gather_count,
                                              layer, scratch_.as<__half>(), stream_));
    BATON_RETURN_IF_CUDA_ERROR(LaunchPrefillAttention({.query = reinterpret_cast<const __half*>(activations_.qkv),
                                                       .scratch = scratch_.as<__half>(),
                                                       .tiles = tables_.query_tiles() + group.query_begin,
                                                       .output = activations_.attention,
                                                       .tile_count = group.query_count,
                                                       .heads = shape_.num_heads,
                                                       .kv_heads = shape_.num_kv_heads,
                                                       .head_dim = shape_.head_dim,
                                                       .query_stride = qkv_width(),
                                                       .multiprocessors = options_.device.multiprocessors},
                                                      stream_));
  }
  return absl::OkStatus();
}

absl::Status StepExecutor::RunDecodeAttention(int32_t layer) {
  if (plan_->decode_rows == 0) return absl::OkStatus();
  return CudaStatus(LaunchDecodeAttention(
                        {.query = reinterpret_cast<const __half*>(activations_.qkv),
                         .cache = cache_,
                         .block_table = tables_.block_table(),
                         .table_offset = tables_.table_offset(),
                         .length = tables_.length(),
                         .unit_prefix = tables_.unit_prefix(),
                         .output = activations_.attention,
                         .partial = attention_workspace_.as<float>(),
                         .counters = reinterpret_cast<uint32_t*>(attention_workspace_.data() + attention_counters_at_),
                         .sequences = plan_->decode_rows,
                         .heads = shape_.num_heads,
                         .layer = layer,
                         .query_stride = qkv_width(),
                         .multiprocessors = options_.device.multiprocessors},
                        stream_),
                    "decode attention");
}

absl::Status StepExecutor::RunAttention(const Operation& operation, const Operation* next) {
  BATON_RETURN_IF_ERROR(profiler_.Mark(KernelFamily::kAttention));
  if (options_.deterministic) {
    BATON_RETURN_IF_ERROR(RunInvariantAttention(operation.layer));
  } else {
    BATON_RETURN_IF_ERROR(RunDecodeAttention(operation.layer));
    BATON_RETURN_IF_ERROR(RunPrefillAttention(operation.layer));
  }
  BATON_RETURN_IF_ERROR(profiler_.Mark(KernelFamily::kElementwise));
  const QuantizeArgs args{.input = activations_.attention,
                          .output = OutputFor(next, activations_.attended),
                          .rows = rows(),
                          .width = shape_.num_heads * shape_.head_dim,
                          .invariant = options_.deterministic,
                          .factor = cache_.fp8 ? ScaleOf(shape_.v_scales, operation.layer) : 1.0f};
  return CudaStatus(LaunchQuantize(args, stream_), "attention");
}

absl::Status StepExecutor::RunSwiGlu(const Operation* next) {
  BATON_RETURN_IF_ERROR(profiler_.Mark(KernelFamily::kElementwise));
  const SwiGluArgs args{.gate_up = activations_.gate_up,
                        .scales = gate_up_scales_,
                        .output = OutputFor(next, activations_.activated),
                        .rows = rows(),
                        .width = shape_.intermediate_size,
                        .invariant = options_.deterministic};
  return CudaStatus(LaunchSwiGlu(args, stream_), "SwiGLU");
}

// Norm and head of `rows` rows of the residual stream.
absl::Status StepExecutor::RunHead(const Operation& operation, const int32_t* source_rows, int32_t rows) {
  BATON_RETURN_IF_ERROR(profiler_.Mark(KernelFamily::kElementwise));
  BATON_RETURN_IF_CUDA_ERROR(LaunchRmsNorm({.residual = activations_.residual,
                                            .delta = activations_.delta,
                                            .delta_scales = delta_scales_,
                                            .weight = operation.vector->data.as<float>(),
                                            .source_rows = source_rows,
                                            .output = activations_.head_input.Output(false),
                                            .rows = rows,
                                            .width = shape_.hidden_size,
                                            .epsilon = shape_.rms_norm_epsilon,
                                            .write_residual = false,
                                            .invariant = options_.deterministic},
                                           stream_));
  GemmShape shape = operation.linear->shape;
  if (shape.fp8) return Unimplemented("the CUDA backend needs a head in BF16, F16 or F32, found F8_E4M3");
  shape.fp32_output = true;
  BATON_RETURN_IF_ERROR(profiler_.Mark(KernelFamily::kGemm));
  if (options_.deterministic) {
    return RunInvariantProduct(shape, operation.linear->data.data(), activations_.head_input.data, rows,
                               activations_.logits);
  }
  return gemm_.Run(shape, operation.linear->data.data(), activations_.head_input.data,
                   std::max<int64_t>(rows, kFewestProductRows), activations_.logits);
}

absl::Status StepExecutor::RunLogits(const Operation& operation) {
  BATON_RETURN_IF_ERROR(RunScores(operation));
  const int32_t count = static_cast<int32_t>(plan_->samples.size());
  if (count == 0) return absl::OkStatus();
  BATON_RETURN_IF_ERROR(RunHead(operation, tables_.sample_rows(), count));
  BATON_RETURN_IF_ERROR(ObserveLogits(count));
  BATON_RETURN_IF_ERROR(profiler_.Mark(KernelFamily::kSampling));
  return CudaStatus(LaunchSample({.logits = activations_.logits,
                                  .rows = tables_.samples(),
                                  .changes = tables_.changes(),
                                  .results = sample_results_.as<SampleResult>(),
                                  .count = count,
                                  .vocabulary = shape_.vocabulary},
                                 stream_),
                    "sampling");
}

absl::Status StepExecutor::ObserveHalfLayer() {
  if (options_.observer == nullptr) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(const std::vector<float> hidden, ReadHiddenStates({.residual = activations_.residual,
                                                                            .delta = activations_.delta,
                                                                            .delta_scales = delta_scales_,
                                                                            .rows = rows(),
                                                                            .width = shape_.hidden_size},
                                                                           stream_));
  options_.observer->OnHalfLayer(halves_observed_++, hidden);
  return absl::OkStatus();
}

absl::Status StepExecutor::ObserveLogits(int32_t rows) {
  if (options_.observer == nullptr) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(const std::vector<float> logits,
                         CopyToHost(activations_.logits, int64_t{rows} * shape_.vocabulary, stream_));
  options_.observer->OnLogits(logits);
  return absl::OkStatus();
}

// Prompt log-probabilities, as many rows at once as logits have room for.
absl::Status StepExecutor::RunScores(const Operation& operation) {
  const int32_t total = static_cast<int32_t>(plan_->scored.size());
  for (int32_t at = 0; at < total; at += activations_.logit_rows) {
    const int32_t count = std::min(activations_.logit_rows, total - at);
    const std::span<SampleRow> rows = std::span(plan_->scored).subspan(at, count);
    for (int32_t i = 0; i < count; ++i) rows[i].logits_row = i;
    BATON_RETURN_IF_ERROR(tables_.UploadScores(std::span(plan_->scored_rows).subspan(at, count), rows, stream_));
    BATON_RETURN_IF_ERROR(RunHead(operation, tables_.score_rows(), count));
    BATON_RETURN_IF_CUDA_ERROR(LaunchSample({.logits = activations_.logits,
                                             .rows = tables_.score_samples(),
                                             .changes = tables_.changes(),
                                             .results = sample_results_.as<SampleResult>(),
                                             .count = count,
                                             .vocabulary = shape_.vocabulary},
                                            stream_));
    BATON_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream_), "scoring a prompt"));
    for (int32_t i = 0; i < count; ++i) {
      SampledToken score;
      BATON_RETURN_IF_ERROR(CollectSample(plan_->first_result + i, true, score));
      scores_.push_back(std::move(score));
    }
  }
  return absl::OkStatus();
}

absl::Status StepExecutor::CollectSample(int64_t i, bool wants_logprobs, SampledToken& sampled) const {
  const SampleResult& result = sample_results_.as<SampleResult>()[i];
  if (!result.finite) {
    return Internal("the model computed logits that are not finite numbers: its weights or its KV cache are damaged");
  }
  sampled.token = result.token;
  if (!wants_logprobs) return absl::OkStatus();
  sampled.logprob = result.logprob;
  for (int32_t top = 0; top < result.top_count; ++top) {
    sampled.top_logprobs.push_back({result.top_tokens[top], result.top_logprobs[top]});
  }
  return absl::OkStatus();
}

}  // namespace baton::cuda
