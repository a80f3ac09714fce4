// How a Hugging Face checkpoint says that its linear layers are FP8, in the three dialects that are in use.
#pragma once

#include "base/status.h"
#include "model/config.h"
#include "model/json_object.h"

namespace baton {

// config.json's quantization_config: compressed-tensors (vLLM's llm-compressor), fp8 (AutoFP8), or modelopt.
// Unimplemented, by name, for every other method and for what these methods can say beyond FP8 E4M3 with one scale for
// each tensor or output channel.
absl::StatusOr<QuantizationConfig> ReadHfQuantization(const JsonObject& json);

// The "quantization" object of ModelOpt's hf_quant_config.json.
absl::StatusOr<QuantizationConfig> ReadModelOptQuantization(const JsonObject& json);

}  // namespace baton
