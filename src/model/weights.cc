#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "model/dequantize.h"

namespace baton {
namespace {

constexpr std::string_view kEmbeddingName = "model.embed_tokens.weight";
constexpr std::string_view kHeadName = "lm_head.weight";

void AppendLayer(const ModelConfig& config, int32_t layer, std::vector<WeightSpec>& specs) {
  const std::string prefix = Cat("model.layers.", layer, ".");
  const int64_t hidden = config.hidden_size;
  const int64_t query = int64_t{config.num_heads} * config.head_dim;
  const int64_t key_value = int64_t{config.num_kv_heads} * config.head_dim;
  const auto linear = [&](std::string_view module, int64_t out, int64_t in, bool bias) {
    specs.push_back({Cat(prefix, module, ".weight"), {out, in}, WeightKind::kLinear});
    if (bias) specs.push_back({Cat(prefix, module, ".bias"), {out}, WeightKind::kBias});
  };
  specs.push_back({Cat(prefix, "input_layernorm.weight"), {hidden}, WeightKind::kNorm});
  linear("self_attn.q_proj", query, hidden, config.attention_bias);
  linear("self_attn.k_proj", key_value, hidden, config.attention_bias);
  linear("self_attn.v_proj", key_value, hidden, config.attention_bias);
  linear("self_attn.o_proj", hidden, query, config.attention_output_bias);
  specs.push_back({Cat(prefix, "post_attention_layernorm.weight"), {hidden}, WeightKind::kNorm});
  linear("mlp.gate_proj", config.intermediate_size, hidden, false);
  linear("mlp.up_proj", config.intermediate_size, hidden, false);
  linear("mlp.down_proj", hidden, config.intermediate_size, false);
}

bool IsHarmless(std::string_view name) {
  // Stored tables that are computed here, and scales of values that are never stored in FP8 here.
  for (const std::string_view suffix :
       {"rotary_emb.inv_freq", "self_attn.q_scale", "q_proj.output_scale", "self_attn.prob_output_scale"}) {
    if (name.ends_with(suffix)) return true;
  }
  return false;
}

// The one name of a KV scale: compressed-tensors has self_attn.k_scale, ModelOpt self_attn.k_proj.k_scale, older tools
// self_attn.k_proj.output_scale. (The oldest have one self_attn.kv_scale for both: see Rename.)
std::string CanonicalName(std::string_view name) {
  for (const char letter : {'k', 'v'}) {
    for (const std::string_view last : {Cat(letter, "_scale"), std::string("output_scale")}) {
      const std::string suffix = Cat("self_attn.", letter, "_proj.", last);
      if (!name.ends_with(suffix)) continue;
      return Cat(name.substr(0, name.size() - suffix.size()), "self_attn.", letter, "_scale");
    }
  }
  return std::string(name);
}

absl::StatusOr<TensorMap> Rename(const ModelConfig& config, TensorMap& found) {
  TensorMap tensors;
  for (auto& [name, view] : found) {
    if (IsHarmless(name) || (config.tie_embeddings && name == kHeadName)) continue;
    std::vector<std::string> canonical{CanonicalName(name)};
    if (constexpr std::string_view kBoth = "self_attn.kv_scale"; name.ends_with(kBoth)) {
      const std::string prefix = name.substr(0, name.size() - kBoth.size());
      canonical = {prefix + "self_attn.k_scale", prefix + "self_attn.v_scale"};
    }
    for (const std::string& each : canonical) {
      if (!tensors.try_emplace(each, view).second) return InvalidArgument("tensor '", each, "' is there twice");
    }
  }
  return tensors;
}

bool IsPlain(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16; }

// Moves the tensor called `name` from `from` to `to`, if it has the shape and type that are asked for.
absl::Status Take(const WeightSpec& spec, TensorMap& from, TensorMap& to) {
  auto node = from.extract(spec.name);
  if (node.empty()) {
    return InvalidArgument("tensor '", spec.name, "' ", DescribeShape(spec.shape),
                           " is missing: the file does not fit its configuration, or is not complete");
  }
  const TensorView& tensor = node.mapped();
  if (tensor.shape != spec.shape) {
    return InvalidArgument("tensor '", spec.name, "': expected the shape ", DescribeShape(spec.shape), ", found ",
                           DescribeTensor(tensor));
  }
  if (spec.kind != WeightKind::kLinear && tensor.dtype == DType::kF8E4M3) {
    return InvalidArgument("tensor '", spec.name, "': FP8 is for linear weights only, found ", DescribeTensor(tensor));
  }
  if ((spec.kind == WeightKind::kNorm || spec.kind == WeightKind::kBias) && !IsPlain(tensor.dtype)) {
    return InvalidArgument("tensor '", spec.name, "': expected F32, F16 or BF16, found ", DescribeTensor(tensor));
  }
  to.insert(std::move(node));
  return absl::OkStatus();
}

// Numbers are divided by a scale or multiplied with it: each must be positive and finite. Views without data are shapes
// only.
absl::Status CheckScaleValues(const std::string& name, const TensorView& scale, int64_t count) {
  if (scale.data == nullptr) return absl::OkStatus();
  std::vector<float> values(count);
  Dequantize(scale.dtype, scale.data, count, values.data());
  for (int64_t i = 0; i < count; ++i) {
    if (values[i] > 0 && std::isfinite(values[i])) continue;
    return InvalidArgument("tensor '", name, "': element ", i, " is ", values[i],
                           ", expected a positive finite scale: the checkpoint is damaged or was not calibrated");
  }
  return absl::OkStatus();
}

// Takes a scale of `out` or one number, in any of the shapes that checkpoints use, and gives it the shape [out] or [1].
absl::Status TakeScale(const std::string& name, int64_t out, bool per_channel, TensorMap& from, TensorMap& to) {
  auto node = from.extract(name);
  const int64_t count = per_channel ? out : 1;
  if (node.empty()) return InvalidArgument("tensor '", name, "' [", count, "] is missing: FP8 values need their scale");
  TensorView& scale = node.mapped();
  int64_t elements = 1;
  for (const int64_t extent : scale.shape) elements *= extent;
  if (elements != count || scale.shape.size() > 2 || !IsPlain(scale.dtype)) {
    return InvalidArgument("tensor '", name, "': expected ", count, " numbers in F32, F16 or BF16, found ",
                           DescribeTensor(scale));
  }
  BATON_RETURN_IF_ERROR(CheckScaleValues(name, scale, count));
  scale.shape = {count};
  to.insert(std::move(node));
  return absl::OkStatus();
}

absl::Status TakeScales(const ModelConfig& config, const std::string& weight_name, TensorMap& from, TensorMap& to) {
  const TensorView& weight = to.at(weight_name);
  if (weight.dtype != DType::kF8E4M3) return absl::OkStatus();
  const QuantizationScheme scheme = config.quantization.scheme;
  if (scheme == QuantizationScheme::kNone) {
    return InvalidArgument("tensor '", weight_name, "' is FP8 but the configuration has no quantization_config");
  }
  BATON_RETURN_IF_ERROR(
      TakeScale(weight_name + "_scale", weight.rows(), scheme == QuantizationScheme::kFp8PerChannelDynamic, from, to));
  if (scheme != QuantizationScheme::kFp8PerTensorStatic) return absl::OkStatus();
  const std::string module = weight_name.substr(0, weight_name.rfind('.'));
  return TakeScale(module + ".input_scale", 1, false, from, to);
}

// All layers have both scales, or there are none and each is 1.
absl::Status TakeKvScales(const ModelConfig& config, TensorMap& from, TensorMap& to) {
  std::string present, missing;
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (const char letter : {'k', 'v'}) {
      std::string name = Cat("model.layers.", layer, ".self_attn.", letter, "_scale");
      if (!from.contains(name)) {
        missing = std::move(name);
        continue;
      }
      BATON_RETURN_IF_ERROR(TakeScale(name, 1, false, from, to));
      present = std::move(name);
    }
  }
  if (present.empty() || missing.empty()) return absl::OkStatus();
  return InvalidArgument("tensor '", missing, "' [1] is missing, but there is '", present,
                         "': expected scales of K and V for every layer, or none");
}

}  // namespace

