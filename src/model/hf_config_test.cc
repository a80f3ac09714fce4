#include "model/hf_config.h"

#include <gtest/gtest.h>

#include "model/rope.h"
#include "model/test_files.h"

namespace baton {
namespace {

// A small configuration; of a key that is there twice the last counts, so `more` comes last.
std::string Config(std::string_view more = "", std::string_view architecture = "LlamaForCausalLM") {
  return Cat(R"({"architectures":[")", architecture, R"("],"num_hidden_layers":2,"hidden_size":64,)",
             R"("intermediate_size":128,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":100,)",
             R"("max_position_embeddings":256,"rms_norm_eps":1e-05)", more.empty() ? "" : ",", more, "}");
}

TEST(HfConfigTest, ReadsLlama) {
  const auto config = ParseHfConfig(Config(R"("bos_token_id":1,"eos_token_id":[2,3],"tie_word_embeddings":true,)"
                                           R"("rope_theta":500000.0,"torch_dtype":"float16","head_dim":null)"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->num_layers, 2);
  EXPECT_EQ(config->hidden_size, 64);
  EXPECT_EQ(config->intermediate_size, 128);
  EXPECT_EQ(config->num_heads, 4);
  EXPECT_EQ(config->num_kv_heads, 2);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->vocabulary, 100);
  EXPECT_EQ(config->max_position, 256);
  EXPECT_EQ(config->rms_norm_epsilon, 1e-5f);
  EXPECT_EQ(config->bos, 1);
  EXPECT_EQ(config->eos, (std::vector<TokenId>{2, 3}));
  EXPECT_TRUE(config->tie_embeddings);
  EXPECT_FALSE(config->rope_interleaved);
  EXPECT_FALSE(config->attention_bias);
  EXPECT_EQ(config->dtype, DType::kF16);
  EXPECT_EQ(config->rope_inverse_frequencies, RopeInverseFrequencies(16, 500000));
  EXPECT_EQ(config->quantization.scheme, QuantizationScheme::kNone);
}

TEST(HfConfigTest, ReadsRopeScaling) {
  std::vector<float> llama3 = RopeInverseFrequencies(16, 10000);
  ScaleRopeLlama3({.factor = 32, .original_max_position = 64}, llama3);
  constexpr std::string_view kScaling =
      R"({"factor":32.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":64,)"
      R"("rope_type":"llama3"})";
  const auto scaled = ParseHfConfig(Config(Cat(R"("rope_scaling":)", kScaling)));
  ASSERT_TRUE(scaled.ok()) << scaled.status();
  EXPECT_EQ(scaled->rope_inverse_frequencies, llama3);
  EXPECT_EQ(ParseHfConfig(Config(Cat(R"("rope_parameters":)", kScaling)))->rope_inverse_frequencies, llama3);

  const auto theta = ParseHfConfig(Config(R"("rope_parameters":{"rope_type":"default","rope_theta":1000})"));
  EXPECT_EQ(theta->rope_inverse_frequencies, RopeInverseFrequencies(16, 1000));

  std::vector<float> linear = RopeInverseFrequencies(16, 10000);
  ScaleRopeLinear(2, linear);
  EXPECT_EQ(ParseHfConfig(Config(R"("rope_scaling":{"type":"linear","factor":2})"))->rope_inverse_frequencies, linear);
}

TEST(HfConfigTest, ReadsMistralAndQwen2) {
  const auto mistral = ParseHfConfig(Config(R"("sliding_window":100,"head_dim":32)", "MistralForCausalLM"));
  ASSERT_TRUE(mistral.ok()) << mistral.status();
  EXPECT_EQ(mistral->max_position, 100);  // within the window nothing changes
  EXPECT_EQ(mistral->head_dim, 32);
  const auto full = ParseHfConfig(Config(R"("sliding_window":null)", "MistralForCausalLM"));
  EXPECT_EQ(full->max_position, 256);
  const auto qwen2 = ParseHfConfig(Config(R"("sliding_window":100,"use_sliding_window":false)", "Qwen2ForCausalLM"));
  ASSERT_TRUE(qwen2.ok()) << qwen2.status();
  EXPECT_EQ(qwen2->max_position, 256);
  EXPECT_TRUE(qwen2->attention_bias);
  EXPECT_FALSE(qwen2->attention_output_bias);
  const auto biased = ParseHfConfig(Config(R"("attention_bias":true)"));
  EXPECT_TRUE(biased->attention_bias);
  EXPECT_TRUE(biased->attention_output_bias);
}

