#include "backend/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "core/random.h"

namespace baton {
namespace {

constexpr int kVocabulary = 1003;

std::vector<float> RandomLogits(uint32_t seed, int size = kVocabulary, float spread = 3) {
  std::mt19937 random(seed);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = std::normal_distribution<float>(0, spread)(random);
  return logits;
}

struct Case {
  std::vector<float> logits;
  std::vector<TokenId> tokens = {1, 2, 3};
  int32_t prompt_length = 3;
  std::vector<TokenId> end_tokens = {0};
  SamplingParams params;

  SamplerInput Input() const { return {logits, tokens, prompt_length, end_tokens, &params}; }
  SampledToken Run() const {
    SamplerScratch scratch;
    absl::StatusOr<SampledToken> result = Sample(Input(), scratch);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : SampledToken();
  }
};

// The definition: everything in double precision and with full sorts.
std::vector<double> ReferenceDistribution(const Case& c) {
  std::vector<double> logits(c.logits.begin(), c.logits.end());
  for (const auto& [token, bias] : c.params.logit_bias) logits[token] += bias;
  if (static_cast<int>(c.tokens.size()) - c.prompt_length < c.params.min_tokens) {
    for (TokenId token : c.end_tokens) logits[token] = -INFINITY;
    for (TokenId token : c.params.stop_token_ids) logits[token] = -INFINITY;
  }
  for (TokenId token : std::set<TokenId>(c.tokens.begin(), c.tokens.end())) {
    logits[token] *= logits[token] > 0 ? 1 / c.params.repetition_penalty : c.params.repetition_penalty;
  }
  std::map<TokenId, int> counts;
  for (size_t i = c.prompt_length; i < c.tokens.size(); ++i) ++counts[c.tokens[i]];
  for (const auto& [token, count] : counts) {
    logits[token] -= c.params.frequency_penalty * count + c.params.presence_penalty;
  }
  const double best = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weights;
  for (double logit : logits) weights.push_back(std::exp((logit - best) / c.params.temperature));
  std::vector<TokenId> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [&](TokenId id) { return std::pair(-weights[id], id); });
  size_t kept = order.size();
  if (c.params.top_k > 0) kept = std::min<size_t>(kept, c.params.top_k);
  double total = 0;
  for (size_t i = 0; i < kept; ++i) total += weights[order[i]];
  double sum = 0;
  size_t nucleus = 0;
  while (nucleus < kept && (c.params.top_p >= 1 || sum < c.params.top_p * total)) sum += weights[order[nucleus++]];
  std::vector<double> result(weights.size());
  for (size_t i = 0; i < nucleus; ++i) {
    if (weights[order[i]] >= c.params.min_p) result[order[i]] = weights[order[i]];
  }
  const double norm = std::accumulate(result.begin(), result.end(), 0.0);
  for (double& weight : result) weight /= norm;
  return result;
}

// The distribution that Sample draws from must be the reference's: the keyed uniform number says which token it is.
void ExpectDraws(Case c, int draws) {
  const std::vector<double> distribution = ReferenceDistribution(c);
  for (int i = 0; i < draws; ++i) {
    c.params.seed = 1000 + i;
    const double uniform = KeyedUniform(c.params.seed, c.params.choice, c.tokens.size());
    const TokenId token = c.Run().token;
    double before = 0;
    for (TokenId id = 0; id < token; ++id) before += distribution[id];
    EXPECT_GT(distribution[token], 0) << "token " << token << " is not a candidate";
    EXPECT_LE(before, uniform + 1e-5);
    EXPECT_GE(before + distribution[token], uniform - 1e-5);
  }
}

TEST(Sampler, DrawsFollowTheDefinition) {
  std::vector<std::pair<std::string, std::function<void(SamplingParams&)>>> settings = {
      {"plain", [](SamplingParams&) {}},
      {"warm", [](SamplingParams& p) { p.temperature = 1.7f; }},
      {"cold", [](SamplingParams& p) { p.temperature = 0.3f; }},
      {"top_k", [](SamplingParams& p) { p.top_k = 7; }},
      {"top_k of everything", [](SamplingParams& p) { p.top_k = 5000; }},
      {"top_p", [](SamplingParams& p) { p.top_p = 0.6f; }},
      {"top_p of nearly everything",
       [](SamplingParams& p) {
         p.top_p = 0.99999f;
         p.temperature = 5;
       }},
      {"min_p", [](SamplingParams& p) { p.min_p = 0.1f; }},
      {"all",
       [](SamplingParams& p) {
         p.top_k = 40;
         p.top_p = 0.9f;
         p.min_p = 0.05f;
         p.temperature = 0.8f;
       }},
      {"penalties",
       [](SamplingParams& p) {
         p.repetition_penalty = 1.3f;
         p.frequency_penalty = 0.7f;
         p.presence_penalty = -0.4f;
       }},
      {"bias",
       [](SamplingParams& p) {
         p.logit_bias = {{5, 9.0f}, {6, -100.0f}};
       }},
      {"min_tokens",
       [](SamplingParams& p) {
         p.min_tokens = 9;
         p.stop_token_ids = {7, 8};
       }},
  };
  for (const auto& [name, set] : settings) {
    SCOPED_TRACE(name);
    Case c;
    c.logits = RandomLogits(5);
    c.logits[0] = c.logits[7] = 9;  // the end and a stop token would win
    c.tokens = {1, 2, 3, 3, 17, 17, 17, 900};
    c.prompt_length = 4;
    set(c.params);
    ExpectDraws(c, 60);
  }
}

TEST(Sampler, FrequenciesMatchProbabilities) {
  Case c;
  c.logits = RandomLogits(11, 8, 1);
  const std::vector<double> distribution = ReferenceDistribution(c);
  constexpr int kDraws = 20'000;
  std::vector<int> counts(8);
  for (int i = 0; i < kDraws; ++i) {
    c.params.seed = i;
    ++counts[c.Run().token];
  }
  double chi_squared = 0;
  for (int i = 0; i < 8; ++i) {
    const double expected = distribution[i] * kDraws;
    chi_squared += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_squared, 24.3);  // 7 degrees of freedom, p = 0.001
}

TEST(Sampler, SeedChoiceAndPositionKeyTheDraw) {
  Case c;
  c.logits = RandomLogits(3);
  std::set<TokenId> by_choice, by_position;
  for (int i = 0; i < 20; ++i) {
    Case other = c;
    EXPECT_EQ(other.Run().token, c.Run().token);
    other.params.choice = i;
    by_choice.insert(other.Run().token);
    other.params.choice = 0;
    other.tokens.assign(3 + i, 1);
    by_position.insert(other.Run().token);
  }
  EXPECT_GT(by_choice.size(), 5u);
  EXPECT_GT(by_position.size(), 5u);
}

TEST(Sampler, GreedyTakesTheLowestOfEquals) {
  Case c;
  c.logits = RandomLogits(3);
  c.logits[400] = c.logits[90] = c.logits[91] = 50;
  c.params.temperature = 0;
  EXPECT_EQ(c.Run().token, 90);
  c.params.logit_bias = {{90, -1.0f}};
  EXPECT_EQ(c.Run().token, 91);
  c.params.min_tokens = 1;
  c.end_tokens = {91};
  EXPECT_EQ(c.Run().token, 400);
  c.tokens.push_back(5);  // one token was generated: the end may come
  EXPECT_EQ(c.Run().token, 91);
}

TEST(Sampler, LogprobsAreThoseOfRawLogits) {
  Case c;
  c.logits = RandomLogits(8);
  c.logits[10] = c.logits[20] = 12;
  c.params.temperature = 0;
  c.params.logit_bias = {{30, 100.0f}};
  c.params.top_logprobs = 4;
  const SampledToken sampled = c.Run();
  EXPECT_EQ(sampled.token, 30);
  double sum = 0;
  for (float logit : c.logits) sum += std::exp(double{logit});
  EXPECT_NEAR(sampled.logprob, c.logits[30] - std::log(sum), 1e-5);
  std::vector<TokenId> order(kVocabulary);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [&](TokenId id) { return std::pair(-c.logits[id], id); });
  ASSERT_EQ(sampled.top_logprobs.size(), 4u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(sampled.top_logprobs[i].token, order[i]);
    EXPECT_NEAR(sampled.top_logprobs[i].logprob, c.logits[order[i]] - std::log(sum), 1e-5);
  }
  c.params.top_logprobs = 0;
  EXPECT_TRUE(c.Run().top_logprobs.empty());
  EXPECT_LT(c.Run().logprob, 0);

