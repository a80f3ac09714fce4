#include "model/hf_config.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "model/hf_quantization.h"
#include "model/json_object.h"
#include "model/rope.h"

namespace baton {
namespace {

namespace json = boost::json;

enum class Family { kLlama, kMistral, kQwen2 };

absl::StatusOr<Family> ReadFamily(const JsonObject& json, ModelConfig& config) {
  BATON_ASSIGN_OR_RETURN(const std::vector<std::string> names, json.Strings("architectures"));
  if (names.size() != 1) return json.Wrong("architectures", "one name");
  config.architecture = names[0];
  if (names[0] == "LlamaForCausalLM") return Family::kLlama;
  if (names[0] == "MistralForCausalLM") return Family::kMistral;
  if (names[0] == "Qwen2ForCausalLM") return Family::kQwen2;
  return Unimplemented(json.what(), ": architecture '", names[0],
                       "' is not supported; supported are LlamaForCausalLM, MistralForCausalLM and Qwen2ForCausalLM");
}

absl::Status ReadShape(const JsonObject& json, ModelConfig& config) {
  BATON_ASSIGN_OR_RETURN(config.num_layers, json.Integer32("num_hidden_layers", 1));
  BATON_ASSIGN_OR_RETURN(config.hidden_size, json.Integer32("hidden_size", 1));
  BATON_ASSIGN_OR_RETURN(config.intermediate_size, json.Integer32("intermediate_size", 1));
  BATON_ASSIGN_OR_RETURN(config.num_heads, json.Integer32("num_attention_heads", 1));
  BATON_ASSIGN_OR_RETURN(config.num_kv_heads, json.Integer32("num_key_value_heads", 1, config.num_heads));
  BATON_ASSIGN_OR_RETURN(config.head_dim, json.Integer32("head_dim", 2, config.hidden_size / config.num_heads));
  BATON_ASSIGN_OR_RETURN(config.vocabulary, json.Integer32("vocab_size", 1));
  BATON_ASSIGN_OR_RETURN(config.max_position, json.Integer32("max_position_embeddings", 1));
  BATON_ASSIGN_OR_RETURN(const double epsilon, json.Float("rms_norm_eps", 1e-6));
  config.rms_norm_epsilon = static_cast<float>(epsilon);
  if (config.head_dim < 2 || config.head_dim > 1024) {
    return InvalidArgument(json.what(), ": head dimension ", config.head_dim, ", expected 2 to 1024");
  }
  return absl::OkStatus();
}

absl::Status RefuseOptions(const JsonObject& json) {
  BATON_ASSIGN_OR_RETURN(const std::string activation, json.String("hidden_act", "silu"));
  if (activation != "silu") {
    return Unimplemented(json.what(), ": 'hidden_act': '", activation, "' is not supported; supported is silu");
  }
  BATON_ASSIGN_OR_RETURN(const bool mlp_bias, json.Bool("mlp_bias", false));
  if (mlp_bias) return Unimplemented(json.what(), ": 'mlp_bias': biases of the MLP are not supported");
  BATON_ASSIGN_OR_RETURN(const double rotary, json.Float("partial_rotary_factor", 1.0));
  if (rotary != 1.0) return Unimplemented(json.what(), ": 'partial_rotary_factor': ", rotary, " is not supported");
  return absl::OkStatus();
}

absl::Status ReadBiases(const JsonObject& json, Family family, ModelConfig& config) {
  if (family == Family::kQwen2) {  // always, whatever the file says
    config.attention_bias = true;
    return absl::OkStatus();
  }
  BATON_ASSIGN_OR_RETURN(config.attention_bias, json.Bool("attention_bias", false));
  config.attention_output_bias = config.attention_bias;
  return absl::OkStatus();
}

absl::Status LimitToWindow(const JsonObject& json, Family family, ModelConfig& config) {
  BATON_ASSIGN_OR_RETURN(const bool used, json.Bool("use_sliding_window", family == Family::kMistral));
  if (!used || family == Family::kLlama || !json.Has("sliding_window")) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(const int32_t window, json.Integer32("sliding_window", 1));
  if (window >= config.max_position) return absl::OkStatus();
  LogWarning(json.what(), ": attention over a sliding window is not supported: the context is limited to the window, ",
             window, " of ", config.max_position, " tokens");
  config.max_position = window;
  return absl::OkStatus();
}

absl::StatusOr<double> ReadFactor(const JsonObject& scaling, std::string_view key, double otherwise) {
  BATON_ASSIGN_OR_RETURN(const double factor, scaling.Float(key, otherwise));
  if (!(factor > 0 && factor < 1e9)) return scaling.Wrong(key, "a number above 0");
  return factor;
}

absl::Status ApplyScaling(const JsonObject& scaling, ModelConfig& config) {
  BATON_ASSIGN_OR_RETURN(const std::string old_name, scaling.String("type", "default"));
  BATON_ASSIGN_OR_RETURN(const std::string type, scaling.String("rope_type", old_name));
  if (type == "default") return absl::OkStatus();
  if (type != "linear" && type != "llama3") {
    return Unimplemented(scaling.what(), ": rotary scaling '", type,
                         "' is not supported; supported are linear and llama3");
  }
  if (!scaling.Has("factor")) return scaling.Wrong("factor", "a number above 0");
  BATON_ASSIGN_OR_RETURN(const double factor, ReadFactor(scaling, "factor", 1));
  if (type == "linear") {
    ScaleRopeLinear(factor, config.rope_inverse_frequencies);
    return absl::OkStatus();
  }
  Llama3RopeScaling llama3{.factor = factor};
  BATON_ASSIGN_OR_RETURN(llama3.low_frequency_factor, ReadFactor(scaling, "low_freq_factor", 1));
  BATON_ASSIGN_OR_RETURN(llama3.high_frequency_factor, ReadFactor(scaling, "high_freq_factor", 4));
  BATON_ASSIGN_OR_RETURN(llama3.original_max_position,
                         ReadFactor(scaling, "original_max_position_embeddings", config.max_position));
  if (llama3.high_frequency_factor <= llama3.low_frequency_factor) {
    return scaling.Wrong("high_freq_factor", "more than low_freq_factor");
  }
  ScaleRopeLlama3(llama3, config.rope_inverse_frequencies);
  return absl::OkStatus();
}

absl::Status ReadRope(const JsonObject& json, ModelConfig& config) {
  // Since 2025 files may have all of it in 'rope_parameters'; before, it was 'rope_theta' and 'rope_scaling'.
  const std::string_view scaling_key = json.Has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  BATON_ASSIGN_OR_RETURN(double theta, json.Float("rope_theta", 10000.0));
  if (json.Has(scaling_key)) {
    BATON_ASSIGN_OR_RETURN(const JsonObject scaling, json.Object(scaling_key));
    BATON_ASSIGN_OR_RETURN(theta, scaling.Float("rope_theta", theta));
  }
  if (!(theta > 0 && theta < 1e12)) return json.Wrong("rope_theta", "a number above 0");
  config.rope_theta = static_cast<float>(theta);
  config.rope_inverse_frequencies = RopeInverseFrequencies(config.head_dim, theta);
  if (!json.Has(scaling_key)) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(const JsonObject scaling, json.Object(scaling_key));
  return ApplyScaling(scaling, config);
}

absl::Status ReadDType(const JsonObject& json, ModelConfig& config) {
  BATON_ASSIGN_OR_RETURN(const std::string old_name, json.String("torch_dtype", "bfloat16"));
  BATON_ASSIGN_OR_RETURN(const std::string name, json.String("dtype", old_name));
  if (name == "float32") {
    config.dtype = DType::kF32;
  } else if (name == "float16") {
    config.dtype = DType::kF16;
  }  // What the tensors really are stands in their own file; this is for dummy weights.
  return absl::OkStatus();
}

absl::Status ReadQuantization(const JsonObject& json, std::string_view separate, ModelConfig& config) {
  // 'compression_config' is what compressed-tensors called it at first.
  for (const std::string_view key : {"quantization_config", "compression_config"}) {
    if (!json.Has(key)) continue;
    BATON_ASSIGN_OR_RETURN(const JsonObject quantization, json.Object(key));
    BATON_ASSIGN_OR_RETURN(config.quantization, ReadHfQuantization(quantization));
    return absl::OkStatus();
  }
  if (separate.empty()) return absl::OkStatus();
  constexpr std::string_view kFile = "hf_quant_config.json";
  BATON_ASSIGN_OR_RETURN(const json::value parsed, ParseJson(separate, kFile));
  BATON_ASSIGN_OR_RETURN(const JsonObject whole, JsonObject::From(parsed, kFile));
  BATON_ASSIGN_OR_RETURN(const JsonObject quantization, whole.Object("quantization"));
  BATON_ASSIGN_OR_RETURN(config.quantization, ReadModelOptQuantization(quantization));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseHfConfig(std::string_view text, std::string_view quantization) {
  BATON_ASSIGN_OR_RETURN(const json::value parsed, ParseJson(text, "config.json"));
  BATON_ASSIGN_OR_RETURN(const JsonObject json, JsonObject::From(parsed, "config.json"));
  ModelConfig config;
  BATON_ASSIGN_OR_RETURN(const Family family, ReadFamily(json, config));
  BATON_RETURN_IF_ERROR(ReadShape(json, config));
  BATON_RETURN_IF_ERROR(RefuseOptions(json));
  BATON_RETURN_IF_ERROR(ReadBiases(json, family, config));
  BATON_RETURN_IF_ERROR(ReadRope(json, config));
  BATON_RETURN_IF_ERROR(LimitToWindow(json, family, config));
  BATON_RETURN_IF_ERROR(ReadDType(json, config));
  BATON_ASSIGN_OR_RETURN(config.tie_embeddings, json.Bool("tie_word_embeddings", false));
  BATON_ASSIGN_OR_RETURN(const std::vector<int32_t> bos, json.IntegerOrList("bos_token_id"));
  if (!bos.empty()) config.bos = bos[0];
  BATON_ASSIGN_OR_RETURN(config.eos, json.IntegerOrList("eos_token_id"));
  BATON_RETURN_IF_ERROR(ReadQuantization(json, quantization, config));
  BATON_RETURN_IF_ERROR(CheckConfig(config));
  return config;
}

namespace {

absl::Status ReadFloat(const JsonObject& json, std::string_view key, double least, double most,
                       std::optional<float>& out) {
  if (!json.Has(key)) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(const double value, json.Float(key));
  if (!(value >= least && value <= most)) return json.Wrong(key, Cat("a number from ", least, " to ", most));
  out = static_cast<float>(value);
  return absl::OkStatus();
}

absl::Status ReadInteger(const JsonObject& json, std::string_view key, int32_t least, std::optional<int32_t>& out) {
  if (!json.Has(key)) return absl::OkStatus();
  BATON_ASSIGN_OR_RETURN(out, json.Integer32(key, least));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GenerationDefaults> ParseGenerationConfig(std::string_view text) {
  constexpr std::string_view kFile = "generation_config.json";
  BATON_ASSIGN_OR_RETURN(const json::value parsed, ParseJson(text, kFile));
  BATON_ASSIGN_OR_RETURN(const JsonObject json, JsonObject::From(parsed, kFile));
  GenerationDefaults defaults;
  BATON_RETURN_IF_ERROR(ReadFloat(json, "temperature", 0, 100, defaults.temperature));
  BATON_RETURN_IF_ERROR(ReadFloat(json, "top_p", 0, 1, defaults.top_p));
  BATON_RETURN_IF_ERROR(ReadFloat(json, "min_p", 0, 1, defaults.min_p));
  BATON_RETURN_IF_ERROR(ReadFloat(json, "repetition_penalty", 1e-3, 100, defaults.repetition_penalty));
  BATON_RETURN_IF_ERROR(ReadInteger(json, "top_k", 0, defaults.top_k));
  BATON_RETURN_IF_ERROR(ReadInteger(json, "max_new_tokens", 1, defaults.max_new_tokens));
  BATON_ASSIGN_OR_RETURN(defaults.eos, json.IntegerOrList("eos_token_id"));
  return defaults;
}

}  // namespace baton