std::string DescribeShape(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += Cat(i == 0 ? "" : ", ", shape[i]);
  return out + "]";
}

std::string DescribeTensor(const TensorView& tensor) {
  return Cat(DescribeShape(tensor.shape), " ", TraitsOf(tensor.dtype).name);
}

std::vector<WeightSpec> ExpectedWeights(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  std::vector<WeightSpec> specs;
  specs.push_back({std::string(kEmbeddingName), {config.vocabulary, hidden}, WeightKind::kEmbedding});
  for (int32_t layer = 0; layer < config.num_layers; ++layer) AppendLayer(config, layer, specs);
  specs.push_back({"model.norm.weight", {hidden}, WeightKind::kNorm});
  if (!config.tie_embeddings) {
    specs.push_back({std::string(kHeadName), {config.vocabulary, hidden}, WeightKind::kLinear});
  }
  return specs;
}

absl::Status ArrangeWeights(const ModelConfig& config, TensorMap& tensors) {
  BATON_ASSIGN_OR_RETURN(TensorMap left, Rename(config, tensors));
  TensorMap arranged;
  for (const WeightSpec& spec : ExpectedWeights(config)) {
    BATON_RETURN_IF_ERROR(Take(spec, left, arranged));
    BATON_RETURN_IF_ERROR(TakeScales(config, spec.name, left, arranged));
  }
  BATON_RETURN_IF_ERROR(TakeKvScales(config, left, arranged));
  if (!left.empty()) {
    const auto first =
        std::min_element(left.begin(), left.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    return InvalidArgument("unexpected tensor '", first->first, "' ", DescribeTensor(first->second), " (", left.size(),
                           " unexpected in all): ", config.architecture,
                           " as configured has no such weight, and ignoring one would give wrong answers");
  }
  if (config.tie_embeddings) arranged[std::string(kHeadName)] = arranged.at(std::string(kEmbeddingName));
  tensors = std::move(arranged);
  return absl::OkStatus();
}

}  // namespace baton
