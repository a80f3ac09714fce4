#include "text/byte_pair_encoder.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "text/tiny_tokenizer_data.h"

namespace baton {
namespace {

std::vector<TokenId> Encode(const BytePairEncoder& encoder, std::string_view piece) {
  std::vector<TokenId> tokens;
  encoder.Encode(piece, tokens);
  return tokens;
}

TEST(BytePairEncoderTest, MergesByRankThenFromTheLeft) {
  const auto encoder = BytePairEncoder::Create(TinyTokenizerData(), false);
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  EXPECT_EQ(Encode(*encoder, "hello"), (std::vector<TokenId>{kTinyHell, 'o'}));
  EXPECT_EQ(Encode(*encoder, "lll"), (std::vector<TokenId>{kTinyLl, 'l'}));
  EXPECT_EQ(Encode(*encoder, "hell"), (std::vector<TokenId>{kTinyHell}));
  EXPECT_EQ(Encode(*encoder, "hell"), (std::vector<TokenId>{kTinyHell}));  // now known to be one token
  EXPECT_EQ(Encode(*encoder, ""), (std::vector<TokenId>{}));
}

// "abc" is a token that no merge reaches: "a"+"b" comes first, and "ab"+"c" is no merge.
TokenizerData Unreachable() {
  TokenizerData data;
  data.tokens = {"a", "b", "c", "ab", "bc", "abc"};
  data.merges = {{"a", "b"}, {"b", "c"}, {"a", "bc"}};
  return data;
}

TEST(BytePairEncoderTest, WholeTokensNeedMergesUnlessIgnored) {
  const auto with_merges = BytePairEncoder::Create(Unreachable(), false);
  EXPECT_EQ(Encode(*with_merges, "abc"), (std::vector<TokenId>{3, 2}));
  EXPECT_EQ(Encode(*with_merges, "abc"), (std::vector<TokenId>{3, 2}));
  const auto ignoring = BytePairEncoder::Create(Unreachable(), true);
  EXPECT_EQ(Encode(*ignoring, "abc"), (std::vector<TokenId>{5}));
  EXPECT_EQ(Encode(*ignoring, "abcc"), (std::vector<TokenId>{3, 2, 2}));
}

TEST(BytePairEncoderTest, BytesWithoutATokenAreDropped) {
  const auto encoder = BytePairEncoder::Create(Unreachable(), false);
  EXPECT_EQ(Encode(*encoder, "xbxcx"), (std::vector<TokenId>{4}));
  EXPECT_EQ(Encode(*encoder, std::string(100, 'x')), (std::vector<TokenId>{}));
}

TEST(BytePairEncoderTest, MergesMustBeInTheVocabulary) {
  TokenizerData data = Unreachable();
  data.merges.emplace_back("c", "c");
  const auto encoder = BytePairEncoder::Create(data, false);
  ASSERT_FALSE(encoder.ok());
  EXPECT_NE(Message(encoder.status()).find("\"cc\""), std::string_view::npos);
}

// The plain definition: merge the best pair of the whole list, again and again.
std::vector<TokenId> Reference(const TokenizerData& data, std::string_view piece) {
  std::vector<std::string> parts;
  for (const char c : piece) parts.emplace_back(1, c);
  for (bool merged = true; merged;) {
    merged = false;
    for (const auto& [left, right] : data.merges) {
      for (size_t i = 0; i + 1 < parts.size() && !merged; ++i) {
        if (parts[i] != left || parts[i + 1] != right) continue;
        parts[i] += parts[i + 1];
        parts.erase(parts.begin() + static_cast<ptrdiff_t>(i) + 1);
        merged = true;
      }
      if (merged) break;
    }
  }
  std::vector<TokenId> out;
  for (const std::string& part : parts) {
    const auto token = std::find(data.tokens.begin(), data.tokens.end(), part);
    out.push_back(static_cast<TokenId>(token - data.tokens.begin()));
  }
  return out;
}

TEST(BytePairEncoderTest, RandomMergesGiveWhatTheDefinitionGives) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    uint64_t position = 0;
    const auto below = [&](uint64_t limit) { return KeyedBits(seed, 0, position++) % limit; };
    TokenizerData data;
    data.tokens = {"a", "b", "c"};
    while (data.merges.size() < 25) {  // in no sensible order: late merges may be better than early ones
      const std::string left = data.tokens[below(data.tokens.size())], right = data.tokens[below(data.tokens.size())];
      const std::pair merge(left, right);
      if (std::find(data.merges.begin(), data.merges.end(), merge) != data.merges.end()) continue;
      data.merges.insert(data.merges.begin() + static_cast<ptrdiff_t>(below(data.merges.size() + 1)), merge);
      if (std::find(data.tokens.begin(), data.tokens.end(), left + right) == data.tokens.end()) {
        data.tokens.push_back(left + right);
      }
    }
    const auto encoder = BytePairEncoder::Create(data, false);
    ASSERT_TRUE(encoder.ok());
    for (const size_t size : {1, 2, 7, 31, 32, 33, 100, 300}) {  // short pieces and long ones have different code
      std::string piece;
      for (size_t i = 0; i < size; ++i) piece.push_back(static_cast<char>('a' + below(3)));
      ASSERT_EQ(Encode(*encoder, piece), Reference(data, piece)) << piece << " seed " << seed;
    }
  }
}

}  // namespace
}  // namespace baton
