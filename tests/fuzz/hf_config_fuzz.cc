// Folders: model
// Any text as config.json, hf_quant_config.json and generation_config.json: an error or a possible configuration.
#include <boost/json/src.hpp>  // compiled here, so that the fuzzer sees into the JSON parser
#include <cstdlib>
#include <string_view>

#include "model/hf_config.h"
#include "model/weights.h"

namespace {

constexpr std::string_view kPlain =
    R"({"architectures":["LlamaForCausalLM"],"num_hidden_layers":1,"hidden_size":8,"intermediate_size":16,)"
    R"("num_attention_heads":2,"vocab_size":5,"max_position_embeddings":64})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = baton::ParseHfConfig(text);
  if (config.ok()) {
    if (!baton::CheckConfig(*config).ok()) std::abort();
    baton::ExpectedWeights(*config);
  }
  (void)baton::ParseHfConfig(kPlain, text);
  (void)baton::ParseGenerationConfig(text);
  return 0;
}
