#include "engine/llama_weights.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "engine/expand_weight.h"
#include "model/dequantize.h"

namespace baton {
namespace {

class Loader {
 public:
  Loader(const Model& model, Backend& backend, const std::function<void(double)>& on_progress)
      : model_(model), backend_(backend), on_progress_(on_progress) {}

  // One weight from the tensors PREFIX + name + ".weight", stacked, with their biases and scales.
  absl::StatusOr<std::unique_ptr<LinearWeight>> Linear(const std::string& prefix,
                                                       std::initializer_list<const char*> names) {
    std::vector<LinearSource> sources;
    std::vector<ExpandedWeight> expanded;  // until the backend has its own copy
    for (const char* name : names) {
      BATON_ASSIGN_OR_RETURN(LinearSource source, Source(prefix + name));
      loaded_ += source.weight.bytes;
      if (NeedsExpansion(source.weight, backend_.info().weight_types)) {
        auto made = ExpandToBf16(source);
        if (!made.ok()) return Named(made.status(), prefix + name);
        source = made->source;
        expanded.push_back(*std::move(made));
      }
      sources.push_back(std::move(source));
    }
    auto weight = backend_.PrepareLinear(sources);
    if (!weight.ok()) return Named(weight.status(), prefix + *names.begin());
    Report();
    return weight;
  }

  absl::StatusOr<std::unique_ptr<VectorWeight>> Vector(const std::string& name) {
    const TensorView* tensor = model_.Find(name + ".weight");
    if (tensor == nullptr) return InvalidArgument("the model has no tensor ", name, ".weight");
    loaded_ += tensor->bytes;
    auto weight = backend_.PrepareVector(*tensor);
    if (!weight.ok()) return Named(weight.status(), name);
    return weight;
  }

 private:
  static absl::Status Named(const absl::Status& status, const std::string& name) {
    return absl::Status(status.code(), Cat(name, ": ", Message(status)));
  }

  absl::StatusOr<LinearSource> Source(const std::string& name) {
    const TensorView* weight = model_.Find(name + ".weight");
    if (weight == nullptr) return InvalidArgument("the model has no tensor ", name, ".weight");
    LinearSource source;
    source.weight = *weight;
    if (const TensorView* bias = model_.Find(name + ".bias")) source.bias = *bias;
    if (const TensorView* scale = model_.Find(name + ".weight_scale")) source.scale = *scale;
    if (const TensorView* scale = model_.Find(name + ".input_scale")) {
      source.input_scale = ReadScale(*scale);
    }
    return source;
  }

  void Report() {
    if (on_progress_)
      on_progress_(std::min(1.0, double(loaded_) / double(std::max<int64_t>(model_.weight_bytes(), 1))));
  }

  const Model& model_;
  Backend& backend_;
  const std::function<void(double)>& on_progress_;
  int64_t loaded_ = 0;
};

}  // namespace

float ReadScale(const TensorView& scale) {
  float value = 1;
  Dequantize(scale.dtype, scale.data, 1, &value);
  return value;
}

std::vector<float> ReadKvScales(const Model& model, char letter) {
  std::vector<float> scales;
  for (int32_t i = 0; i < model.config().num_layers; ++i) {
    const TensorView* scale = model.Find(Cat("model.layers.", i, ".self_attn.", letter, "_scale"));
    scales.push_back(scale == nullptr ? 1.0f : ReadScale(*scale));
  }
  return scales;
}

absl::StatusOr<LlamaWeights> LoadLlamaWeights(const Model& model, Backend& backend,
                                              const std::function<void(double)>& on_progress) {
  Loader loader(model, backend, on_progress);
  LlamaWeights weights;
  BATON_ASSIGN_OR_RETURN(weights.embedding, loader.Linear("model.", {"embed_tokens"}));
  for (int32_t i = 0; i < model.config().num_layers; ++i) {
    const std::string prefix = Cat("model.layers.", i, ".");
    LlamaWeights::Layer layer;
    BATON_ASSIGN_OR_RETURN(layer.attention_norm, loader.Vector(prefix + "input_layernorm"));
    BATON_ASSIGN_OR_RETURN(layer.qkv, loader.Linear(prefix + "self_attn.", {"q_proj", "k_proj", "v_proj"}));
    BATON_ASSIGN_OR_RETURN(layer.attention_output, loader.Linear(prefix + "self_attn.", {"o_proj"}));
    BATON_ASSIGN_OR_RETURN(layer.mlp_norm, loader.Vector(prefix + "post_attention_layernorm"));
    BATON_ASSIGN_OR_RETURN(layer.gate_up, loader.Linear(prefix + "mlp.", {"gate_proj", "up_proj"}));
    BATON_ASSIGN_OR_RETURN(layer.down, loader.Linear(prefix + "mlp.", {"down_proj"}));
    weights.layers.push_back(std::move(layer));
  }
  BATON_ASSIGN_OR_RETURN(weights.final_norm, loader.Vector("model.norm"));
  const TensorView* head = model.Find("lm_head.weight");
  const TensorView* embedding = model.Find("model.embed_tokens.weight");
  const bool tied = head == nullptr || (head->data == embedding->data && head->recipe == embedding->recipe);
  if (!tied) {
    BATON_ASSIGN_OR_RETURN(weights.separate_head, loader.Linear("", {"lm_head"}));
  }
  if (on_progress) on_progress(1.0);
  return weights;
}

}  // namespace baton
