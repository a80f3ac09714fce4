#include "model/gguf_model.h"

#include <gtest/gtest.h>

#include "model/rope.h"
#include "model/test_files.h"

namespace baton {
namespace {

// Reads and checks, as LoadModel does. The parts must not outlive `bytes`.
absl::StatusOr<ModelParts> Read(const std::string& bytes) {
  BATON_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Parse(AsBytes(bytes)));
  BATON_ASSIGN_OR_RETURN(ModelParts parts, ReadGgufModel(file));
  BATON_RETURN_IF_ERROR(ArrangeWeights(parts.config, parts.tensors));
  return parts;
}

TEST(GgufModelTest, ReadsLlama) {
  const std::string bytes = TinyGgufLlama().Build();
  const auto parts = Read(bytes);
  ASSERT_TRUE(parts.ok()) << parts.status();
  const ModelConfig& config = parts->config;
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.num_layers, 1);
  EXPECT_EQ(config.hidden_size, 8);
  EXPECT_EQ(config.intermediate_size, 16);
  EXPECT_EQ(config.num_heads, 2);
  EXPECT_EQ(config.num_kv_heads, 1);
  EXPECT_EQ(config.head_dim, 4);
  EXPECT_EQ(config.vocabulary, 5);
  EXPECT_EQ(config.max_position, 64);
  EXPECT_EQ(config.rms_norm_epsilon, 1e-5f);
  EXPECT_EQ(config.rope_inverse_frequencies, RopeInverseFrequencies(4, 10000));
  EXPECT_TRUE(config.rope_interleaved);
  EXPECT_TRUE(config.tie_embeddings);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_FALSE(parts->tokenizer.has_value());
  EXPECT_EQ(parts->tensors.size(), 12u);
  EXPECT_EQ(parts->tensors.at("lm_head.weight").data, parts->tensors.at("model.embed_tokens.weight").data);
  EXPECT_EQ(parts->tensors.at("model.layers.0.mlp.down_proj.weight").shape, (std::vector<int64_t>{8, 16}));
}

TEST(GgufModelTest, ReadsQwen2) {
  GgufBuilder file = TinyGgufLlama("qwen2");
  file.FloatTensor("output.weight", {8, 5}).FloatTensor("blk.0.attn_q.bias", {8});
  file.FloatTensor("blk.0.attn_k.bias", {4}).FloatTensor("blk.0.attn_v.bias", {4});
  const std::string bytes = file.Build();
  const auto parts = Read(bytes);
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ(parts->config.architecture, "Qwen2ForCausalLM");
  EXPECT_FALSE(parts->config.rope_interleaved);
  EXPECT_FALSE(parts->config.tie_embeddings);
  EXPECT_TRUE(parts->config.attention_bias);
  EXPECT_FALSE(parts->config.attention_output_bias);
  EXPECT_EQ(parts->tensors.at("model.layers.0.self_attn.k_proj.bias").shape, (std::vector<int64_t>{4}));
}

TEST(GgufModelTest, Llama3ScalingComesAsDivisors) {
  GgufBuilder file = TinyGgufLlama();
  const float divisors[] = {1, 8};
  const std::string bytes =
      file.Key("llama.rope.freq_base", 500000.0f).Tensor("rope_freqs.weight", {2}, 0, 8, divisors).Build();
  const auto parts = Read(bytes);
  ASSERT_TRUE(parts.ok()) << parts.status();
  const std::vector<float> plain = RopeInverseFrequencies(4, 500000);
  EXPECT_EQ(parts->config.rope_inverse_frequencies, (std::vector<float>{plain[0], plain[1] / 8}));
}

TEST(GgufModelTest, LinearScaling) {
  GgufBuilder file = TinyGgufLlama();
  const std::string bytes =
      file.Key("llama.rope.scaling.type", "linear").Key("llama.rope.scaling.factor", 4.0f).Build();
  const auto parts = Read(bytes);
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ(parts->config.rope_inverse_frequencies[0], 0.25f);
}

