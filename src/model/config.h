// What a model is, apart from its weights: the numbers of its shape, its rotary embedding, its number format, and the
// sampling defaults that its makers recommend.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "core/ids.h"
#include "core/tensor.h"

namespace baton {

// How weights and activations of the linear layers are stored beyond a plain or GGUF block type. The type of each
// tensor in the file decides; this says what the FP8 ones among them need.
enum class QuantizationScheme : uint8_t {
  kNone,
  kFp8PerChannelDynamic,  // weight_scale [out]; activations are scaled per token at run time ("FP8-dynamic")
  kFp8PerTensorDynamic,   // weight_scale [1]; activations as above
  kFp8PerTensorStatic,    // weight_scale [1], input_scale [1] for activations
};

struct QuantizationConfig {
  QuantizationScheme scheme = QuantizationScheme::kNone;
  std::string method;                // "compressed-tensors", "fp8", "modelopt"; empty when kNone
  std::vector<std::string> ignored;  // modules that stay unquantized, as the checkpoint names them
  bool kv_cache_fp8 = false;         // the checkpoint has k_scale and v_scale [1] for each layer
};

struct ModelConfig {
  std::string architecture;  // Hugging Face's name: "LlamaForCausalLM"
  int32_t num_layers = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t vocabulary = 0;    // rows of the embedding
  int32_t max_position = 0;  // tokens
  float rms_norm_epsilon = 1e-5f;
  float rope_theta = 10000.0f;
  bool rope_interleaved = false;                // pairs (2i, 2i+1) instead of (i, i + head_dim / 2): GGUF's Llama rows
  std::vector<float> rope_inverse_frequencies;  // [head_dim / 2], any scaling already applied
  bool tie_embeddings = false;                  // lm_head.weight is the embedding
  bool attention_bias = false;                  // q, k and v have biases
  bool attention_output_bias = false;           // o has one
  TokenId bos = -1;                             // -1: none
  std::vector<TokenId> eos;                     // tokens that end an answer
  DType dtype = DType::kBF16;                   // of unquantized weights, as config.json says; what dummy weights get
  QuantizationConfig quantization;
};

// InvalidArgument, naming the number, when one is impossible; every reader's configuration passes this.
absl::Status CheckConfig(const ModelConfig& config);

// generation_config.json: what to use when a request does not say.
struct GenerationDefaults {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<int32_t> max_new_tokens;
  std::vector<TokenId> eos;  // empty: the file does not say
};

}  // namespace baton
