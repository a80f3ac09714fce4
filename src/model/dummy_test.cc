#include "model/dummy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "model/dequantize.h"
#include "model/normal_quantile.h"
#include "model/rope.h"
#include "model/shape_preset.h"

namespace baton {
namespace {

ModelConfig SmallConfig() {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.num_layers = 2;
  config.hidden_size = 256;
  config.intermediate_size = 320;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 64;
  config.vocabulary = 515;
  config.max_position = 128;
  config.rope_inverse_frequencies = RopeInverseFrequencies(64, 10000);
  return config;
}

Model Make(const ModelConfig& config, uint64_t seed = 1) {
  ModelParts parts{.config = config};
  EXPECT_TRUE(MakeDummyWeights(seed, parts).ok());
  auto model = Model::Create(std::move(parts), "dummy");
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

std::vector<float> Values(const Model& model, std::string_view name) {
  const TensorView* tensor = model.Find(name);
  if (tensor == nullptr) {
    ADD_FAILURE() << name << " is missing";
    return {};
  }
  int64_t elements = 1;
  for (const int64_t extent : tensor->shape) elements *= extent;
  std::vector<float> values(elements);
  Dequantize(tensor->dtype, tensor->data, elements, values.data());
  return values;
}

struct Moments {
  double mean = 0, deviation = 0;
};
Moments MomentsOf(const std::vector<float>& values) {
  double sum = 0, squares = 0;
  for (const float value : values) sum += value;
  const double mean = sum / static_cast<double>(values.size());
  for (const float value : values) squares += (value - mean) * (value - mean);
  return {mean, std::sqrt(squares / static_cast<double>(values.size()))};
}

const std::string kGate = "model.layers.1.mlp.gate_proj.weight";

TEST(DummyTest, NormalQuantiles) {
  const std::vector<double> table = NormalQuantiles(1000);
  EXPECT_NEAR(table[0], -3.2905, 1e-4);
  for (size_t i = 0; i < table.size(); ++i) {  // the distribution function of each is where it should be
    EXPECT_NEAR(std::erfc(-table[i] / std::sqrt(2.0)) / 2, (static_cast<double>(i) + 0.5) / 1000, 1e-9);
  }
}

TEST(DummyTest, SpreadLikeTrainedWeights) {
  const Model model = Make(SmallConfig());
  const Moments gate = MomentsOf(Values(model, kGate));
  EXPECT_NEAR(gate.mean, 0, 0.001);
  EXPECT_NEAR(gate.deviation, 1 / std::sqrt(256.0), 0.001);
  EXPECT_NEAR(MomentsOf(Values(model, "model.layers.1.mlp.down_proj.weight")).deviation, 1 / std::sqrt(320.0), 0.001);
  EXPECT_NEAR(MomentsOf(Values(model, "model.norm.weight")).mean, 1, 0.05);
  EXPECT_EQ(model.Find(kGate)->dtype, DType::kBF16);
}

TEST(DummyTest, AFunctionOfSeedNameAndIndex) {
  const Model first = Make(SmallConfig()), again = Make(SmallConfig()), other = Make(SmallConfig(), 2);
  EXPECT_EQ(Values(first, kGate), Values(again, kGate));
  EXPECT_EQ(first.fingerprint(), again.fingerprint());
  EXPECT_NE(Values(first, kGate), Values(other, kGate));
  EXPECT_NE(first.fingerprint(), other.fingerprint());
  EXPECT_NE(Values(first, kGate), Values(first, "model.layers.1.mlp.up_proj.weight"));
  // A larger tensor of the same name begins in the same way: no layout, thread or chunk enters.
  ModelConfig larger = SmallConfig();
  larger.vocabulary = 17000;  // more elements than one chunk
  const std::vector<float> small_table = Values(first, "model.embed_tokens.weight");
  std::vector<float> large_table = Values(Make(larger), "model.embed_tokens.weight");
  ASSERT_GT(large_table.size(), size_t{4} << 20);
  EXPECT_NE(large_table[(4 << 20) + 1], large_table[1]);
  large_table.resize(small_table.size());
  EXPECT_EQ(small_table, large_table);
}

TEST(DummyTest, RecipesMakeTheSameModel) {
  ModelConfig config = SmallConfig();
  config.vocabulary = 17000;        // 4.3 million elements of BF16
  config.intermediate_size = 8192;  // 2 million of FP8
  config.quantization = {.scheme = QuantizationScheme::kFp8PerChannelDynamic, .ignored = {"lm_head"}};
  const Model stored = Make(config);
  ModelParts parts{.config = config};
  ASSERT_TRUE(MakeDummyWeights(1, parts, /*as_recipes=*/true).ok());
  const auto made = Model::Create(std::move(parts), "dummy");
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->fingerprint(), stored.fingerprint());
  EXPECT_EQ(made->weight_bytes(), stored.weight_bytes());
  int recipes = 0;
  for (const auto& [name, tensor] : made->tensors()) {
    std::vector<uint8_t> bytes(tensor.bytes);
    if (tensor.recipe != nullptr) {
      ++recipes;
      EXPECT_EQ(tensor.data, nullptr);
      // In two parts, the second of which begins inside a random word.
      const int64_t middle = tensor.bytes / 2 + 2 * tensor.recipe->element_bytes;
      MakeElements(*tensor.recipe, 0, std::span(bytes).first(middle));
      MakeElements(*tensor.recipe, middle, std::span(bytes).subspan(middle));
    } else {
      std::copy_n(tensor.data, tensor.bytes, bytes.data());
    }
    const TensorView* expected = stored.Find(name);
    ASSERT_NE(expected, nullptr) << name;
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), expected->data)) << name;
  }
  EXPECT_EQ(recipes, 8);  // embedding, head; gate, up and down of two layers
}