TEST(GgufModelTest, RefusesByName) {
  const auto status = [](GgufBuilder file) {
    const std::string bytes = file.Build();
    return Read(bytes).status();
  };
  EXPECT_TRUE(Says(status(TinyGgufLlama("mamba")), {"'mamba'", "supported are llama and qwen2"}));
  EXPECT_TRUE(Says(status(GgufBuilder()), {"'general.architecture'", "missing"}));
  EXPECT_TRUE(Says(status(TinyGgufLlama().Key("llama.expert_count", 8u)), {"8 experts"}));
  EXPECT_TRUE(Says(status(TinyGgufLlama().Key("split.count", 3u)), {"3 files", "llama-gguf-split --merge"}));
  EXPECT_TRUE(Says(status(TinyGgufLlama().Key("llama.rope.scaling.type", "yarn")), {"'yarn'", "none and linear"}));
  EXPECT_TRUE(Says(status(TinyGgufLlama().Key("llama.rope.dimension_count", 2u)), {"rope.dimension_count", "2 of 4"}));
  EXPECT_TRUE(Says(status(TinyGgufLlama().Key("llama.attention.value_length", 8u)), {"value_length", "found 8"}));
  EXPECT_TRUE(Says(status(TinyGgufLlama().FloatTensor("blk.0.extra.weight", {8})),
                   {"unexpected tensor 'blk.0.extra.weight' [8] F32"}));
  EXPECT_TRUE(Says(status(TinyGgufLlama().FloatTensor("blk.1.attn_q.weight", {8, 8})),
                   {"unexpected tensor 'model.layers.1.self_attn.q_proj.weight'"}));
  EXPECT_TRUE(Says(status(TinyGgufLlama().FloatTensor("output.weight", {8, 6})),
                   {"'lm_head.weight'", "expected the shape [5, 8]", "found [6, 8] F32"}));
  EXPECT_TRUE(Says(status(TinyGgufLlama("qwen2").FloatTensor("blk.0.attn_q.bias", {8})), {"k_proj.bias", "missing"}));
  EXPECT_TRUE(Says(status(TinyGgufLlama().FloatTensor("blk.0.attn_q.weight", {8, 8})), {"attn_q.weight", "twice"}));
}

TEST(GgufModelTest, ReadsTokenizer) {
  GgufBuilder file = TinyGgufLlama();
  AddTinyTokenizer(file)
      .Key("tokenizer.chat_template", "{{ messages }}")
      .Key("tokenizer.ggml.padding_token_id", 0xffffffffu);
  const std::string bytes = file.Build();
  const auto parts = Read(bytes);
  ASSERT_TRUE(parts.ok()) << parts.status();
  ASSERT_TRUE(parts->tokenizer.has_value());
  const TokenizerData& data = *parts->tokenizer;
  EXPECT_EQ(data.tokens.size(), 5u);
  EXPECT_EQ(data.merges, (std::vector<std::pair<std::string, std::string>>{{"a", "b"}}));
  ASSERT_EQ(data.added_tokens.size(), 2u);
  EXPECT_EQ(data.added_tokens[1].content, "<|eot_id|>");
  EXPECT_TRUE(data.added_tokens[1].special);
  EXPECT_EQ(data.eos, (std::vector<TokenId>{0, 4}));  // the end of a turn is known by its name
  EXPECT_EQ(parts->config.eos, data.eos);
  EXPECT_EQ(data.bos, 0);
  EXPECT_TRUE(data.add_bos);  // Llama 3's preset, and the key does not say otherwise
  EXPECT_EQ(data.bos_token, "<|s|>");
  EXPECT_EQ(data.pad_token, "");
  EXPECT_EQ(data.pre_tokenizer_preset, "llama-bpe");
  EXPECT_EQ(data.chat_template, "{{ messages }}");
}

TEST(GgufModelTest, RefusesBadTokenizers) {
  const auto status = [](std::initializer_list<std::string> merges, uint32_t eos, const char* model) {
    GgufBuilder file = TinyGgufLlama();
    file.Key("tokenizer.ggml.model", model).Key("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"});
    file.Key("tokenizer.ggml.merges", std::vector<std::string>(merges)).Key("tokenizer.ggml.eos_token_id", eos);
    const std::string bytes = file.Build();
    return Read(bytes).status();
  };
  EXPECT_TRUE(status({"a b"}, 1, "gpt2").ok());
  EXPECT_TRUE(Says(status({"a b"}, 1, "llama"), {"'llama'", "supported is gpt2"}));
  EXPECT_TRUE(Says(status({"a b"}, 2, "gpt2"), {"eos_token_id", "token 2", "2 tokens"}));
  for (const char* merge : {"", " ", "ab", "a ", " a"}) {
    EXPECT_TRUE(Says(status({merge}, 1, "gpt2"), {"tokenizer.ggml.merges", "space between"})) << merge;
  }
}

}  // namespace
}  // namespace baton
