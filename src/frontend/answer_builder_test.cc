#include "frontend/answer_builder.h"

#include <gtest/gtest.h>

#include "frontend/test_tokenizer.h"

namespace baton {
namespace {

TokenEvent Event(int32_t position, std::string_view bytes, FinishReason finish = FinishReason::kNone) {
  TokenEvent event{.position = position, .finish = finish};
  for (const char byte : bytes) event.tokens.push_back({.token = static_cast<unsigned char>(byte)});
  return event;
}

struct Answer {
  std::vector<std::string> parts;
  std::string text() const {
    std::string out;
    for (const std::string& part : parts) out += part;
    return out;
  }
};

class AnswerBuilderTest : public testing::Test {
 protected:
  AnswerBuilder Make() { return *AnswerBuilder::Create(TestTokenizer(), request_, ReasoningParser::kOff); }
  absl::Status Feed(AnswerBuilder& builder, TokenEvent event, Answer* answer) {
    return builder.Append(event, [answer](AnswerPart part) { answer->parts.push_back(part.text); });
  }
  GenerationRequest request_;
};

TEST_F(AnswerBuilderTest, DropsTokensThatCameBefore) {
  AnswerBuilder builder = Make();
  Answer answer;
  ASSERT_TRUE(Feed(builder, Event(0, "abc"), &answer).ok());
  ASSERT_TRUE(Feed(builder, Event(1, "bcde"), &answer).ok());
  ASSERT_TRUE(Feed(builder, Event(2, "c"), &answer).ok());
  ASSERT_TRUE(Feed(builder, Event(0, "abcdef", FinishReason::kLength), &answer).ok());
  EXPECT_EQ(answer.parts, (std::vector<std::string>{"a", "b", "c", "d", "e", "f"}));
  EXPECT_EQ(builder.tokens(), 6);
  EXPECT_EQ(builder.finish(), FinishReason::kLength);
}

TEST_F(AnswerBuilderTest, RefusesGaps) {
  AnswerBuilder builder = Make();
  Answer answer;
  ASSERT_TRUE(Feed(builder, Event(0, "a"), &answer).ok());
  EXPECT_EQ(Feed(builder, Event(2, "c"), &answer).code(), absl::StatusCode::kInternal);
}

TEST_F(AnswerBuilderTest, ShowsWholeCharactersOnly) {
  AnswerBuilder builder = Make();
  Answer answer;
  ASSERT_TRUE(Feed(builder, Event(0, "\xc3"), &answer).ok());
  EXPECT_TRUE(answer.parts.empty());
  ASSERT_TRUE(Feed(builder, Event(1, "\xa9x\xe2\x82", FinishReason::kLength), &answer).ok());
  EXPECT_EQ(answer.parts, (std::vector<std::string>{"é", "x", "\xef\xbf\xbd"}));
}

TEST_F(AnswerBuilderTest, StopsAtAStringAndHoldsItsBeginningBack) {
  request_.stop = {"stop"};
  AnswerBuilder builder = Make();
  Answer answer;
  ASSERT_TRUE(Feed(builder, Event(0, "a st"), &answer).ok());
  EXPECT_EQ(answer.text(), "a ");
  ASSERT_TRUE(Feed(builder, Event(4, "ay stop there"), &answer).ok());
  EXPECT_EQ(answer.text(), "a stay ");
  EXPECT_EQ(builder.finish(), FinishReason::kStop);
  EXPECT_EQ(builder.stop_string(), "stop");
  EXPECT_EQ(builder.tokens(), 11);
}

TEST_F(AnswerBuilderTest, LooksForStopStringsOnlyAfterMinTokens) {
  request_.stop = {"b"};
  request_.sampling.min_tokens = 3;
  AnswerBuilder builder = Make();
  Answer answer;
  ASSERT_TRUE(Feed(builder, Event(0, "abcabc"), &answer).ok());
  EXPECT_EQ(answer.text(), "abca");
}

TEST_F(AnswerBuilderTest, TheEndTokenIsCountedButNotShown) {
  for (const bool skip_special : {true, false}) {
    request_.skip_special_tokens = skip_special;
    AnswerBuilder builder = Make();
    Answer answer;
    TokenEvent event = Event(0, "ab", FinishReason::kStop);
    event.tokens.push_back({.token = kTestEnd});
    ASSERT_TRUE(Feed(builder, std::move(event), &answer).ok());
    EXPECT_EQ(answer.text(), "ab");
    EXPECT_EQ(builder.tokens(), 3);
  }
}

TEST_F(AnswerBuilderTest, AStopTokenIsShownOnlyWhenAskedFor) {
  request_.sampling.stop_token_ids = {'c'};
  for (const bool include : {false, true}) {
    request_.include_stop_string = include;
    AnswerBuilder builder = Make();
    Answer answer;
    ASSERT_TRUE(Feed(builder, Event(0, "abc", FinishReason::kStop), &answer).ok());
    EXPECT_EQ(answer.text(), include ? "abc" : "ab");
    EXPECT_EQ(builder.stop_token(), 'c');
  }
}

TEST_F(AnswerBuilderTest, TokensTravelWithTheTextThatTheyBringAbout) {
  request_.sampling.top_logprobs = 0;
  AnswerBuilder builder = Make();
  std::vector<size_t> counts;
  TokenEvent event = Event(0, "a\xe2\x82\xac\xc3", FinishReason::kLength);
  ASSERT_TRUE(builder.Append(event, [&](AnswerPart part) { counts.push_back(part.tokens.size()); }).ok());
  EXPECT_EQ(counts, (std::vector<size_t>{1, 3, 1}));
}

}  // namespace
}  // namespace baton
