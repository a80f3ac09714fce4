// What CreateLlamaEngine makes of its options; what engines compute is in tests/contract/engine_contract_test.cc.
#include "engine/llama.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "model/dummy.h"
#include "model/rope.h"

namespace baton {
namespace {

absl::StatusOr<Model> SmallModel(bool fp8) {
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
  const absl::Status status = Create({}, /*fp8=*/true).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(Message(status).find("model.layers.0.self_attn.q_proj"), std::string_view::npos) << status;
  EXPECT_NE(Message(status).find("F8_E4M3"), std::string_view::npos) << status;
}

}  // namespace
}  // namespace baton
