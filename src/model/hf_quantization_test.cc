#include "model/hf_quantization.h"

#include <gtest/gtest.h>

#include "model/test_files.h"

namespace baton {
namespace {

absl::StatusOr<QuantizationConfig> Read(std::string_view text) {
  BATON_ASSIGN_OR_RETURN(const boost::json::value parsed, ParseJson(text, "test"));
  BATON_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::From(parsed, "test"));
  return ReadHfQuantization(object);
}

// compressed-tensors with one group; `weights` and `inputs` are the keys after num_bits and type.
std::string Compressed(std::string_view weights, std::string_view inputs, std::string_view more = "") {
  return Cat(R"({"quant_method":"compressed-tensors","format":"float-quantized","ignore":["lm_head"],)",
             R"("config_groups":{"group_0":{"targets":["Linear"],"output_activations":null,)",
             R"("weights":{"num_bits":8,"type":"float","symmetric":true,)", weights, "},",
             R"("input_activations":{"num_bits":8,"type":"float","symmetric":true,)", inputs, "}}}", more, "}");
}

constexpr std::string_view kChannel = R"("strategy":"channel","dynamic":false)";
constexpr std::string_view kTensor = R"("strategy":"tensor","dynamic":false)";
constexpr std::string_view kToken = R"("strategy":"token","dynamic":true)";

TEST(HfQuantizationTest, ReadsCompressedTensors) {
  const auto dynamic = Read(Compressed(kChannel, kToken));
  ASSERT_TRUE(dynamic.ok()) << dynamic.status();
  EXPECT_EQ(dynamic->scheme, QuantizationScheme::kFp8PerChannelDynamic);
  EXPECT_EQ(dynamic->method, "compressed-tensors");
  EXPECT_EQ(dynamic->ignored, (std::vector<std::string>{"lm_head"}));
  EXPECT_FALSE(dynamic->kv_cache_fp8);
  EXPECT_EQ(Read(Compressed(kTensor, kTensor))->scheme, QuantizationScheme::kFp8PerTensorStatic);
  EXPECT_EQ(Read(Compressed(kTensor, kToken))->scheme, QuantizationScheme::kFp8PerTensorDynamic);
  const auto with_kv =
      Read(Compressed(kTensor, kTensor, Cat(R"(,"kv_cache_scheme":{"num_bits":8,"type":"float",)", kTensor, "}")));
  ASSERT_TRUE(with_kv.ok()) << with_kv.status();
  EXPECT_TRUE(with_kv->kv_cache_fp8);
}

TEST(HfQuantizationTest, ReadsAutoFp8AndModelOpt) {
  EXPECT_EQ(Read(R"({"quant_method":"fp8","activation_scheme":"static","ignored_layers":["lm_head"]})")->scheme,
            QuantizationScheme::kFp8PerTensorStatic);
  EXPECT_EQ(Read(R"({"quant_method":"fp8","activation_scheme":"dynamic"})")->scheme,
            QuantizationScheme::kFp8PerTensorDynamic);
  const auto modelopt =
      Read(R"({"quant_method":"modelopt","quant_algo":"FP8","ignore":["lm_head"],"kv_cache_quant_algo":"FP8"})");
  ASSERT_TRUE(modelopt.ok()) << modelopt.status();
  EXPECT_EQ(modelopt->scheme, QuantizationScheme::kFp8PerTensorStatic);
  EXPECT_TRUE(modelopt->kv_cache_fp8);
  EXPECT_EQ(modelopt->method, "modelopt");
}

TEST(HfQuantizationTest, RefusesByName) {
  const auto status = [](std::string_view text) { return Read(text).status(); };
  EXPECT_TRUE(Says(status(R"({"quant_method":"awq"})"), {"'awq'", "supported are"}));
  EXPECT_TRUE(Says(status(R"({"quant_method":"fp8","weight_block_size":[128,128]})"), {"weight_block_size"}));
  EXPECT_TRUE(Says(status(R"({"quant_method":"fp8","activation_scheme":"odd"})"), {"static or dynamic"}));
  EXPECT_TRUE(Says(status(R"({"quant_method":"modelopt","quant_algo":"NVFP4"})"), {"'NVFP4'"}));
  EXPECT_TRUE(Says(status(R"({"quant_method":"compressed-tensors","format":"pack-quantized"})"), {"'pack-quantized'"}));
  EXPECT_TRUE(Says(status(R"({"quant_method":"compressed-tensors","config_groups":{}})"), {"at least one group"}));
  EXPECT_TRUE(Says(status(Compressed(kChannel, kTensor)), {"'channel'", "'tensor'", "not supported"}));
  EXPECT_TRUE(Says(status(Compressed(R"("strategy":"group","group_size":128)", kToken)), {"'group'"}));
  EXPECT_TRUE(Says(status(Compressed(kChannel, R"("strategy":"token","dynamic":true,"num_bits":4)")), {"4-bit"}));
  EXPECT_TRUE(Says(status(Compressed(kChannel, R"("strategy":"token","dynamic":true,"type":"int")")), {"8-bit int"}));
  const auto kv = [&](std::string_view scheme) {
    return status(
        Compressed(kTensor, kTensor, Cat(R"(,"kv_cache_scheme":{"num_bits":8,"type":"float",)", scheme, "}")));
  };
  EXPECT_TRUE(Says(kv(R"("strategy":"tensor","dynamic":true)"), {"kv_cache_scheme", "found at run time"}));
  EXPECT_TRUE(Says(kv(R"("strategy":"attn_head","dynamic":false)"), {"'attn_head'", "supported is tensor"}));
  EXPECT_TRUE(Says(status(R"({"quant_method":"fp8","kv_cache_scheme":"odd"})"), {"kv_cache_scheme", "static"}));
  EXPECT_TRUE(Says(status(R"({"quant_method":"modelopt","quant_algo":"FP8","kv_cache_quant_algo":"NVFP4"})"),
                   {"'NVFP4'", "supported is FP8"}));
  EXPECT_TRUE(
      Says(status(Compressed(kChannel, kToken, R"(,"sparsity_config":{"format":"sparse-24"})")), {"sparse-24"}));
}

}  // namespace
}  // namespace baton
