#include "engine/llama.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/check_batch.h"
#include "engine/llama_weights.h"

namespace baton {
namespace {

using Clock = std::chrono::steady_clock;

// Changes whenever the same weights would give other bits: KV blocks are exchanged only between equal fingerprints.
constexpr std::string_view kEngineVersion = "llama-3";

class LlamaEngine : public Engine {
 public:
  LlamaEngine(std::unique_ptr<Backend> backend, LlamaWeights weights, EngineInfo info)
      : backend_(std::move(backend)), weights_(std::move(weights)), info_(std::move(info)) {}

  const EngineInfo& info() const override { return info_; }
  KvMemory kv_memory() override { return backend_->kv_memory(); }
  absl::Status Submit(const Batch& batch, LayerGroupSink* sink) override;
  absl::StatusOr<StepOutput> Collect() override;
  absl::Status CopyBlock(BlockId from, BlockId to) override { return backend_->CopyBlock(from, to); }

 private:
  struct Flight {
    Clock::time_point submitted;
    std::vector<bool> samples;  // [items]
  };

  absl::Status Forward(const Batch& batch, LayerGroupSink* sink);
  // K and V of layers before `layer_end` are in the cache.
  absl::Status LayersDone(const Batch& batch, int32_t layer_end, LayerGroupSink* sink);

