// What CreateLlamaEngine makes of its options; what engines compute is in tests/contract/engine_contract_test.cc.
#include "engine/llama.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "engine/llama_weights.h"
#include "model/dummy.h"
#include "model/float_formats.h"
#include "model/rope.h"

namespace baton {
namespace {

absl::StatusOr<ModelParts> SmallParts(bool fp8) {
  ModelParts parts;
  ModelConfig& config = parts.config;
  config.architecture = "LlamaForCausalLM";
  config.num_layers = 6;
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.vocabulary = 70;
  config.max_position = 256;
  config.rope_inverse_frequencies = RopeInverseFrequencies(config.head_dim, config.rope_theta);
  if (fp8) config.quantization.scheme = QuantizationScheme::kFp8PerChannelDynamic;
  BATON_RETURN_IF_ERROR(MakeDummyWeights(1, parts));
  return parts;
}

absl::StatusOr<Model> SmallModel(bool fp8) {
  BATON_ASSIGN_OR_RETURN(ModelParts parts, SmallParts(fp8));
  return Model::Create(std::move(parts), "small");
}

absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options, bool fp8 = false) {
  BATON_ASSIGN_OR_RETURN(const Model model, SmallModel(fp8));
  BATON_ASSIGN_OR_RETURN(auto backend, CreateCpuBackend({}));
  return CreateLlamaEngine(model, std::move(backend), options);
}

TEST(LlamaEngine, DefaultsComeFromModelAndBackend) {
  EngineOptions options;
  const int64_t block_bytes = 2 * 6 * 2 * 32 * 16 * 2;  // heads, layers, K and V, tokens, dimensions, F16
  options.kv_bytes = 10 * block_bytes + 5;
  const auto engine = Create(options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const EngineInfo& info = (*engine)->info();
  EXPECT_EQ(info.backend, "cpu");
  EXPECT_EQ(info.kv.block_size, 32);
  EXPECT_EQ(info.kv.dtype, DType::kF16);
  EXPECT_EQ(info.kv.block_bytes(), block_bytes);
  EXPECT_EQ(info.num_blocks, 10);  // whole blocks
  EXPECT_EQ(info.max_model_len, 256);
  EXPECT_EQ(info.layer_group, 2);  // a quarter of six, rounded up
  EXPECT_EQ(info.vocabulary, 70);
}

TEST(LlamaEngine, KvTypeIsPartOfTheFingerprint) {
  EngineOptions options;
  options.kv_bytes = 1 << 20;
  const auto half = Create(options);
  options.kv_dtype = DType::kF32;
  const auto full = Create(options);
  ASSERT_TRUE(half.ok() && full.ok());
  EXPECT_EQ((*full)->info().kv.dtype, DType::kF32);
  EXPECT_NE((*full)->info().fingerprint, (*half)->info().fingerprint);
}

TEST(LlamaEngine, ReportsProgressUpToOne) {
  EngineOptions options;
  std::vector<double> fractions;
  options.on_progress = [&](double fraction) { fractions.push_back(fraction); };
  ASSERT_TRUE(Create(options).ok());
  ASSERT_GT(fractions.size(), 20u);
  EXPECT_TRUE(std::is_sorted(fractions.begin(), fractions.end()));
  EXPECT_LT(fractions.front(), 0.2);
  EXPECT_EQ(fractions.back(), 1.0);
}

TEST(LlamaEngine, RefusesOptionsThatCannotBe) {
  auto code = [](auto change) {
    EngineOptions options;
    options.kv_bytes = 1 << 20;
    change(options);
    return Create(options).status().code();
  };
  EXPECT_EQ(code([](EngineOptions&) {}), absl::StatusCode::kOk);
  EXPECT_EQ(code([](EngineOptions& o) { o.kv_bytes = 100; }), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](EngineOptions& o) { o.max_model_len = 257; }), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](EngineOptions& o) { o.max_batch_tokens = 0; }), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](EngineOptions& o) { o.max_sequences = 0; }), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](EngineOptions& o) { o.block_size = -1; }), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](EngineOptions& o) { o.kv_dtype = DType::kF8E4M3; }), absl::StatusCode::kUnimplemented);
}

