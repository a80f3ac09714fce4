// The CUDA backend: operations become kernels on one stream.
//
// An operation is first written into the step's list. What a norm, attention or SwiGLU leaves behind depends on the
// layer that reads it (FP8 or BF16), so each runs when its successor is known. A step of decode rows only runs as a
// whole at its end: as a CUDA graph, when the same list was seen before for the same (padded) number of rows;
// everything that changes from step to step lies in StepTables.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/activations.h"
#include "backend/cuda/gemm.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/step_plan.h"
#include "backend/cuda/step_tables.h"
#include "backend/cuda/weights.h"
#include "device/cuda_device.h"

namespace baton {
namespace cuda {
namespace {

using Kind = CudaMemory::Kind;
constexpr float kLog2e = 1.44269504f;
constexpr int32_t kMaxGroup = 8;  // query heads of a KV head, see decode_attention.cu
constexpr std::array<int32_t, 11> kGraphRows = {1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 64};
// cuBLASLt is slower with fewer rows (24.5 ms a step with one, 21.4 with eight): products then take eight, some unused.
constexpr int64_t kFewestProductRows = 8;
constexpr std::array<int64_t, 7> kPrefillRows = {128, 256, 512, 1024, 2048, 3072, 4096};  // tuned at start

struct Operation {
  enum class Type : uint8_t { kEmbed, kNorm, kLinear, kRotate, kAttention, kSwiGlu, kLogits };
  Type type;
  bool add_delta = false;
  Slot input = Slot::kResidual;
  Slot output = Slot::kResidual;
  int32_t layer = 0;
  const CudaLinear* linear = nullptr;
  const CudaVector* vector = nullptr;
  bool operator==(const Operation&) const = default;

  // Whether what it leaves behind depends on the layer that reads it.
  bool NeedsSuccessor() const { return type == Type::kNorm || type == Type::kAttention || type == Type::kSwiGlu; }
};

struct StepGraph {
  std::vector<Operation> operations;
  int32_t generation = 0;
  int64_t seen = 0;
  cudaGraphExec_t executable = nullptr;
};

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options) : options_(options) {}
  ~CudaBackend() override;
  absl::Status Open();

  const BackendInfo& info() const override { return info_; }
  absl::StatusOr<std::unique_ptr<LinearWeight>> PrepareLinear(std::span<const LinearSource> sources) override;
  absl::StatusOr<std::unique_ptr<VectorWeight>> PrepareVector(const TensorView& source) override;
  absl::Status Start(const ModelShape& shape, const KvLayout& kv, int32_t num_blocks,
                     const StepLimits& limits) override;
  KvMemory kv_memory() override { return {.base = pool_.data(), .bytes = pool_.bytes(), .shareable_fd = -1}; }

  absl::Status BeginStep(const Batch& batch) override;
  absl::Status Embed(const LinearWeight& table) override {
    return Add({.type = Operation::Type::kEmbed, .linear = &AsLinear(table)});
  }
  absl::Status Norm(const VectorWeight& weight, bool add_delta) override {
    return Add({.type = Operation::Type::kNorm, .add_delta = add_delta, .vector = &AsVector(weight)});
  }
  absl::Status Linear(const LinearWeight& weight, Slot input, Slot output) override {
    return Add({.type = Operation::Type::kLinear, .input = input, .output = output, .linear = &AsLinear(weight)});
  }
  absl::Status RotateAndAppend(int32_t layer) override {
    return Add({.type = Operation::Type::kRotate, .layer = layer});
  }
  absl::Status Attention(int32_t layer) override { return Add({.type = Operation::Type::kAttention, .layer = layer}); }
  absl::Status SwiGlu() override { return Add({.type = Operation::Type::kSwiGlu}); }
  absl::Status AllReduce(Slot) override { return absl::OkStatus(); }  // one rank
  absl::Status Logits(const VectorWeight& norm, const LinearWeight& head) override {
    return Add({.type = Operation::Type::kLogits, .linear = &AsLinear(head), .vector = &AsVector(norm)});
  }
  absl::StatusOr<void*> RecordEvent() override;
  absl::StatusOr<StepOutput> EndStep() override;
  absl::Status CopyBlock(BlockId from, BlockId to) override;

