#include "text/regex_dialect.h"

#include <gtest/gtest.h>

#include "text/pre_tokenizer.h"

namespace baton {
namespace {

std::vector<std::string> Pieces(std::string_view pattern, std::string_view text) {
  const auto step = CreateRegexStep(pattern);
  EXPECT_TRUE(step.ok()) << step.status();
  std::vector<std::string_view> pieces;
  if (step.ok()) EXPECT_TRUE((*step)->Split(text, pieces).ok());
  return {pieces.begin(), pieces.end()};
}
using Strings = std::vector<std::string>;

TEST(RegexDialectTest, WhiteSpaceIsUnicodes) {
  EXPECT_EQ(Pieces(R"(\s+)", "a\u180eb\u3000\u0085c"), (Strings{"a\u180eb", "\u3000\u0085", "c"}));
  EXPECT_EQ(Pieces(R"([^\S\n]+)", "a \n\tb"), (Strings{"a", " ", "\n", "\t", "b"}));
}

TEST(RegexDialectTest, LettersWithOtherMeanings) {
  EXPECT_EQ(Pieces(R"(\v)", "a\n\vb"), (Strings{"a\n", "\v", "b"}));
  EXPECT_EQ(Pieces(R"(a{,2}b)", "aaab"), (Strings{"a", "aab"}));
  EXPECT_EQ(Pieces(R"(\w+)", "a\u0301_ -"), (Strings{"a\u0301_", " -"}));
  EXPECT_EQ(Pieces(R"(x{)", "ax{b"), (Strings{"a", "x{", "b"}));
  EXPECT_EQ(Pieces("(?i:'S)", "'s'S'\u017f"), (Strings{"'s", "'S", "'\u017f"}));
}

TEST(RegexDialectTest, LiteralsMatchThemselves) {
  const std::string text = "a.b*[c]\\d{2}\n(€)$^|?+ -&#~";
  EXPECT_EQ(Pieces(LiteralRegex(text), "<" + text + ">"), (Strings{"<", text, ">"}));
}

TEST(RegexDialectTest, RefusesByNameAndPlace) {
  for (const char* pattern : {"[a[b]]", "[a&&b]", R"(\h)", "a{2}+", "(?<n>a)", R"(\p{Foo})", R"(\p{L)", "[a", "\\",
                              "[]a]", R"(\x41)", R"(\u12)", R"([a-\s])", "(?x:a)", R"(\1)"}) {
    const auto translated = TranslateRegex(pattern);
    ASSERT_FALSE(translated.ok()) << pattern;
    EXPECT_NE(Message(translated.status()).find("byte "), std::string_view::npos) << pattern;
  }
  EXPECT_FALSE(TranslateRegex("\xFF").ok());
  EXPECT_FALSE(TranslateRegex(std::string(100'000, 'a')).ok());
  EXPECT_FALSE(CreateRegexStep("(a").ok());
}

TEST(RegexDialectTest, CostlyPatternsAreStopped) {
  const auto step = CreateRegexStep("(?:a|a|aa)+[bc]");
  ASSERT_TRUE(step.ok());
  std::vector<std::string_view> pieces;
  const absl::Status status = (*step)->Split(std::string(200, 'a'), pieces);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

}  // namespace
}  // namespace baton
