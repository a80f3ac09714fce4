#include "bench/completion_stream.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

StreamEvent Parse(std::string_view data) {
  const auto event = ParseStreamEvent(data);
  EXPECT_TRUE(event.ok()) << event.status();
  return event.value_or(StreamEvent());
}

TEST(CompletionStream, TextIsContent) {
  EXPECT_TRUE(Parse(R"({"choices":[{"index":0,"text":" a","finish_reason":null}]})").has_content);
  EXPECT_TRUE(Parse(R"({"choices":[{"index":0,"text":"","finish_reason":null}]})").has_content);
  const StreamEvent last = Parse(R"({"choices":[{"index":0,"text":" a","finish_reason":"length"}]})");
  EXPECT_TRUE(last.has_content && last.is_finish);
  const StreamEvent empty = Parse(R"({"choices":[{"index":0,"text":"","finish_reason":"stop"}]})");
  EXPECT_TRUE(!empty.has_content && empty.is_finish);
}

TEST(CompletionStream, TheRoleOfAChatIsNotContent) {
  EXPECT_FALSE(Parse(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})").has_content);
  EXPECT_TRUE(Parse(R"({"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]})").has_content);
  EXPECT_TRUE(Parse(R"({"choices":[{"delta":{"reasoning_content":"Hm"},"finish_reason":null}]})").has_content);
  const StreamEvent last = Parse(R"({"choices":[{"delta":{},"finish_reason":"stop"}]})");
  EXPECT_TRUE(!last.has_content && last.is_finish);
}

TEST(CompletionStream, ReadsUsageAndDone) {
  const StreamEvent event = Parse(
      R"({"choices":[],"usage":{"prompt_tokens":512,"completion_tokens":64,"prompt_tokens_details":{"cached_tokens":32}}})");
  EXPECT_TRUE(event.has_usage && !event.has_content);
  EXPECT_EQ(event.prompt_tokens, 512);
  EXPECT_EQ(event.completion_tokens, 64);
  EXPECT_EQ(event.cached_tokens, 32);
  EXPECT_TRUE(Parse("[DONE]").is_done);
  EXPECT_FALSE(Parse(R"({"choices":[],"usage":null})").has_usage);
}

TEST(CompletionStream, ReadsErrors) {
  EXPECT_EQ(Parse(R"({"error":{"message":"worker lost","code":503}})").error, "worker lost");
  EXPECT_EQ(Parse(R"({"error":"plain"})").error, "\"plain\"");
  EXPECT_EQ(ErrorMessage(R"({"error":{"message":"no such model"}})"), "no such model");
  EXPECT_EQ(ErrorMessage("<html>"), "<html>");
}

TEST(CompletionStream, RefusesWhatIsNoEvent) {
  for (const std::string_view data : {"", "[1]", "{", "null", "[DONE", "{\"choices\":[}"}) {
    EXPECT_TRUE(absl::IsDataLoss(ParseStreamEvent(data).status())) << data;
  }
  Parse(R"({"choices":[1,null,{"text":7,"delta":[]}],"usage":{"prompt_tokens":"x","prompt_tokens_details":1}})");
}

}  // namespace
}  // namespace baton