 private:
  static const CudaLinear& AsLinear(const LinearWeight& weight) { return static_cast<const CudaLinear&>(weight); }
  static const CudaVector& AsVector(const VectorWeight& weight) { return static_cast<const CudaVector&>(weight); }
  cudaStream_t stream() const { return stream_.get(); }

  // ---- set-up ----
  absl::Status MakeUploader();
  absl::Status CheckShape(const ModelShape& shape, const KvLayout& kv) const;
  absl::Status MakeRotaryTable();
  absl::Status TuneLayers();
  absl::Status TuneLayer(const GemmShape& shape, const std::vector<const void*>& weights, int64_t rows);

  // ---- one step ----
  absl::Status Add(const Operation& operation);
  absl::Status Flush();  // runs everything whose successor is known
  absl::Status RunOperation(const Operation& operation, const Operation* next);
  absl::Status RunNorm(const Operation& operation, const Operation* next);
  absl::Status RunLinear(const Operation& operation);
  absl::Status RunRotate(const Operation& operation);
  absl::Status RunAttention(const Operation& operation, const Operation* next);
  absl::Status RunPrefillAttention(int32_t layer);
  absl::Status RunSwiGlu(const Operation* next);
  absl::Status RunHead(const Operation& operation, const int32_t* source_rows, int32_t rows);
  absl::Status RunLogits(const Operation& operation);
  absl::Status RunScores(const Operation& operation);
  absl::Status RunGraph();
  absl::Status Capture(StepGraph& graph);
  static bool ReadsFp8(const Operation* next) {
    return next != nullptr && next->linear != nullptr && next->linear->shape.fp8;
  }
  absl::Status CollectSample(const SampleResult& result, bool wants_logprobs, SampledToken& sampled) const;

  const CudaOptions options_;
  BackendInfo info_;
  CudaDeviceInfo device_;
  CudaStream stream_;
  std::unique_ptr<Gemm> gemm_;
  std::optional<Uploader> uploader_;                      // until Start
  std::map<GemmShape, std::vector<const void*>> layers_;  // weights by shape, for tuning

  ModelShape shape_;
  KvLayout kv_;
  StepLimits limits_;
  StepPlanLimits plan_limits_;
  CudaMemory pool_, rotary_, scratch_, attention_workspace_, sample_results_;
  int64_t attention_counters_at_ = 0;
  KvCacheView cache_;
  Activations activations_;
  StepTables tables_;
  std::vector<CudaEvent> events_;

  const Batch* batch_ = nullptr;
  std::chrono::steady_clock::time_point step_begin_;
  StepPlan plan_;
  int32_t real_rows_ = 0;
  bool deferred_ = false;  // the whole step waits for EndStep
  std::vector<Operation> operations_;
  size_t done_ = 0;  // of operations_
  size_t next_event_ = 0;
  RowScales qkv_scales_, delta_scales_, gate_up_scales_;
  std::vector<SampledToken> scores_;
  std::map<int32_t, StepGraph> graphs_;  // by decode rows
};

CudaBackend::~CudaBackend() {
  for (auto& [rows, graph] : graphs_) {
    if (graph.executable != nullptr) cudaGraphExecDestroy(graph.executable);
  }
}

absl::Status CudaBackend::Open() {
  BATON_ASSIGN_OR_RETURN(device_, SelectCudaDevice(options_.device));
  BATON_ASSIGN_OR_RETURN(stream_, CudaStream::Create());
  BATON_ASSIGN_OR_RETURN(gemm_, Gemm::Create(stream()));
  info_ = {.name = "cuda",
           .device = Cat(device_.name, ", ", device_.memory_bytes >> 30, " GiB"),
           .instruction_set = "sm_90a",
           .default_block_size = kBlockTokens,
           .default_kv_dtype = DType::kF8E4M3};
  return absl::OkStatus();
}

// ---- set-up ----

absl::StatusOr<std::unique_ptr<LinearWeight>> CudaBackend::PrepareLinear(std::span<const LinearSource> sources) {
  BATON_RETURN_IF_ERROR(MakeUploader());
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<CudaLinear> linear, UploadLinear(sources, *uploader_));
  layers_[linear->shape].push_back(linear->data.data());
  return linear;
}