TEST(LlamaEngine, NamesTheWeightThatTheBackendCannotTake) {
  const auto status = [](bool fp8) {
    auto parts = SmallParts(fp8);
    parts->tensors.at("model.layers.0.self_attn.k_proj.weight").bytes -= 16;
    const auto model = Model::Create(*std::move(parts), "small");
    return CreateLlamaEngine(*model, *CreateCpuBackend({}), {}).status();
  };
  for (const bool fp8 : {false, true}) {  // as it is, and expanded
    const absl::Status found = status(fp8);
    EXPECT_EQ(found.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(Message(found).find("model.layers.0.self_attn."), std::string_view::npos) << found;
    EXPECT_NE(Message(found).find("bytes"), std::string_view::npos) << found;
  }
}

SampledToken FirstToken(Engine& engine) {
  const std::vector<TokenId> tokens{3, 1, 4, 1, 5};
  const std::vector<BlockId> blocks{0};
  SamplingParams sampling;
  sampling.temperature = 0;
  sampling.top_logprobs = 1;
  Batch batch;
  batch.items.push_back(
      {.tokens = tokens, .prompt_length = 5, .count = 5, .block_table = blocks, .sample = true, .sampling = &sampling});
  const auto output = engine.Run(batch, nullptr);
  EXPECT_TRUE(output.ok()) << output.status();
  return output->items[0].sampled;
}

// FP8 checkpoints run on CPUs with the weights that their scales give, and unquantized activations.
TEST(LlamaEngine, Fp8WeightsRunOnTheCpu) {
  EngineOptions options;
  options.kv_bytes = 1 << 20;
  const auto fp8 = Create(options, /*fp8=*/true);
  ASSERT_TRUE(fp8.ok()) << fp8.status();
  auto parts = SmallParts(true);
  TensorMap floats;
  std::vector<std::vector<float>> memory;
  for (const auto& [name, view] : parts->tensors) {
    if (name.ends_with("_scale")) continue;
    floats[name] = view;
    if (view.dtype != DType::kF8E4M3) continue;
    const TensorView& scale = parts->tensors.at(name + "_scale");
    std::vector<float>& values = memory.emplace_back(view.bytes);
    for (int64_t i = 0; i < view.bytes; ++i) {
      float row_scale;
      std::memcpy(&row_scale, scale.data + i / view.columns() * 4, 4);
      values[i] = Bfloat16ToFloat(FloatToBfloat16(Fp8E4M3ToFloat(view.data[i]) * row_scale));
    }
    floats[name] = {.dtype = DType::kF32,
                    .shape = view.shape,
                    .data = reinterpret_cast<const uint8_t*>(values.data()),
                    .bytes = view.bytes * 4};
  }
  parts->tensors = floats;
  parts->config.quantization = {};
  const auto model = Model::Create(*std::move(parts), "floats");
  ASSERT_TRUE(model.ok()) << model.status();
  const auto plain = CreateLlamaEngine(*model, *CreateCpuBackend({}), options);
  ASSERT_TRUE(plain.ok()) << plain.status();
  const SampledToken a = FirstToken(**fp8), b = FirstToken(**plain);
  EXPECT_EQ(a.token, b.token);
  EXPECT_NEAR(a.logprob, b.logprob, 0.02);  // BF16 products may round their input
}

// KV blocks are exchanged only between workers whose scales of K and V agree.
TEST(LlamaEngine, KvScalesArePartOfTheFingerprint) {
  const auto fingerprint = [](float k_scale, std::vector<float>* found = nullptr) {
    auto parts = SmallParts(true);
    const float one = 1.0f;
    const auto view = [](const float& value) {
      return TensorView{
          .dtype = DType::kF32, .shape = {1}, .data = reinterpret_cast<const uint8_t*>(&value), .bytes = 4};
    };
    for (int layer = 0; layer < 6; ++layer) {
      parts->tensors[Cat("model.layers.", layer, ".self_attn.k_scale")] = view(layer == 4 ? k_scale : one);
      parts->tensors[Cat("model.layers.", layer, ".self_attn.v_scale")] = view(one);
    }
    const auto model = Model::Create(*std::move(parts), "small");
    EXPECT_TRUE(model.ok()) << model.status();
    if (found != nullptr) *found = ReadKvScales(*model, 'k');
    return model->fingerprint();
  };
  std::vector<float> found;
  EXPECT_NE(fingerprint(0.5f), fingerprint(0.25f, &found));
  EXPECT_EQ(fingerprint(0.5f), fingerprint(0.5f));
  EXPECT_EQ(found, (std::vector<float>{1, 1, 1, 1, 0.25f, 1}));
}

}  // namespace
}  // namespace baton
