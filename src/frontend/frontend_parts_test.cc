// The small parts: JSON text, errors, admission, prompt lengths.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "frontend/admission.h"
#include "frontend/api_error.h"
#include "frontend/json_text.h"
#include "frontend/prompt_encoder.h"
#include "frontend/reply.h"
#include "frontend/test_tokenizer.h"

namespace baton {
namespace {

std::string Quoted(std::string_view text) {
  std::string out;
  AppendJsonString(out, text);
  return out;
}

TEST(JsonText, EscapesWhatItMust) {
  EXPECT_EQ(Quoted("plain é 🌊"), "\"plain é 🌊\"");
  EXPECT_EQ(Quoted("\"\\\n\r\t\x01"), "\"\\\"\\\\\\n\\r\\t\\u0001\"");
  EXPECT_EQ(Quoted(std::string_view("a\0b", 3)), "\"a\\u0000b\"");
  EXPECT_EQ(Quoted("a\xff\xc3"), "\"a\xef\xbf\xbd\xef\xbf\xbd\"");
}

TEST(JsonText, WritesNumbersShort) {
  std::string out;
  AppendJsonNumber(out, -0.1f);
  out += ' ';
  AppendJsonNumber(out, std::numeric_limits<double>::infinity());
  out += ' ';
  AppendJsonTokens(out, std::vector<TokenId>{1, -2});
  EXPECT_EQ(out, "-0.1 null [1,-2]");
}

TEST(ApiError, MapsEveryCode) {
  EXPECT_EQ(ToApiError(InvalidArgument("x")).status, 400);
  EXPECT_EQ(ToApiError(NotFound("x")).status, 404);
  EXPECT_EQ(ToApiError(ResourceExhausted("x")).status, 429);
  EXPECT_EQ(ToApiError(Unavailable("x")).status, 503);
  EXPECT_EQ(ToApiError(DeadlineExceeded("x")).status, 504);
  EXPECT_EQ(ToApiError(Internal("x")).status, 500);
  EXPECT_EQ(ToApiError(DataLoss("x")).status, 500);
  EXPECT_GT(ToApiError(ResourceExhausted("x")).retry_after_s, 0);
  EXPECT_EQ(ToApiError(WithRetryAfter(ResourceExhausted("x"), 17)).retry_after_s, 17);
  EXPECT_EQ(ErrorJson(ToApiError(WithParam(NotFound("no \"m\""), "model", "model_not_found"))),
            R"({"error":{"message":"no \"m\"","type":"not_found_error","param":"model","code":"model_not_found"}})");
}

TEST(Admission, CountsRequestsAndWaitingTokens) {
  const auto admission =
      std::make_shared<Admission>(AdmissionLimits{.requests_max = 2, .waiting_prompt_tokens_max = 10});
  auto first = Admission::Enter(admission);
  auto second = Admission::Enter(admission);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(Admission::Enter(admission).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE((*first)->AddWaiting(25).ok()) << "alone, any length is let in";
  EXPECT_EQ((*second)->AddWaiting(1).code(), absl::StatusCode::kResourceExhausted);
  (*first)->StopWaiting();
  EXPECT_TRUE((*second)->AddWaiting(10).ok());
  first->reset();
  second->reset();
  EXPECT_EQ(admission->requests(), 0);
  EXPECT_EQ(admission->waiting_prompt_tokens(), 0);
}

TEST(Admission, TellsTheRefusedWhenThereWillBeRoom) {
  const auto admission = std::make_shared<Admission>(AdmissionLimits{.requests_max = 1});
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(Admission::Enter(admission).ok());  // twenty a second, or more
  const auto only = Admission::Enter(admission);
  ASSERT_TRUE(only.ok());
  EXPECT_EQ(ToApiError(Admission::Enter(admission).status()).retry_after_s, 1);
  int last = 0;
  for (int i = 0; i < 200; ++i) last = ToApiError(Admission::Enter(admission).status()).retry_after_s;
  EXPECT_GE(last, 8);  // the two hundredth of them has to wait for its turn
  EXPECT_LE(last, 11);
}

TEST(PromptEncoder, RefusesWhatIsTooLongWithAllThreeNumbers) {
  const PromptEncoder encoder(TestTokenizer(), *ChatFormatter::Create(TestTokenizerData()), 100);
  EXPECT_EQ(encoder.EncodeText(std::string(90, 'a'), true, "prompt", 10)->size(), 90u);
  const auto refused = encoder.EncodeText(std::string(91, 'a'), true, "prompt", 10);
  const std::string message(Message(refused.status()));
  for (const char* number : {"100", "91", "10"}) EXPECT_NE(message.find(number), std::string::npos) << message;
  EXPECT_EQ(ToApiError(refused.status()).code, "context_length_exceeded");
  // Found without tokenizing all of it.
  const auto huge = encoder.EncodeText(std::string(100 << 20, 'a'), true, "prompt", 10);
  EXPECT_NE(Message(huge.status()).find("at least"), std::string_view::npos);
}

TEST(PromptEncoder, TextsOfFewTokensMayBeLong) {
  const PromptEncoder encoder(TestTokenizer(), *ChatFormatter::Create(TestTokenizerData()), 10'000);
  std::string text;
  for (int i = 0; i < 9'000; ++i) text += "hello";
  EXPECT_EQ(encoder.EncodeText(text, true, "prompt", 10)->size(), 9'000u);
}

TEST(PromptEncoder, NeedsATemplateForChat) {
  const PromptEncoder encoder(TestTokenizer(), *ChatFormatter::Create(TestTokenizerData()), 100);
  EXPECT_NE(Message(encoder.EncodePrompts({.endpoint = Endpoint::kChat}).status()).find("no chat template"),
            std::string_view::npos);
}

TEST(Reply, KeepsUsableRequestIdsAndReplacesOthers) {
  EXPECT_EQ(ChooseRequestId("abc-1"), "abc-1");
  for (const std::string& bad : {std::string(), std::string(129, 'a'), std::string("a b"), std::string("a\r\nb")}) {
    EXPECT_EQ(ChooseRequestId(bad).size(), 32u);
  }
  EXPECT_NE(ChooseRequestId(""), ChooseRequestId(""));
}

}  // namespace
}  // namespace baton