  const absl::StatusOr<SampledToken> scored = ScoreToken(c.logits, 77, 2);
  ASSERT_TRUE(scored.ok());
  EXPECT_EQ(scored->token, 77);
  EXPECT_NEAR(scored->logprob, c.logits[77] - std::log(sum), 1e-5);
  EXPECT_EQ(scored->top_logprobs.size(), 2u);
}

TEST(Sampler, RefusesLogitsThatAreNotFinite) {
  for (float bad : {NAN, INFINITY, -INFINITY}) {
    for (int position : {0, 500, kVocabulary - 1}) {
      Case c;
      c.logits = RandomLogits(1);
      c.logits[position] = bad;
      SamplerScratch scratch;
      EXPECT_EQ(Sample(c.Input(), scratch).status().code(), absl::StatusCode::kInternal) << bad << " " << position;
      EXPECT_EQ(ScoreToken(c.logits, 1, 0).status().code(), absl::StatusCode::kInternal);
    }
  }
}

TEST(Sampler, IgnoresTokensOutsideTheVocabulary) {
  Case c;
  c.logits = RandomLogits(1);
  c.tokens = {-1, 5000, 3};
  c.prompt_length = 0;
  c.params.repetition_penalty = 2;
  c.params.frequency_penalty = 1;
  c.params.min_tokens = 10;
  c.params.logit_bias = {{9999, 3.0f}, {-4, 2.0f}};
  c.params.stop_token_ids = {9999};
  EXPECT_LT(c.Run().token, kVocabulary);
}

TEST(Sampler, EverythingMaskedStillGivesAToken) {
  Case c;
  c.logits = {1, 2};
  c.end_tokens = {0, 1};
  c.params.min_tokens = 5;
  EXPECT_LT(c.Run().token, 2);
}

}  // namespace
}  // namespace baton
