// The CUDA backend: operations become kernels on one stream.
//
// An operation is first written into the step's list. What a norm, attention or SwiGLU leaves behind depends on the
// layer that reads it (FP8 or BF16), so each runs when its successor is known. A step of decode rows only runs as a
// whole at its end: as a CUDA graph, when the same list was seen before for the same (padded) number of rows;
// everything that changes from step to step lies in StepTables.
#include <algorithm>
#include <array>
#include <deque>
#include <iterator>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/captured_step.h"
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
  CapturedStep captured;
};

// What is needed of a step when it has ended.
struct StepInFlight {
  struct Item {
    int32_t result = -1;  // -1: samples nothing
    bool logprobs = false;
    int32_t scores = 0;  // prompt log-probabilities
  };
  int64_t number = 0;
  std::vector<Item> items;
  std::vector<SampledToken> scores;
  StepProfile profile{};
};

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options) : options_(options) {}
  absl::Status Open();

  const BackendInfo& info() const override { return info_; }
  absl::StatusOr<std::unique_ptr<LinearWeight>> PrepareLinear(std::span<const LinearSource> sources) override;
  absl::StatusOr<std::unique_ptr<VectorWeight>> PrepareVector(const TensorView& source) override;
  absl::Status Start(const ModelShape& shape, const KvLayout& kv, int32_t num_blocks,
                     const StepLimits& limits) override;
  KvMemory kv_memory() override { return {.base = executor_->pool().data(), .bytes = executor_->pool().bytes()}; }

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
  absl::Status EndStep() override;
  absl::StatusOr<StepOutput> CollectStep() override;
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
  absl::StatusOr<CapturedStep> Capture(bool profile);
  absl::Status RunProfiled();
  void NoteItems(const Batch& batch);
  absl::StatusOr<double> IdleTime(int64_t step) const;
  absl::Status CollectResults(StepInFlight& step, StepOutput& output) const;
  cudaEvent_t Begin(int64_t step) const { return step_begin_[step % step_begin_.size()].get(); }
  cudaEvent_t End(int64_t step) const { return step_end_[step % step_end_.size()].get(); }

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
  std::array<CudaEvent, 3> step_begin_, step_end_;  // of two steps in flight and the one before them
  int64_t steps_ = 0;                               // that were enqueued
  std::map<int32_t, StepGraph> graphs_;             // by decode rows
  std::deque<StepInFlight> in_flight_;

  // ---- of the step that is being enqueued ----
  StepPlan plan_;
  StepInFlight next_;
  bool profile_ = false;
  bool deferred_ = false;  // the whole step waits for EndStep
  std::vector<Operation> operations_;
  size_t done_ = 0;  // of operations_
  size_t next_event_ = 0;
};

absl::Status CudaBackend::Open() {
  BATON_ASSIGN_OR_RETURN(device_, SelectCudaDevice(options_.device));
  BATON_ASSIGN_OR_RETURN(stream_, CudaStream::Create());
  BATON_ASSIGN_OR_RETURN(gemm_, Gemm::Create(stream()));
  for (std::array<CudaEvent, 3>* events : {&step_begin_, &step_end_}) {
    for (CudaEvent& event : *events) {
      BATON_ASSIGN_OR_RETURN(event, CudaEvent::Create(true));
    }
  }
  info_ = {.name = "cuda",
           .device = Cat(device_.name, ", ", device_.memory_bytes >> 30, " GiB",
                         options_.deterministic ? ", deterministic" : ""),
           .instruction_set = options_.deterministic ? "sm_90a,deterministic" : "sm_90a",
           .default_block_size = kBlockTokens,
           .default_kv_dtype = DType::kF8E4M3,
           .steps_in_flight = 2,
           .weight_types = {std::begin(kCudaWeightTypes), std::end(kCudaWeightTypes)}};
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
                                                          .device = device_,
                                                          .observer = options_.observer},
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
  const int slot = static_cast<int>(steps_ % 2);
  std::vector<int32_t> before;
  if (!in_flight_.empty()) {
    for (const StepInFlight::Item& item : in_flight_.back().items) before.push_back(item.result);
  }
  plan_ = BuildStepPlan(batch, executor_->plan_limits(), shape_.end_tokens,
                        {.first = executor_->FirstResult(slot), .before = before});
  profile_ = batch.profile;
  NoteItems(batch);
  operations_.clear();
  done_ = 0;
  next_event_ = 0;
  const auto real_rows = static_cast<int32_t>(plan_.rows.size());
  const bool graph = options_.graphs && options_.observer == nullptr && plan_.decode_only() && plan_.scored.empty() &&
                     real_rows <= kGraphRows.back() && plan_.samples.size() == plan_.rows.size();
  if (graph) PadDecodeRows(*std::ranges::lower_bound(kGraphRows, real_rows), plan_);
  deferred_ = graph || batch.profile;
  BATON_RETURN_IF_ERROR(executor_->Begin(&plan_, slot));
  return deferred_ ? absl::OkStatus() : MarkBegin();
}

