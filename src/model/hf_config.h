// Hugging Face's configuration files as a ModelConfig.
//
// Threading: none of its own. Errors: InvalidArgument and Unimplemented name the file, the key, what was expected and
// what was found: whatever would change the model's output and is not supported is refused, never ignored.
#pragma once

#include <string_view>

#include "base/status.h"
#include "model/config.h"

namespace baton {

// `config`: the text of config.json. `quantization`: the text of ModelOpt's hf_quant_config.json, empty when there is
// none; config.json's own quantization_config comes first. Architectures: LlamaForCausalLM, MistralForCausalLM,
// Qwen2ForCausalLM. A sliding window shorter than the context limits the context: within it, it changes nothing.
absl::StatusOr<ModelConfig> ParseHfConfig(std::string_view config, std::string_view quantization = {});

// `text`: generation_config.json.
absl::StatusOr<GenerationDefaults> ParseGenerationConfig(std::string_view text);

}  // namespace baton
