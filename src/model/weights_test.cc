#include "model/weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "model/test_files.h"

namespace baton {
namespace {

ModelConfig TinyConfig() {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.num_layers = 1;
  config.hidden_size = 8;
  config.intermediate_size = 16;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 4;
  config.vocabulary = 5;
  return config;
}

const std::string kQuery = "model.layers.0.self_attn.q_proj";
const std::string kKey = "model.layers.0.self_attn.k_proj";

// Every expected weight, in F32, pointing nowhere.
TensorMap Tensors(const ModelConfig& config) {
  TensorMap tensors;
  for (const WeightSpec& spec : ExpectedWeights(config)) tensors[spec.name] = {.shape = spec.shape};
  return tensors;
}

TEST(WeightsTest, EveryWeightMustBeThere) {
  for (const bool tied : {false, true}) {
    ModelConfig config = TinyConfig();
    config.tie_embeddings = tied;
    config.attention_bias = config.attention_output_bias = true;
    const TensorMap whole = Tensors(config);
    EXPECT_EQ(whole.size(), tied ? 15u : 16u);
    TensorMap tensors = whole;
    ASSERT_TRUE(ArrangeWeights(config, tensors).ok());
    EXPECT_EQ(tensors.size(), 16u);
    for (const auto& [name, view] : whole) {
      TensorMap missing = whole;
      missing.erase(name);
      EXPECT_TRUE(Says(ArrangeWeights(config, missing), {name, "missing", DescribeShape(view.shape)}));
      TensorMap wrong = whole;
      wrong[name].shape.back() += 1;
      EXPECT_TRUE(Says(ArrangeWeights(config, wrong), {name, "expected the shape", "found"}));
    }
  }
}

TEST(WeightsTest, UnexpectedIsRefusedAndHarmlessDropped) {
  const ModelConfig config = TinyConfig();
  TensorMap tensors = Tensors(config);
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {.shape = {2}};
  ASSERT_TRUE(ArrangeWeights(config, tensors).ok());
  EXPECT_FALSE(tensors.contains("model.layers.0.self_attn.rotary_emb.inv_freq"));
  tensors["model.layers.0.self_attn.q_norm.weight"] = {.dtype = DType::kF16, .shape = {4}};
  EXPECT_TRUE(Says(ArrangeWeights(config, tensors), {"unexpected tensor", "q_norm.weight' [4] F16"}));
}

TEST(WeightsTest, TiedHeadOfTheFileIsDropped) {
  ModelConfig config = TinyConfig();
  config.tie_embeddings = true;
  TensorMap tensors = Tensors(config);
  const uint8_t embedding[1] = {}, head[1] = {};
  tensors["model.embed_tokens.weight"].data = embedding;
  tensors["lm_head.weight"] = {.shape = {5, 8}, .data = head};
  ASSERT_TRUE(ArrangeWeights(config, tensors).ok());
  EXPECT_EQ(tensors.at("lm_head.weight").data, embedding);
}

TEST(WeightsTest, Fp8NeedsItsScales) {
  ModelConfig config = TinyConfig();
  TensorMap tensors = Tensors(config);
  tensors[kQuery + ".weight"].dtype = DType::kF8E4M3;
  TensorMap copy = tensors;
  EXPECT_TRUE(Says(ArrangeWeights(config, copy), {kQuery, "no quantization_config"}));

  config.quantization.scheme = QuantizationScheme::kFp8PerChannelDynamic;
  copy = tensors;
  EXPECT_TRUE(Says(ArrangeWeights(config, copy), {kQuery + ".weight_scale", "[8] is missing"}));
  copy = tensors;
  copy[kQuery + ".weight_scale"] = {.dtype = DType::kBF16, .shape = {8, 1}};
  ASSERT_TRUE(ArrangeWeights(config, copy).ok());
  EXPECT_EQ(copy.at(kQuery + ".weight_scale").shape, (std::vector<int64_t>{8}));
  copy = tensors;
  copy[kQuery + ".weight_scale"] = {.shape = {1}};
  EXPECT_TRUE(Says(ArrangeWeights(config, copy), {"expected 8 numbers", "found [1] F32"}));

  config.quantization.scheme = QuantizationScheme::kFp8PerTensorStatic;
  copy = tensors;
  copy[kQuery + ".weight_scale"] = {.shape = {}};
  EXPECT_TRUE(Says(ArrangeWeights(config, copy), {kQuery + ".input_scale", "missing"}));
  copy = tensors;
  copy[kQuery + ".weight_scale"] = {.shape = {}};
  copy[kQuery + ".input_scale"] = {.shape = {1}};
  ASSERT_TRUE(ArrangeWeights(config, copy).ok());
  EXPECT_EQ(copy.at(kQuery + ".weight_scale").shape, (std::vector<int64_t>{1}));
}

TEST(WeightsTest, ScalesWithoutFp8AreUnexpected) {
  ModelConfig config = TinyConfig();
  config.quantization.scheme = QuantizationScheme::kFp8PerChannelDynamic;
  TensorMap tensors = Tensors(config);
  tensors[kQuery + ".weight_scale"] = {.shape = {8}};
  EXPECT_TRUE(Says(ArrangeWeights(config, tensors), {"unexpected tensor", "weight_scale"}));
}

// A view of floats that outlive it.
TensorView Floats(const std::vector<float>& values, std::vector<int64_t> shape) {
  return {.dtype = DType::kF32,
          .shape = std::move(shape),
          .data = reinterpret_cast<const uint8_t*>(values.data()),
          .bytes = static_cast<int64_t>(values.size()) * 4};
}

TEST(WeightsTest, ScalesArePositiveAndFinite) {
  ModelConfig config = TinyConfig();
  TensorMap tensors = Tensors(config);
  tensors[kQuery + ".weight"].dtype = DType::kF8E4M3;
  config.quantization.scheme = QuantizationScheme::kFp8PerChannelDynamic;
  for (const float bad : {0.0f, -0.5f, std::nanf(""), std::numeric_limits<float>::infinity()}) {
    std::vector<float> scales(8, 0.25f);
    TensorMap copy = tensors;
    copy[kQuery + ".weight_scale"] = Floats(scales, {8, 1});
    ASSERT_TRUE(ArrangeWeights(config, copy).ok());
    scales[6] = bad;
    copy = tensors;
    copy[kQuery + ".weight_scale"] = Floats(scales, {8, 1});
    EXPECT_TRUE(Says(ArrangeWeights(config, copy), {kQuery + ".weight_scale", "element 6", "positive finite"})) << bad;
  }
  config.quantization.scheme = QuantizationScheme::kFp8PerTensorStatic;
  const std::vector<float> good{0.25f}, zero{0.0f}, negative{-1.0f};
  tensors[kQuery + ".weight_scale"] = Floats(good, {});
  TensorMap copy = tensors;
  copy[kQuery + ".input_scale"] = Floats(zero, {});
  EXPECT_TRUE(Says(ArrangeWeights(config, copy), {kQuery + ".input_scale", "element 0 is 0"}));
  copy = tensors;
  copy[kQuery + ".input_scale"] = Floats(good, {1});
  copy["model.layers.0.self_attn.k_scale"] = Floats(good, {1});
  copy["model.layers.0.self_attn.v_scale"] = Floats(negative, {1});  // vLLM's mark for "not calibrated"
  EXPECT_TRUE(Says(ArrangeWeights(config, copy), {"self_attn.v_scale", "is -1"}));
}

TEST(WeightsTest, KvScalesAreThereForAllLayersOrNone) {
  ModelConfig config = TinyConfig();
  config.num_layers = 2;
  TensorMap whole = Tensors(config);
  for (const int layer : {0, 1}) {
    for (const char letter : {'k', 'v'}) {
      whole[Cat("model.layers.", layer, ".self_attn.", letter, "_scale")] = {.shape = {}};
    }
  }
  TensorMap copy = whole;
  EXPECT_TRUE(ArrangeWeights(config, copy).ok());
  for (const char* missing : {"model.layers.0.self_attn.k_scale", "model.layers.1.self_attn.v_scale"}) {
    copy = whole;
    copy.erase(missing);
    EXPECT_TRUE(Says(ArrangeWeights(config, copy), {missing, "every layer, or none"}));
  }
  copy = whole;
  copy["model.layers.0.self_attn.k_scale"].shape = {1, 2};  // one for each head
  EXPECT_TRUE(Says(ArrangeWeights(config, copy), {"self_attn.k_scale", "expected 1 numbers", "[1, 2]"}));
}

TEST(WeightsTest, KvScalesGetOneName) {
  const ModelConfig config = TinyConfig();
  for (const std::string& name : {std::string("model.layers.0.self_attn.k_scale"), kKey + ".k_scale",
                                  kKey + ".output_scale", std::string("model.layers.0.self_attn.kv_scale")}) {
    TensorMap tensors = Tensors(config);
    tensors[name] = {.shape = {}};
    if (!name.ends_with("kv_scale")) tensors["model.layers.0.self_attn.v_scale"] = {.shape = {}};
    ASSERT_TRUE(ArrangeWeights(config, tensors).ok()) << name;
    EXPECT_TRUE(tensors.contains("model.layers.0.self_attn.k_scale")) << name;
    EXPECT_TRUE(tensors.contains("model.layers.0.self_attn.v_scale")) << name;
  }
  TensorMap tensors = Tensors(config);
  tensors["model.layers.0.self_attn.k_scale"] = {.shape = {}};
  tensors[kKey + ".k_scale"] = {.shape = {}};
  EXPECT_TRUE(Says(ArrangeWeights(config, tensors), {"k_scale", "twice"}));
}

TEST(WeightsTest, NormsAndEmbeddingsAreNotFp8) {
  ModelConfig config = TinyConfig();
  TensorMap tensors = Tensors(config);
  tensors["model.norm.weight"].dtype = DType::kQ8_0;
  EXPECT_TRUE(Says(ArrangeWeights(config, tensors), {"model.norm.weight", "expected F32, F16 or BF16"}));
  tensors = Tensors(config);
  tensors["model.embed_tokens.weight"].dtype = DType::kF8E4M3;
  EXPECT_TRUE(Says(ArrangeWeights(config, tensors), {"model.embed_tokens.weight", "linear weights only"}));
}

}  // namespace
}  // namespace baton
