#include "text/unicode.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

TEST(Utf8Test, EveryCodePointRoundTrips) {
  for (char32_t code = 0; code < kCodePoints; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    AppendUtf8(code, text);
    const CodePoint decoded = DecodeUtf8(text);
    ASSERT_TRUE(decoded.valid);
    ASSERT_EQ(decoded.value, code);
    ASSERT_EQ(decoded.bytes, static_cast<int>(text.size()));
  }
}

TEST(Utf8Test, EachMaximalInvalidPartIsReplacedOnce) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(ReplaceInvalidUtf8("a\xFF"
                               "b"),
            "a" + r + "b");
  EXPECT_EQ(ReplaceInvalidUtf8("\xC0\x80"), r + r);                  // overlong
  EXPECT_EQ(ReplaceInvalidUtf8("\xED\xA0\x80"), r + r + r);          // a surrogate
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x9F\x98z"), r + "z");           // cut short
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x9F\x98"), r);                  // cut short by the end
  EXPECT_EQ(ReplaceInvalidUtf8("\xF4\x90\x80\x80"), r + r + r + r);  // beyond U+10FFFF
  EXPECT_EQ(ReplaceInvalidUtf8("\xE2\x82\xE2\x82\xAC"), r + "€");
}

TEST(Utf8Test, SaysWhetherMoreBytesWouldHelp) {
  EXPECT_TRUE(DecodeUtf8("\xE2\x82").truncated);
  EXPECT_FALSE(DecodeUtf8("\xE2\x41").truncated);
  EXPECT_FALSE(DecodeUtf8("\xE0\x80").truncated);
  EXPECT_FALSE(DecodeUtf8("\xFF").truncated);
}

TEST(CodePointPropertiesTest, FollowUnicode) {
  const uint8_t* bits = CodePointProperties();
  EXPECT_EQ(bits[U'a'] & (kLetter | kNumber | kWhiteSpace), kLetter);
  EXPECT_EQ(bits[U'Ⅷ'] & (kLetter | kNumber | kWhiteSpace), kNumber);
  EXPECT_EQ(bits[0x3000] & kWhiteSpace, kWhiteSpace);
  EXPECT_EQ(bits[0x180E] & kWhiteSpace, 0);  // was white space until Unicode 6.3
  EXPECT_EQ(bits[U'_'] & kWord, kWord);
  EXPECT_EQ(bits[0x301] & (kWord | kMayChange | kLetter), kWord | kMayChange);
  EXPECT_EQ(bits[U'é'] & kMayChange, 0);
}

}  // namespace
}  // namespace baton
