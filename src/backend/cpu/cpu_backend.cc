// The Backend on the CPU: synchronous, each operation spread over the threads of one pool. How work is divided never
// changes an element's order of operations, so results do not depend on the batch, the chunk or the threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/arena.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/check_shape.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/multiplier.h"
#include "backend/cpu/operation_timer.h"
#include "backend/cpu/packed_weight.h"
#include "backend/cpu/step_plan.h"
#include "backend/cpu/thread_pool.h"
#include "backend/sampler.h"
#include "device/host_memory.h"

namespace baton {
namespace cpu {
namespace {

constexpr int kNumSlots = 8;
constexpr int kScoreRows = 16;  // prompt positions whose logits exist at one time
constexpr int kDefaultBlockSize = 32;

struct CpuVector : VectorWeight {
  std::vector<float> values;
};

struct Activation {
  float* data = nullptr;
  int64_t width = 0;
  int64_t stride = 0;  // floats from a row to the next
  float* Row(int64_t row) const { return data + row * stride; }
};

class CpuBackend : public Backend {
 public:
  CpuBackend(const Kernels& kernels, int threads, std::function<int()> threads_now)
      : kernels_(kernels),
        pool_(threads, std::move(threads_now)),
        multiplier_(kernels, pool_),
        attention_(kernels, pool_) {
    info_.name = "cpu";
    info_.instruction_set = kernels.name;
    info_.device = Cat(threads, threads == 1 ? " thread, " : " threads, ", kernels.name);
    info_.default_block_size = kDefaultBlockSize;
    info_.default_kv_dtype = DType::kF16;
    info_.weight_types = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
                          DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};
    sampler_scratch_.resize(threads);
  }

  const BackendInfo& info() const override { return info_; }
  absl::StatusOr<std::unique_ptr<LinearWeight>> PrepareLinear(std::span<const LinearSource> sources) override;
  absl::StatusOr<std::unique_ptr<VectorWeight>> PrepareVector(const TensorView& source) override;
  absl::Status Start(const ModelShape& shape, const KvLayout& kv, int32_t num_blocks,
                     const StepLimits& limits) override;
  KvMemory kv_memory() override { return {kv_memory_.data(), kv_memory_.bytes(), kv_memory_.fd()}; }

  absl::Status BeginStep(const Batch& batch) override;
  absl::Status Embed(const LinearWeight& table) override;
  absl::Status Norm(const VectorWeight& weight, bool add_delta) override;
  absl::Status Linear(const LinearWeight& weight, Slot input, Slot output) override;
  absl::Status RotateAndAppend(int32_t layer) override;
  absl::Status Attention(int32_t layer) override;
  absl::Status SwiGlu() override;
  absl::Status AllReduce(Slot) override { return absl::OkStatus(); }  // one rank
  absl::Status Logits(const VectorWeight& norm, const LinearWeight& head) override;
  absl::StatusOr<void*> RecordEvent() override { return nullptr; }
  absl::Status EndStep() override;
  absl::StatusOr<StepOutput> CollectStep() override { return std::move(output_); }
  absl::Status CopyBlock(BlockId from, BlockId to) override;

 private:
  Activation& At(Slot slot) { return slots_[static_cast<int>(slot)]; }
  void ComputeAngles();
  uint8_t* Plane(int32_t kv_head, int32_t layer, int32_t v) {
    return kv_memory_.data() + kv_.PlaneOffset(kv_head, layer, v);
  }
  void AppendRow(int32_t layer, int64_t row);
  void HeadRows(const VectorWeight& norm, const LinearWeight& head, std::span<const int32_t> rows);
  absl::Status ScoreRows(std::span<const StepPlan::ScoredRow> scored);
  // One call for each of [0, rows), spread over the threads when there are many.
  template <typename Function>
  void ForRows(int64_t rows, int64_t rows_inline, Function function);

  const Kernels& kernels_;
  BackendInfo info_;
  ThreadPool pool_;
  Multiplier multiplier_;
  cpu::Attention attention_;
  Arena arena_;
  ModelShape shape_;
  KvLayout kv_;
  int32_t num_blocks_ = 0;
  StepLimits limits_;
  HostMemory kv_memory_;
  Activation slots_[kNumSlots];
  std::vector<SamplerScratch> sampler_scratch_;  // [threads]

