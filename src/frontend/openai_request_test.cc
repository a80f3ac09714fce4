#include "frontend/openai_request.h"

#include <gtest/gtest.h>

#include "frontend/api_error.h"

namespace baton {
namespace {

const RequestRules kRules = {.vocabulary = 100, .defaults = {.temperature = 0.6f, .top_p = 0.9f, .top_k = 40}};

absl::StatusOr<GenerationRequest> Parse(std::string_view fields, Endpoint endpoint = Endpoint::kCompletions) {
  const std::string_view prompt =
      endpoint == Endpoint::kCompletions ? "\"prompt\":\"x\"" : "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]";
  return ParseGenerationRequest(endpoint, Cat("{", prompt, fields.empty() ? "" : ",", fields, "}"), kRules);
}

TEST(OpenAiRequest, FillsInTheModelsDefaults) {
  const auto request = Parse("");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_FLOAT_EQ(request->sampling.temperature, 0.6f);
  EXPECT_FLOAT_EQ(request->sampling.top_p, 0.9f);
  EXPECT_EQ(request->sampling.top_k, 40);
  EXPECT_EQ(request->sampling.top_logprobs, -1);
  EXPECT_FALSE(request->max_tokens.has_value());
  EXPECT_FALSE(request->seed.has_value());
  EXPECT_TRUE(request->add_special_tokens);
  EXPECT_FALSE(Parse("", Endpoint::kChat)->add_special_tokens);
}

TEST(OpenAiRequest, ReadsEveryField) {
  const auto request = Parse(
      R"("temperature":2,"top_p":1,"top_k":-1,"min_p":0.1,"frequency_penalty":-2,"presence_penalty":2,
      "repetition_penalty":1.1,"logit_bias":{"7":-100,"99":3.5},"seed":-1,"max_tokens":5,"max_completion_tokens":6,
      "min_tokens":6,"ignore_eos":true,"stop_token_ids":[0,99],"stop":["a","b"],"n":128,"stream":true,
      "stream_options":{"include_usage":true},"logprobs":20,"echo":true,"skip_special_tokens":false,
      "include_stop_str_in_output":true,"return_token_ids":true,"cache_salt":"s","user":"u","priority":-3,"timeout":1.5,
      "best_of":128,"nvext":{"ignore_eos":false},"model":"m")");
  ASSERT_TRUE(request.ok()) << request.status();
  const SamplingParams& sampling = request->sampling;
  EXPECT_EQ(sampling.temperature, 2);
  EXPECT_EQ(sampling.top_k, 0);
  EXPECT_EQ(sampling.logit_bias.size(), 2u);
  EXPECT_EQ(request->seed, ~uint64_t{0});
  EXPECT_EQ(request->max_tokens, 6);
  EXPECT_FALSE(sampling.ignore_eos);
  EXPECT_EQ(sampling.stop_token_ids, (std::vector<TokenId>{0, 99}));
  EXPECT_EQ(request->stop.size(), 2u);
  EXPECT_TRUE(request->stream && request->include_usage && request->echo && request->return_token_ids);
  EXPECT_TRUE(sampling.prompt_logprobs);
  EXPECT_EQ(sampling.top_logprobs, 20);
  EXPECT_EQ(request->timeout_ms, 1500);
  EXPECT_EQ(request->priority, -3);
}

TEST(OpenAiRequest, NamesTheFieldTheRangeAndTheValue) {
  const auto request = Parse("\"temperature\":2.01");
  EXPECT_EQ(request.status().message(), "temperature: expected a number from 0 to 2, found 2.01");
  EXPECT_EQ(ToApiError(request.status()).param, "temperature");
  EXPECT_EQ(ToApiError(request.status()).status, 400);
}

TEST(OpenAiRequest, KeepsAConversationForTheTemplate) {
  const auto request = ParseGenerationRequest(Endpoint::kChat, R"({"messages":[
      {"role":"user","content":[{"type":"text","text":"a\""},{"type":"text","text":"b"}]},
      {"role":"assistant","content":null,"name":"n","extra":{"deep":[1,null]}}],
      "chat_template_kwargs":{"thinking":true},"add_generation_prompt":false})",
                                              kRules);
  ASSERT_TRUE(request.ok()) << request.status();
  const Conversation& conversation = request->conversation;
  EXPECT_EQ(
      conversation.messages_json,
      R"([{"role":"user","content":"a\"\nb"},{"role":"assistant","content":"","name":"n","extra":{"deep":[1,null]}}])");
  EXPECT_EQ(conversation.arguments_json, R"({"thinking":true})");
  EXPECT_FALSE(conversation.add_generation_prompt);
  EXPECT_EQ(conversation.last_role, "assistant");
}

TEST(OpenAiRequest, LimitsTheNumberOfSequences) {
  EXPECT_TRUE(ParseGenerationRequest(Endpoint::kCompletions, R"({"prompt":[[1],[2]],"n":128})", kRules).ok());
  RequestRules rules = kRules;
  rules.sequences_max = 255;
  EXPECT_FALSE(ParseGenerationRequest(Endpoint::kCompletions, R"({"prompt":[[1],[2]],"n":128})", rules).ok());
}

TEST(OpenAiRequest, ReadsTokenizeAndDetokenize) {
  const auto text = ParseTokenizeRequest(R"({"prompt":"x","add_special_tokens":false})", kRules);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(text->prompt, "x");
  EXPECT_FALSE(text->add_special_tokens);
  EXPECT_TRUE(ParseTokenizeRequest(R"({"messages":[{"role":"user","content":"x"}]})", kRules)->is_chat);
  EXPECT_FALSE(ParseTokenizeRequest("{}", kRules).ok());
  EXPECT_EQ(ParseDetokenizeRequest(R"({"tokens":[1,99]})", kRules)->tokens, (std::vector<TokenId>{1, 99}));
  EXPECT_FALSE(ParseDetokenizeRequest(R"({"tokens":[100]})", kRules).ok());
}

}  // namespace
}  // namespace baton