void CudaBackend::NoteItems(const Batch& batch) {
  next_ = {.number = steps_, .items = {}, .scores = {}};
  int32_t result = plan_.first_result;
  for (const BatchItem& item : batch.items) {
    StepInFlight::Item& noted = next_.items.emplace_back();
    if (item.sample) noted = {.result = result++, .logprobs = item.sampling->top_logprobs >= 0};
    if (!item.prompt_logprobs) continue;
    noted.scores = std::max(0, std::min(item.start + item.count, item.prompt_length - 1) - item.start);
  }
}

// Where the device begins to compute; inside of a capture it becomes the graph's first node.
absl::Status CudaBackend::MarkBegin(bool captured) {
  return CudaStatus(
      cudaEventRecordWithFlags(Begin(steps_), stream(), captured ? cudaEventRecordExternal : cudaEventRecordDefault),
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
absl::StatusOr<CapturedStep> CudaBackend::Capture(bool profile) {
  cudaGraph_t captured = nullptr;
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal));
  absl::Status status = MarkBegin(/*captured=*/true);
  if (status.ok() && profile) status = executor_->profiler().Start(stream());
  if (status.ok()) status = Flush();
  if (status.ok() && profile) status = executor_->profiler().Finish();
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamEndCapture(stream(), &captured));
  if (!status.ok()) {
    cudaGraphDestroy(captured);
    return status;
  }
  return CapturedStep::Make(captured);
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
    BATON_ASSIGN_OR_RETURN(graph.captured, Capture(/*profile=*/false));
    graph.generation = executor_->generation();
  }
  return graph.captured.Launch(Begin(steps_), stream());
}

// A graph of its own with an event at every change of family.
absl::Status CudaBackend::RunProfiled() {
  if (!plan_.scored.empty()) return InvalidArgument("a step with prompt log-probabilities cannot be profiled");
  BATON_ASSIGN_OR_RETURN(const CapturedStep captured, Capture(/*profile=*/true));
  BATON_RETURN_IF_ERROR(captured.Launch(Begin(steps_), stream()));
  BATON_RETURN_IF_ERROR(stream_.Synchronize());
  BATON_ASSIGN_OR_RETURN(next_.profile, executor_->profiler().Collect());
  return absl::OkStatus();
}

// Microseconds of the device between the end of the step before and the beginning of this one.
absl::StatusOr<double> CudaBackend::IdleTime(int64_t step) const {
  if (step == 0) return 0.0;
  float milliseconds = 0;
  BATON_RETURN_IF_CUDA_ERROR(cudaEventElapsedTime(&milliseconds, End(step - 1), Begin(step)));
  return 1e3 * milliseconds;
}

absl::Status CudaBackend::CollectResults(StepInFlight& step, StepOutput& output) const {
  auto score = step.scores.begin();
  for (const StepInFlight::Item& item : step.items) {
    StepOutput::Item& out = output.items.emplace_back();
    if (item.result >= 0) BATON_RETURN_IF_ERROR(executor_->CollectSample(item.result, item.logprobs, out.sampled));
    out.prompt_logprobs.assign(std::make_move_iterator(score), std::make_move_iterator(score + item.scores));
    score += item.scores;
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::EndStep() {
  BATON_RETURN_IF_ERROR(profile_ ? RunProfiled() : deferred_ ? RunGraph() : Flush());
  BATON_RETURN_IF_CUDA_ERROR(cudaEventRecord(End(steps_), stream()));
  next_.scores = executor_->TakeScores();
  in_flight_.push_back(std::move(next_));
  ++steps_;
  return absl::OkStatus();
}

absl::StatusOr<StepOutput> CudaBackend::CollectStep() {
  if (in_flight_.empty()) return FailedPrecondition("no step is in flight");
  StepInFlight step = std::move(in_flight_.front());
  in_flight_.pop_front();
  BATON_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(End(step.number)));
  StepOutput output{.items = {}, .profile = step.profile};
  BATON_ASSIGN_OR_RETURN(output.idle_us, IdleTime(step.number));
  BATON_RETURN_IF_ERROR(CollectResults(step, output));
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