  // ---- of the current step ----
  const Batch* batch_ = nullptr;
  int64_t tokens_ = 0;
  StepPlan plan_;
  std::vector<float> cosines_;  // [tokens][head_dim / 2]
  std::vector<float> sines_;
  std::vector<float> head_input_;  // [rows][hidden]
  StepOutput output_;
  StepProfile profile_{};
};

absl::StatusOr<std::unique_ptr<LinearWeight>> CpuBackend::PrepareLinear(std::span<const LinearSource> sources) {
  return PackedWeight::Pack(sources, arena_, pool_);
}

absl::StatusOr<std::unique_ptr<VectorWeight>> CpuBackend::PrepareVector(const TensorView& source) {
  auto vector = std::make_unique<CpuVector>();
  BATON_ASSIGN_OR_RETURN(vector->values, ReadVector(source));
  return vector;
}

absl::Status CpuBackend::Start(const ModelShape& shape, const KvLayout& kv, int32_t num_blocks,
                               const StepLimits& limits) {
  BATON_RETURN_IF_ERROR(CheckShape(shape, kv, num_blocks));
  shape_ = shape;
  kv_ = kv;
  num_blocks_ = num_blocks;
  limits_ = limits;
  BATON_ASSIGN_OR_RETURN(kv_memory_, HostMemory::Create("baton-kv", num_blocks * kv.block_bytes()));
  const int64_t attention = int64_t{shape.num_heads} * shape.head_dim;
  const int64_t widths[kNumSlots] = {shape.hidden_size,
                                     shape.hidden_size,
                                     attention + 2 * int64_t{shape.num_kv_heads} * shape.head_dim,
                                     attention,
                                     shape.hidden_size,
                                     2 * int64_t{shape.intermediate_size},
                                     shape.intermediate_size,
                                     shape.vocabulary};
  for (int slot = 0; slot < kNumSlots; ++slot) {
    const int64_t stride = ((widths[slot] + 15) / 16 | 1) * 16;  // an odd number of cache lines: a column of a
                                                                 // panel's outputs then spreads over all cache sets
    const int64_t rows = slot == static_cast<int>(Slot::kLogits) ? std::max<int64_t>(limits.max_sequences, kScoreRows)
                                                                 : limits.max_batch_tokens;
    BATON_ASSIGN_OR_RETURN(uint8_t * data, arena_.Allocate(rows * stride * static_cast<int64_t>(sizeof(float))));
    slots_[slot] = {reinterpret_cast<float*>(data), widths[slot], stride};
  }
  return attention_.Start(shape, kv, arena_);
}

template <typename Function>
void CpuBackend::ForRows(int64_t rows, int64_t rows_inline, Function function) {
  if (rows <= rows_inline) {
    for (int64_t row = 0; row < rows; ++row) function(row, 0);
    return;
  }
  const int64_t together = std::max<int64_t>(1, rows / (pool_.threads() * 8));
  pool_.ParallelFor((rows + together - 1) / together, [&](int64_t unit, int thread) {
    for (int64_t row = unit * together; row < std::min(rows, (unit + 1) * together); ++row) function(row, thread);
  });
}

// ---- a step ----

void CpuBackend::ComputeAngles() {
  const int64_t half = shape_.head_dim / 2;
  cosines_.resize(tokens_ * half);
  sines_.resize(tokens_ * half);
  ForRows(tokens_, 1, [&](int64_t row, int) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = double{shape_.rope_inverse_frequencies[i]} * plan_.position_of_row[row];
      cosines_[row * half + i] = static_cast<float>(std::cos(angle));
      sines_[row * half + i] = static_cast<float>(std::sin(angle));
    }
  });
}

absl::Status CpuBackend::BeginStep(const Batch& batch) {
  batch_ = &batch;
  tokens_ = batch.num_tokens();
  if (tokens_ > limits_.max_batch_tokens) {
    return Internal("a step of ", tokens_, " tokens: expected at most ", limits_.max_batch_tokens);
  }
  plan_.Build(batch, attention_.queries_together());
  attention_.BeginStep(batch, plan_);
  output_ = StepOutput();
  profile_ = {};
  output_.items.resize(batch.items.size());
  ComputeAngles();
  return absl::OkStatus();
}

