#include "text/jinja_lexer.h"

#include <gtest/gtest.h>

namespace baton::jinja {
namespace {

// The texts of the kText tokens, and other tokens as their text between angle brackets.
std::string Outline(std::string_view source) {
  const auto tokens = Tokenize(source);
  if (!tokens.ok()) return std::string(Message(tokens.status()));
  std::string out;
  for (const Token& token : *tokens) {
    out += token.type == TokenType::kText ? token.text : token.text.empty() ? "" : "<" + token.text + ">";
  }
  return out;
}

TEST(JinjaLexer, TrimsTheNewlineAfterBlocksAndTheIndentBeforeThem) {
  EXPECT_EQ(Outline("a\n  {% x %}\nb"), "a\n<x>b");
  EXPECT_EQ(Outline("a  {% x %}b"), "a  <x>b");
  EXPECT_EQ(Outline("a\n  {{ x }}\nb"), "a\n  <x>\nb");
  EXPECT_EQ(Outline("  {# c #}\nb\n"), "b");
}

TEST(JinjaLexer, SignsOverrideTheWhiteSpaceRules) {
  EXPECT_EQ(Outline("a \n {%- x -%} \n b"), "a<x>b");
  EXPECT_EQ(Outline("a\n {%+ x +%}\nb"), "a\n <x>\nb");
  EXPECT_EQ(Outline("a {{- x -}} b"), "a<x>b");
}

TEST(JinjaLexer, ReadsLiterals) {
  const auto tokens = Tokenize("{{ 1_000 0x1F 2.5e1 'a\\n\\u00e9' }}");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ((*tokens)[1].integer, 1000);
  EXPECT_EQ((*tokens)[2].integer, 31);
  EXPECT_EQ((*tokens)[3].number, 25.0);
  EXPECT_EQ((*tokens)[4].text, "a\n\u00e9");
}

TEST(JinjaLexer, NamesTheLineOfAnError) {
  EXPECT_EQ(Outline("a\n\n{{ ! }}"), "chat template line 3: unexpected character '!' in a tag");
  EXPECT_EQ(Outline("{{ (1] }}"), "chat template line 1: expected ')', found ']'");
  EXPECT_EQ(Outline("\n{% raw %} x"), "chat template line 2: expected '{% endraw %}', found the end of the template");
}

TEST(JinjaLexer, RefusesWhatIsNoText) {
  EXPECT_FALSE(Tokenize("a\xff").ok());
  EXPECT_FALSE(Tokenize("\xed\xa0\x80").ok());  // a surrogate
  EXPECT_FALSE(Tokenize(std::string((1 << 20) + 1, 'a')).ok());
}

}  // namespace
}  // namespace baton::jinja
