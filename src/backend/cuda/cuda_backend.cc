// The CUDA backend: operations become kernels on one stream.
//
// An operation is first written into the step's list. What a norm, attention or SwiGLU leaves behind depends on the
// layer that reads it (FP8 or BF16), so each runs when its successor is known. A step of decode rows only runs as a
// whole at its end: as a CUDA graph, when the same list was seen before for the same (padded) number of rows;
// everything that changes from step to step lies in StepTables.
#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/gemm.h"
#include "backend/cuda/operation.h"
#include "backend/cuda/step_executor.h"
#include "backend/cuda/step_plan.h"
#include "backend/cuda/tuning.h"
#include "backend/cuda/weights.h"
#include "device/cuda_device.h"

namespace baton {
namespace cuda {
namespace {

constexpr int32_t kMaxGroup = 8;  // query heads of a KV head, see decode_attention.cu

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
  KvMemory kv_memory() override {
    return {.base = executor_->pool().data(), .bytes = executor_->pool().bytes(), .shareable_fd = -1};
  }

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

  absl::Status MakeUploader();
  absl::Status Add(const Operation& operation);
  absl::Status MarkBegin(bool captured = false);
  absl::Status Flush();  // runs everything whose successor is known
  absl::Status RunGraph();
  absl::Status Capture(bool profile, cudaGraphExec_t& executable);
  absl::Status RunProfiled();
  absl::StatusOr<double> IdleTime() const;
  absl::Status CollectResults(StepOutput& output);

  const CudaOptions options_;
  BackendInfo info_;
  CudaDeviceInfo device_;
  CudaStream stream_;
  std::unique_ptr<Gemm> gemm_;
  std::optional<Uploader> uploader_;  // until Start
  LayersByShape layers_;              // for tuning

  ModelShape shape_;
  KvLayout kv_;
  std::unique_ptr<StepExecutor> executor_;  // from Start on
  std::vector<CudaEvent> events_;
  std::array<CudaEvent, 2> step_end_;  // of this step and the one before
  CudaEvent step_begin_;
  int64_t steps_ = 0;
  std::map<int32_t, StepGraph> graphs_;  // by decode rows