absl::Status CpuBackend::Embed(const LinearWeight& table) {
  const OperationTimer timer(profile_, KernelFamily::kElementwise);
  const auto& weight = static_cast<const PackedWeight&>(table);
  Activation& residual = At(Slot::kResidual);
  if (weight.columns() != residual.width) return Internal("the embedding's width is not the model's hidden size");
  ForRows(tokens_, 4, [&](int64_t row, int) {
    const BatchItem& item = batch_->items[plan_.item_of_row[row]];
    weight.DequantizeRow(item.tokens[plan_.position_of_row[row]], residual.Row(row));
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::Norm(const VectorWeight& weight, bool add_delta) {
  const OperationTimer timer(profile_, KernelFamily::kElementwise);
  const float* values = static_cast<const CpuVector&>(weight).values.data();
  ForRows(tokens_, 4, [&](int64_t row, int) {
    kernels_.norm({At(Slot::kResidual).Row(row), add_delta ? At(Slot::kDelta).Row(row) : nullptr, values,
                   shape_.hidden_size, shape_.rms_norm_epsilon, At(Slot::kNormed).Row(row)});
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::Linear(const LinearWeight& weight, Slot input, Slot output) {
  const OperationTimer timer(profile_, KernelFamily::kGemm);
  const auto& packed = static_cast<const PackedWeight&>(weight);
  const Activation& x = At(input);
  const Activation& out = At(output);
  if (packed.columns() != x.width || packed.rows() != out.width) {
    return Internal("a linear weight of ", packed.rows(), " × ", packed.columns(), " between activations of ", x.width,
                    " and ", out.width);
  }
  multiplier_.Multiply(packed, x.data, x.stride, tokens_, out.data, out.stride);
  return absl::OkStatus();
}

void CpuBackend::AppendRow(int32_t layer, int64_t row) {
  const int64_t half = shape_.head_dim / 2;
  const BatchItem& item = batch_->items[plan_.item_of_row[row]];
  const int32_t position = plan_.position_of_row[row];
  float* q = At(Slot::kQkv).Row(row);
  float* k = q + int64_t{shape_.num_heads} * shape_.head_dim;
  float* v = k + int64_t{shape_.num_kv_heads} * shape_.head_dim;
  kernels_.rotate(q, shape_.num_heads + shape_.num_kv_heads, shape_.head_dim, cosines_.data() + row * half,
                  sines_.data() + row * half, shape_.rope_interleaved);
  const int64_t offset =
      item.block_table[position / kv_.block_size] * kv_.block_bytes() + position % kv_.block_size * kv_.row_bytes();
  for (int32_t head = 0; head < shape_.num_kv_heads; ++head) {
    uint8_t* rows[2] = {Plane(head, layer, 0) + offset, Plane(head, layer, 1) + offset};
    const float* sources[2] = {k + head * shape_.head_dim, v + head * shape_.head_dim};
    for (int i = 0; i < 2; ++i) {
      if (kv_.dtype == DType::kF16) {
        kernels_.store_half(sources[i], shape_.head_dim, reinterpret_cast<uint16_t*>(rows[i]));
      } else if (kv_.dtype == DType::kI8) {
        (i == 0 ? kernels_.store_int8_key : kernels_.store_int8)(sources[i], shape_.head_dim, rows[i]);
      } else {
        std::memcpy(rows[i], sources[i], kv_.row_bytes());
      }
    }
  }
}

absl::Status CpuBackend::RotateAndAppend(int32_t layer) {
  const OperationTimer timer(profile_, KernelFamily::kElementwise);
  ForRows(tokens_, 4, [&](int64_t row, int) { AppendRow(layer, row); });
  return absl::OkStatus();
}

absl::Status CpuBackend::Attention(int32_t layer) {
  const OperationTimer timer(profile_, KernelFamily::kAttention);
  const Activation& q = At(Slot::kQkv);
  const Activation& out = At(Slot::kAttention);
  attention_.Run(layer, kv_memory_.data(), q.data, q.stride, out.data, out.stride);
  return absl::OkStatus();
}

absl::Status CpuBackend::SwiGlu() {
  const OperationTimer timer(profile_, KernelFamily::kElementwise);
  ForRows(tokens_, 1, [&](int64_t row, int) {
    const float* gate = At(Slot::kGateUp).Row(row);
    kernels_.swiglu(gate, gate + shape_.intermediate_size, shape_.intermediate_size, At(Slot::kActivated).Row(row));
  });
  return absl::OkStatus();
}

// Logits of some rows of the batch → the first rows of kLogits.
void CpuBackend::HeadRows(const VectorWeight& norm, const LinearWeight& head, std::span<const int32_t> rows) {
  const float* values = static_cast<const CpuVector&>(norm).values.data();
  const int64_t hidden = shape_.hidden_size;
  const int64_t count = static_cast<int64_t>(rows.size());
  head_input_.resize(2 * count * hidden);
  ForRows(count, 4, [&](int64_t i, int) {
    float* residual = head_input_.data() + (count + i) * hidden;  // a copy: the norm adds into it
    std::copy_n(At(Slot::kResidual).Row(rows[i]), hidden, residual);
    kernels_.norm({residual, At(Slot::kDelta).Row(rows[i]), values, hidden, shape_.rms_norm_epsilon,
                   head_input_.data() + i * hidden});
  });
  const Activation& logits = At(Slot::kLogits);
  multiplier_.Multiply(static_cast<const PackedWeight&>(head), head_input_.data(), hidden, count, logits.data,
                       logits.stride);
}

absl::Status CpuBackend::ScoreRows(std::span<const StepPlan::ScoredRow> scored) {
  std::vector<absl::StatusOr<SampledToken>> results(scored.size(), absl::StatusOr<SampledToken>(SampledToken()));
  pool_.ParallelFor(static_cast<int64_t>(scored.size()), [&](int64_t i, int) {
    const BatchItem& item = batch_->items[scored[i].item];
    const std::span<const float> logits(At(Slot::kLogits).Row(i), shape_.vocabulary);
    results[i] = ScoreToken(logits, item.tokens[scored[i].position + 1],
                            item.sampling == nullptr ? 0 : item.sampling->top_logprobs);
  });
  for (size_t i = 0; i < scored.size(); ++i) {
    if (!results[i].ok()) return results[i].status();
    output_.items[scored[i].item].prompt_logprobs.push_back(*std::move(results[i]));
  }
  return absl::OkStatus();
}

absl::Status CpuBackend::Logits(const VectorWeight& norm, const LinearWeight& head) {
  const OperationTimer timer(profile_, KernelFamily::kGemm);
  const auto& weight = static_cast<const PackedWeight&>(head);
  if (weight.columns() != shape_.hidden_size || weight.rows() != shape_.vocabulary) {
    return Internal("the head is ", weight.rows(), " × ", weight.columns(), ": expected ", shape_.vocabulary, " × ",
                    shape_.hidden_size);
  }
  for (size_t first = 0; first < plan_.scored_rows.size(); first += kScoreRows) {
    const auto slice =
        std::span(plan_.scored_rows).subspan(first, std::min<size_t>(kScoreRows, plan_.scored_rows.size() - first));
    std::vector<int32_t> rows;
    for (const StepPlan::ScoredRow& scored : slice) rows.push_back(scored.row);
    HeadRows(norm, head, rows);
    BATON_RETURN_IF_ERROR(ScoreRows(slice));
  }
  std::vector<int32_t> rows;
  for (const StepPlan::SampledRow& sampled : plan_.sampled_rows) rows.push_back(sampled.row);
  HeadRows(norm, head, rows);
  return absl::OkStatus();
}

absl::Status CpuBackend::EndStep() {
  OperationTimer timer(profile_, KernelFamily::kSampling);
  std::vector<absl::Status> failures(plan_.sampled_rows.size());
  pool_.ParallelFor(static_cast<int64_t>(plan_.sampled_rows.size()), [&](int64_t i, int thread) {
    const BatchItem& item = batch_->items[plan_.sampled_rows[i].item];
    SamplerInput input;
    input.logits = {At(Slot::kLogits).Row(i), static_cast<size_t>(shape_.vocabulary)};
    input.tokens = item.tokens.first(item.start + item.count);
    input.prompt_length = item.prompt_length;
    input.end_tokens = shape_.end_tokens;
    input.params = item.sampling;
    absl::StatusOr<SampledToken> sampled = Sample(input, sampler_scratch_[thread]);
    if (sampled.ok()) {
      output_.items[plan_.sampled_rows[i].item].sampled = *std::move(sampled);
    } else {
      failures[i] = sampled.status();
    }
  });
  batch_ = nullptr;
  for (const absl::Status& failure : failures) BATON_RETURN_IF_ERROR(failure);
  timer.Stop();
  output_.profile = profile_;
  return absl::OkStatus();
}

absl::Status CpuBackend::CopyBlock(BlockId from, BlockId to) {
  if (from < 0 || from >= num_blocks_ || to < 0 || to >= num_blocks_) {
    return InvalidArgument("copying block ", from, " to ", to, ": expected ids below ", num_blocks_);
  }
  const int64_t bytes = kv_.block_bytes();
  if (from != to) std::memcpy(kv_memory_.data() + to * bytes, kv_memory_.data() + from * bytes, bytes);
  return absl::OkStatus();
}

}  // namespace
}  // namespace cpu

std::vector<std::string> CpuInstructionSets() {
  std::vector<std::string> names;
  for (const cpu::Kernels* kernels : cpu::KernelsHere()) names.emplace_back(kernels->name);
  return names;
}

absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const CpuOptions& options) {
  if (options.threads < 1 || options.threads > kMaxCpuThreads) {
    return InvalidArgument("compute threads: expected 1 to ", kMaxCpuThreads, ", found ", options.threads);
  }
  BATON_ASSIGN_OR_RETURN(const cpu::Kernels* kernels, cpu::ChooseKernels(options.instruction_set));
  return std::make_unique<cpu::CpuBackend>(*kernels, options.threads, options.threads_now);
}

}  // namespace baton
