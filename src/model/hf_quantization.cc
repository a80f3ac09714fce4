#include "model/hf_quantization.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace baton {
namespace {

namespace json = boost::json;

// One of compressed-tensors' descriptions of numbers: {"num_bits": 8, "type": "float", "strategy": "channel", …}.
struct NumberScheme {
  std::string strategy;
  bool dynamic = false;
};

absl::StatusOr<NumberScheme> ReadNumberScheme(const JsonObject& scheme) {
  BATON_ASSIGN_OR_RETURN(const int32_t bits, scheme.Integer32("num_bits", 1));
  BATON_ASSIGN_OR_RETURN(const std::string type, scheme.String("type", "int"));
  BATON_ASSIGN_OR_RETURN(const bool symmetric, scheme.Bool("symmetric", true));
  if (bits != 8 || type != "float" || !symmetric) {
    return Unimplemented(scheme.what(), ": ", bits, "-bit ", type, symmetric ? "" : ", asymmetric",
                         ", is not supported; supported is symmetric 8-bit float (FP8 E4M3)");
  }
  NumberScheme out;
  BATON_ASSIGN_OR_RETURN(out.strategy, scheme.String("strategy", "tensor"));
  BATON_ASSIGN_OR_RETURN(out.dynamic, scheme.Bool("dynamic", false));
  return out;
}

absl::StatusOr<QuantizationScheme> ReadGroup(const JsonObject& group) {
  BATON_ASSIGN_OR_RETURN(const std::vector<std::string> targets, group.Strings("targets"));
  if (targets != std::vector<std::string>{"Linear"}) {
    return Unimplemented(group.what(), ": 'targets': only [\"Linear\"] is supported");
  }
  BATON_ASSIGN_OR_RETURN(const JsonObject weights_json, group.Object("weights"));
  BATON_ASSIGN_OR_RETURN(const NumberScheme weights, ReadNumberScheme(weights_json));
  if (!group.Has("input_activations")) {
    return Unimplemented(group.what(), ": FP8 weights without quantized activations are not supported");
  }
  if (group.Has("output_activations")) {
    return Unimplemented(group.what(), ": 'output_activations': quantized outputs are not supported");
  }
  BATON_ASSIGN_OR_RETURN(const JsonObject inputs_json, group.Object("input_activations"));
  BATON_ASSIGN_OR_RETURN(const NumberScheme inputs, ReadNumberScheme(inputs_json));
  const bool per_token = inputs.strategy == "token" && inputs.dynamic;
  if (!weights.dynamic) {
    if (weights.strategy == "channel" && per_token) return QuantizationScheme::kFp8PerChannelDynamic;
    if (weights.strategy == "tensor" && per_token) return QuantizationScheme::kFp8PerTensorDynamic;
    if (weights.strategy == "tensor" && inputs.strategy == "tensor") {
      return inputs.dynamic ? QuantizationScheme::kFp8PerTensorDynamic : QuantizationScheme::kFp8PerTensorStatic;
    }
  }
  return Unimplemented(group.what(), ": weights by '", weights.strategy, "'", weights.dynamic ? " (dynamic)" : "",
                       " with activations by '", inputs.strategy, "'", inputs.dynamic ? " (dynamic)" : "",
                       " are not supported; supported are channel with dynamic token, and tensor with tensor");
}

// Whether the KV cache is FP8; other types are refused.
absl::StatusOr<bool> ReadKvScheme(const JsonObject& json) {
  if (!json.Has("kv_cache_scheme")) return false;
  if (json.Find("kv_cache_scheme")->is_string()) {  // AutoFP8's
    BATON_ASSIGN_OR_RETURN(const std::string name, json.String("kv_cache_scheme"));
    if (name != "static") return json.Wrong("kv_cache_scheme", "static");
    return true;
  }
  BATON_ASSIGN_OR_RETURN(const JsonObject scheme_json, json.Object("kv_cache_scheme"));
  BATON_ASSIGN_OR_RETURN(const NumberScheme scheme, ReadNumberScheme(scheme_json));
  if (scheme.strategy != "tensor") {
    return Unimplemented(scheme_json.what(), ": scales by '", scheme.strategy,
                         "' are not supported; supported is tensor");
  }
  if (scheme.dynamic) {
    return Unimplemented(scheme_json.what(),
                         ": scales that are found at run time are not supported; supported are those of ",
                         "the checkpoint ('dynamic': false)");
  }
  return true;
}

absl::StatusOr<QuantizationConfig> ReadCompressedTensors(const JsonObject& json) {
  QuantizationConfig out;
  BATON_ASSIGN_OR_RETURN(const std::string format, json.String("format", "float-quantized"));
  if (format != "float-quantized" && format != "naive-quantized") {
    return Unimplemented(json.what(), ": format '", format, "' is not supported; supported is float-quantized (FP8)");
  }
  if (json.Has("sparsity_config")) {
    BATON_ASSIGN_OR_RETURN(const JsonObject sparsity, json.Object("sparsity_config"));
    BATON_ASSIGN_OR_RETURN(const std::string sparse_format, sparsity.String("format", "dense"));
    if (sparse_format != "dense") {
      return Unimplemented(sparsity.what(), ": format '", sparse_format, "' is not supported; supported is dense");
    }
  }
  BATON_ASSIGN_OR_RETURN(const JsonObject groups, json.Object("config_groups"));
  for (const auto& [key, value] : groups.object()) {
    BATON_ASSIGN_OR_RETURN(
        const JsonObject group,
        JsonObject::From(value, Cat(groups.what(), ": '", std::string_view(key.data(), key.size()), "'")));
    BATON_ASSIGN_OR_RETURN(const QuantizationScheme scheme, ReadGroup(group));
    if (out.scheme != QuantizationScheme::kNone && out.scheme != scheme) {
      return Unimplemented(groups.what(), ": groups of different schemes are not supported");
    }
    out.scheme = scheme;
  }
  if (out.scheme == QuantizationScheme::kNone) return json.Wrong("config_groups", "at least one group");
  BATON_ASSIGN_OR_RETURN(out.kv_cache_fp8, ReadKvScheme(json));
  BATON_ASSIGN_OR_RETURN(out.ignored, json.Strings("ignore"));
  return out;
}

absl::StatusOr<QuantizationConfig> ReadAutoFp8(const JsonObject& json) {
  QuantizationConfig out;
  if (json.Has("weight_block_size")) {
    return Unimplemented(json.what(), ": 'weight_block_size': scales by block are not supported");
  }
  BATON_ASSIGN_OR_RETURN(const std::string activations, json.String("activation_scheme", "dynamic"));
  if (activations == "static") {
    out.scheme = QuantizationScheme::kFp8PerTensorStatic;
  } else if (activations == "dynamic") {
    out.scheme = QuantizationScheme::kFp8PerTensorDynamic;
  } else {
    return json.Wrong("activation_scheme", "static or dynamic");
  }
  BATON_ASSIGN_OR_RETURN(out.kv_cache_fp8, ReadKvScheme(json));
  const std::string_view key = json.Has("ignored_layers") ? "ignored_layers" : "modules_to_not_convert";
  BATON_ASSIGN_OR_RETURN(out.ignored, json.Strings(key));
  return out;
}

}  // namespace

