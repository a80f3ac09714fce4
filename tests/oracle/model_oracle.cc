// Folders: model
// What a model file says, as JSON, for tests/model_test.py:
//   model_oracle load PATH [dummy SEED]   everything that LoadModel gives; tensors with a checksum of their values
//   model_oracle dequantize TYPE          encoded elements on stdin → floats on stdout
#include <xxhash.h>

#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "model/dequantize.h"
#include "model/model.h"

namespace baton {
namespace {

namespace json = boost::json;

// The checksum covers the bytes as stored.
json::object DescribeTensors(const Model& model) {
  json::object out;
  for (const auto& [name, tensor] : model.tensors()) {
    json::array shape;
    for (const int64_t extent : tensor.shape) shape.push_back(extent);
    char checksum[17];
    std::snprintf(checksum, sizeof(checksum), "%016llx",
                  static_cast<unsigned long long>(XXH64(tensor.data, tensor.bytes, 0)));
    out[name] = {{"shape", shape}, {"dtype", std::string(TraitsOf(tensor.dtype).name)}, {"checksum", checksum}};
  }
  return out;
}

json::object DescribeConfig(const ModelConfig& config) {
  return {{"architecture", config.architecture},
          {"num_layers", config.num_layers},
          {"hidden_size", config.hidden_size},
          {"intermediate_size", config.intermediate_size},
          {"num_heads", config.num_heads},
          {"num_kv_heads", config.num_kv_heads},
          {"head_dim", config.head_dim},
          {"vocabulary", config.vocabulary},
          {"max_position", config.max_position},
          {"rms_norm_epsilon", config.rms_norm_epsilon},
          {"rope_theta", config.rope_theta},
          {"rope_interleaved", config.rope_interleaved},
          {"rope_inverse_frequencies", json::value_from(config.rope_inverse_frequencies)},
          {"tie_embeddings", config.tie_embeddings},
          {"attention_bias", config.attention_bias},
          {"attention_output_bias", config.attention_output_bias},
          {"bos", config.bos},
          {"eos", json::value_from(config.eos)},
          {"quantization",
           {{"scheme", static_cast<int>(config.quantization.scheme)},
            {"method", config.quantization.method},
            {"ignored", json::value_from(config.quantization.ignored)},
            {"kv_cache_fp8", config.quantization.kv_cache_fp8}}}};
}

template <typename Number>
json::value Maybe(const std::optional<Number>& number) {
  return number ? json::value(*number) : json::value(nullptr);
}

json::object DescribeGeneration(const GenerationDefaults& defaults) {
  return {{"temperature", Maybe(defaults.temperature)},
          {"top_p", Maybe(defaults.top_p)},
          {"top_k", Maybe(defaults.top_k)},
          {"min_p", Maybe(defaults.min_p)},
          {"repetition_penalty", Maybe(defaults.repetition_penalty)},
          {"max_new_tokens", Maybe(defaults.max_new_tokens)},
          {"eos", json::value_from(defaults.eos)}};
}

json::value DescribeTokenizer(const std::optional<TokenizerData>& data) {
  if (!data) return nullptr;
  json::array merges, added;
  for (const auto& [left, right] : data->merges) merges.push_back({left, right});
  for (const AddedToken& token : data->added_tokens) added.push_back({token.id, token.content, token.special});
  return {{"tokens", json::value_from(data->tokens)},
          {"merges", merges},
          {"added_tokens", added},
          {"preset", data->pre_tokenizer_preset},
          {"bos", data->bos},
          {"add_bos", data->add_bos},
          {"eos", json::value_from(data->eos)},
          {"chat_template", data->chat_template},
          {"bos_token", data->bos_token},
          {"eos_token", data->eos_token},
          {"unk_token", data->unk_token},
          {"pad_token", data->pad_token}};
}

int Load(const std::string& path, LoadFormat format, uint64_t seed) {
  const absl::StatusOr<Model> model = LoadModel(path, format, seed);
  if (!model.ok()) {
    std::cerr << model.status() << '\n';
    return 1;
  }
  std::cout << json::object{{"name", model->name()},
                            {"directory", model->directory()},
                            {"fingerprint", model->fingerprint()},
                            {"weight_bytes", model->weight_bytes()},
                            {"config", DescribeConfig(model->config())},
                            {"generation", DescribeGeneration(model->generation())},
                            {"tokenizer", DescribeTokenizer(model->tokenizer())},
                            {"tensors", DescribeTensors(*model)}};
  return 0;
}

int DequantizeInput(const std::string& type) {
  const std::vector<char> input(std::istreambuf_iterator<char>(std::cin), {});
  for (int i = 0; i <= static_cast<int>(DType::kQ6_K); ++i) {
    const auto dtype = static_cast<DType>(i);
    const DTypeTraits traits = TraitsOf(dtype);
    if (traits.name != type) continue;
    const int64_t elements = static_cast<int64_t>(input.size()) / traits.block_bytes * traits.block_elements;
    std::vector<float> values(elements);
    Dequantize(dtype, reinterpret_cast<const uint8_t*>(input.data()), elements, values.data());
    std::cout.write(reinterpret_cast<const char*>(values.data()), elements * sizeof(float));
    return 0;
  }
  std::cerr << "unknown type " << type << '\n';
  return 1;
}

}  // namespace
}  // namespace baton

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() == 2 && arguments[0] == "load") return baton::Load(arguments[1], baton::LoadFormat::kAuto, 0);
  if (arguments.size() == 4 && arguments[0] == "load" && arguments[2] == "dummy") {
    return baton::Load(arguments[1], baton::LoadFormat::kDummy, std::strtoull(arguments[3].c_str(), nullptr, 10));
  }
  if (arguments.size() == 2 && arguments[0] == "dequantize") return baton::DequantizeInput(arguments[1]);
  std::cerr << "usage: model_oracle load PATH [dummy SEED] | dequantize TYPE\n";
  return 2;
}
