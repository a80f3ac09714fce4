#include "text/added_token_matcher.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

// "[text]" for a token, "(text)" for plain text.
std::string Show(const AddedTokenMatcher& matcher, std::string_view text, bool match_special = true) {
  std::vector<AddedTokenMatcher::Segment> segments;
  matcher.Split(text, match_special, segments);
  std::string out;
  for (const auto& segment : segments) {
    out += (segment.token < 0 ? "(" : "[") + std::string(segment.text) + (segment.token < 0 ? ")" : "]");
  }
  return out;
}

TEST(AddedTokenMatcherTest, TakesTheLongestOfTheLeftmost) {
  const AddedTokenMatcher matcher(
      {{.id = 0, .content = "ab"}, {.id = 1, .content = "abcd"}, {.id = 2, .content = "bcx"}});
  EXPECT_EQ(Show(matcher, "xabcdx"), "(x)[abcd](x)");
  EXPECT_EQ(Show(matcher, "abcx"), "[ab](cx)");
  EXPECT_EQ(Show(matcher, "bcabc"), "(bc)[ab](c)");
  EXPECT_EQ(Show(matcher, ""), "");
  EXPECT_EQ(Show(AddedTokenMatcher({}), "ab"), "(ab)");
}

TEST(AddedTokenMatcherTest, SpecialTokensMayBePlainTextAndStillHideWhatOverlaps) {
  const AddedTokenMatcher matcher({{.id = 0, .content = "<s>", .special = true}, {.id = 1, .content = ">x"}});
  EXPECT_EQ(Show(matcher, "a<s>x>x"), "(a)[<s>](x)[>x]");
  EXPECT_EQ(Show(matcher, "a<s>x>x", false), "(a<s>x)[>x]");
}

TEST(AddedTokenMatcherTest, StripsSpaceAroundWhereAsked) {
  const AddedTokenMatcher matcher(
      {{.id = 0, .content = "<l>", .lstrip = true}, {.id = 1, .content = "<r>", .rstrip = true}});
  EXPECT_EQ(Show(matcher, "a \u3000<l> b"), "(a)[ \u3000<l>]( b)");
  EXPECT_EQ(Show(matcher, "a <r> \n<l>b"), "(a )[<r> \n][<l>](b)");  // the first of the two took the space
}

TEST(AddedTokenMatcherTest, SingleWordsNeedEdges) {
  const AddedTokenMatcher matcher({{.id = 0, .content = "mot", .single_word = true}});
  EXPECT_EQ(Show(matcher, "mot émot mot_ (mot)"), "[mot]( émot mot_ ()[mot]())");
}

}  // namespace
}  // namespace baton