TEST(DummyTest, Fp8FillsItsRangeAndTheScaleHasTheMagnitude) {
  ModelConfig config = SmallConfig();
  config.quantization = {.scheme = QuantizationScheme::kFp8PerChannelDynamic, .ignored = {"re:.*lm_head"}};
  const Model model = Make(config);
  EXPECT_EQ(model.Find("lm_head.weight")->dtype, DType::kBF16);
  ASSERT_EQ(model.Find(kGate)->dtype, DType::kF8E4M3);
  const std::vector<float> values = Values(model, kGate), scales = Values(model, kGate + "_scale");
  EXPECT_EQ(*std::max_element(values.begin(), values.end()), 448.0f);
  EXPECT_EQ(*std::min_element(values.begin(), values.end()), -448.0f);
  ASSERT_EQ(scales.size(), 320u);
  EXPECT_GT(std::set<float>(scales.begin(), scales.end()).size(), 300u);  // channels differ
  std::vector<float> real(values.size());
  for (size_t i = 0; i < values.size(); ++i) real[i] = values[i] * scales[i / 256];
  EXPECT_NEAR(MomentsOf(real).deviation, 1 / std::sqrt(256.0), 0.002);
}

TEST(DummyTest, StaticScalesAndKvScales) {
  ModelConfig config = SmallConfig();
  config.quantization = {.scheme = QuantizationScheme::kFp8PerTensorStatic, .kv_cache_fp8 = true};
  const Model model = Make(config);
  EXPECT_EQ(Values(model, kGate + "_scale").size(), 1u);
  EXPECT_GT(Values(model, "model.layers.1.mlp.gate_proj.input_scale").at(0), 0.0f);
  EXPECT_EQ(Values(model, "model.layers.1.self_attn.v_scale"), std::vector<float>{1.0f});
}

TEST(DummyTest, PresetsArePossible) {
  for (const std::string& name : ShapePresetNames()) {
    const auto config = ShapePreset(name);
    ASSERT_TRUE(config.ok());
    EXPECT_TRUE(CheckConfig(*config).ok()) << name << ": " << CheckConfig(*config);
  }
  int64_t parameters = 0;
  for (const WeightSpec& spec : ExpectedWeights(*ShapePreset("llama-70b-fp8"))) {
    int64_t elements = 1;
    for (const int64_t extent : spec.shape) elements *= extent;
    parameters += elements;
  }
  EXPECT_EQ(parameters, 70'553'706'496);  // as Meta counts it
  EXPECT_FALSE(ShapePreset("nothing").ok());
}

}  // namespace
}  // namespace baton
