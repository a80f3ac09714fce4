#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "text/tiny_tokenizer_data.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace baton {
namespace {

TEST(IncrementalDetokenizerTest, NeverSplitsACharacter) {
  const auto tokenizer = Tokenizer::Create(TinyTokenizerData());
  IncrementalDetokenizer detokenizer(*tokenizer, true);
  EXPECT_EQ(detokenizer.Append(kTinyHell), "hell");
  EXPECT_EQ(detokenizer.Append(0xF0), "");
  EXPECT_EQ(detokenizer.Append(0x9F), "");
  EXPECT_EQ(detokenizer.Append(kTinyEnd), "");  // a special token, skipped
  EXPECT_EQ(detokenizer.Append(0x91), "");
  EXPECT_EQ(detokenizer.Append(0x8D), "👍");
  EXPECT_EQ(detokenizer.Append(0xE2), "");
  EXPECT_EQ(detokenizer.Append('a'), "\uFFFDa");
  EXPECT_EQ(detokenizer.Append(0xE2), "");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD");
  EXPECT_EQ(detokenizer.Finish(), "");
}

TEST(IncrementalDetokenizerTest, GivesWhatDecodingEverythingGives) {
  const auto tokenizer = Tokenizer::Create(TinyTokenizerData());
  for (uint64_t i = 0; i < 5000; ++i) {
    IncrementalDetokenizer detokenizer(*tokenizer, i % 2);
    std::vector<TokenId> tokens;
    std::string text;
    for (uint64_t t = 0; t < i % 12; ++t) {
      const uint64_t bits = KeyedBits(1, i, t);
      tokens.push_back(static_cast<TokenId>(bits % 3 ? 0x80 + bits / 3 % 0x80 : bits / 3 % 263));
      const std::string part = detokenizer.Append(tokens.back());
      ASSERT_TRUE(IsValidUtf8(part));
      text += part;
    }
    ASSERT_EQ(text + detokenizer.Finish(), tokenizer->Decode(tokens, i % 2));
  }
}

}  // namespace
}  // namespace baton
