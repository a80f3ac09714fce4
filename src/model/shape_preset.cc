#include "model/shape_preset.h"

#include "model/rope.h"

namespace baton {
namespace {

// Llama 3.1, as meta-llama's config.json has it.
ModelConfig Llama31(int32_t layers, int32_t hidden, int32_t intermediate, int32_t heads) {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.num_layers = layers;
  config.hidden_size = hidden;
  config.intermediate_size = intermediate;
  config.num_heads = heads;
  config.num_kv_heads = 8;
  config.head_dim = 128;
  config.vocabulary = 128256;
  config.max_position = 131072;
  config.rope_theta = 500000.0f;
  config.rope_inverse_frequencies = RopeInverseFrequencies(config.head_dim, config.rope_theta);
  ScaleRopeLlama3({}, config.rope_inverse_frequencies);
  config.bos = 128000;
  config.eos = {128001, 128008, 128009};
  return config;
}

// As in the FP8-dynamic checkpoints.
ModelConfig WithFp8(ModelConfig config) {
  config.quantization = {
      .scheme = QuantizationScheme::kFp8PerChannelDynamic, .method = "compressed-tensors", .ignored = {"lm_head"}};
  return config;
}

// What one of four tensor-parallel ranks computes of Llama 70B, without what they would exchange: to be measured.
ModelConfig Llama70bQuarter() {
  ModelConfig config = Llama31(80, 8192, 28672 / 4, 64 / 4);
  config.num_kv_heads = 8 / 4;
  config.vocabulary = 128256 / 4;
  config.bos = 0;
  config.eos = {1};
  return config;
}

ModelConfig SmolLm2() {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.num_layers = 30;
  config.hidden_size = 576;
  config.intermediate_size = 1536;
  config.num_heads = 9;
  config.num_kv_heads = 3;
  config.head_dim = 64;
  config.vocabulary = 49152;
  config.max_position = 8192;
  config.rope_theta = 100000.0f;
  config.rope_inverse_frequencies = RopeInverseFrequencies(config.head_dim, config.rope_theta);
  config.tie_embeddings = true;
  config.bos = 1;
  config.eos = {2};
  return config;
}

struct Preset {
  std::string_view name;
  ModelConfig (*make)();
};
constexpr Preset kPresets[] = {
    {"llama-70b-fp8", [] { return WithFp8(Llama31(80, 8192, 28672, 64)); }},
    {"llama-70b-fp8-tp4", [] { return WithFp8(Llama70bQuarter()); }},
    {"llama-8b-fp8", [] { return WithFp8(Llama31(32, 4096, 14336, 32)); }},
    {"llama-8b", [] { return Llama31(32, 4096, 14336, 32); }},
    {"smollm2-135m", SmolLm2},
};

}  // namespace

std::vector<std::string> ShapePresetNames() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  return names;
}

absl::StatusOr<ModelConfig> ShapePreset(std::string_view name) {
  std::string known;
  for (const Preset& preset : kPresets) {
    if (preset.name == name) return preset.make();
    known += Cat(known.empty() ? "" : ", ", preset.name);
  }
  return NotFound("no shape is called '", name, "'; there are ", known);
}

}  // namespace baton
