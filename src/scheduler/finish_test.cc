#include "scheduler/finish.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

constexpr TokenId kEos[] = {7, 8};
constexpr int kPrompt = 10;

FinishReason Finish(const SamplingParams& sampling, int generated, TokenId last, int max_model_len = 100) {
  return FinishAfter({kEos, max_model_len}, sampling, kPrompt, generated, last);
}

TEST(FinishTest, EveryEndTokenStopsUnlessIgnored) {
  SamplingParams sampling{.max_tokens = 20};
  EXPECT_EQ(Finish(sampling, 1, 5), FinishReason::kNone);
  EXPECT_EQ(Finish(sampling, 1, 7), FinishReason::kStop);
  EXPECT_EQ(Finish(sampling, 1, 8), FinishReason::kStop);
  sampling.ignore_eos = true;
  EXPECT_EQ(Finish(sampling, 1, 7), FinishReason::kNone);
  sampling.stop_token_ids = {8};
  EXPECT_EQ(Finish(sampling, 1, 8), FinishReason::kStop) << "asked for by name, it stops even with ignore_eos";
}

TEST(FinishTest, StopTokensStop) {
  SamplingParams sampling{.max_tokens = 20, .stop_token_ids = {3, 4}};
  EXPECT_EQ(Finish(sampling, 5, 4), FinishReason::kStop);
  EXPECT_EQ(Finish(sampling, 5, 2), FinishReason::kNone);
}

TEST(FinishTest, LengthIsCountedInGeneratedTokensAndInTheModelsLength) {
  const SamplingParams sampling{.max_tokens = 20};
  EXPECT_EQ(Finish(sampling, 19, 5), FinishReason::kNone);
  EXPECT_EQ(Finish(sampling, 20, 5), FinishReason::kLength);
  EXPECT_EQ(Finish(sampling, 14, 5, 25), FinishReason::kNone);
  EXPECT_EQ(Finish(sampling, 15, 5, 25), FinishReason::kLength);
  EXPECT_EQ(Finish(sampling, 20, 7), FinishReason::kStop) << "an end token at the limit is a stop";
}

TEST(FinishTest, NothingStopsBeforeMinTokensButTheLimits) {
  const SamplingParams sampling{.max_tokens = 20, .min_tokens = 5, .stop_token_ids = {3}};
  EXPECT_EQ(Finish(sampling, 4, 7), FinishReason::kNone);
  EXPECT_EQ(Finish(sampling, 4, 3), FinishReason::kNone);
  EXPECT_EQ(Finish(sampling, 5, 7), FinishReason::kStop);
  EXPECT_EQ(Finish(sampling, 5, 3), FinishReason::kStop);
  EXPECT_EQ(Finish(sampling, 4, 7, 14), FinishReason::kLength);
}

}  // namespace
}  // namespace baton