absl::StatusOr<std::unique_ptr<VectorWeight>> CudaBackend::PrepareVector(const TensorView& source) {
  BATON_RETURN_IF_ERROR(MakeUploader());
  BATON_ASSIGN_OR_RETURN(std::unique_ptr<CudaVector> vector, UploadVector(source, *uploader_));
  return vector;
}

absl::Status CudaBackend::MakeUploader() {
  if (uploader_) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(uploader_, Uploader::Create(stream()));
  return absl::OkStatus();
}

absl::Status CudaBackend::CheckShape(const ModelShape& shape, const KvLayout& kv) const {
  if (shape.head_dim != 64 && shape.head_dim != 128) {
    return Unimplemented("the CUDA backend's attention has heads of 64 or 128 dimensions, the model's have ",
                         shape.head_dim);
  }
  if (shape.num_heads % shape.num_kv_heads != 0 || shape.num_heads / shape.num_kv_heads > kMaxGroup) {
    return Unimplemented("the CUDA backend's attention takes up to ", kMaxGroup, " query heads for a KV head, found ",
                         shape.num_heads, " for ", shape.num_kv_heads);
  }
  if (kv.block_size != kBlockTokens) {
    return InvalidArgument("the CUDA backend's KV blocks hold ", kBlockTokens, " tokens, asked for ", kv.block_size);
  }
  if (kv.dtype != DType::kF8E4M3 && kv.dtype != DType::kBF16) {
    return Unimplemented("the CUDA backend keeps K and V as F8_E4M3 or BF16, asked for ", TraitsOf(kv.dtype).name);
  }
  if (shape.hidden_size % 8 != 0 || shape.intermediate_size % 8 != 0) {
    return Unimplemented("the CUDA backend needs a hidden and an intermediate size that are multiples of 8, found ",
                         shape.hidden_size, " and ", shape.intermediate_size);
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::MakeRotaryTable() {
  const int64_t half = shape_.head_dim / 2;
  if (static_cast<int64_t>(shape_.rope_inverse_frequencies.size()) != half) {
    return InvalidArgument("expected ", half, " rotary frequencies, found ", shape_.rope_inverse_frequencies.size());
  }
  BATON_ASSIGN_OR_RETURN(CudaMemory frequencies, CudaMemory::Allocate(Kind::kDevice, half * 4, "rotary frequencies"));
  BATON_ASSIGN_OR_RETURN(rotary_, CudaMemory::Allocate(Kind::kDevice, shape_.max_position * half * 8, "rotary table"));
  BATON_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(frequencies.data(), shape_.rope_inverse_frequencies.data(), half * 4,
                                             cudaMemcpyHostToDevice, stream()));
  BATON_RETURN_IF_CUDA_ERROR(LaunchRotaryTable(rotary_.as<float2>(), frequencies.as<float>(), shape_.max_position,
                                               static_cast<int32_t>(half), stream()));
  return stream_.Synchronize();
}

absl::Status CudaBackend::Start(const ModelShape& shape, const KvLayout& kv, int32_t num_blocks,
                                const StepLimits& limits) {
  BATON_RETURN_IF_ERROR(CheckShape(shape, kv));
  BATON_RETURN_IF_ERROR(stream_.Synchronize());
  uploader_.reset();
  shape_ = shape;
  kv_ = kv;
  limits_ = limits;
  const int32_t max_blocks = kv.BlocksFor(shape.max_position);
  bool bf16_layers = false;
  for (const auto& [gemm, weights] : layers_) bf16_layers = bf16_layers || (!gemm.fp8 && gemm.n != shape.vocabulary);
  BATON_ASSIGN_OR_RETURN(activations_, Activations::Create(shape, limits, bf16_layers));
  BATON_ASSIGN_OR_RETURN(tables_,
                         StepTables::Create({.max_batch_tokens = std::max(limits.max_batch_tokens, kGraphRows.back()),
                                             .max_sequences = std::max(limits.max_sequences, kGraphRows.back()),
                                             .max_blocks = max_blocks,
                                             .max_score_rows = activations_.logit_rows}));
  // Room for the longest sequence and for a full step of short ones.
  plan_limits_.vocabulary = shape.vocabulary;
  plan_limits_.scratch_tiles =
      std::max(max_blocks, kv.BlocksFor(limits.max_batch_tokens) + std::min(limits.max_sequences, 64));
  const int64_t tile_bytes = int64_t{kv.num_kv_heads} * 2 * kBlockTokens * kv.head_dim * 2;
  BATON_ASSIGN_OR_RETURN(
      scratch_, CudaMemory::Allocate(Kind::kDevice, plan_limits_.scratch_tiles * tile_bytes, "prefill attention"));
  attention_counters_at_ = DecodeAttentionPartialBytes(device_.multiprocessors);
  const int64_t counters = int64_t{std::max(limits.max_sequences, kGraphRows.back())} * kv.num_kv_heads * 4;
  BATON_ASSIGN_OR_RETURN(attention_workspace_,
                         CudaMemory::Allocate(Kind::kDevice, attention_counters_at_ + counters, "decode attention"));
  BATON_RETURN_IF_CUDA_ERROR(cudaMemset(attention_workspace_.data(), 0, attention_workspace_.bytes()));
  const int64_t results = std::max(activations_.logit_rows, kGraphRows.back()) * int64_t{sizeof(SampleResult)};
  BATON_ASSIGN_OR_RETURN(sample_results_, CudaMemory::Allocate(Kind::kPinned, results, "sampled tokens"));
  BATON_RETURN_IF_ERROR(MakeRotaryTable());
  BATON_RETURN_IF_ERROR(TuneLayers());
  BATON_ASSIGN_OR_RETURN(pool_, CudaMemory::Allocate(Kind::kDevice, num_blocks * kv.block_bytes(), "the KV cache"));
  BATON_RETURN_IF_CUDA_ERROR(cudaMemset(pool_.data(), 0, static_cast<size_t>(pool_.bytes())));
  cache_ = {.base = pool_.data(),
            .kv_heads = kv.num_kv_heads,
            .layers = kv.num_layers,
            .head_dim = kv.head_dim,
            .fp8 = kv.dtype == DType::kF8E4M3};
  for (int32_t i = 0; i <= kv.num_layers; ++i) {
    BATON_ASSIGN_OR_RETURN(CudaEvent event, CudaEvent::Create(false));
    events_.push_back(std::move(event));
  }
  return stream_.Synchronize();
}

absl::Status CudaBackend::TuneLayer(const GemmShape& shape, const std::vector<const void*>& weights, int64_t rows) {
  const bool head = shape.fp32_output;
  const void* input = head ? activations_.head_input.data : activations_.activated.data;
  void* output = head ? static_cast<void*>(activations_.logits) : static_cast<void*>(activations_.gate_up);
  return gemm_->Tune(shape, rows, weights, input, output).status();
}

// Times the library's algorithms for the numbers of rows that steps have. The activated slot is the widest input and
// gate-up the widest output, so every layer's product fits between them.
absl::Status CudaBackend::TuneLayers() {
  const int64_t widest_input = std::max<int64_t>(shape_.intermediate_size, 1);
  BATON_RETURN_IF_CUDA_ERROR(
      LaunchFillFp8(activations_.activated.data, widest_input * limits_.max_batch_tokens, 1, 1.0f, stream()));
  BATON_RETURN_IF_CUDA_ERROR(LaunchFillBf16(reinterpret_cast<__nv_bfloat16*>(activations_.head_input.data),
                                            int64_t{activations_.logit_rows} * shape_.hidden_size, 2, 1.0f, stream()));
  for (const auto& [layer, weights] : layers_) {
    GemmShape shape = layer;
    const bool head = shape.n == shape_.vocabulary;
    shape.fp32_output = head;
    // Only products whose operands fit the two slots can be tried on them.
    if (!head && (shape.k > shape_.intermediate_size || shape.n > 2 * shape_.intermediate_size)) continue;
    const int64_t most = head ? activations_.logit_rows : limits_.max_batch_tokens;
    for (int32_t rows : kGraphRows) {
      if (rows >= kFewestProductRows && rows <= most) BATON_RETURN_IF_ERROR(TuneLayer(shape, weights, rows));
    }
    if (head) continue;
    for (int64_t rows : kPrefillRows) {
      if (rows <= most) BATON_RETURN_IF_ERROR(TuneLayer(shape, weights, rows));
    }
    BATON_RETURN_IF_ERROR(TuneLayer(shape, weights, most));
  }
  return stream_.Synchronize();
}

// ---- one step ----

absl::Status CudaBackend::BeginStep(const Batch& batch) {
  step_begin_ = std::chrono::steady_clock::now();
  batch_ = &batch;
  plan_ = BuildStepPlan(batch, plan_limits_, shape_.end_tokens);
  real_rows_ = static_cast<int32_t>(plan_.rows.size());
  operations_.clear();
  done_ = 0;
  next_event_ = 0;
  scores_.clear();
  delta_scales_ = {};
  deferred_ = options_.graphs && plan_.decode_only() && plan_.scored.empty() && real_rows_ <= kGraphRows.back() &&
              plan_.samples.size() == plan_.rows.size();
  if (deferred_) PadDecodeRows(*std::ranges::lower_bound(kGraphRows, real_rows_), plan_);
  return tables_.Upload(plan_, stream());
}

absl::Status CudaBackend::Add(const Operation& operation) {
  operations_.push_back(operation);
  return deferred_ ? absl::OkStatus() : Flush();
}

absl::Status CudaBackend::Flush() {
  for (; done_ < operations_.size(); ++done_) {
    const Operation* next = done_ + 1 < operations_.size() ? &operations_[done_ + 1] : nullptr;
    if (next == nullptr && operations_[done_].NeedsSuccessor()) return absl::OkStatus();
    BATON_RETURN_IF_ERROR(RunOperation(operations_[done_], next));
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::RunOperation(const Operation& operation, const Operation* next) {
  switch (operation.type) {
    case Operation::Type::kEmbed:
      return CudaStatus(LaunchEmbed({.table = operation.linear->data.as<__nv_bfloat16>(),
                                     .info = tables_.rows(),
                                     .residual = activations_.residual,
                                     .rows = static_cast<int32_t>(plan_.rows.size()),
                                     .width = shape_.hidden_size,
                                     .vocabulary = shape_.vocabulary},
                                    stream()),
                        "embedding");
    case Operation::Type::kNorm:
      return RunNorm(operation, next);
    case Operation::Type::kLinear:
      return RunLinear(operation);
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

absl::Status CudaBackend::RunNorm(const Operation& operation, const Operation* next) {
  return CudaStatus(LaunchRmsNorm({.residual = activations_.residual,
                                   .delta = operation.add_delta ? activations_.delta : nullptr,
                                   .delta_scales = delta_scales_,
                                   .weight = operation.vector->data.as<float>(),
                                   .source_rows = nullptr,
                                   .output = activations_.normed.Output(ReadsFp8(next)),
                                   .rows = static_cast<int32_t>(plan_.rows.size()),
                                   .width = shape_.hidden_size,
                                   .epsilon = shape_.rms_norm_epsilon,
                                   .write_residual = operation.add_delta},
                                  stream()),
                    "norm");
}

absl::Status CudaBackend::RunLinear(const Operation& operation) {
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
  const int64_t rows = std::max(static_cast<int64_t>(plan_.rows.size()), kFewestProductRows);
  if (options_.own_gemm && linear.shape.fp8 && HasSmallGemm(linear.shape.n, linear.shape.k, rows)) {
    return CudaStatus(LaunchSmallGemm({.weight = linear.data.data(),
                                       .input = input->data,
                                       .output = output,
                                       .n = static_cast<int32_t>(linear.shape.n),
                                       .k = static_cast<int32_t>(linear.shape.k),
                                       .m = static_cast<int32_t>(plan_.rows.size())},
                                      stream()),
                      "linear layer");
  }
  return gemm_->Run(linear.shape, linear.data.data(), input->data, rows, output);
}

absl::Status CudaBackend::RunRotate(const Operation& operation) {
  return CudaStatus(LaunchRopeAppend({.qkv = activations_.qkv,
                                      .scales = qkv_scales_,
                                      .rotary = rotary_.as<float2>(),
                                      .info = tables_.rows(),
                                      .cache = cache_,
                                      .rows = static_cast<int32_t>(plan_.rows.size()),
                                      .heads = shape_.num_heads,
                                      .layer = operation.layer,
                                      .query_scale = kLog2e / std::sqrt(static_cast<float>(shape_.head_dim)),
                                      .interleaved = shape_.rope_interleaved},
                                     stream()),
                    "rotary embedding");
}

absl::Status CudaBackend::RunPrefillAttention(int32_t layer) {
  for (const StepPlan::Group& group : plan_.groups) {
    BATON_RETURN_IF_CUDA_ERROR(LaunchGatherKv(cache_, tables_.gather_tiles() + group.gather_begin, group.gather_count,
                                              layer, scratch_.as<__half>(), stream()));
    BATON_RETURN_IF_CUDA_ERROR(
        LaunchPrefillAttention({.query = reinterpret_cast<const __half*>(activations_.qkv),
                                .scratch = scratch_.as<__half>(),
                                .tiles = tables_.query_tiles() + group.query_begin,
                                .output = activations_.attention,
                                .tile_count = group.query_count,
                                .heads = shape_.num_heads,
                                .kv_heads = shape_.num_kv_heads,
                                .head_dim = shape_.head_dim,
                                .query_stride = (shape_.num_heads + 2 * shape_.num_kv_heads) * shape_.head_dim,
                                .multiprocessors = device_.multiprocessors},
                               stream()));
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::RunAttention(const Operation& operation, const Operation* next) {
  if (plan_.decode_rows > 0) {
    BATON_RETURN_IF_CUDA_ERROR(LaunchDecodeAttention(
        {.query = reinterpret_cast<const __half*>(activations_.qkv),
         .cache = cache_,
         .block_table = tables_.block_table(),
         .table_offset = tables_.table_offset(),
         .length = tables_.length(),
         .unit_prefix = tables_.unit_prefix(),
         .output = activations_.attention,
         .partial = attention_workspace_.as<float>(),
         .counters = reinterpret_cast<uint32_t*>(attention_workspace_.data() + attention_counters_at_),
         .sequences = plan_.decode_rows,
         .heads = shape_.num_heads,
         .layer = operation.layer,
         .query_stride = (shape_.num_heads + 2 * shape_.num_kv_heads) * shape_.head_dim,
         .multiprocessors = device_.multiprocessors},
        stream()));
  }
  BATON_RETURN_IF_ERROR(RunPrefillAttention(operation.layer));
  return CudaStatus(LaunchQuantize({.input = activations_.attention,
                                    .output = activations_.attended.Output(ReadsFp8(next)),
                                    .rows = static_cast<int32_t>(plan_.rows.size()),
                                    .width = shape_.num_heads * shape_.head_dim},
                                   stream()),
                    "attention");
}

absl::Status CudaBackend::RunSwiGlu(const Operation* next) {
  return CudaStatus(LaunchSwiGlu({.gate_up = activations_.gate_up,
                                  .scales = gate_up_scales_,
                                  .output = activations_.activated.Output(ReadsFp8(next)),
                                  .rows = static_cast<int32_t>(plan_.rows.size()),
                                  .width = shape_.intermediate_size},
                                 stream()),
                    "SwiGLU");
}

// Norm and head of `rows` rows of the residual stream.
absl::Status CudaBackend::RunHead(const Operation& operation, const int32_t* source_rows, int32_t rows) {
  BATON_RETURN_IF_CUDA_ERROR(LaunchRmsNorm({.residual = activations_.residual,
                                            .delta = activations_.delta,
                                            .delta_scales = delta_scales_,
                                            .weight = operation.vector->data.as<float>(),
                                            .source_rows = source_rows,
                                            .output = activations_.head_input.Output(false),
                                            .rows = rows,
                                            .width = shape_.hidden_size,
                                            .epsilon = shape_.rms_norm_epsilon,
                                            .write_residual = false},
                                           stream()));
  GemmShape shape = operation.linear->shape;
  if (shape.fp8) return Unimplemented("the CUDA backend needs a head in BF16, F16 or F32, found F8_E4M3");
  shape.fp32_output = true;
  return gemm_->Run(shape, operation.linear->data.data(), activations_.head_input.data,
                    std::max<int64_t>(rows, kFewestProductRows), activations_.logits);
}

absl::Status CudaBackend::RunLogits(const Operation& operation) {
  BATON_RETURN_IF_ERROR(RunScores(operation));
  const int32_t count = static_cast<int32_t>(plan_.samples.size());
  if (count == 0) return absl::OkStatus();
  BATON_RETURN_IF_ERROR(RunHead(operation, tables_.sample_rows(), count));
  return CudaStatus(LaunchSample({.logits = activations_.logits,
                                  .rows = tables_.samples(),
                                  .changes = tables_.changes(),
                                  .results = sample_results_.as<SampleResult>(),
                                  .count = count,
                                  .vocabulary = shape_.vocabulary},
                                 stream()),
                    "sampling");
}

// Prompt log-probabilities, as many rows at once as logits have room for.
absl::Status CudaBackend::RunScores(const Operation& operation) {
  const int32_t total = static_cast<int32_t>(plan_.scored.size());
  for (int32_t at = 0; at < total; at += activations_.logit_rows) {
    const int32_t count = std::min(activations_.logit_rows, total - at);
    const std::span<SampleRow> rows = std::span(plan_.scored).subspan(at, count);
    for (int32_t i = 0; i < count; ++i) rows[i].logits_row = i;
    BATON_RETURN_IF_ERROR(tables_.UploadScores(std::span(plan_.scored_rows).subspan(at, count), rows, stream()));
    BATON_RETURN_IF_ERROR(RunHead(operation, tables_.score_rows(), count));
    BATON_RETURN_IF_CUDA_ERROR(LaunchSample({.logits = activations_.logits,
                                             .rows = tables_.score_samples(),
                                             .changes = tables_.changes(),
                                             .results = sample_results_.as<SampleResult>(),
                                             .count = count,
                                             .vocabulary = shape_.vocabulary},
                                            stream()));
    BATON_RETURN_IF_ERROR(stream_.Synchronize());
    for (int32_t i = 0; i < count; ++i) {
      SampledToken score;
      BATON_RETURN_IF_ERROR(CollectSample(sample_results_.as<SampleResult>()[i], true, score));
      scores_.push_back(std::move(score));
    }
  }
  return absl::OkStatus();
}

// An event asked for in the middle of a step means that somebody waits for its layers: no whole-step graph then.
absl::StatusOr<void*> CudaBackend::RecordEvent() {
  deferred_ = false;
  BATON_RETURN_IF_ERROR(Flush());
  cudaEvent_t event = events_[next_event_++ % events_.size()].get();
  BATON_RETURN_IF_CUDA_ERROR(cudaEventRecord(event, stream()));
  return static_cast<void*>(event);
}

absl::Status CudaBackend::Capture(StepGraph& graph) {
  cudaGraph_t captured = nullptr;
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal));
  const absl::Status status = Flush();
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamEndCapture(stream(), &captured));
  BATON_RETURN_IF_ERROR(status);
  if (graph.executable != nullptr) cudaGraphExecDestroy(std::exchange(graph.executable, nullptr));
  const cudaError_t error = cudaGraphInstantiate(&graph.executable, captured, 0);
  cudaGraphDestroy(captured);
  graph.generation = tables_.generation();
  return CudaStatus(error, "making a decode graph");
}

// The first step of a kind runs as it is (libraries load their kernels then), the second is captured.
absl::Status CudaBackend::RunGraph() {
  StepGraph& graph = graphs_[plan_.decode_rows];
  if (graph.operations != operations_) {
    graph.operations = operations_;
    graph.seen = 0;
  }
  if (graph.seen++ == 0) return Flush();
  if (graph.seen == 2 || graph.generation != tables_.generation()) BATON_RETURN_IF_ERROR(Capture(graph));
  BATON_RETURN_IF_CUDA_ERROR(cudaGraphLaunch(graph.executable, stream()));
  return absl::OkStatus();
}

absl::Status CudaBackend::CollectSample(const SampleResult& result, bool wants_logprobs, SampledToken& sampled) const {
  if (!result.finite) {
    return Internal("the model computed logits that are not finite numbers: its weights or its KV cache are damaged");
  }
  sampled.token = result.token;
  if (!wants_logprobs) return absl::OkStatus();
  sampled.logprob = result.logprob;
  for (int32_t i = 0; i < result.top_count; ++i) {
    sampled.top_logprobs.push_back({result.top_tokens[i], result.top_logprobs[i]});
  }
  return absl::OkStatus();
}

absl::StatusOr<StepOutput> CudaBackend::EndStep() {
  BATON_RETURN_IF_ERROR(deferred_ ? RunGraph() : Flush());
  BATON_RETURN_IF_ERROR(stream_.Synchronize());
  StepOutput output;
  size_t sample = 0;
  size_t score = 0;
  for (const BatchItem& item : batch_->items) {
    StepOutput::Item& out = output.items.emplace_back();
    if (item.sample) {
      BATON_RETURN_IF_ERROR(
          CollectSample(sample_results_.as<SampleResult>()[sample++], item.sampling->top_logprobs >= 0, out.sampled));
    }
    if (!item.prompt_logprobs) continue;
    const int32_t end = std::min(item.start + item.count, item.prompt_length - 1);
    for (int32_t position = item.start; position < end; ++position) {
      out.prompt_logprobs.push_back(std::move(scores_[score++]));
    }
  }
  batch_ = nullptr;
  output.duration_us =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - step_begin_).count();
  return output;
}

absl::Status CudaBackend::CopyBlock(BlockId from, BlockId to) {
  const int64_t bytes = kv_.block_bytes();
  if (from < 0 || to < 0 || (from + 1) * bytes > pool_.bytes() || (to + 1) * bytes > pool_.bytes()) {
    return InvalidArgument("copying block ", from, " to ", to, ": expected ids below ", pool_.bytes() / bytes);
  }
  if (from == to) return absl::OkStatus();
  return CudaStatus(cudaMemcpyAsync(pool_.data() + to * bytes, pool_.data() + from * bytes, static_cast<size_t>(bytes),
                                    cudaMemcpyDeviceToDevice, stream()),
                    "copying a KV block");
}

}  // namespace
}  // namespace cuda

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const CudaOptions& options) {
  auto backend = std::make_unique<cuda::CudaBackend>(options);
  BATON_RETURN_IF_ERROR(backend->Open());
  return backend;
}

}  // namespace baton
