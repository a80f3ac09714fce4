#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "text/unicode.h"

namespace baton {
namespace {

using Strings = std::vector<std::string>;

Strings Pieces(std::string_view preset_name, std::string_view text) {
  const auto preset = FindPreTokenizerPreset(preset_name);
  if (!preset) return {"no preset"};
  const auto pre_tokenizer = PreTokenizer::Create(preset->steps);
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  std::vector<std::string_view> pieces;
  EXPECT_TRUE(pre_tokenizer->Split(text, pieces).ok());
  return {pieces.begin(), pieces.end()};
}

TEST(PreTokenizerTest, PresetsCutAsTheirModelsDo) {
  const std::string text = "I'LL  go 12345\n\n x";
  EXPECT_EQ(Pieces("gpt-2", text), (Strings{"I", "'", "LL", " ", " go", " 12345", "\n\n", " x"}));
  EXPECT_EQ(Pieces("smollm", text), (Strings{"I", "'", "LL", " ", " go", " ", "1", "2", "3", "4", "5", "\n\n", " x"}));
  EXPECT_EQ(Pieces("llama-bpe", text), (Strings{"I", "'LL", " ", " go", " ", "123", "45", "\n\n", " x"}));
  EXPECT_EQ(Pieces("qwen2", text), (Strings{"I", "'LL", " ", " go", " ", "1", "2", "3", "4", "5", "\n\n", " x"}));
  EXPECT_EQ(Pieces("deepseek-v3", "go 12345中文!"), (Strings{"go", " ", "123", "45", "中文", "!"}));
  EXPECT_EQ(Pieces("deepseek-llm", "go 1中"), (Strings{"go", " ", "1", "中"}));
}

TEST(PreTokenizerTest, EveryNamedPresetCompilesAndLosesNothing) {
  std::string names = PreTokenizerPresetNames() + ", ";
  const std::string text = "Hello, wörld!  12½ 中文 \r\n\t👍 it's\n";
  int presets = 0;
  for (size_t at = 0, comma; (comma = names.find(", ", at)) != names.npos; at = comma + 2, ++presets) {
    std::string joined;
    for (const std::string& piece : Pieces(names.substr(at, comma - at), text)) joined += piece;
    EXPECT_EQ(joined, text) << names.substr(at, comma - at);
  }
  EXPECT_GT(presets, 10);
  EXPECT_FALSE(FindPreTokenizerPreset("tekken"));
}

TEST(PreTokenizerTest, WithoutStepsTextIsOnePiece) {
  const auto pre_tokenizer = PreTokenizer::Create({});
  std::vector<std::string_view> pieces;
  ASSERT_TRUE(pre_tokenizer->Split("a b", pieces).ok());
  EXPECT_EQ(pieces, (std::vector<std::string_view>{"a b"}));
}

// The scanners against PCRE2, on strings of those characters that the patterns tell apart.
TEST(ScannerStepTest, CutsAsThePatternDoes) {
  const char32_t alphabet[] = {'a',  'L',  's',  't',    'r',  'e', 'v',   'l',   '\'',   '1',    0xB2,    ' ',    ' ',
                               '\n', '\r', '\t', 0x3000, 0x85, '.', 0x301, 0x17F, 0x4E2D, 0x180E, 0x1F44D, 0x2019, 0};
  for (const std::string_view pattern : {kGpt2Pattern, kLlama3Pattern, kQwen2Pattern}) {
    const auto regex = CreateRegexStep(pattern);
    ASSERT_TRUE(regex.ok()) << regex.status();
    const auto scanner = CreateScannerStep(pattern);
    for (uint64_t i = 0; i < 60000; ++i) {
      std::string text;
      for (uint64_t c = 0; c <= i % 9; ++c) AppendUtf8(alphabet[KeyedBits(7, i, c) % std::size(alphabet)], text);
      std::vector<std::string_view> expected, found;
      ASSERT_TRUE((*regex)->Split(text, expected).ok());
      ASSERT_TRUE(scanner->Split(text, found).ok());
      ASSERT_EQ(found, expected) << text;
    }
  }
}

TEST(ScannerStepTest, EveryCharacterIsWhatPcreTakesItFor) {
  for (const std::string_view pattern : {kGpt2Pattern, kLlama3Pattern}) {
    const auto regex = CreateRegexStep(pattern);
    ASSERT_TRUE(regex.ok());
    std::string text;
    for (char32_t code = 0; code < kCodePoints; ++code) {
      if (code >= 0xD800 && code < 0xE000) continue;
      text += "x1 ";
      AppendUtf8(code, text);
    }
    std::vector<std::string_view> expected, found;
    ASSERT_TRUE((*regex)->Split(text, expected).ok());
    ASSERT_TRUE(CreateScannerStep(pattern)->Split(text, found).ok());
    EXPECT_TRUE(found == expected);
  }
}

}  // namespace
}  // namespace baton
