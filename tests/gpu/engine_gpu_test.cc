// Folders: engine
// The whole engine on a GPU against the same engine on the CPU, with dummy weights; and against itself in other
// batches.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "engine_gpu_support.h"

namespace baton {
namespace {

float Fp8ToFloat(uint8_t bits) {
  const int exponent = (bits >> 3) & 15;
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(bits & 7), -9)
                                        : std::ldexp(static_cast<float>(8 + (bits & 7)), exponent - 10);
  return bits & 0x80 ? -magnitude : magnitude;
}

// The same model with its FP8 weights as floats, for the CPU.
Model Dequantized(const Model& model) {
  ModelParts parts;
  parts.config = model.config();
  parts.config.quantization = {};
  for (const auto& [name, view] : model.tensors()) {
    if (name.ends_with("_scale")) continue;
    parts.tensors[name] = view;
    if (view.dtype != DType::kF8E4M3) continue;
    auto values = std::make_shared<std::vector<float>>(view.rows() * view.columns());
    const auto* scales = reinterpret_cast<const float*>(model.Find(name + "_scale")->data);
    for (int64_t i = 0; i < std::ssize(*values); ++i) {
      (*values)[i] = Fp8ToFloat(view.data[i]) * scales[i / view.columns()];
    }
    TensorView& out = parts.tensors[name];
    out.dtype = DType::kF32;
    out.data = reinterpret_cast<const uint8_t*>(values->data());
    out.bytes = std::ssize(*values) * 4;
    parts.memory.push_back(values);
  }
  auto made = Model::Create(std::move(parts), "dequantized");
  EXPECT_TRUE(made.ok()) << made.status();
  return *std::move(made);
}

// Root mean square difference of the log-probabilities that both lists have; how many they share.
struct Agreement {
  double difference = 0;
  size_t shared = 0;
};
Agreement Compare(const SampledToken& a, const SampledToken& b) {
  std::map<TokenId, float> logprobs;
  for (const TokenLogprob& entry : a.top_logprobs) logprobs[entry.token] = entry.logprob;
  Agreement agreement;
  for (const TokenLogprob& entry : b.top_logprobs) {
    const auto found = logprobs.find(entry.token);
    if (found == logprobs.end()) continue;
    agreement.difference += std::pow(entry.logprob - found->second, 2);
    ++agreement.shared;
  }
  agreement.difference = std::sqrt(agreement.difference / static_cast<double>(std::max<size_t>(agreement.shared, 1)));
  return agreement;
}

void ExpectAgreement(const SampledToken& a, const SampledToken& b, double tolerance, size_t shared, const char* what) {
  ASSERT_EQ(a.top_logprobs.size(), 20u) << what;
  ASSERT_EQ(b.top_logprobs.size(), 20u) << what;
  const Agreement agreement = Compare(a, b);
  std::printf("[ agree    ] %s: %zu of 20 shared, logprobs differ by %.4f\n", what, agreement.shared,
              agreement.difference);
  EXPECT_GE(agreement.shared, shared) << what;
  EXPECT_LT(agreement.difference, tolerance) << what;
}

void CompareWithCpu(const Model& model, DType kv, double tolerance, size_t shared) {
  auto cpu = MakeEngine(Dequantized(model), false, DType::kF32);
  auto cuda = MakeEngine(model, true, kv);
  for (const int32_t length : {1, 5, 129, 300}) {
    const auto prompt = RandomPrompt(*cpu, length, 11 + length);
    const Sequence on_cpu(*cpu, prompt, 0);
    const Sequence on_cuda(*cuda, prompt, 0);
    ExpectAgreement(Prefill(*cpu, on_cpu, 1024), Prefill(*cuda, on_cuda, 1024), tolerance, shared, "prefill");
    ExpectAgreement(Prefill(*cpu, on_cpu, 1024), Prefill(*cuda, on_cuda, 100), tolerance, shared, "chunked prefill");
  }
  // Token by token, the last ones from graphs.
  const auto prompt = RandomPrompt(*cpu, 40, 5);
  ExpectAgreement(Prefill(*cpu, Sequence(*cpu, prompt, 0), 1024), Prefill(*cuda, Sequence(*cuda, prompt, 0), 1),
                  tolerance, shared, "decode");
}

TEST(EngineGpuTest, SmallBf16ModelMatchesTheCpu) {
  CompareWithCpu(MakeModel("smollm2-135m", 8, 8192), DType::kBF16, 0.03, 16);
}
TEST(EngineGpuTest, SmallBf16ModelWithFp8KvIsCloseToTheCpu) {
  CompareWithCpu(MakeModel("smollm2-135m", 8, 8192), DType::kF8E4M3, 0.2, 8);
}
TEST(EngineGpuTest, Fp8ModelIsCloseToTheCpu) {
  CompareWithCpu(MakeModel("llama-8b-fp8", 2, 8192), DType::kF8E4M3, 0.25, 8);
}

// A batch of decode rows and prompts at once gives what each gives alone.
TEST(EngineGpuTest, MixedBatchesMatchSingleOnes) {
  const Model model = MakeModel("llama-8b-fp8", 2, 8192);
  auto engine = MakeEngine(model, true, DType::kF8E4M3);
  std::vector<Sequence> sequences;
  for (int i = 0; i < 6; ++i) sequences.emplace_back(*engine, RandomPrompt(*engine, 100 + 37 * i, 50 + i), i);
  std::vector<SampledToken> alone;
  for (const Sequence& sequence : sequences) alone.push_back(Prefill(*engine, sequence, 1024));
  Batch batch;
  for (int i = 0; i < 6; ++i) {
    const Sequence& s = sequences[i];
    const int32_t count = i % 2 == 0 ? 1 : 60;  // the tokens before are in the cache
    batch.items.push_back(s.Item(s.prompt_length - count, count, true));
  }
  const StepOutput output = RunBatch(*engine, batch);
  ASSERT_EQ(output.items.size(), 6u);
  for (int i = 0; i < 6; ++i) ExpectAgreement(alone[i], output.items[i].sampled, 0.12, 12, "mixed");
}

// The same decode steps with graphs and without, through all padded sizes.
TEST(EngineGpuTest, GraphsMatchPlainSteps) {
  const Model model = MakeModel("llama-8b-fp8", 2, 8192);
  auto graphs = MakeEngine(model, true, DType::kF8E4M3);
  auto plain = MakeEngine(model, true, DType::kF8E4M3, {.graphs = false});
  for (const int count : {1, 3, 8, 30, 64}) {
    std::vector<Sequence> sequences;
    for (int i = 0; i < count; ++i) sequences.emplace_back(*graphs, RandomPrompt(*graphs, 20 + i, 900 + i), i);
    for (Sequence& sequence : sequences) {
      Prefill(*graphs, sequence, 1024);
      Prefill(*plain, sequence, 1024);
    }
    for (int step = 0; step < 4; ++step) {
      Batch batch;
      for (Sequence& sequence : sequences) {
        sequence.tokens.push_back(static_cast<TokenId>(step + 5));
        batch.items.push_back(sequence.Item(static_cast<int32_t>(sequence.tokens.size()) - 1, 1, true));
      }
      const StepOutput a = RunBatch(*graphs, batch);
      const StepOutput b = RunBatch(*plain, batch);
      ASSERT_EQ(a.items.size(), b.items.size());
      double worst = 0;
      for (size_t i = 0; i < a.items.size(); ++i) {
        const Agreement agreement = Compare(a.items[i].sampled, b.items[i].sampled);
        ASSERT_GE(agreement.shared, 12u);
        worst = std::max(worst, agreement.difference);
      }
      EXPECT_LT(worst, 0.12) << count << " rows, step " << step;
    }
  }
}

// Generates for some sequences at once; `ahead`: each step is submitted while the one before runs, with tokens that
// nobody knows yet. One sequence leaves halfway, and another one comes in with a prompt.
std::vector<std::vector<TokenId>> Generate(Engine& engine, bool ahead, int32_t steps) {
  std::vector<Sequence> sequences;
  for (int i = 0; i < 5; ++i) {
    sequences.emplace_back(engine, RandomPrompt(engine, 100 + 30 * i, 70 + i), i);
    SamplingParams& sampling = sequences.back().sampling;
    sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    sampling.seed = i;
    sampling.top_logprobs = i == 3 ? 2 : -1;
    if (i == 2) sampling.min_tokens = steps;  // logit changes of every step
    sequences.back().tokens.push_back(Prefill(engine, sequences.back(), 1024).token);
  }
  std::vector<int32_t> planned;  // tokens whose K and V are there when all that was submitted has ended
  for (const Sequence& sequence : sequences) planned.push_back(sequence.prompt_length);
  std::vector<int> before;  // the sequences of the step in flight
  auto commit = [&](const StepOutput& output, const std::vector<int>& rows) {
    for (size_t i = 0; i < rows.size(); ++i) sequences[rows[i]].tokens.push_back(output.items[i].sampled.token);
  };
  auto collect = [&] {
    auto output = engine.Collect();
    EXPECT_TRUE(output.ok()) << output.status();
    if (output.ok()) commit(*output, before);
  };
  for (int32_t step = 0; step < steps; ++step) {
    std::vector<int> rows{3, 0, 2};
    if (step < steps / 2) rows.insert(rows.begin() + 1, 1);
    if (step > steps / 3) rows.push_back(4);
    Batch batch;
    for (const int i : rows) {
      BatchItem& item = batch.items.emplace_back(sequences[i].Item(planned[i]++, 1, true));
      if (planned[i] <= static_cast<int32_t>(item.tokens.size())) continue;
      item.sampled_by = static_cast<int32_t>(std::find(before.begin(), before.end(), i) - before.begin());
    }
    EXPECT_TRUE(engine.Submit(batch, nullptr).ok());
    if (ahead && !before.empty()) collect();
    before = rows;
    if (!ahead) collect();
    if (!ahead) before.clear();
  }
  if (ahead) collect();
  std::vector<std::vector<TokenId>> tokens;
  for (const Sequence& sequence : sequences) tokens.push_back(sequence.tokens);
  return tokens;
}

TEST(EngineGpuTest, StepsAheadGiveTheTokensOfStepsOneByOne) {
  const Model model = MakeModel("llama-8b-fp8", 2, 8192);
  for (const bool graphs : {true, false}) {
    auto engine = MakeEngine(model, true, DType::kF8E4M3, {.graphs = graphs});
    const auto one_by_one = Generate(*engine, false, 40);
    EXPECT_EQ(Generate(*engine, true, 40), one_by_one) << "graphs " << graphs;
    EXPECT_EQ(Generate(*engine, true, 40), one_by_one) << "again, graphs " << graphs;
    EXPECT_FALSE(engine->Collect().ok()) << "nothing is in flight";
  }
}

// A step that follows another at once leaves the device next to no pause.
TEST(EngineGpuTest, StepsAheadLeaveNoGap) {
  const Model model = MakeModel("llama-8b-fp8", 8, 8192);
  auto engine = MakeEngine(model, true, DType::kF8E4M3);
  Sequence sequence(*engine, RandomPrompt(*engine, 300, 1), 0);
  sequence.tokens.push_back(Prefill(*engine, sequence, 1024).token);
  BatchItem item = sequence.Item(300, 1, true);
  Batch first;
  first.items = {item};
  Batch next = first;
  next.items[0].sampled_by = 0;
  next.items[0].tokens = next.items[0].tokens.first(300);
  std::vector<double> gaps;
  ASSERT_TRUE(engine->Submit(first, nullptr).ok());
  for (int i = 0; i < 60; ++i) {
    ASSERT_TRUE(engine->Submit(next, nullptr).ok());
    ASSERT_FALSE(engine->Submit(next, nullptr).ok()) << "two are in flight";
    auto output = engine->Collect();
    ASSERT_TRUE(output.ok()) << output.status();
    if (i > 10) gaps.push_back(output->idle_us);
  }
  ASSERT_TRUE(engine->Collect().ok());
  std::sort(gaps.begin(), gaps.end());
  std::printf("[ gap      ] median %.1f, largest %.1f us\n", gaps[gaps.size() / 2], gaps.back());
  EXPECT_LT(gaps[gaps.size() / 2], 25);
}

// Weights that the device makes for itself are those that the host makes.
TEST(EngineGpuTest, RecipesGiveTheSameModel) {
  SampledToken last[2];
  std::string fingerprint[2];
  for (const bool as_recipes : {false, true}) {
    const Model model = MakeModel("llama-8b-fp8", 2, 8192, as_recipes);
    EXPECT_EQ(model.Find("model.layers.1.mlp.up_proj.weight")->data == nullptr, as_recipes);
    auto engine = MakeEngine(model, true, DType::kF8E4M3);
    fingerprint[as_recipes] = engine->info().fingerprint;
    last[as_recipes] = Prefill(*engine, Sequence(*engine, RandomPrompt(*engine, 70, 8), 0), 1024);
  }
  EXPECT_EQ(fingerprint[0], fingerprint[1]);
  EXPECT_EQ(last[0].token, last[1].token);
  const Agreement agreement = Compare(last[0], last[1]);
  EXPECT_EQ(agreement.shared, 20u);
  EXPECT_LT(agreement.difference, 1e-3);
}

// A step's families add up to about the step, and profiling changes nothing.
TEST(EngineGpuTest, ProfilesSayWhereTimeGoes) {
  const Model model = MakeModel("llama-8b-fp8", 2, 8192);
  auto engine = MakeEngine(model, true, DType::kF8E4M3);
  for (const int32_t count : {1, 600}) {
    const Sequence sequence(*engine, RandomPrompt(*engine, 600, 4), 0);
    Prefill(*engine, sequence, 1024);
    Batch batch;
    batch.items.push_back(sequence.Item(600 - count, count, true));
    const StepOutput plain = RunBatch(*engine, batch);
    batch.profile = true;
    const StepOutput profiled = RunBatch(*engine, batch);
    ASSERT_EQ(profiled.items.size(), 1u);
    EXPECT_EQ(plain.items[0].sampled.token, profiled.items[0].sampled.token);
    double sum = 0;
    for (const double part : profiled.profile) {
      EXPECT_GT(part, 0);
      sum += part;
    }
    EXPECT_LT(sum, static_cast<double>(profiled.duration_us));
    EXPECT_GT(profiled.profile[static_cast<int>(KernelFamily::kGemm)], sum / 4);
    for (const double part : plain.profile) EXPECT_EQ(part, 0);
  }
}

TEST(EngineGpuTest, PromptLogprobsMatchTheCpu) {
  const Model model = MakeModel("smollm2-135m", 4, 8192);
  auto cpu = MakeEngine(model, false, DType::kF32);
  auto cuda = MakeEngine(model, true, DType::kBF16);
  const auto prompt = RandomPrompt(*cpu, 150, 3);
  std::vector<SampledToken> scores[2];
  for (int i = 0; i < 2; ++i) {
    Engine& engine = i == 0 ? *cpu : *cuda;
    const Sequence sequence(engine, prompt, 0);
    Batch batch;
    batch.items.push_back(sequence.Item(0, 150, true));
    batch.items[0].prompt_logprobs = true;
    const StepOutput output = RunBatch(engine, batch);
    ASSERT_EQ(output.items.size(), 1u);
    scores[i] = output.items[0].prompt_logprobs;
    ASSERT_EQ(scores[i].size(), 149u);
  }
  for (size_t i = 0; i < scores[0].size(); ++i) {
    EXPECT_EQ(scores[0][i].token, scores[1][i].token);
    EXPECT_NEAR(scores[0][i].logprob, scores[1][i].logprob, 0.1);
  }
}

}  // namespace
}  // namespace baton