  // ---- of the current step ----
  const Batch* batch_ = nullptr;
  std::chrono::steady_clock::time_point begin_;
  StepPlan plan_;
  bool deferred_ = false;  // the whole step waits for EndStep
  std::vector<Operation> operations_;
  size_t done_ = 0;  // of operations_
  size_t next_event_ = 0;
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
  BATON_ASSIGN_OR_RETURN(step_begin_, CudaEvent::Create(true));
  for (CudaEvent& event : step_end_) {
    BATON_ASSIGN_OR_RETURN(event, CudaEvent::Create(true));
  }
  info_ = {.name = "cuda",
           .device = Cat(device_.name, ", ", device_.memory_bytes >> 30, " GiB",
                         options_.deterministic ? ", deterministic" : ""),
           .instruction_set = options_.deterministic ? "sm_90a,deterministic" : "sm_90a",
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

absl::Status CheckShape(const ModelShape& shape, const KvLayout& kv) {
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
  if (shape.vocabulary > kMostVocabulary) {
    return Unimplemented("the CUDA backend samples from up to ", kMostVocabulary, " tokens, the model has ",
                         shape.vocabulary);
  }
  if (shape.hidden_size % 8 != 0 || shape.intermediate_size % 8 != 0) {
    return Unimplemented("the CUDA backend needs a hidden and an intermediate size that are multiples of 8, found ",
                         shape.hidden_size, " and ", shape.intermediate_size);
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::Start(const ModelShape& shape, const KvLayout& kv, int32_t num_blocks,
                                const StepLimits& limits) {
  BATON_RETURN_IF_ERROR(CheckShape(shape, kv));
  BATON_RETURN_IF_ERROR(stream_.Synchronize());
  uploader_.reset();
  shape_ = shape;
  kv_ = kv;
  std::vector<GemmShape> different;
  for (const auto& [layer, weights] : layers_) different.push_back(layer);
  BATON_ASSIGN_OR_RETURN(executor_, StepExecutor::Create({.shape = shape,
                                                          .kv = kv,
                                                          .limits = limits,
                                                          .own_gemm = options_.own_gemm,
                                                          .deterministic = options_.deterministic,
                                                          .layers = std::move(different),
                                                          .device = device_},
                                                         gemm_.get(), stream()));
  if (!options_.deterministic) {
    BATON_RETURN_IF_ERROR(
        TuneLayers(layers_, shape, limits, options_.own_gemm, executor_->activations(), *gemm_, stream()));
  }
  BATON_RETURN_IF_ERROR(executor_->AllocateCache(num_blocks));
  for (int32_t i = 0; i <= kv.num_layers; ++i) {
    BATON_ASSIGN_OR_RETURN(CudaEvent event, CudaEvent::Create(false));
    events_.push_back(std::move(event));
  }
  return stream_.Synchronize();
}

// ---- one step ----

absl::Status CudaBackend::BeginStep(const Batch& batch) {
  begin_ = std::chrono::steady_clock::now();
  batch_ = &batch;
  plan_ = BuildStepPlan(batch, executor_->plan_limits(), shape_.end_tokens);
  operations_.clear();
  done_ = 0;
  next_event_ = 0;
  const auto real_rows = static_cast<int32_t>(plan_.rows.size());
  const bool graph = options_.graphs && plan_.decode_only() && plan_.scored.empty() && real_rows <= kGraphRows.back() &&
                     plan_.samples.size() == plan_.rows.size();
  if (graph) PadDecodeRows(*std::ranges::lower_bound(kGraphRows, real_rows), plan_);
  deferred_ = graph || batch.profile;
  BATON_RETURN_IF_ERROR(executor_->Begin(&plan_));
  return deferred_ ? absl::OkStatus() : MarkBegin();
}

// Where the device begins to compute; inside of a capture it becomes the graph's first node.
absl::Status CudaBackend::MarkBegin(bool captured) {
  return CudaStatus(cudaEventRecordWithFlags(step_begin_.get(), stream(),
                                             captured ? cudaEventRecordExternal : cudaEventRecordDefault),
                    "marking a step");
}

absl::Status CudaBackend::Add(const Operation& operation) {
  operations_.push_back(operation);
  return deferred_ ? absl::OkStatus() : Flush();
}

absl::Status CudaBackend::Flush() {
  for (; done_ < operations_.size(); ++done_) {
    const Operation* next = done_ + 1 < operations_.size() ? &operations_[done_ + 1] : nullptr;
    if (next == nullptr && operations_[done_].NeedsSuccessor()) return absl::OkStatus();
    BATON_RETURN_IF_ERROR(executor_->Run(operations_[done_], next));
  }
  return absl::OkStatus();
}

// An event asked for in the middle of a step means that somebody waits for its layers: no whole-step graph then.
absl::StatusOr<void*> CudaBackend::RecordEvent() {
  if (deferred_) BATON_RETURN_IF_ERROR(MarkBegin());
  deferred_ = false;
  BATON_RETURN_IF_ERROR(Flush());
  cudaEvent_t event = events_[next_event_++ % events_.size()].get();
  BATON_RETURN_IF_CUDA_ERROR(cudaEventRecord(event, stream()));
  return static_cast<void*>(event);
}

// Captures the operations that are left, with the profiler's events among them when asked.
absl::Status CudaBackend::Capture(bool profile, cudaGraphExec_t& executable) {
  cudaGraph_t captured = nullptr;
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal));
  absl::Status status = MarkBegin(/*captured=*/true);
  if (status.ok() && profile) status = executor_->profiler().Start(stream());
  if (status.ok()) status = Flush();
  if (status.ok() && profile) status = executor_->profiler().Finish();
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamEndCapture(stream(), &captured));
  BATON_RETURN_IF_ERROR(status);
  const cudaError_t error = cudaGraphInstantiate(&executable, captured, 0);
  cudaGraphDestroy(captured);
  return CudaStatus(error, "making a graph of a step");
}

// The first step of a kind runs as it is (libraries load their kernels then), the second is captured.
absl::Status CudaBackend::RunGraph() {
  StepGraph& graph = graphs_[plan_.decode_rows];
  if (graph.operations != operations_) {
    graph.operations = operations_;
    graph.seen = 0;
  }
  if (graph.seen++ == 0) {
    BATON_RETURN_IF_ERROR(MarkBegin());
    return Flush();
  }
  if (graph.seen == 2 || graph.generation != executor_->generation()) {
    if (graph.executable != nullptr) cudaGraphExecDestroy(std::exchange(graph.executable, nullptr));
    BATON_RETURN_IF_ERROR(Capture(/*profile=*/false, graph.executable));
    graph.generation = executor_->generation();
  }
  return CudaStatus(cudaGraphLaunch(graph.executable, stream()), "launching a graph of a step");
}

// A graph of its own with an event at every change of family.
absl::Status CudaBackend::RunProfiled() {
  if (!plan_.scored.empty()) return InvalidArgument("a step with prompt log-probabilities cannot be profiled");
  cudaGraphExec_t executable = nullptr;
  BATON_RETURN_IF_ERROR(Capture(/*profile=*/true, executable));
  absl::Status status = CudaStatus(cudaGraphLaunch(executable, stream()), "launching a profiled step");
  if (status.ok()) status = stream_.Synchronize();
  cudaGraphExecDestroy(executable);
  return status;
}

// Microseconds of the device between the end of the step before and the beginning of this one.
absl::StatusOr<double> CudaBackend::IdleTime() const {
  if (steps_ == 0) return 0.0;
  float milliseconds = 0;
  BATON_RETURN_IF_CUDA_ERROR(cudaEventElapsedTime(&milliseconds, step_end_[(steps_ - 1) % 2].get(), step_begin_.get()));
  return 1e3 * milliseconds;
}

absl::Status CudaBackend::CollectResults(StepOutput& output) {
  int64_t sample = 0;
  size_t score = 0;
  for (const BatchItem& item : batch_->items) {
    StepOutput::Item& out = output.items.emplace_back();
    if (item.sample) {
      BATON_RETURN_IF_ERROR(executor_->CollectSample(sample++, item.sampling->top_logprobs >= 0, out.sampled));
    }
    if (!item.prompt_logprobs) continue;
    const int32_t end = std::min(item.start + item.count, item.prompt_length - 1);
    for (int32_t position = item.start; position < end; ++position) {
      out.prompt_logprobs.push_back(std::move(executor_->scores()[score++]));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<StepOutput> CudaBackend::EndStep() {
  BATON_RETURN_IF_ERROR(batch_->profile ? RunProfiled() : deferred_ ? RunGraph() : Flush());
  BATON_RETURN_IF_CUDA_ERROR(cudaEventRecord(step_end_[steps_ % 2].get(), stream()));
  BATON_RETURN_IF_ERROR(stream_.Synchronize());
  StepOutput output;
  BATON_ASSIGN_OR_RETURN(output.idle_us, IdleTime());
  ++steps_;
  BATON_RETURN_IF_ERROR(CollectResults(output));
  if (batch_->profile) {
    BATON_ASSIGN_OR_RETURN(output.profile, executor_->profiler().Collect());
  }
  batch_ = nullptr;
  const auto duration = std::chrono::steady_clock::now() - begin_;
  output.duration_us = std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
  return output;
}

absl::Status CudaBackend::CopyBlock(BlockId from, BlockId to) {
  const int64_t bytes = kv_.block_bytes();
  const CudaMemory& pool = executor_->pool();
  if (from < 0 || to < 0 || (from + 1) * bytes > pool.bytes() || (to + 1) * bytes > pool.bytes()) {
    return InvalidArgument("copying block ", from, " to ", to, ": expected ids below ", pool.bytes() / bytes);
  }
  if (from == to) return absl::OkStatus();
  return CudaStatus(cudaMemcpyAsync(pool.data() + to * bytes, pool.data() + from * bytes, static_cast<size_t>(bytes),
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