absl::StatusOr<QuantizationConfig> ReadModelOptQuantization(const JsonObject& json) {
  QuantizationConfig out{.method = "modelopt"};
  BATON_ASSIGN_OR_RETURN(const std::string algorithm, json.String("quant_algo"));
  if (algorithm == "FP8") {
    out.scheme = QuantizationScheme::kFp8PerTensorStatic;
  } else if (algorithm == "FP8_PER_CHANNEL_PER_TOKEN") {
    out.scheme = QuantizationScheme::kFp8PerChannelDynamic;
  } else {
    return Unimplemented(json.what(), ": ModelOpt's '", algorithm,
                         "' is not supported; supported are FP8 and FP8_PER_CHANNEL_PER_TOKEN");
  }
  BATON_ASSIGN_OR_RETURN(const std::string kv, json.String("kv_cache_quant_algo", "none"));
  if (kv != "none" && kv != "FP8") {
    return Unimplemented(json.what(), ": 'kv_cache_quant_algo': '", kv, "' is not supported; supported is FP8");
  }
  BATON_ASSIGN_OR_RETURN(const bool kv_scheme, ReadKvScheme(json));
  out.kv_cache_fp8 = kv == "FP8" || kv_scheme;
  BATON_ASSIGN_OR_RETURN(out.ignored, json.Strings(json.Has("ignore") ? "ignore" : "exclude_modules"));
  return out;
}

absl::StatusOr<QuantizationConfig> ReadHfQuantization(const JsonObject& json) {
  BATON_ASSIGN_OR_RETURN(const std::string method, json.String("quant_method", ""));
  if (method == "modelopt") {
    if (!json.Has("quantization")) return ReadModelOptQuantization(json);
    BATON_ASSIGN_OR_RETURN(const JsonObject inner, json.Object("quantization"));
    return ReadModelOptQuantization(inner);
  }
  if (method == "compressed-tensors" || method == "fp8") {
    absl::StatusOr<QuantizationConfig> out = method == "fp8" ? ReadAutoFp8(json) : ReadCompressedTensors(json);
    if (out.ok()) out->method = method;
    return out;
  }
  return Unimplemented(json.what(), ": quantization method '", method,
                       "' is not supported; supported are compressed-tensors, fp8 and modelopt, with FP8 E4M3 weights");
}

}  // namespace baton
