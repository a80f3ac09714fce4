#include <algorithm>
#include <cmath>

#include "backend/cuda/gpu_test_support.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/step_plan.h"
#include "backend/sampler.h"

namespace baton::cuda {
namespace {

constexpr int kVocabulary = 32003;  // no multiple of anything

struct Sampled {
  std::vector<SampleResult> device;
  std::vector<SampledToken> host;
};

// One row for each parameter set, through the step plan, on the device and by backend/sampler.h.
Sampled SampleBoth(const std::vector<SamplingParams>& params, std::span<const TokenId> tokens, int prompt,
                   const std::vector<float>& logits, std::span<const TokenId> end_tokens) {
  const int rows = static_cast<int>(params.size());
  Batch batch;
  const std::vector<BlockId> table(tokens.size() / kBlockTokens + 1, 0);
  for (const SamplingParams& p : params) {
    BatchItem item;
    item.tokens = tokens;
    item.prompt_length = prompt;
    item.start = static_cast<int32_t>(tokens.size()) - 1;
    item.count = 1;
    item.block_table = table;
    item.sample = true;
    item.sampling = &p;
    batch.items.push_back(item);
  }
  StepPlan plan = BuildStepPlan(batch, {kVocabulary, 64}, end_tokens);
  if (plan.changes.empty()) plan.changes.push_back({});
  DeviceArray<float> device_logits(logits);
  const DeviceArray<SampleRow> samples(plan.samples);
  DeviceArray<LogitChange> changes(plan.changes);
  DeviceArray<SampleResult> results(rows);
  EXPECT_EQ(
      LaunchSample({device_logits.get(), samples.get(), changes.get(), results.get(), rows, kVocabulary}, nullptr),
      cudaSuccess);
  Sampled sampled;
  sampled.device = results.Download();
  SamplerScratch scratch;
  for (int row = 0; row < rows; ++row) {
    SamplerInput input;
    input.logits = std::span(logits).subspan(int64_t{row} * kVocabulary, kVocabulary);
    input.tokens = tokens;
    input.prompt_length = prompt;
    input.end_tokens = end_tokens;
    input.params = &params[row];
    auto token = Sample(input, scratch);
    EXPECT_TRUE(token.ok()) << token.status();
    sampled.host.push_back(*token);
  }
  return sampled;
}

std::vector<float> RandomLogits(int rows, Random& random) {
  std::vector<float> logits(int64_t{rows} * kVocabulary);
  for (float& x : logits) x = random.Normal(2.5f);
  return logits;
}

TEST(SamplingTest, GreedyAndLogprobsMatch) {
  Random random(FreshSeed());
  std::vector<SamplingParams> params(20);
  for (size_t i = 0; i < params.size(); ++i) {
    params[i].temperature = 0;
    params[i].top_logprobs = static_cast<int32_t>(i) - 1;  // -1 to 18
  }
  std::vector<float> logits = RandomLogits(20, random);
  logits[3 * kVocabulary + 700] = logits[3 * kVocabulary + 90] = 50.0f;  // a tie: the lower id
  const Sampled sampled = SampleBoth(params, std::vector<TokenId>{1, 2, 3}, 3, logits, {});
  EXPECT_EQ(sampled.device[3].token, 90);
  for (size_t i = 0; i < params.size(); ++i) {
    const SampleResult& out = sampled.device[i];
    EXPECT_EQ(out.finite, 1);
    EXPECT_EQ(out.token, sampled.host[i].token);
    if (params[i].top_logprobs < 0) continue;
    EXPECT_NEAR(out.logprob, sampled.host[i].logprob, 2e-5);
    ASSERT_EQ(out.top_count, params[i].top_logprobs);
    for (int j = 0; j < out.top_count; ++j) {
      EXPECT_EQ(out.top_tokens[j], sampled.host[i].top_logprobs[j].token);
      EXPECT_NEAR(out.top_logprobs[j], sampled.host[i].top_logprobs[j].logprob, 2e-5);
    }
  }
}

// Keyed draws from the same weights: the same token, but for draws within rounding of a boundary.
TEST(SamplingTest, DrawsMatchTheCpu) {
  Random random(FreshSeed());
  int different = 0;
  int total = 0;
  for (int round = 0; round < 6; ++round) {
    std::vector<SamplingParams> params(64);
    for (SamplingParams& p : params) {
      p.temperature = random.Uniform(0.3f, 1.6f);
      if (round % 2 == 1) p.top_k = static_cast<int32_t>(1 + random.Below(200));
      if (round >= 2) p.top_p = random.Uniform(0.1f, 0.99f);
      if (round >= 4) p.min_p = random.Uniform(0.0f, 0.2f);
      p.seed = static_cast<uint64_t>(random.Below(1 << 30));
      p.choice = static_cast<int32_t>(random.Below(4));
    }
    const Sampled sampled = SampleBoth(params, std::vector<TokenId>{1, 2, 3}, 3, RandomLogits(64, random), {});
    for (size_t i = 0; i < params.size(); ++i) {
      different += sampled.device[i].token != sampled.host[i].token;
      ++total;
    }
  }
  std::printf("[ draws    ] %d of %d differ from the CPU's\n", different, total);
  EXPECT_LE(different, total / 50);
}

TEST(SamplingTest, FewDrawsMatchTheCpu) {  // small enough for racecheck
  Random random(FreshSeed());
  std::vector<SamplingParams> params(2);
  params[0].seed = 5;
  params[1] = {.temperature = 0.8f, .top_p = 0.9f, .top_k = 50, .min_p = 0.01f, .seed = 6};
  const Sampled sampled = SampleBoth(params, std::vector<TokenId>{1, 2, 3}, 3, RandomLogits(2, random), {});
  int different = 0;
  for (size_t i = 0; i < params.size(); ++i) different += sampled.device[i].token != sampled.host[i].token;
  EXPECT_LE(different, 1);  // a draw may fall within rounding of a boundary
}

TEST(SamplingTest, PenaltiesBiasAndMasksMatch) {
  Random random(FreshSeed());
  std::vector<TokenId> tokens;
  for (int i = 0; i < 400; ++i) tokens.push_back(static_cast<TokenId>(random.Below(kVocabulary)));
  std::vector<float> logits = RandomLogits(32, random);
  std::vector<SamplingParams> params(32);
  for (size_t i = 0; i < params.size(); ++i) {
    SamplingParams& p = params[i];
    p.temperature = 0;
    p.top_logprobs = 0;
    p.repetition_penalty = 1.5f;
    p.frequency_penalty = 0.7f;
    p.presence_penalty = 0.4f;
    p.min_tokens = 1000;
    p.logit_bias = {{5, 3.0f}, {tokens[1], -2.0f}};
    p.stop_token_ids = {11};
    for (int t : {5, 11, 17}) logits[i * kVocabulary + t] = 30.0f;  // 11 and 17 are masked
    for (int t = 0; t < 20; ++t) logits[i * kVocabulary + tokens[200 + t]] = 29.0f + random.Uniform(0.0f, 8.0f);
  }
  const std::vector<TokenId> end_tokens = {17};
  const Sampled sampled = SampleBoth(params, tokens, 150, logits, end_tokens);
  for (size_t i = 0; i < params.size(); ++i) {
    EXPECT_EQ(sampled.device[i].token, sampled.host[i].token);
    EXPECT_NEAR(sampled.device[i].logprob, sampled.host[i].logprob, 2e-5);  // of raw logits
  }
}

TEST(SamplingTest, FlatLogitsDrawUniformly) {
  std::vector<SamplingParams> params(200);
  for (size_t i = 0; i < params.size(); ++i) {
    params[i].seed = i;
    params[i].top_p = 0.5f;
  }
  const std::vector<float> logits(200 * int64_t{kVocabulary}, 1.0f);
  const Sampled sampled = SampleBoth(params, std::vector<TokenId>{1}, 1, logits, {});
  double mean = 0;
  for (const SampleResult& out : sampled.device) mean += out.token / 200.0 / kVocabulary;
  EXPECT_GT(mean, 0.35);  // ties at the edge of top-p stay, so ids are spread over the whole vocabulary
  EXPECT_LT(mean, 0.65);
}

TEST(SamplingTest, SaysWhenLogitsAreNotFinite) {
  std::vector<float> logits(2 * kVocabulary, 0.0f);
  logits[kVocabulary + 77] = std::numeric_limits<float>::quiet_NaN();
  std::vector<SampleRow> rows(2);
  rows[1].logits_row = 1;
  for (SampleRow& row : rows) {
    row.target = -1;
    row.top_p = 1;
    row.top_logprobs = -1;
  }
  DeviceArray<float> device_logits(logits);
  const DeviceArray<SampleRow> samples(rows);
  DeviceArray<SampleResult> results(2);
  ASSERT_EQ(LaunchSample({device_logits.get(), samples.get(), nullptr, results.get(), 2, kVocabulary}, nullptr),
            cudaSuccess);
  const auto out = results.Download();
  EXPECT_EQ(out[0].finite, 1);
  EXPECT_EQ(out[1].finite, 0);
}

}  // namespace
}  // namespace baton::cuda
