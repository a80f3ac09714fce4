#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <thread>

#include "text/tiny_tokenizer_data.h"

namespace baton {
namespace {

using Ids = std::vector<TokenId>;

Tokenizer Make(const TokenizerData& data) {
  auto tokenizer = Tokenizer::Create(data);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(TokenizerTest, EncodesAndDecodes) {
  const Tokenizer tokenizer = Make(TinyTokenizerData());
  const Ids ids = *tokenizer.Encode("hello w<s>é</s>");
  EXPECT_EQ(ids, (Ids{kTinyHell, 'o', kTinySpaceW, kTinyBegin, 0xC3, 0xA9, kTinyEnd}));
  EXPECT_EQ(tokenizer.Decode(ids, false), "hello w<s>é</s>");
  EXPECT_EQ(tokenizer.Decode(ids, true), "hello wé");
  EXPECT_EQ(*tokenizer.Encode("<s>h<tool>", {.parse_special = false}), (Ids{'<', 's', '>', 'h', kTinyTool}));
  EXPECT_EQ(tokenizer.vocabulary_size(), 263);
}

TEST(TokenizerTest, BeginsWithBosWhereTheModelWantsIt) {
  TokenizerData data = TinyTokenizerData();
  data.add_bos = true;
  const Tokenizer tokenizer = Make(data);
  EXPECT_EQ(*tokenizer.Encode("a"), (Ids{kTinyBegin, 'a'}));
  EXPECT_EQ(*tokenizer.Encode(""), (Ids{kTinyBegin}));
  EXPECT_EQ(*tokenizer.Encode("a", {.add_special_tokens = false}), (Ids{'a'}));
}

TEST(TokenizerTest, ShowsTokens) {
  const Tokenizer tokenizer = Make(TinyTokenizerData());
  EXPECT_EQ(tokenizer.TokenBytes(0xC3), "\xC3");
  EXPECT_EQ(tokenizer.TokenText(0xC3), "\uFFFD");
  EXPECT_EQ(tokenizer.TokenText(kTinySpaceW), " w");
  EXPECT_EQ(tokenizer.TokenBytes(-1), "");
  EXPECT_EQ(tokenizer.TokenBytes(263), "");
  EXPECT_TRUE(tokenizer.IsSpecial(kTinyBegin));
  EXPECT_FALSE(tokenizer.IsSpecial(kTinyTool));
  EXPECT_FALSE(tokenizer.IsSpecial(-1));
  EXPECT_EQ(tokenizer.FindToken("</s>"), kTinyEnd);
  EXPECT_EQ(tokenizer.FindToken("nothing"), std::nullopt);
}

TEST(TokenizerTest, InvalidTextIsReplaced) {
  const Tokenizer tokenizer = Make(TinyTokenizerData());
  EXPECT_EQ(tokenizer.Decode(*tokenizer.Encode("a\xF0\x9F\xFFz"), false), "a\uFFFD\uFFFDz");
  EXPECT_EQ(tokenizer.Decode(Ids{0xC3, 'a', -1, 0xE2}, false), "\uFFFDa\uFFFD");
}

TEST(TokenizerTest, NormalizesBetweenAddedTokens) {
  TokenizerData data = TinyTokenizerData();
  data.normalize_nfc = true;
  data.tokens.insert(data.tokens.end(), {"cafe\u0301", "raw\u0301"});
  data.added_tokens.push_back({.id = 263, .content = "cafe\u0301", .normalized = true});
  data.added_tokens.push_back({.id = 264, .content = "raw\u0301"});
  const Tokenizer tokenizer = Make(data);
  EXPECT_EQ(*tokenizer.Encode("e\u0301"), (Ids{0xC3, 0xA9}));
  EXPECT_EQ(*tokenizer.Encode("caf\u00e9cafe\u0301raw\u0301"), (Ids{263, 263, 264}));
}

TEST(TokenizerTest, PutsASpaceBeforeEverySegment) {
  TokenizerData data = TinyTokenizerData();
  data.add_prefix_space = true;
  EXPECT_EQ(*Make(data).Encode("w<s>w<s> w"), (Ids{kTinySpaceW, kTinyBegin, kTinySpaceW, kTinyBegin, kTinySpaceW}));
}

TEST(TokenizerTest, PresetsBringTheirFlags) {
  TokenizerData data = TinyTokenizerData();
  data.pre_tokenizer.clear();
  data.pre_tokenizer_preset = "qwen2";
  EXPECT_EQ(*Make(data).Encode("e\u0301"), (Ids{0xC3, 0xA9}));
  data.pre_tokenizer_preset = "unheard-of";
  const auto refused = Tokenizer::Create(data);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(Message(refused.status()).find("smollm"), std::string_view::npos);
}

TEST(TokenizerTest, RefusesWhatDoesNotFitTogether) {
  const auto refused = [](auto change) {
    TokenizerData data = TinyTokenizerData();
    change(data);
    return !Tokenizer::Create(data).ok();
  };
  EXPECT_TRUE(refused([](TokenizerData& data) { data.tokens.clear(); }));
  EXPECT_TRUE(refused([](TokenizerData& data) { data.tokens.push_back("he"); }));
  EXPECT_TRUE(refused([](TokenizerData& data) { data.added_tokens[0].id = 9999; }));
  EXPECT_TRUE(refused([](TokenizerData& data) { data.added_tokens[0].id = -1; }));
  EXPECT_TRUE(refused([](TokenizerData& data) { data.added_tokens[0].content = ""; }));
  EXPECT_TRUE(refused([](TokenizerData& data) { data.added_tokens[0].content = "<x>"; }));
  EXPECT_TRUE(refused([](TokenizerData& data) { data.added_tokens.push_back(data.added_tokens[0]); }));
  EXPECT_TRUE(refused([](TokenizerData& data) { data.eos.push_back(263); }));
  EXPECT_TRUE(refused([](TokenizerData& data) { data.bos = 263; }));
  EXPECT_TRUE(refused([](TokenizerData& data) { data.bos = -1, data.add_bos = true; }));
  EXPECT_TRUE(refused([](TokenizerData& data) { data.pre_tokenizer.push_back({.pattern = "("}); }));
  EXPECT_TRUE(refused([](TokenizerData& data) { data.merges.emplace_back("x", "y"); }));
  EXPECT_FALSE(refused([](TokenizerData& data) { data.tokens.resize(300); }));  // holes are allowed
}

TEST(TokenizerTest, ManyThreadsMayUseIt) {
  const Tokenizer tokenizer = Make(TinyTokenizerData());
  std::vector<std::thread> threads;
  std::vector<Ids> results(4);
  for (Ids& result : results) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) result = *tokenizer.Encode("hell hello w he<s> ll");
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& result : results) EXPECT_EQ(result, *tokenizer.Encode("hell hello w he<s> ll"));
}

}  // namespace
}  // namespace baton
