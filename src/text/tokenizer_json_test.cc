#include "text/tokenizer_json.h"

#include <gtest/gtest.h>

#include <fstream>

#include "text/pre_tokenizer.h"

namespace baton {
namespace {

constexpr std::string_view kTiny = R"({
  "version": "1.0", "truncation": null, "padding": null,
  "added_tokens": [{"id": 4, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": true,
                    "normalized": false, "special": true}],
  "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"String": "a.b"}, "behavior": "Isolated", "invert": false},
    {"type": "Digits", "individual_digits": true},
    {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
  "post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel", "trim_offsets": false},
    {"type": "TemplateProcessing",
     "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
     "special_tokens": {"<s>": {"id": "<s>", "ids": [4], "tokens": ["<s>"]}}}]},
  "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": {"a": 0, "b": 1, "ab": 2, "aba": 3}, "merges": ["a b", ["ab", "a"]]}})";

std::string Replaced(std::string_view from, std::string_view to) {
  std::string text(kTiny);
  const size_t at = text.find(from);
  EXPECT_NE(at, text.npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(TokenizerJsonTest, ReadsEverything) {
  const auto data = ParseTokenizerJson(kTiny);
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->tokens, (std::vector<std::string>{"a", "b", "ab", "aba", "<s>"}));
  EXPECT_EQ(data->merges, (std::vector<std::pair<std::string, std::string>>{{"a", "b"}, {"ab", "a"}}));
  ASSERT_EQ(data->added_tokens.size(), 1u);
  EXPECT_TRUE(data->added_tokens[0].special && data->added_tokens[0].rstrip);
  ASSERT_EQ(data->pre_tokenizer.size(), 3u);
  EXPECT_EQ(data->pre_tokenizer[0].pattern, R"(a\.b)");
  EXPECT_TRUE(data->pre_tokenizer[1].digits_individually);
  EXPECT_EQ(data->pre_tokenizer[2].pattern, kGpt2Pattern);
  EXPECT_TRUE(data->ignore_merges && data->normalize_nfc && data->add_bos && !data->add_prefix_space);
  EXPECT_EQ(data->bos, 4);
}

TEST(TokenizerJsonTest, RefusesByName) {
  const struct {
    std::string_view from, to, message;
  } cases[] = {
      {R"("type": "BPE")", R"("type": "Unigram")", R"(tokenizer.json.model.type: expected "BPE")"},
      {R"("dropout": null)", R"("dropout": 0.1)", "model.dropout"},
      {R"("byte_fallback": false)", R"("byte_fallback": true)", "model.byte_fallback"},
      {R"("end_of_word_suffix": "")", R"("end_of_word_suffix": "</w>")", "model.end_of_word_suffix"},
      {R"({"type": "NFC"})", R"({"type": "NFKC"})",
       "normalizers[0]: expected NFC or null, found an object of type \"NFKC\""},
      {R"("Isolated")", R"("Removed")", "behavior"},
      {R"("type": "Digits")", R"("type": "Metaspace")", "pretokenizers[1]"},
      {R"("decoder": {"type": "ByteLevel"})", R"("decoder": {"type": "WordPiece"})", "decoder"},
      {R"("decoder": {"type": "ByteLevel"})", R"("decoder": null)", "decoder"},
      {R"({"type": "ByteLevel", "trim_offsets": false})", R"({"type": "BertProcessing"})", "processors[0]"},
      {R"({"Sequence": {"id": "A", "type_id": 0}}])",
       R"({"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<s>", "type_id": 0}}])", "single"},
      {R"("ids": [4])", R"("ids": [5])", "ids[0]"},
      {R"("ids": [4])", R"("ids": [4, 4])", "ids: expected one id"},
      {R"("id": 4, "content")", R"("id": 3, "content")", "added_tokens[0]"},
      {R"("id": 4, "content")", R"("id": -1, "content")", "added_tokens[0]"},
      {R"("id": 4, "content")", R"("id": 4000000, "content")", "added_tokens[0]"},
      {R"("aba": 3)", R"("aba": 2)", "one token for each id"},
      {R"("aba": 3)", R"("aba": "x")", "vocab.aba: expected an integer"},
      {R"("a b")", R"("a b c")", "merges[0]"},
      {R"(["ab", "a"])", R"(["ab"])", "merges[1]"},
      {R"("version": "1.0",)", "", ""},
  };
  for (const auto& [from, to, message] : cases) {
    const auto data = ParseTokenizerJson(Replaced(from, to));
    if (message.empty()) {
      EXPECT_TRUE(data.ok()) << data.status();
      continue;
    }
    ASSERT_FALSE(data.ok()) << from << " -> " << to;
    EXPECT_NE(Message(data.status()).find(message), std::string_view::npos) << data.status();
  }
}

TEST(TokenizerJsonTest, BadJsonIsAnError) {
  for (const std::string text : {"", "{", "[]", "null", "{\"model\": 1}", "{\"model\": {\"type\": \"BPE\"}}"}) {
    EXPECT_FALSE(ParseTokenizerJson(text).ok()) << text;
  }
  EXPECT_FALSE(ParseTokenizerJson(std::string(100'000, '[')).ok());
}

TEST(TokenizerConfigTest, AddsTextsAndFlags) {
  auto data = *ParseTokenizerJson(kTiny);
  ASSERT_TRUE(ApplyTokenizerConfig(R"({"bos_token": "a", "eos_token": {"content": "<s>"}, "pad_token": null,
      "add_bos_token": false, "chat_template": [{"name": "rag", "template": "x"}, {"name": "default", "template": "y"}]})",
                                   data)
                  .ok());
  EXPECT_EQ(data.bos, 0);
  EXPECT_FALSE(data.add_bos);
  EXPECT_EQ(data.eos, (std::vector<TokenId>{4}));
  EXPECT_EQ(data.eos_token, "<s>");
  EXPECT_EQ(data.chat_template, "y");
  ASSERT_TRUE(ApplyTokenizerConfig(R"({"chat_template": "z"})", data).ok());
  EXPECT_EQ(data.chat_template, "z");
}

TEST(TokenizerConfigTest, RefusesByName) {
  auto data = *ParseTokenizerJson(kTiny);
  EXPECT_FALSE(ApplyTokenizerConfig(R"({"add_eos_token": true})", data).ok());
  EXPECT_FALSE(ApplyTokenizerConfig(R"({"bos_token": 5})", data).ok());
  EXPECT_FALSE(
      ApplyTokenizerConfig(R"({"chat_template": [{"name": "a", "template": ""}, {"name": "b", "template": ""}]})", data)
          .ok());
  data.bos = -1;
  EXPECT_FALSE(ApplyTokenizerConfig(R"({"add_bos_token": true, "bos_token": "none such"})", data).ok());
}

TEST(ReadTokenizerDirectoryTest, ReadsThreeFiles) {
  const std::filesystem::path directory = std::filesystem::path(testing::TempDir()) / "tokenizer_directory";
  std::filesystem::create_directories(directory);
  std::filesystem::remove(directory / "tokenizer.json");
  EXPECT_EQ(ReadTokenizerDirectory(directory).status().code(), absl::StatusCode::kNotFound);
  std::ofstream(directory / "tokenizer.json") << kTiny;
  std::ofstream(directory / "tokenizer_config.json") << R"({"chat_template": "old", "eos_token": "b"})";
  std::ofstream(directory / "chat_template.jinja") << "new";
  const auto data = ReadTokenizerDirectory(directory);
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->chat_template, "new");
  EXPECT_EQ(data->eos, (std::vector<TokenId>{1}));
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace baton
