#include "bench/workload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

namespace baton {
namespace {

std::vector<int32_t> Pool() {
  std::vector<int32_t> pool(500);
  std::iota(pool.begin(), pool.end(), 1000);
  return pool;
}

TEST(Workload, PromptsAreAFunctionOfTheSeedAndDiffer) {
  const Workload load{.input_tokens = 50, .requests = 20, .seed = 7};
  std::set<std::vector<int32_t>> prompts;
  for (int i = 0; i < 30; ++i) {  // warm-up included
    const auto prompt = PromptTokens(load, Pool(), i);
    EXPECT_EQ(prompt.size(), 50u);
    EXPECT_EQ(prompt, PromptTokens(load, Pool(), i));
    EXPECT_TRUE(std::all_of(prompt.begin(), prompt.end(), [](int32_t id) { return id >= 1000 && id < 1500; }));
    prompts.insert(prompt);
  }
  EXPECT_EQ(prompts.size(), 30u);
  EXPECT_FALSE(prompts.contains(PromptTokens({.input_tokens = 50, .seed = 8}, Pool(), 0)));
}

TEST(Workload, PromptsShareTheirPrefixOnly) {
  const Workload load{.input_tokens = 64, .shared_prefix_tokens = 40};
  const auto a = PromptTokens(load, Pool(), 0), b = PromptTokens(load, Pool(), 1);
  const auto first_difference = std::mismatch(a.begin(), a.end(), b.begin()).first - a.begin();
  EXPECT_GE(first_difference, 40);
  EXPECT_LE(first_difference, 44);  // four equal draws of 500 after it: not with this seed
}

TEST(Workload, BodyAsksForExactlyTheTokens) {
  const Workload load{.output_tokens = 9};
  const std::vector<int32_t> prompt = {5, 6};
  EXPECT_EQ(CompletionBody(load, "a\"b", prompt),
            R"({"model":"a\"b","prompt":[5,6],"max_tokens":9,"min_tokens":9,"ignore_eos":true,"temperature":0,)"
            R"("skip_special_tokens":false,"stream":true,"stream_options":{"include_usage":true}})");
}

TEST(Workload, ATextPromptHasAWordForEachNumber) {
  const std::vector<int32_t> draws = {0, 1, 0, -7};
  const std::string text = PromptText(draws);
  EXPECT_TRUE(text.starts_with(" the of the ")) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), ' '), 4);
  EXPECT_NE(CompletionBody({.output_tokens = 9}, "m", std::string_view(text)).find(Cat("\"prompt\":\"", text, "\"")),
            std::string::npos);
}

TEST(Workload, ArrivalsAreAPoissonProcess) {
  const auto seconds = ArrivalSeconds({.requests = 20001, .requests_per_second = 50});
  ASSERT_EQ(seconds.size(), 20001u);
  EXPECT_EQ(seconds[0], 0);
  EXPECT_TRUE(std::is_sorted(seconds.begin(), seconds.end()));
  const double mean = seconds.back() / 20000;
  double squares = 0;
  for (size_t i = 1; i < seconds.size(); ++i) squares += std::pow(seconds[i] - seconds[i - 1] - mean, 2);
  EXPECT_NEAR(mean, 0.02, 0.0006);                            // 4 standard errors of 0.02 / sqrt(20000)
  EXPECT_NEAR(std::sqrt(squares / 20000) / mean, 1.0, 0.04);  // exponential gaps: deviation equals mean
  EXPECT_TRUE(ArrivalSeconds({.requests = 5}).empty());
}

TEST(Workload, RefusesWhatMakesNoSense) {
  EXPECT_TRUE(CheckWorkload({}).ok());
  EXPECT_FALSE(CheckWorkload({.input_tokens = 8, .shared_prefix_tokens = 9}).ok());
  EXPECT_FALSE(CheckWorkload({.requests = 0}).ok());
}

TEST(Workload, DistinctTokensKeepTheirOrder) {
  EXPECT_EQ(DistinctTokens(std::vector<int32_t>{3, 1, 3, 2, 1}), (std::vector<int32_t>{3, 1, 2}));
}

}  // namespace
}  // namespace baton
