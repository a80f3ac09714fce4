#include "model/model.h"

#include <gtest/gtest.h>

#include "model/test_files.h"

namespace baton {
namespace {

TEST(ModelTest, LoadsGguf) {
  const TemporaryDirectory directory;
  GgufBuilder builder = TinyGgufLlama();
  const std::string path = directory.Write("tiny.Q8.gguf", AddTinyTokenizer(builder).Build());
  const auto model = LoadModel(path);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->name(), "tiny.Q8");
  EXPECT_EQ(model->directory(), "");
  EXPECT_EQ(model->fingerprint().size(), 32u);
  EXPECT_EQ(model->weight_bytes(), 4 * (5 * 8 + 3 * 8 + 2 * 8 * 8 + 2 * 4 * 8 + 3 * 16 * 8));
  EXPECT_TRUE(model->tokenizer().has_value());
  EXPECT_NE(model->Find("lm_head.weight"), nullptr);
  EXPECT_EQ(model->Find("token_embd.weight"), nullptr);
}

TEST(ModelTest, FingerprintKnowsWeightsAndConfiguration) {
  const TemporaryDirectory directory;
  const auto fingerprint = [&](const GgufBuilder& builder, size_t changed_byte_from_end = 0) {
    std::string bytes = builder.Build();
    if (changed_byte_from_end > 0) bytes[bytes.size() - changed_byte_from_end] ^= 1;
    const auto model = LoadModel(directory.Write("m.gguf", bytes));
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? model->fingerprint() : "";
  };
  const std::string plain = fingerprint(TinyGgufLlama());
  EXPECT_EQ(plain, fingerprint(TinyGgufLlama()));
  EXPECT_EQ(plain, fingerprint(TinyGgufLlama().Key("general.name", "another name")));
  EXPECT_NE(plain, fingerprint(TinyGgufLlama(), 1));
  EXPECT_NE(plain, fingerprint(TinyGgufLlama().Key("llama.rope.freq_base", 20000.0f)));
  EXPECT_NE(plain, fingerprint(TinyGgufLlama("qwen2")));
}

constexpr std::string_view kConfig =
    R"({"architectures":["LlamaForCausalLM"],"num_hidden_layers":1,"hidden_size":8,"intermediate_size":16,)"
    R"("num_attention_heads":2,"num_key_value_heads":1,"vocab_size":5,"max_position_embeddings":64,)"
    R"("tie_word_embeddings":true})";

// The tensors of kConfig, zeros in F32, split into two files after `first`.
std::pair<std::string, std::string> TwoShards(size_t first) {
  ModelConfig config;
  config.num_layers = 1, config.hidden_size = 8, config.intermediate_size = 16, config.num_heads = 2;
  config.num_kv_heads = 1, config.head_dim = 4, config.vocabulary = 5, config.tie_embeddings = true;
  std::string headers[2] = {"{", "{"};
  size_t sizes[2] = {}, index = 0;
  for (const WeightSpec& spec : ExpectedWeights(config)) {
    const int shard = index++ < first ? 0 : 1;
    size_t bytes = 4;
    for (const int64_t extent : spec.shape) bytes *= static_cast<size_t>(extent);
    headers[shard] +=
        Cat(headers[shard].size() > 1 ? "," : "", "\"", spec.name, R"(":{"dtype":"F32","shape":)",
            DescribeShape(spec.shape), R"(,"data_offsets":[)", sizes[shard], ",", sizes[shard] + bytes, "]}");
    sizes[shard] += bytes;
  }
  return {SafetensorsFile(headers[0] + "}", std::string(sizes[0], '\0')),
          SafetensorsFile(headers[1] + "}", std::string(sizes[1], '\0'))};
}

TEST(ModelTest, LoadsDirectoriesOfOneOrMoreFiles) {
  const TemporaryDirectory directory;
  directory.Write("config.json", kConfig);
  EXPECT_TRUE(Says(LoadModel(directory.path()).status(), {directory.path(), "no weights", "model.safetensors"}));
  directory.Write("weights.safetensors", TwoShards(100).first);
  directory.Write("generation_config.json", R"({"temperature":0.5,"eos_token_id":[2,3]})");
  const auto one = LoadModel(directory.path() + "/");
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(one->directory(), directory.path() + "/");
  EXPECT_EQ(one->name(), directory.path().substr(directory.path().rfind('/') + 1));
  EXPECT_FALSE(one->tokenizer().has_value());
  EXPECT_EQ(one->generation().temperature, 0.5f);
  EXPECT_EQ(one->config().eos, (std::vector<TokenId>{2, 3}));

  const auto [first, second] = TwoShards(3);
  directory.Write("weights.safetensors", first);
  directory.Write("more.safetensors", second);
  EXPECT_TRUE(Says(LoadModel(directory.path()).status(), {"2 safetensors files", "index.json"}));
  const auto index = [&](std::string_view file) {
    directory.Write("model.safetensors.index.json",
                    Cat(R"({"metadata":{},"weight_map":{"model.embed_tokens.weight":"weights.safetensors",)",
                        R"("model.norm.weight":")", file, "\"}}"));
    return LoadModel(directory.path());
  };
  const auto two = index("more.safetensors");
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(two->fingerprint(), one->fingerprint());
  EXPECT_TRUE(Says(index("weights.safetensors").status(), {"'model.norm.weight' is missing", "promises"}));
  EXPECT_TRUE(Says(index("../more.safetensors").status(), {"name of a file", "'../more.safetensors'"}));
  EXPECT_TRUE(Says(index("absent.safetensors").status(), {"absent.safetensors", "no such file"}));
}

TEST(ModelTest, DummyNeedsNoWeights) {
  const TemporaryDirectory directory;
  directory.Write("config.json", kConfig);
  const auto from_config = LoadModel(directory.path(), LoadFormat::kDummy, 3);
  ASSERT_TRUE(from_config.ok()) << from_config.status();
  EXPECT_EQ(from_config->Find("model.norm.weight")->dtype, DType::kBF16);
  const std::string whole = TinyGgufLlama().Build();
  const auto from_header =
      LoadModel(directory.Write("cut.gguf", whole.substr(0, whole.size() - 1000)), LoadFormat::kDummy, 3);
  ASSERT_TRUE(from_header.ok()) << from_header.status();
  const TensorView *a = from_config->Find("model.norm.weight"), *b = from_header->Find("model.norm.weight");
  EXPECT_EQ(std::string(a->data, a->data + a->bytes), std::string(b->data, b->data + b->bytes));
}

TEST(ModelTest, SaysWhatItExpects) {
  const TemporaryDirectory directory;
  EXPECT_TRUE(Says(LoadModel(directory.path()).status(), {directory.path(), "no config.json"}));
  const auto absent = LoadModel(directory.path() + "/absent");
  EXPECT_EQ(absent.status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Says(absent.status(), {"absent", "expected a .gguf file", "config.json"}));
  EXPECT_TRUE(Says(LoadModel("llama-8b").status(), {"--load-format dummy"}));
  EXPECT_TRUE(Says(LoadModel("llama-9b", LoadFormat::kDummy).status(), {"llama-9b", "llama-8b"}));
  EXPECT_TRUE(Says(LoadModel(directory.Write("x.bin", "PK....")).status(), {"x.bin", "not a GGUF file"}));
  EXPECT_TRUE(Says(LoadModel(directory.Write("x.gguf", "")).status(), {"x.gguf", "empty"}));
  EXPECT_TRUE(Says(LoadModel("/dev/null").status(), {"/dev/null", "regular file"}));
}

}  // namespace
}  // namespace baton
