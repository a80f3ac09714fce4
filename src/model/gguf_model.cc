#include "model/gguf_model.h"

#include <algorithm>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "model/dequantize.h"
#include "model/gguf_tokenizer.h"
#include "model/rope.h"

namespace baton {
namespace {

constexpr std::string_view kEmbedding = "token_embd.weight";
constexpr std::string_view kHead = "output.weight";
constexpr std::string_view kRopeFactors = "rope_freqs.weight";

const TensorView* FindTensor(const GgufFile& file, std::string_view name) {
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.name == name) return &tensor.view;
  }
  return nullptr;
}

// Reads the keys of one architecture, "llama.block_count" and the like.
class ArchitectureKeys {
 public:
  ArchitectureKeys(const GgufFile& file, std::string_view architecture) : file_(file), prefix_(architecture) {}

  std::string Key(std::string_view name) const { return Cat(prefix_, ".", name); }
  bool Has(std::string_view name) const { return file_.Find(Key(name)) != nullptr; }
  absl::StatusOr<int32_t> Integer(std::string_view name) const {
    BATON_ASSIGN_OR_RETURN(const int64_t value, file_.Integer(Key(name)));
    if (value < 0 || value > std::numeric_limits<int32_t>::max()) {
      return InvalidArgument("GGUF key '", Key(name), "': ", value, " is out of range");
    }
    return static_cast<int32_t>(value);
  }
  absl::StatusOr<int32_t> Integer(std::string_view name, int32_t otherwise) const {
    return Has(name) ? Integer(name) : otherwise;
  }
  absl::StatusOr<double> Float(std::string_view name, double otherwise) const {
    return Has(name) ? file_.Float(Key(name)) : otherwise;
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

absl::Status ReadShape(const GgufFile& file, const ArchitectureKeys& keys, ModelConfig& config) {
  BATON_ASSIGN_OR_RETURN(config.num_layers, keys.Integer("block_count"));
  BATON_ASSIGN_OR_RETURN(config.hidden_size, keys.Integer("embedding_length"));
  BATON_ASSIGN_OR_RETURN(config.intermediate_size, keys.Integer("feed_forward_length"));
  BATON_ASSIGN_OR_RETURN(config.max_position, keys.Integer("context_length"));
  BATON_ASSIGN_OR_RETURN(config.num_heads, keys.Integer("attention.head_count"));
  BATON_ASSIGN_OR_RETURN(config.num_kv_heads, keys.Integer("attention.head_count_kv", config.num_heads));
  if (config.num_heads == 0) return InvalidArgument("GGUF key '", keys.Key("attention.head_count"), "' is 0");
  BATON_ASSIGN_OR_RETURN(config.head_dim, keys.Integer("attention.key_length", config.hidden_size / config.num_heads));
  BATON_ASSIGN_OR_RETURN(const int32_t value_length, keys.Integer("attention.value_length", config.head_dim));
  if (value_length != config.head_dim) {
    return Unimplemented("GGUF key '", keys.Key("attention.value_length"), "': expected the key length ",
                         config.head_dim, ", found ", value_length);
  }
  BATON_ASSIGN_OR_RETURN(const int32_t experts, keys.Integer("expert_count", 0));
  if (experts != 0) return Unimplemented("GGUF model has ", experts, " experts: mixtures of experts are not supported");
  BATON_ASSIGN_OR_RETURN(const double epsilon, keys.Float("attention.layer_norm_rms_epsilon", 1e-5));
  config.rms_norm_epsilon = static_cast<float>(epsilon);
  const TensorView* embedding = FindTensor(file, kEmbedding);
  if (embedding == nullptr) return InvalidArgument("GGUF tensor '", kEmbedding, "' is missing");
  config.vocabulary = static_cast<int32_t>(std::min<int64_t>(embedding->rows(), std::numeric_limits<int32_t>::max()));
  config.tie_embeddings = FindTensor(file, kHead) == nullptr;
  return absl::OkStatus();
}

// Llama 3's scaling comes as one divisor for each frequency.
absl::Status ApplyRopeFactors(const TensorView& factors, std::vector<float>& frequencies) {
  if (factors.dtype != DType::kF32 || factors.shape != std::vector<int64_t>{static_cast<int64_t>(frequencies.size())}) {
    return InvalidArgument("GGUF tensor '", kRopeFactors, "': expected [", frequencies.size(), "] F32, found ",
                           DescribeTensor(factors));
  }
  if (factors.data == nullptr) return absl::OkStatus();  // header only: for dummy weights the factors do not matter
  std::vector<float> divisors(frequencies.size());
  Dequantize(DType::kF32, factors.data, static_cast<int64_t>(divisors.size()), divisors.data());
  for (size_t i = 0; i < divisors.size(); ++i) {
    if (!(divisors[i] > 0)) return InvalidArgument("GGUF tensor '", kRopeFactors, "': expected numbers > 0");
    frequencies[i] /= divisors[i];
  }
  return absl::OkStatus();
}

absl::Status ReadRope(const GgufFile& file, const ArchitectureKeys& keys, ModelConfig& config) {
  BATON_ASSIGN_OR_RETURN(const int32_t dimensions, keys.Integer("rope.dimension_count", config.head_dim));
  if (dimensions != config.head_dim) {
    return Unimplemented("GGUF key '", keys.Key("rope.dimension_count"), "': rotation of ", dimensions, " of ",
                         config.head_dim, " dimensions is not supported");
  }
  if (config.head_dim < 2 || config.head_dim > 1024) {
    return InvalidArgument("GGUF model: head dimension ", config.head_dim, ", expected 2 to 1024");
  }
  BATON_ASSIGN_OR_RETURN(const double theta, keys.Float("rope.freq_base", 10000.0));
  config.rope_theta = static_cast<float>(theta);
  config.rope_inverse_frequencies = RopeInverseFrequencies(config.head_dim, theta);
  std::string_view scaling = "none";
  if (keys.Has("rope.scaling.type")) {
    BATON_ASSIGN_OR_RETURN(scaling, file.String(keys.Key("rope.scaling.type")));
  } else if (keys.Has("rope.scale_linear")) {  // older files
    scaling = "linear";
  }
  if (scaling == "linear") {
    BATON_ASSIGN_OR_RETURN(const double old_factor, keys.Float("rope.scale_linear", 1.0));
    BATON_ASSIGN_OR_RETURN(const double factor, keys.Float("rope.scaling.factor", old_factor));
    if (!(factor > 0)) return InvalidArgument("GGUF key '", keys.Key("rope.scaling.factor"), "': ", factor);
    ScaleRopeLinear(factor, config.rope_inverse_frequencies);
  } else if (scaling != "none") {
    return Unimplemented("GGUF key '", keys.Key("rope.scaling.type"), "': '", scaling,
                         "' is not supported; supported are none and linear");
  }
  if (const TensorView* factors = FindTensor(file, kRopeFactors)) {
    BATON_RETURN_IF_ERROR(ApplyRopeFactors(*factors, config.rope_inverse_frequencies));
  }
  return absl::OkStatus();
}

struct NamePair {
  std::string_view gguf, hugging_face;
};
constexpr NamePair kModelNames[] = {
    {kEmbedding, "model.embed_tokens.weight"}, {"output_norm.weight", "model.norm.weight"}, {kHead, "lm_head.weight"}};
constexpr NamePair kLayerNames[] = {
    {"attn_norm", "input_layernorm"}, {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},   {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},    {"ffn_up", "mlp.up_proj"},           {"ffn_down", "mlp.down_proj"}};

// "blk.7.attn_q.weight" → "model.layers.7.self_attn.q_proj.weight". A name that has no counterpart stays as it is, and
// is refused as unexpected later.
std::string HuggingFaceName(std::string_view name) {
  for (const NamePair& pair : kModelNames) {
    if (name == pair.gguf) return std::string(pair.hugging_face);
  }
  if (!name.starts_with("blk.")) return std::string(name);
  const size_t first = 4, second = name.find('.', first), third = name.rfind('.');
  if (second == std::string_view::npos || third <= second) return std::string(name);
  for (const NamePair& pair : kLayerNames) {
    if (name.substr(second + 1, third - second - 1) == pair.gguf) {
      return Cat("model.layers.", name.substr(first, second - first), ".", pair.hugging_face, name.substr(third));
    }
  }
  return std::string(name);
}

absl::Status ReadArchitecture(std::string_view architecture, const GgufFile& file, ModelConfig& config) {
  if (architecture == "llama") {
    config.architecture = "LlamaForCausalLM";
    config.rope_interleaved = true;  // the converter permutes the rows of Q and K
  } else if (architecture == "qwen2") {
    config.architecture = "Qwen2ForCausalLM";
  } else {
    return Unimplemented("GGUF architecture '", architecture, "' is not supported; supported are llama and qwen2");
  }
  config.attention_bias = FindTensor(file, "blk.0.attn_q.bias") != nullptr;
  config.attention_output_bias = FindTensor(file, "blk.0.attn_output.bias") != nullptr;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelParts> ReadGgufModel(const GgufFile& file) {
  BATON_ASSIGN_OR_RETURN(const std::string_view architecture, file.String("general.architecture"));
  ModelParts parts;
  BATON_RETURN_IF_ERROR(ReadArchitecture(architecture, file, parts.config));
  const ArchitectureKeys keys(file, architecture);
  BATON_RETURN_IF_ERROR(ReadShape(file, keys, parts.config));
  BATON_RETURN_IF_ERROR(ReadRope(file, keys, parts.config));
  BATON_ASSIGN_OR_RETURN(parts.tokenizer, ReadGgufTokenizer(file, parts.config.vocabulary));
  if (parts.tokenizer) {
    parts.config.bos = parts.tokenizer->bos;
    parts.config.eos = parts.tokenizer->eos;
  }
  BATON_RETURN_IF_ERROR(CheckConfig(parts.config));
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.name == kRopeFactors) continue;
    if (!parts.tensors.emplace(HuggingFaceName(tensor.name), tensor.view).second) {
      return InvalidArgument("GGUF tensor '", tensor.name, "' is there twice");
    }
  }
  return parts;
}

}  // namespace baton
