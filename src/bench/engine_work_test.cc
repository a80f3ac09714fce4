#include "bench/engine_work.h"

#include <gtest/gtest.h>

#include <utility>

#include "model/dummy.h"
#include "model/shape_preset.h"

namespace baton {
namespace {

// One H200 as measured: 4.60 TB/s, 1.31 PFLOP/s of FP8, 0.66 of BF16.
constexpr Ceilings kH200{
    .read_bytes_per_second = 4.6e12, .gemm_ops_per_second = 1.31e15, .attention_ops_per_second = 0.66e15};

class EngineWorkTest : public testing::Test {
 protected:
  static EngineWork Llama70b() {
    ModelParts parts;
    parts.config = *ShapePreset("llama-70b-fp8");
    EXPECT_TRUE(MakeDummyWeights(1, parts, /*as_recipes=*/true).ok());
    const auto model = Model::Create(std::move(parts), "llama-70b-fp8");
    EXPECT_TRUE(model.ok()) << model.status();
    return WorkOf(*model,
                  {.num_kv_heads = 8, .num_layers = 80, .block_size = 128, .head_dim = 128, .dtype = DType::kF8E4M3});
  }
};

// The figures of the published model: 68.45 GB of layers in FP8, 2.1 GB of head in BF16, 163,840 bytes of KV a token.
TEST_F(EngineWorkTest, CountsLlama70b) {
  const EngineWork work = Llama70b();
  EXPECT_NEAR(work.layer_weights, 68.45e9, 0.01e9);
  EXPECT_EQ(work.layer_weight_bytes, work.layer_weights);
  EXPECT_EQ(work.head_bytes, 2.0 * 128256 * 8192);
  EXPECT_EQ(work.kv_token_bytes, 163840);
}

TEST_F(EngineWorkTest, FloorsOfSteps) {
  const EngineWork work = Llama70b();
  const auto ms = [&](const StepShape& step) { return FloorMicroseconds(work, step, kH200) / 1e3; };
  EXPECT_NEAR(ms({.decode_rows = 1, .decode_context = 1}), 15.34, 0.02);      // weights and head
  EXPECT_NEAR(ms({.decode_rows = 32, .decode_context = 3075}), 18.84, 0.02);  // and 16.1 GB of KV
  EXPECT_NEAR(ms({.prompt_tokens = 3000}), 313.5 + 17.9 + 0.46, 0.5);         // computing
  EXPECT_NEAR(ms({.prompt_tokens = 8}), 14.88 + 0.457, 0.02);                 // reading again
  const double mixed = ms({.decode_rows = 32, .decode_context = 3075, .prompt_tokens = 480, .prompt_start = 1537});
  EXPECT_NEAR(mixed, 53.5 + 0.457 + 3.5 + 3.4, 0.5);
}

}  // namespace
}  // namespace baton
