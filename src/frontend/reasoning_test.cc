#include "frontend/reasoning.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

struct Case {
  ReasoningParser parser;
  std::string text, reasoning, content;
};

class ReasoningSplitterTest : public testing::TestWithParam<Case> {};

// However the text is cut into parts.
TEST_P(ReasoningSplitterTest, SplitsAtAnyCut) {
  const Case& expected = GetParam();
  for (size_t step = 1; step <= expected.text.size() + 1; ++step) {
    ReasoningSplitter splitter(expected.parser);
    std::string reasoning, content;
    for (size_t at = 0; at < expected.text.size(); at += step) {
      splitter.Append(expected.text.substr(at, step), &reasoning, &content);
      EXPECT_TRUE(expected.reasoning.starts_with(reasoning)) << reasoning;
    }
    splitter.Finish(&reasoning, &content);
    EXPECT_EQ(reasoning, expected.reasoning) << step;
    EXPECT_EQ(content, expected.content) << step;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, ReasoningSplitterTest,
    testing::Values(Case{ReasoningParser::kOff, "<think>a</think>b", "", "<think>a</think>b"},
                    Case{ReasoningParser::kTagged, "<think>a < b</think>c", "a < b", "c"},
                    Case{ReasoningParser::kTagged, "\n <think>a</thin</think></think>", "a</thin", "</think>"},
                    Case{ReasoningParser::kTagged, "b <think>a</think>", "", "b <think>a</think>"},
                    Case{ReasoningParser::kTagged, "<thi", "", "<thi"}, Case{ReasoningParser::kTagged, "", "", ""},
                    Case{ReasoningParser::kTagged, "<think>cut </thi", "cut </thi", ""},
                    Case{ReasoningParser::kFromStart, "a</think>\n\nb", "a", "\n\nb"},
                    Case{ReasoningParser::kFromStart, "never ends", "never ends", ""}));

}  // namespace
}  // namespace baton