TEST(HfConfigTest, RefusesByName) {
  const auto status = [](std::string_view more) { return ParseHfConfig(Config(more)).status(); };
  EXPECT_TRUE(Says(ParseHfConfig("{").status(), {"config.json", "not valid JSON"}));
  EXPECT_TRUE(Says(ParseHfConfig("[]").status(), {"config.json", "expected an object, found a list"}));
  EXPECT_TRUE(Says(ParseHfConfig("{}").status(), {"'architectures' is missing"}));
  EXPECT_TRUE(Says(ParseHfConfig(Config("", "GemmaForCausalLM")).status(), {"'GemmaForCausalLM'", "supported are"}));
  EXPECT_TRUE(Says(status(R"("hidden_size":"x")"), {"'hidden_size'", "expected an integer", R"(found "x")"}));
  EXPECT_TRUE(Says(status(R"("hidden_size":null)"), {"'hidden_size' is missing"}));
  EXPECT_TRUE(Says(status(R"("num_hidden_layers":0)"), {"'num_hidden_layers'", "found 0"}));
  EXPECT_TRUE(Says(status(R"("num_hidden_layers":99999)"), {"number of layers", "99999"}));
  EXPECT_TRUE(Says(status(R"("num_key_value_heads":3)"), {"4 heads do not divide among 3"}));
  EXPECT_TRUE(Says(status(R"("head_dim":15)"), {"head dimension 15 is odd"}));
  EXPECT_TRUE(Says(status(R"("rms_norm_eps":0)"), {"epsilon"}));
  EXPECT_TRUE(Says(status(R"("eos_token_id":100)"), {"ends an answer", "100"}));
  EXPECT_TRUE(Says(status(R"("eos_token_id":"</s>")"), {"'eos_token_id'"}));
  EXPECT_TRUE(Says(status(R"("hidden_act":"gelu")"), {"'gelu'", "silu"}));
  EXPECT_TRUE(Says(status(R"("mlp_bias":true)"), {"'mlp_bias'"}));
  EXPECT_TRUE(Says(status(R"("rope_theta":-1)"), {"'rope_theta'"}));
  EXPECT_TRUE(Says(status(R"("rope_scaling":{"type":"yarn","factor":4})"), {"'yarn'", "linear and llama3"}));
  EXPECT_TRUE(Says(status(R"("rope_scaling":{"type":"linear"})"), {"rope_scaling", "'factor' is missing"}));
  EXPECT_TRUE(Says(status(R"("rope_scaling":{"type":"linear","factor":0})"), {"'factor'", "above 0"}));
  EXPECT_TRUE(Says(status(R"("quantization_config":{"quant_method":"gptq","bits":4})"), {"'gptq'", "supported are"}));
}

TEST(HfConfigTest, ReadsGenerationDefaults) {
  const auto defaults = ParseGenerationConfig(
      R"({"temperature":0.6,"top_p":0.9,"top_k":50,"repetition_penalty":1.1,"max_new_tokens":2048,)"
      R"("eos_token_id":[128001,128009],"do_sample":true})");
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  EXPECT_EQ(defaults->temperature, 0.6f);
  EXPECT_EQ(defaults->top_p, 0.9f);
  EXPECT_EQ(defaults->top_k, 50);
  EXPECT_EQ(defaults->repetition_penalty, 1.1f);
  EXPECT_EQ(defaults->max_new_tokens, 2048);
  EXPECT_FALSE(defaults->min_p.has_value());
  EXPECT_EQ(defaults->eos, (std::vector<TokenId>{128001, 128009}));
  EXPECT_TRUE(Says(ParseGenerationConfig(R"({"top_p":2})").status(), {"'top_p'", "from 0 to 1", "found 2"}));
  EXPECT_TRUE(Says(ParseGenerationConfig(R"({"top_k":1.5})").status(), {"'top_k'", "integer"}));
}

}  // namespace
}  // namespace baton