  std::unique_ptr<Backend> backend_;  // outlives the weights
  LlamaWeights weights_;
  EngineInfo info_;
  std::deque<Flight> in_flight_;
  Clock::time_point collected_;  // the last step
};

absl::Status LlamaEngine::Submit(const Batch& batch, LayerGroupSink* sink) {
  if (std::ssize(in_flight_) >= info_.steps_in_flight) {
    return FailedPrecondition("collect a step first: ", in_flight_.size(), " are in flight, the most there may be");
  }
  BATON_RETURN_IF_ERROR(CheckBatch(batch, info_, in_flight_.empty() ? std::vector<bool>() : in_flight_.back().samples));
  Flight flight{.submitted = Clock::now(), .samples = {}};
  for (const BatchItem& item : batch.items) flight.samples.push_back(item.sample);
  BATON_RETURN_IF_ERROR(Forward(batch, sink));
  in_flight_.push_back(std::move(flight));
  return absl::OkStatus();
}

absl::StatusOr<StepOutput> LlamaEngine::Collect() {
  if (in_flight_.empty()) return FailedPrecondition("no step is in flight");
  // It began when it was submitted, or when the step before had ended.
  const Clock::time_point began = std::max(in_flight_.front().submitted, collected_);
  in_flight_.pop_front();
  absl::StatusOr<StepOutput> output = backend_->CollectStep();
  collected_ = Clock::now();
  if (output.ok())
    output->duration_us = std::chrono::duration_cast<std::chrono::microseconds>(collected_ - began).count();
  return output;
}

// The model (arXiv:2302.13971, grouped-query attention as in arXiv:2307.09288).
absl::Status LlamaEngine::Forward(const Batch& batch, LayerGroupSink* sink) {
  Backend& device = *backend_;
  BATON_RETURN_IF_ERROR(device.BeginStep(batch));
  BATON_RETURN_IF_ERROR(device.Embed(*weights_.embedding));
  for (int32_t i = 0; i < info_.kv.num_layers; ++i) {
    const LlamaWeights::Layer& layer = weights_.layers[i];
    BATON_RETURN_IF_ERROR(device.Norm(*layer.attention_norm, /*add_delta=*/i > 0));
    BATON_RETURN_IF_ERROR(device.Linear(*layer.qkv, Slot::kNormed, Slot::kQkv));
    BATON_RETURN_IF_ERROR(device.RotateAndAppend(i));
    BATON_RETURN_IF_ERROR(LayersDone(batch, i + 1, sink));
    BATON_RETURN_IF_ERROR(device.Attention(i));
    BATON_RETURN_IF_ERROR(device.Linear(*layer.attention_output, Slot::kAttention, Slot::kDelta));
    BATON_RETURN_IF_ERROR(device.AllReduce(Slot::kDelta));
    BATON_RETURN_IF_ERROR(device.Norm(*layer.mlp_norm, /*add_delta=*/true));
    BATON_RETURN_IF_ERROR(device.Linear(*layer.gate_up, Slot::kNormed, Slot::kGateUp));
    BATON_RETURN_IF_ERROR(device.SwiGlu());
    BATON_RETURN_IF_ERROR(device.Linear(*layer.down, Slot::kActivated, Slot::kDelta));
    BATON_RETURN_IF_ERROR(device.AllReduce(Slot::kDelta));
  }
  BATON_RETURN_IF_ERROR(device.Logits(*weights_.final_norm, weights_.head()));
  return device.EndStep();
}

absl::Status LlamaEngine::LayersDone(const Batch& batch, int32_t layer_end, LayerGroupSink* sink) {
  const bool group_ends = layer_end % info_.layer_group == 0 || layer_end == info_.kv.num_layers;
  if (sink == nullptr || !group_ends) return absl::OkStatus();
  const int32_t layer_begin = (layer_end - 1) / info_.layer_group * info_.layer_group;
  BATON_ASSIGN_OR_RETURN(void* event, backend_->RecordEvent());
  sink->OnLayersDone(batch, layer_begin, layer_end, event);
  return absl::OkStatus();
}

ModelShape ShapeOf(const Model& model, const EngineOptions& options) {
  const ModelConfig& config = model.config();
  ModelShape shape;
  shape.num_layers = config.num_layers;
  shape.hidden_size = config.hidden_size;
  shape.intermediate_size = config.intermediate_size;
  shape.num_heads = config.num_heads;
  shape.num_kv_heads = config.num_kv_heads;
  shape.head_dim = config.head_dim;
  shape.vocabulary = config.vocabulary;
  shape.max_position = config.max_position;
  shape.rms_norm_epsilon = config.rms_norm_epsilon;
  shape.rope_interleaved = config.rope_interleaved;
  shape.rope_inverse_frequencies = config.rope_inverse_frequencies;
  shape.k_scales = ReadKvScales(model, 'k');
  shape.v_scales = ReadKvScales(model, 'v');
  shape.end_tokens = options.end_tokens.empty() ? config.eos : options.end_tokens;
  return shape;
}

std::string Fingerprint(const Model& model, const BackendInfo& backend, const KvLayout& kv) {
  return Cat(kEngineVersion, " model=", model.fingerprint(), " kv=", TraitsOf(kv.dtype).name, ":", kv.num_kv_heads, "x",
             kv.num_layers, "x", kv.block_size, "x", kv.head_dim,
             " rope=", model.config().rope_interleaved ? "interleaved" : "halves", " isa=", backend.instruction_set,
             " backend=", backend.name);
}

absl::StatusOr<EngineInfo> PlanEngine(const Model& model, const BackendInfo& backend, const EngineOptions& options) {
  const ModelConfig& config = model.config();
  EngineInfo info;
  info.backend = backend.name;
  info.device = backend.device;
  info.kv.num_kv_heads = config.num_kv_heads;
  info.kv.num_layers = config.num_layers;
  info.kv.block_size = options.block_size > 0 ? options.block_size : backend.default_block_size;
  info.kv.head_dim = config.head_dim;
  info.kv.dtype = options.kv_dtype.value_or(backend.default_kv_dtype);
  info.vocabulary = config.vocabulary;
  info.max_model_len = options.max_model_len > 0 ? options.max_model_len : config.max_position;
  if (info.max_model_len > config.max_position) {
    return InvalidArgument("a context of ", info.max_model_len, " tokens: the model was made for at most ",
                           config.max_position);
  }
  if (options.max_batch_tokens < 1 || options.max_sequences < 1 || options.layer_group < 0 || options.block_size < 0) {
    return InvalidArgument("expected positive sizes of a step, found ", options.max_batch_tokens, " tokens, ",
                           options.max_sequences, " sequences, blocks of ", options.block_size,
                           " tokens, layer groups of ", options.layer_group);
  }
  info.num_blocks = static_cast<int32_t>(std::min<int64_t>(options.kv_bytes / info.kv.block_bytes(), 1 << 30));
  if (info.num_blocks < 1) {
    return InvalidArgument("a KV cache of ", options.kv_bytes, " bytes holds no block of ", info.kv.block_size,
                           " tokens: give it at least ", info.kv.block_bytes());
  }
  info.max_batch_tokens = options.max_batch_tokens;
  info.max_sequences = options.max_sequences;
  info.steps_in_flight = backend.steps_in_flight;
  info.layer_group = options.layer_group > 0 ? options.layer_group : (config.num_layers + 3) / 4;
  info.fingerprint = Fingerprint(model, backend, info.kv);
  return info;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateLlamaEngine(const Model& model, std::unique_ptr<Backend> backend,
                                                          const EngineOptions& options) {
  BATON_ASSIGN_OR_RETURN(EngineInfo info, PlanEngine(model, backend->info(), options));
  BATON_ASSIGN_OR_RETURN(LlamaWeights weights, LoadLlamaWeights(model, *backend, options.on_progress));
  BATON_RETURN_IF_ERROR(
      backend->Start(ShapeOf(model, options), info.kv, info.num_blocks, {info.max_batch_tokens, info.max_sequences}));
  return std::make_unique<LlamaEngine>(std::move(backend), std::move(weights), std::move(info));
}

}  // namespace baton
