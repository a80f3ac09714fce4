#include "model/config.h"

#include <cmath>

namespace baton {
namespace {

absl::Status CheckRange(std::string_view what, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return InvalidArgument("model configuration: ", what, " is ", value, ", expected ", least, " to ", most);
}

absl::Status CheckRope(const ModelConfig& config) {
  if (static_cast<int64_t>(config.rope_inverse_frequencies.size()) != config.head_dim / 2) {
    return InvalidArgument("model configuration: ", config.rope_inverse_frequencies.size(),
                           " rotary frequencies, expected half the head dimension ", config.head_dim);
  }
  for (const float frequency : config.rope_inverse_frequencies) {
    if (!std::isfinite(frequency) || frequency < 0) {
      return InvalidArgument("model configuration: rotary frequency ", frequency, ", expected a finite number >= 0");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckConfig(const ModelConfig& config) {
  BATON_RETURN_IF_ERROR(CheckRange("the number of layers", config.num_layers, 1, 4096));
  BATON_RETURN_IF_ERROR(CheckRange("the hidden size", config.hidden_size, 1, 1 << 18));
  BATON_RETURN_IF_ERROR(CheckRange("the intermediate size", config.intermediate_size, 1, 1 << 20));
  BATON_RETURN_IF_ERROR(CheckRange("the number of heads", config.num_heads, 1, 4096));
  BATON_RETURN_IF_ERROR(CheckRange("the number of KV heads", config.num_kv_heads, 1, config.num_heads));
  BATON_RETURN_IF_ERROR(CheckRange("the head dimension", config.head_dim, 2, 1024));
  BATON_RETURN_IF_ERROR(CheckRange("the vocabulary", config.vocabulary, 1, 1 << 24));
  BATON_RETURN_IF_ERROR(CheckRange("the context length", config.max_position, 1, 1 << 28));
  if (config.num_heads % config.num_kv_heads != 0) {
    return InvalidArgument("model configuration: ", config.num_heads, " heads do not divide among ",
                           config.num_kv_heads, " KV heads");
  }
  if (config.head_dim % 2 != 0) {
    return InvalidArgument("model configuration: the head dimension ", config.head_dim, " is odd");
  }
  if (!(config.rms_norm_epsilon > 0 && config.rms_norm_epsilon < 1)) {
    return InvalidArgument("model configuration: RMS norm epsilon ", config.rms_norm_epsilon,
                           ", expected a number between 0 and 1");
  }
  BATON_RETURN_IF_ERROR(CheckRange("the token that begins a text", config.bos, -1, config.vocabulary - 1));
  for (const TokenId eos : config.eos) {
    BATON_RETURN_IF_ERROR(CheckRange("a token that ends an answer", eos, 0, config.vocabulary - 1));
  }
  return CheckRope(config);
}

}  // namespace baton
